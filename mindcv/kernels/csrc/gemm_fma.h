// Matrix products from multiply-add instructions, on any processor.
//
// Both arithmetics (this one and gemm_amx.h) offer the same: operands in a packed form that is written in tiles, and
// the product of 32 rows of A with 32 columns of B, over all of K, as one tile of float32.
#pragma once
#include "pool.h"
#include "simd.h"

namespace mindcv {
namespace MINDCV_ISA {

constexpr int kTile = 32;

// A [m, k] in float32: as it came, or with its axes swapped.
struct FmaA {
  float* data;
  int64_t row_step, k_step;
};

// B [k, n] in panels of 32 columns, each [k][32].
struct FmaB {
  float* data;
  int64_t k;
};

// Products are computed in parts of this much of k.
constexpr int64_t kDepth = 384;

// What is on its way into the cache while a tile is multiplied: of 32 columns of B, from k0 on, one of `shares` parts.
struct Ahead {
  int64_t col, k0, share, shares;
};

// Which tile, over which part of k; where A begins along k; and for the caches which tile comes next, and what then.
struct Product {
  int64_t row, col, k0, k1, a_k0, next_row, next_col;
  Ahead ahead;
};

// Starts to fetch 32 values into the second-level cache; what is outside of the matrix does no harm.
MINDCV_INLINE void fetch_row(const float* row) {
  __builtin_prefetch(row, 0, 2);
  __builtin_prefetch(row + 16, 0, 2);
}

// The bfloat16 nearest to x, as a float32.
inline float rounded_to_bf16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return x;  // NaN
  bits = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
  memcpy(&x, &bits, 4);
  return x;
}

// Products of float32, or of numbers rounded to bfloat16 (as fast, for processors that cannot multiply these).
template <bool kRounds>
struct Fma {
  using A = FmaA;
  using B = FmaB;

  static A new_a(Session& memory, int64_t m, int64_t k) { return a_in(memory.bytes(a_bytes(m, k)), m, k); }
  // The same matrix, to be written from its transposed form, [k, m].
  static A new_a_transposed(Session& memory, int64_t m, int64_t k) {
    return {memory.floats(round_up(m, kTile) * round_up(k, kTile)), 1, round_up(m, kTile)};
  }
  static B new_b(Session& memory, int64_t k, int64_t n) { return b_in(memory.bytes(b_bytes(k, n)), k, n); }

  // A and B in memory of their own.
  static size_t a_bytes(int64_t m, int64_t k) { return b_bytes(k, m); }
  static A a_in(void* memory, int64_t, int64_t k) { return {static_cast<float*>(memory), round_up(k, kTile), 1}; }
  static size_t b_bytes(int64_t k, int64_t n) {
    return static_cast<size_t>(round_up(k, kTile) * round_up(n, kTile)) * 4;
  }
  static B b_in(void* memory, int64_t k, int64_t) { return {static_cast<float*>(memory), round_up(k, kTile)}; }
  static void clear(B&) {}

  // Tile (row, col) of the source, in units of 32, of which `rows` x `cols` values exist; the rest of the tile becomes
  // 0. put_a may do it in parts: rows [begin, end) of the tile. put_b is told which tile comes `next`, or this one
  // again: its rows lie far apart, which no processor guesses, and are fetched meanwhile.
  static void put_a(A& a, int64_t row, int64_t col, const float* tile, int64_t step, int64_t rows, int64_t cols,
                    int64_t begin = 0, int64_t end = kTile) {
    copy(a.data + row * kTile * a.row_step + col * kTile, a.row_step, tile, step, rows, cols, begin, end, tile);
  }
  static void put_a_transposed(A& a, int64_t row, int64_t col, const float* tile, int64_t step, int64_t rows,
                               int64_t cols) {
    copy(a.data + row * kTile * a.k_step + col * kTile, a.k_step, tile, step, rows, cols, 0, kTile, tile);
  }
  static void put_b(B& b, int64_t row, int64_t col, const float* tile, int64_t step, int64_t rows, int64_t cols,
                    const float* next) {
    copy(b.data + col * kTile * b.k + row * kTile * kTile, kTile, tile, step, rows, cols, 0, kTile, next);
  }
  static void put_b_transposed(B& b, int64_t row, int64_t col, const float* tile, int64_t step, int64_t rows,
                               int64_t cols, const float* next) {
    float* to = b.data + row * kTile * b.k + col * kTile * kTile;
    for (int64_t k = 0; k < kTile; ++k) {
      fetch_row(next + k * step);
      for (int64_t n = 0; n < kTile; ++n) to[k * kTile + n] = n < rows && k < cols ? value(tile[n * step + k]) : 0.0f;
    }
  }

  // put_a and put_b of the same tile.
  static void put_both(A& a, B& b, int64_t row, int64_t col, const float* tile, int64_t step, int64_t rows,
                       int64_t cols) {
    put_a(a, row, col, tile, step, rows, cols);
    put_b(b, row, col, tile, step, rows, cols, tile);
  }

  // Called by each thread before its products, with nothing else in between.
  static void begin() {}

  // out [32, 32] = rows [32 row, 32 row + 32) of A times columns [32 col, 32 col + 32) of B, over k in [k0, k1), whole
  // tiles; with `adds` it is added to what out holds.
  static void multiply(const A& a, const B& b, const Product& at, bool adds, float* out) {
    const float* from = a.data + at.row * kTile * a.row_step + (at.k0 - at.a_k0) * a.k_step;
    const float* panel = b.data + at.col * kTile * b.k + at.k0 * kTile;
    const int64_t k = at.k1 - at.k0;
    constexpr int kVecs = kWidth == 4 ? 4 : 2;
    constexpr int kRows = kWidth == 16 ? 8 : 4;
    for (int64_t n = 0; n < kTile; n += kVecs * kWidth) {
      for (int64_t m = 0; m < kTile; m += kRows) {
        strip<kRows, kVecs>(from + m * a.row_step, a.row_step, a.k_step, panel + n, k, adds, out + m * kTile + n);
      }
    }
  }

 private:
  static float value(float x) { return kRounds ? rounded_to_bf16(x) : x; }

  static void copy(float* to, int64_t to_step, const float* from, int64_t step, int64_t rows, int64_t cols,
                   int64_t begin, int64_t end, const float* next) {
    for (int64_t i = begin; i < end; ++i) {
      fetch_row(next + i * step);
      for (int64_t j = 0; j < kTile; ++j) to[i * to_step + j] = i < rows && j < cols ? value(from[i * step + j]) : 0.0f;
    }
  }

  template <int kRows, int kVecs>
  static void strip(const float* a, int64_t row_step, int64_t k_step, const float* b, int64_t k, bool adds,
                    float* out) {
    Vec acc[kRows][kVecs] = {};
    for (int m = 0; m < kRows && adds; ++m) {
      for (int v = 0; v < kVecs; ++v) acc[m][v] = load(out + m * kTile + v * kWidth);
    }
    for (int64_t p = 0; p < k; ++p) {
      Vec right[kVecs];
      for (int v = 0; v < kVecs; ++v) right[v] = load(b + p * kTile + v * kWidth);
      for (int m = 0; m < kRows; ++m) {
        const Vec left = splat(a[m * row_step + p * k_step]);
        for (int v = 0; v < kVecs; ++v) acc[m][v] += left * right[v];
      }
    }
    for (int m = 0; m < kRows; ++m) {
      for (int v = 0; v < kVecs; ++v) store(out + m * kTile + v * kWidth, acc[m][v]);
    }
  }
};

}  // namespace MINDCV_ISA
}  // namespace mindcv
