// Matrix products from multiply-add instructions, on any processor.
#pragma once
#include "gemm/tiles.h"

namespace mindcv {
namespace MINDCV_ISA {

// What the registers sum up at once: a strip of rows times a panel of columns. Besides the sums, they hold a vector for
// each column of these and one for the rows.
constexpr int kStrip = kWidth == 16 ? 8 : 6;
constexpr int kPanelVecs = kRegisters == 16 ? 2 : kWidth == 16 ? 3 : 4;
static_assert(kStrip * kPanelVecs + kPanelVecs + 1 <= kRegisters);
constexpr int kPanel = kPanelVecs * kWidth;
constexpr int kRun = 16;  // values of k that lie together in A: a cache line
static_assert(kTile % kStrip == 0 && kTile % kPanel == 0 && kTile % kRun == 0);

// A [m, k] in float32, in strips of rows, each [k / kRun][kStrip][kRun].
struct FmaA {
  float* data;
  int64_t m, k;
  float* at(int64_t row, int64_t col) const {
    const int64_t in_strip = row % kStrip, in_run = col % kRun;
    return data + (row - in_strip) * round_up(k, kTile) + (col - in_run) * kStrip + in_strip * kRun + in_run;
  }
};

// B [k, n] in panels of columns, each [k][kPanel].
struct FmaB {
  float* data;
  int64_t k, n;
  float* at(int64_t row, int64_t col) const {
    const int64_t in_panel = col % kPanel;
    return data + (col - in_panel) * round_up(k, kTile) + row * kPanel + in_panel;
  }
};

// Products of float32, or of numbers rounded to bfloat16 (as fast, for processors that cannot multiply these).
template <bool kRounds>
struct Fma {
  static constexpr bool kStoresLate = false;
  using A = FmaA;
  using B = FmaB;

  static A new_a(Session& memory, int64_t m, int64_t k) { return a_in(memory.bytes(a_bytes(m, k)), m, k); }
  // To be written from its transposed form, [k, m].
  static A new_a_transposed(Session& memory, int64_t m, int64_t k) { return new_a(memory, m, k); }
  static B new_b(Session& memory, int64_t k, int64_t n) { return b_in(memory.bytes(b_bytes(k, n)), k, n); }

  // A and B in memory of their own.
  static size_t a_bytes(int64_t m, int64_t k) { return b_bytes(k, m); }
  static A a_in(void* memory, int64_t m, int64_t k) { return {static_cast<float*>(memory), m, k}; }
  static size_t b_bytes(int64_t k, int64_t n) {
    return static_cast<size_t>(round_up(k, kTile) * round_up(n, kTile)) * 4;
  }
  static B b_in(void* memory, int64_t k, int64_t n) { return {static_cast<float*>(memory), k, n}; }
  // A weight that PackWeight or PackPatch packed; products only read it.
  static B packed_b(const float* weight, int64_t k, int64_t n) { return b_in(const_cast<float*>(weight), k, n); }
  static void clear(B&) {}
  static int64_t rows(const A& a) { return a.m; }
  // The tile `col` of B's columns, of k a part.
  static Ahead ahead(const B& b, int64_t col, Range part) {
    const int64_t panels = ceil_div(min(kTile, b.n - col * kTile), kPanel);
    return {b.at(part.begin, col * kTile), panels, part.count() * kPanel, kPanel * round_up(b.k, kTile)};
  }

