// Matrix products with multiply-add instructions, for processors without a tile multiplier. See decision 0021.
#pragma once
#include "gemm/tiles.h"

namespace mindcv {
namespace MINDCV_ISA {

// The micro-kernel accumulates MR rows times NR columns in registers. Besides these sums, the registers hold NR columns
// of B (kNRVecs vectors) and one value of A.
constexpr int kMR = kWidth == 16 ? 8 : 6;
constexpr int kNRVecs = kRegisters == 16 ? 2 : kWidth == 16 ? 3 : 4;
static_assert(kMR * kNRVecs + kNRVecs + 1 <= kRegisters);
constexpr int kNR = kNRVecs * kWidth;
constexpr int kKR = 16;  // values of k that lie side by side in a packed A: a cache line
static_assert(kTile % kMR == 0 && kTile % kNR == 0 && kTile % kKR == 0);

// A packed A [m, k] in float32: panels of MR rows, each [k / KR][MR][KR].
struct FmaA {
  float* data;
  int64_t m, k;
  float* at(int64_t row, int64_t col) const {
    const int64_t in_panel = row % kMR, in_group = col % kKR;
    return data + (row - in_panel) * round_up(k, kTile) + (col - in_group) * kMR + in_panel * kKR + in_group;
  }
};

// A packed B [k, n]: panels of NR columns, each [k][NR].
struct FmaB {
  float* data;
  int64_t k, n;
  float* at(int64_t row, int64_t col) const {
    const int64_t in_panel = col % kNR;
    return data + (col - in_panel) * round_up(k, kTile) + row * kNR + in_panel;
  }
};

// Products of float32, or of values that are rounded to bfloat16 when they are packed. Both are equally fast.
template <bool kRounds>
struct Fma {
  static constexpr bool kStoresLate = false;
  using A = FmaA;
  using B = FmaB;

  static A allocate_a(Session& memory, int64_t m, int64_t k) { return a_in_memory(memory.bytes(a_bytes(m, k)), m, k); }
  // Memory for an A that is packed from its transposed form, [k, m].
  static A allocate_a_transposed(Session& memory, int64_t m, int64_t k) { return allocate_a(memory, m, k); }
  static B allocate_b(Session& memory, int64_t k, int64_t n) { return b_in_memory(memory.bytes(b_bytes(k, n)), k, n); }

  // The size of a packed A or B, and a packed A or B in memory that the caller has.
  static size_t a_bytes(int64_t m, int64_t k) { return b_bytes(k, m); }
  static A a_in_memory(void* memory, int64_t m, int64_t k) { return {static_cast<float*>(memory), m, k}; }
  static size_t b_bytes(int64_t k, int64_t n) {
    return static_cast<size_t>(round_up(k, kTile) * round_up(n, kTile)) * 4;
  }
  static B b_in_memory(void* memory, int64_t k, int64_t n) { return {static_cast<float*>(memory), k, n}; }
  // A weight that PackWeight or PackPatch packed; products only read it.
  static B packed_b(const float* weight, int64_t k, int64_t n) { return b_in_memory(const_cast<float*>(weight), k, n); }
  static void clear(B&) {}
  static int64_t rows(const A& a) { return a.m; }
  // What to prefetch for the column tile `col` of B over a part of k.
  static Prefetch prefetch(const B& b, int64_t col, Range part) {
    const int64_t panels = ceil_div(min(kTile, b.n - col * kTile), kNR);
    return {b.at(part.begin, col * kTile), panels, part.count() * kNR, kNR * round_up(b.k, kTile)};
  }

