// The sizes of tiles, and what the two arithmetics of matrix products (fma.h, amx.h) share.
//
// An arithmetic has a packed form of A and of B, which is written tile by tile, and a function that multiplies the rows
// of a tile of A with the columns of a tile of B over a part of k. The result is one tile of float32.
#pragma once
#include "runtime/thread_pool.h"
#include "simd/simd.h"

namespace mindcv {
namespace MINDCV_ISA {

// KC: the number of values of k that are multiplied at a time.
constexpr int64_t kKC = 384;

// kTile is the number of rows and columns of a tile: 32 is what the registers of the tile multiplier hold, and 48 is a
// multiple of MR and NR of every other instruction set.
//
// MC, the rows of a macro tile, is kMCTiles tiles. KC columns of these rows stay in a second-level cache of 2 MiB (AMX)
// or 512 KiB while the panels of B are read, each of them once for all of these rows. kFusedMCTiles is the same where
// the rows go through two products and the rows and sums of both must stay in the cache. See decisions 0021 and 0022.
#if defined(__AMX_BF16__)
constexpr int kTile = 32;
constexpr int64_t kMCTiles = 12, kFusedMCTiles = 8;
#else
constexpr int kTile = 48;
constexpr int64_t kMCTiles = 4, kFusedMCTiles = 4;
#endif

constexpr int64_t kCacheLine = 16;  // float32 values in a cache line

struct Range {
  int64_t begin, end;
  int64_t count() const { return end - begin; }
};

// Memory that is prefetched into the second-level cache while tiles are multiplied, one cache line after the other:
// `rows` rows of `width` values, `stride` values apart. See decision 0025.
struct Prefetch {
  const float* row;
  int64_t rows, width, stride;
  int64_t col = 0;

  int64_t lines() const { return rows * ceil_div(width, kCacheLine); }

  // Prefetches the next `count` cache lines.
  MINDCV_INLINE void advance(int64_t count) {
    for (; count > 0 && rows > 0; --count) {
      __builtin_prefetch(row + col, 0, 2);
      col += kCacheLine;
      if (col < width) continue;
      col = 0;
      row += stride;
      --rows;
    }
  }
};

// The product of one row tile of A and one column tile of B.
struct TileProduct {
  int64_t row, col;            // the tiles
  int64_t k0, k1;              // the part of k
  int64_t a_k0;                // the value of k where A begins
  int64_t next_row, next_col;  // the tiles of the next product, for the caches
  Prefetch* prefetch;          // of which `lines` cache lines are prefetched during this product
  int64_t lines;
};

// Prefetches a tile's row into the second-level cache. Addresses outside of the matrix do no harm.
MINDCV_INLINE void prefetch_row(const float* row) {
  for (int64_t i = 0; i < kTile; i += kCacheLine) __builtin_prefetch(row + i, 0, 2);
}

// Loads a square of kWidth x kWidth values and transposes it. Only `rows` rows, `stride` values apart, and `cols`
// columns exist; the rest becomes 0.
MINDCV_INLINE void load_transposed(const float* from, int64_t stride, int64_t rows, int64_t cols,
                                   Vec (&square)[kWidth]) {
  for (int k = 0; k < kWidth; ++k) square[k] = k < rows && cols > 0 ? load_part(from + k * stride, cols) : Vec{};
  transpose(square);
}

// Transposes a whole tile.
inline void transpose_tile(const float* from, float* to) {
  for (int64_t i = 0; i < kTile; i += kWidth) {
    for (int64_t j = 0; j < kTile; j += kWidth) {
      Vec square[kWidth];
      load_transposed(from + i * kTile + j, kTile, kWidth, kWidth, square);
      for (int k = 0; k < kWidth; ++k) store(to + (j + k) * kTile + i, square[k]);
    }
  }
}

}  // namespace MINDCV_ISA
}  // namespace mindcv