  // Tile (row, col) of the source, in units of kTile, of which `rows` x `cols` values exist; what is left of a strip or
  // panel becomes 0. put_a may do it in parts: rows [begin, end) of the tile. put_b is told which tile comes `next`, or
  // this one again: its rows lie far apart, which no processor guesses, and are fetched meanwhile.
  static void put_a(A& a, int64_t row, int64_t col, const float* tile, int64_t step, int64_t rows, int64_t cols,
                    int64_t begin = 0, int64_t end = kTile) {
    for (int64_t i = begin; i < min(end, round_up(rows, kStrip)); ++i) {
      float* to = a.at(row * kTile + i, col * kTile);
      for (int64_t j = 0; j < cols; j += kRun, to += kStrip * kRun) {
        put_values(to, tile + i * step + j, kRun, i < rows ? cols - j : 0);
      }
    }
  }
  static void put_a_transposed(A& a, int64_t row, int64_t col, const float* tile, int64_t step, int64_t rows,
                               int64_t cols) {
    for (int64_t j = 0; j < round_up(cols, kStrip); j += kWidth) {
      for (int64_t i = 0; i < rows; i += kWidth) {
        Vec square[kWidth];
        turn_square(tile + i * step + j, step, rows - i, cols - j, square);
        for (int k = 0; k < kWidth && j + k < round_up(cols, kStrip); ++k) {
          store(a.at(col * kTile + j + k, row * kTile + i), value(square[k]));
        }
      }
    }
  }
  static void put_b(B& b, int64_t row, int64_t col, const float* tile, int64_t step, int64_t rows, int64_t cols,
                    const float* next) {
    for (int64_t i = 0; i < rows; ++i) {
      fetch_row(next + i * step);
      float* to = b.at(row * kTile + i, col * kTile);
      for (int64_t j = 0; j < cols; j += kPanel, to += kPanel * round_up(b.k, kTile)) {
        put_values(to, tile + i * step + j, kPanel, cols - j);
      }
    }
  }
  static void put_b_transposed(B& b, int64_t row, int64_t col, const float* tile, int64_t step, int64_t rows,
                               int64_t cols, const float* next) {
    for (int64_t i = 0; i < rows; ++i) fetch_row(next + i * step);
    for (int64_t i = 0; i < round_up(rows, kPanel); i += kWidth) {
      float* to = b.at(col * kTile, row * kTile + i);
      for (int64_t j = 0; j < cols; j += kWidth) {
        Vec square[kWidth];
        turn_square(tile + i * step + j, step, rows - i, cols - j, square);
        for (int k = 0; k < kWidth && j + k < cols; ++k) store(to + (j + k) * kPanel, value(square[k]));
      }
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

  // out [kTile, kTile] = rows of A's tile at.row times columns of B's tile at.col, over k in [k0, k1); with `adds` it
  // is added to what out holds. Strips and panels without a row or column are left out.
  static void multiply(const A& a, const B& b, const Product& at, bool adds, float* out) {
    const int64_t rows = min(kTile, a.m - at.row * kTile), cols = min(kTile, b.n - at.col * kTile);
    const int64_t end = min(at.k1, b.k);
    const int64_t strips = ceil_div(rows, kStrip) * ceil_div(cols, kPanel), lines = ceil_div(at.lines, strips);
    Ahead ahead = *at.ahead;
    for (int64_t n = 0; n < cols; n += kPanel) {
      const float* panel = b.at(at.k0, at.col * kTile + n);
      for (int64_t m = 0; m < rows; m += kStrip) {
        ahead.fetch(lines);
        strip(a.at(at.row * kTile + m, at.k0 - at.a_k0), panel, end - at.k0, adds, out + m * kTile + n);
      }
    }
    *at.ahead = ahead;
  }

 private:
  // As factors of products have it.
  MINDCV_INLINE static Vec value(Vec v) { return kRounds ? round_to_bf16(v) : v; }

  // `size` values, of which `count` exist and the others are 0.
  MINDCV_INLINE static void put_values(float* to, const float* from, int64_t size, int64_t count) {
    for (int64_t j = 0; j < size; j += kWidth) {
      store(to + j, count > j ? value(load_part(from + j, count - j)) : Vec{});
    }
  }

  // Its rows' first value of k is `a`, its columns' `b`; out [kStrip][kPanel], in a tile, is set or added to.
  static void strip(const float* a, const float* b, int64_t k, bool adds, float* out) {
    Vec acc[kStrip][kPanelVecs] = {};
    for (int m = 0; m < kStrip && adds; ++m) {
      for (int v = 0; v < kPanelVecs; ++v) acc[m][v] = load(out + m * kTile + v * kWidth);
    }
    const auto step = [&](int64_t p) __attribute__((always_inline)) {
      Vec right[kPanelVecs];
      for (int v = 0; v < kPanelVecs; ++v) right[v] = load(b + p * kPanel + v * kWidth);
      for (int m = 0; m < kStrip; ++m) {
        const Vec left = splat(a[m * kRun + p]);
        for (int v = 0; v < kPanelVecs; ++v) acc[m][v] += left * right[v];
      }
    };
    for (; k >= kRun; k -= kRun, a += kStrip * kRun, b += kRun * kPanel) {
#pragma GCC unroll 4
      for (int64_t p = 0; p < kRun; ++p) step(p);
    }
    for (int64_t p = 0; p < k; ++p) step(p);
    for (int m = 0; m < kStrip; ++m) {
      for (int v = 0; v < kPanelVecs; ++v) store(out + m * kTile + v * kWidth, acc[m][v]);
    }
  }
};

}  // namespace MINDCV_ISA
}  // namespace mindcv
