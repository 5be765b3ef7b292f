// Products of packed matrices, spread over the threads.
#pragma once
#include "gemm_fma.h"
#include "pool.h"
#include "simd.h"

namespace mindcv {
namespace MINDCV_ISA {

template <class F>
void parallel(int64_t count, F&& body) {
  struct Call {
    static void run(void* context, int64_t i) { (*static_cast<F*>(context))(i); }
  };
  parallel_tasks(count, Call::run, const_cast<void*>(static_cast<const void*>(&body)));
}

// Rows of one task of a product. With this many, A's rows and a panel of B stay in a second-level cache of 2 MiB. Sums over rows
// are kept per such block and added up in order: the same bits for every number of threads.
inline int64_t block_rows(int64_t k) { return k > 1536 ? 64 : 128; }

// Calls use(row, col, tile) for every 32 x 32 tile of A [m, k] times B [k, n]; row and col count tiles. Tiles of one block of
// rows and one column come in the order of their rows, from one thread.
template <class G, class Use>
void product(const typename G::A& a, const typename G::B& b, int64_t m, int64_t n, int64_t k, Use&& use) {
  const int64_t row_tiles = ceil_div(m, kTile), col_tiles = ceil_div(n, kTile);
  const int64_t block = block_rows(k) / kTile;
  const int64_t blocks = ceil_div(row_tiles, block);
  // Few rows (a small batch at the last stage): more tasks by cutting the columns.
  constexpr int64_t kTasks = 16;
  const int64_t cuts = least(col_tiles, ceil_div(kTasks, blocks));
  parallel(blocks * cuts, [&](int64_t task) {
    const int64_t row0 = task / cuts * block, row1 = least(row0 + block, row_tiles);
    const int64_t cut = task % cuts;
    G::begin();
    // A tile is used only after the next one is computed: the tile registers' stores take their time, and meanwhile the vector
    // units are at work on the last.
    alignas(64) float tiles[2][kTile * kTile];
    int64_t count = 0, last_row = 0, last_col = 0;
    for (int64_t col = col_tiles * cut / cuts; col < col_tiles * (cut + 1) / cuts; ++col) {
      for (int64_t row = row0; row < row1; ++row, ++count) {
        G::multiply(a, b, row, col, 0, round_up(k, kTile), tiles[count % 2]);
        if (count > 0) use(last_row, last_col, tiles[(count + 1) % 2]);
        last_row = row;
        last_col = col;
      }
    }
    if (count > 0) use(last_row, last_col, tiles[(count + 1) % 2]);
  });
}

// The same for few rows and columns and a long k, as for the gradients of weights: use(row, col, tile) is called for one part of k
// after another, and adds up.
template <class G, class Use>
void long_product(const typename G::A& a, const typename G::B& b, int64_t m, int64_t n, int64_t k, Use&& use) {
  constexpr int64_t kPart = 512, kBlock = 4, kTasks = 6;
  const int64_t row_tiles = ceil_div(m, kTile), col_tiles = ceil_div(n, kTile);
  const int64_t row_blocks = ceil_div(row_tiles, kBlock);
  const int64_t width = most(1, least(kBlock, col_tiles * row_blocks / kTasks));
  const int64_t col_blocks = ceil_div(col_tiles, width), end = round_up(k, kTile);
  parallel(row_blocks * col_blocks, [&](int64_t task) {
    const int64_t row0 = task / col_blocks * kBlock, col0 = task % col_blocks * width;
    G::begin();
    alignas(64) float tile[kTile * kTile];
    for (int64_t part = 0; part < end; part += kPart) {
      for (int64_t col = col0; col < least(col0 + width, col_tiles); ++col) {
        for (int64_t row = row0; row < least(row0 + kBlock, row_tiles); ++row) {
          G::multiply(a, b, row, col, part, least(part + kPart, end), tile);
          use(row, col, tile);
        }
      }
    }
  });
}

// B [k, n] from a matrix in memory, w [k][n], or w [n][k] when it is transposed. Its columns in memory are multiplied by `factor`,
// if there is one.
template <class G>
void pack_b(typename G::B& b, const float* w, int64_t k, int64_t n, bool is_transposed, const float* factor = nullptr) {
  const int64_t rows = is_transposed ? n : k, cols = is_transposed ? k : n;
  const int64_t col_tiles = ceil_div(cols, kTile);
  parallel(ceil_div(rows, kTile), [&](int64_t row) {
    alignas(64) float scaled[kTile * kTile];
    for (int64_t col = 0; col < col_tiles; ++col) {
      const float* tile = w + row * kTile * cols + col * kTile;
      const int64_t have_rows = least(rows - row * kTile, kTile), have_cols = least(cols - col * kTile, kTile);
      int64_t step = cols;
      if (factor != nullptr) {
        for (int64_t i = 0; i < have_rows; ++i) {
          for (int64_t j = 0; j < have_cols; ++j) scaled[i * kTile + j] = tile[i * step + j] * factor[col * kTile + j];
        }
        tile = scaled;
        step = kTile;
      }
      if (is_transposed) {
        G::put_b_transposed(b, row, col, tile, step, have_rows, have_cols);
      } else {
        G::put_b(b, row, col, tile, step, have_rows, have_cols);
      }
    }
  });
}

template <class G>
typename G::B packed_b(Session& memory, const float* w, int64_t k, int64_t n, bool is_transposed) {
  typename G::B b = G::new_b(memory, k, n);
  pack_b<G>(b, w, k, n, is_transposed);
  return b;
}

}  // namespace MINDCV_ISA
}  // namespace mindcv
