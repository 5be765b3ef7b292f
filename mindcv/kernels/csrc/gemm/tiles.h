// What both arithmetics of matrix products (fma.h, amx.h) share. They offer the same: operands in a packed
// form that is written in tiles, and the product of a tile's rows of A with a tile's columns of B, over a part of k, as
// one tile of float32.
#pragma once
#include "runtime/thread_pool.h"
#include "simd/simd.h"

namespace mindcv {
namespace MINDCV_ISA {

// Products are computed in parts of this much of k.
constexpr int64_t kDepth = 384;

// Rows and columns of a tile: the tile multiplier's registers make 32, and a multiple of 6, 8 and 16 serves the others.
// Then, tiles of rows at most in a block of a product: kDepth of their columns stay in a second-level cache of 2 MiB,
// or of 512 KiB, while the panels of B come by, each of which is fetched once for all of these rows. And in a block
// that goes through two products, both of whose rows and sums are to stay there.
#if defined(__AMX_BF16__)
constexpr int kTile = 32;
constexpr int64_t kBlockTiles = 12, kBlockOfTwoTiles = 8;
#else
constexpr int kTile = 48;
constexpr int64_t kBlockTiles = 4, kBlockOfTwoTiles = 4;
#endif

constexpr int64_t kLine = 16;  // values in a line of the cache

struct Range {
  int64_t begin, end;
  int64_t count() const { return end - begin; }
};

// Memory that is wanted soon, and is fetched into the second-level cache while tiles are multiplied: `rows` rows of
// `width` values, `step` apart, a line of the cache after the other.
struct Ahead {
  const float* row;
  int64_t rows, width, step;
  int64_t col = 0;

  int64_t lines() const { return rows * ceil_div(width, kLine); }

  // The next `count` lines.
  MINDCV_INLINE void fetch(int64_t count) {
    for (; count > 0 && rows > 0; --count) {
      __builtin_prefetch(row + col, 0, 2);
      col += kLine;
      if (col < width) continue;
      col = 0;
      row += step;
      --rows;
    }
  }
};

// Which tile, over which part of k; where A begins along k; for the caches which tile comes next, and how many lines of
// `ahead` are fetched meanwhile.
struct Product {
  int64_t row, col, k0, k1, a_k0, next_row, next_col;
  Ahead* ahead;
  int64_t lines;
};

// Starts to fetch a tile's row into the second-level cache; what is outside of the matrix does no harm.
MINDCV_INLINE void fetch_row(const float* row) {
  for (int64_t i = 0; i < kTile; i += kLine) __builtin_prefetch(row + i, 0, 2);
}

// A square of kWidth x kWidth with its axes swapped, of which `rows` rows, each `step` after the last, and `cols`
// columns exist; the rest becomes 0.
MINDCV_INLINE void turn_square(const float* from, int64_t step, int64_t rows, int64_t cols, Vec (&square)[kWidth]) {
  for (int k = 0; k < kWidth; ++k) square[k] = k < rows && cols > 0 ? load_part(from + k * step, cols) : Vec{};
  transpose(square);
}

// A whole tile with its axes swapped.
inline void turn(const float* from, float* to) {
  for (int64_t i = 0; i < kTile; i += kWidth) {
    for (int64_t j = 0; j < kTile; j += kWidth) {
      Vec square[kWidth];
      turn_square(from + i * kTile + j, kTile, kWidth, kWidth, square);
      for (int k = 0; k < kWidth; ++k) store(to + (j + k) * kTile + i, square[k]);
    }
  }
}

}  // namespace MINDCV_ISA
}  // namespace mindcv