  // These functions pack the tile (row, col) of a row-major matrix, counted in tiles. `tile` is its first value, and
  // `rows` x `cols` values of it exist; the rest of a panel becomes 0. pack_a can pack the rows [begin, end) of the
  // tile alone. pack_b prefetches the tile that comes `next` (or this one again): its rows lie too far apart for the
  // processor to guess.
  static void pack_a(A& a, int64_t row, int64_t col, const float* tile, int64_t stride, int64_t rows, int64_t cols,
                     int64_t begin = 0, int64_t end = kTile) {
    for (int64_t i = begin; i < min(end, round_up(rows, kMR)); ++i) {
      float* to = a.at(row * kTile + i, col * kTile);
      for (int64_t j = 0; j < cols; j += kKR, to += kMR * kKR) {
        pack_values(to, tile + i * stride + j, kKR, i < rows ? cols - j : 0);
      }
    }
  }
  static void pack_a_transposed(A& a, int64_t row, int64_t col, const float* tile, int64_t stride, int64_t rows,
                                int64_t cols) {
    for (int64_t j = 0; j < round_up(cols, kMR); j += kWidth) {
      for (int64_t i = 0; i < rows; i += kWidth) {
        Vec square[kWidth];
        load_transposed(tile + i * stride + j, stride, rows - i, cols - j, square);
        for (int k = 0; k < kWidth && j + k < round_up(cols, kMR); ++k) {
          store(a.at(col * kTile + j + k, row * kTile + i), value(square[k]));
        }
      }
    }
  }
  static void pack_b(B& b, int64_t row, int64_t col, const float* tile, int64_t stride, int64_t rows, int64_t cols,
                     const float* next) {
    for (int64_t i = 0; i < rows; ++i) {
      prefetch_row(next + i * stride);
      float* to = b.at(row * kTile + i, col * kTile);
      for (int64_t j = 0; j < cols; j += kNR, to += kNR * round_up(b.k, kTile)) {
        pack_values(to, tile + i * stride + j, kNR, cols - j);
      }
    }
  }
  static void pack_b_transposed(B& b, int64_t row, int64_t col, const float* tile, int64_t stride, int64_t rows,
                                int64_t cols, const float* next) {
    for (int64_t i = 0; i < rows; ++i) prefetch_row(next + i * stride);
    for (int64_t i = 0; i < round_up(rows, kNR); i += kWidth) {
      float* to = b.at(col * kTile, row * kTile + i);
      for (int64_t j = 0; j < cols; j += kWidth) {
        Vec square[kWidth];
        load_transposed(tile + i * stride + j, stride, rows - i, cols - j, square);
        for (int k = 0; k < kWidth && j + k < cols; ++k) store(to + (j + k) * kNR, value(square[k]));
      }
    }
  }

  // Packs the same tile as a tile of A and as a tile of B.
  static void pack_a_and_b(A& a, B& b, int64_t row, int64_t col, const float* tile, int64_t stride, int64_t rows,
                           int64_t cols) {
    pack_a(a, row, col, tile, stride, rows, cols);
    pack_b(b, row, col, tile, stride, rows, cols, tile);
  }

  // Each thread calls this before its products, with nothing else in between.
  static void begin() {}

  // Multiplies the rows of A's tile at.row with the columns of B's tile at.col over k in [k0, k1). The result goes to
  // out [kTile, kTile], or is added to it where `accumulates`. Panels without an existing row or column are left out.
  static void multiply(const A& a, const B& b, const TileProduct& at, bool accumulates, float* out) {
    const int64_t rows = min(kTile, a.m - at.row * kTile), cols = min(kTile, b.n - at.col * kTile);
    const int64_t end = min(at.k1, b.k);
    const int64_t micro_tiles = ceil_div(rows, kMR) * ceil_div(cols, kNR), lines = ceil_div(at.lines, micro_tiles);
    Prefetch prefetch = *at.prefetch;
    for (int64_t n = 0; n < cols; n += kNR) {
      const float* panel = b.at(at.k0, at.col * kTile + n);
      for (int64_t m = 0; m < rows; m += kMR) {
        prefetch.advance(lines);
        micro_kernel(a.at(at.row * kTile + m, at.k0 - at.a_k0), panel, end - at.k0, accumulates, out + m * kTile + n);
      }
    }
    *at.prefetch = prefetch;
  }

 private:
  // The value that products use.
  MINDCV_INLINE static Vec value(Vec v) { return kRounds ? round_to_bf16(v) : v; }

  // Packs `size` values, of which `count` exist; the others become 0.
  MINDCV_INLINE static void pack_values(float* to, const float* from, int64_t size, int64_t count) {
    for (int64_t j = 0; j < size; j += kWidth) {
      store(to + j, count > j ? value(load_part(from + j, count - j)) : Vec{});
    }
  }

  // Multiplies a panel of A and a panel of B over k values. The result goes to out [MR][NR], which is part of a tile,
  // or is added to it.
  static void micro_kernel(const float* a, const float* b, int64_t k, bool accumulates, float* out) {
    Vec acc[kMR][kNRVecs] = {};
    for (int m = 0; m < kMR && accumulates; ++m) {
      for (int v = 0; v < kNRVecs; ++v) acc[m][v] = load(out + m * kTile + v * kWidth);
    }
    const auto step = [&](int64_t p) __attribute__((always_inline)) {
      Vec right[kNRVecs];
      for (int v = 0; v < kNRVecs; ++v) right[v] = load(b + p * kNR + v * kWidth);
      for (int m = 0; m < kMR; ++m) {
        const Vec left = splat(a[m * kKR + p]);
        for (int v = 0; v < kNRVecs; ++v) acc[m][v] += left * right[v];
      }
    };
    for (; k >= kKR; k -= kKR, a += kMR * kKR, b += kKR * kNR) {
#pragma GCC unroll 4
      for (int64_t p = 0; p < kKR; ++p) step(p);
    }
    for (int64_t p = 0; p < k; ++p) step(p);
    for (int m = 0; m < kMR; ++m) {
      for (int v = 0; v < kNRVecs; ++v) store(out + m * kTile + v * kWidth, acc[m][v]);
    }
  }
};

}  // namespace MINDCV_ISA
}  // namespace mindcv
