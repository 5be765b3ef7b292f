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

// With fewer rows than this, packing a weight takes about as long as the product; a panel of it is then packed where it
// is used, and never leaves the cache.
constexpr int64_t kFewRows = 256;

// Rows of one task of a product. With this many, A's rows and a panel of B stay in a second-level cache of 2 MiB; few
// rows are one block, so that B is read once. Sums over rows are kept per block and added up in order: the same bits
// for every number of threads.
inline int64_t block_rows(int64_t m, int64_t k) { return m <= kFewRows ? kFewRows : k > 1536 ? 64 : 128; }

// A matrix in memory as the right side of products: B [k, n] is w [k][n], or the transposed w [n][k].
struct Weight {
  const float* w;
  int64_t k, n;
  bool is_transposed;
};

// Columns [32 col, 32 col + 32) of B into panel `to` of `b`.
template <class G>
void pack_panel(const Weight& weight, int64_t col, typename G::B& b, int64_t to) {
  const int64_t step = weight.is_transposed ? weight.k : weight.n;
  const int64_t cols = least(kTile, weight.n - col * kTile);
  for (int64_t k = 0; k < weight.k; k += kTile) {
    const int64_t part = least(kTile, weight.k - k);
    const int64_t row0 = weight.is_transposed ? col * kTile : k, col0 = weight.is_transposed ? k : col * kTile;
    const int64_t have_rows = weight.is_transposed ? cols : part, have_cols = weight.is_transposed ? part : cols;
    const float* tile = weight.w + row0 * step + col0;
    if (weight.is_transposed) {
      G::put_b_transposed(b, to, k / kTile, tile, step, have_rows, have_cols);
    } else {
      G::put_b(b, k / kTile, to, tile, step, have_rows, have_cols);
    }
  }
}

template <class G>
void pack(const Weight& weight, typename G::B& b) {
  G::clear(b);
  parallel(ceil_div(weight.n, kTile), [&](int64_t col) { pack_panel<G>(weight, col, b, col); });
}

template <class G>
typename G::B packed(Session& memory, const Weight& weight) {
  typename G::B b = G::new_b(memory, weight.k, weight.n);
  pack<G>(weight, b);
  return b;
}

// B, and which panel of it.
template <class G>
struct Place {
  const typename G::B* b;
  int64_t panel;
};

// Rows of a tile that are used at once, beside the products of the next tile.
constexpr int64_t kUsedRows = 2;

// Computes tiles (row, col) of A times B for rows [row0, row1) and columns [col0, col1), all of k, column by column.
// Calls use(row, col, tile, begin, end) for each, in that order, in parts: rows [begin, end) of the tile, a float
// [32][32] that may be written. prepare(col) gives B, and where in it the column is.
template <class G, class Prepare, class Use>
void multiply_tiles(const typename G::A& a, int64_t k, int64_t row0, int64_t row1, int64_t col0, int64_t col1,
                    Prepare&& prepare, Use&& use) {
  G::begin();
  // A tile is used while the next one is computed.
  alignas(64) float tiles[2][kTile * kTile];
  int64_t count = 0, last_row = 0, last_col = 0, used = kTile;
  for (int64_t col = col0; col < col1; ++col) {
    const auto [b, place] = prepare(col);
    for (int64_t row = row0; row < row1; ++row, ++count) {
      const bool turns = row + 1 == row1;
      float* last = tiles[(count + 1) % 2];
      const auto use_some = [&]() __attribute__((noinline)) {
        if (used == kTile) return;
        use(last_row, last_col, last, used, used + kUsedRows);
        used += kUsedRows;
      };
      G::multiply(a, *b, {row, place, 0, round_up(k, kTile), turns ? row0 : row + 1, turns ? place + 1 : place},
                  tiles[count % 2], use_some);
      if (used < kTile) use(last_row, last_col, last, used, kTile);
      last_row = row;
      last_col = col;
      used = 0;
    }
  }
  if (count > 0) use(last_row, last_col, tiles[(count + 1) % 2], 0, kTile);
}

// A product's tasks: blocks of rows, and where those are few (a small batch at the last stage), each block's columns in
// cuts.
constexpr int64_t kTasks = 16;

// Calls use(row, col, tile, begin, end) for every 32 x 32 tile of A [m, k] times B [k, n], in parts; row and col count
// tiles. Tiles of one block of rows and one column come in the order of their rows, from one thread.
template <class G, class Use>
void product(const typename G::A& a, const typename G::B& b, int64_t m, int64_t n, int64_t k, Use&& use) {
  const int64_t row_tiles = ceil_div(m, kTile), col_tiles = ceil_div(n, kTile);
  const int64_t block = block_rows(m, k) / kTile;
  const int64_t blocks = ceil_div(row_tiles, block);
  const int64_t cuts = least(col_tiles, ceil_div(kTasks, blocks));
  parallel(blocks * cuts, [&](int64_t task) {
    const int64_t row0 = task / cuts * block, cut = task % cuts;
    const auto whole = [&](int64_t col) { return Place<G>{&b, col}; };
    multiply_tiles<G>(a, k, row0, least(row0 + block, row_tiles), col_tiles * cut / cuts, col_tiles * (cut + 1) / cuts,
                      whole, use);
  });
}

// The same with a weight that is packed meanwhile; for m up to kFewRows.
template <class G, class Use>
void product(const typename G::A& a, const Weight& weight, int64_t m, Use&& use) {
  const int64_t row_tiles = ceil_div(m, kTile), col_tiles = ceil_div(weight.n, kTile);
  const int64_t cuts = least(col_tiles, kTasks);
  parallel(cuts, [&](int64_t cut) {
    typename G::B panel = G::b_in(thread_scratch(G::b_bytes(weight.k, kTile)), weight.k, kTile);
    const auto pack_one = [&](int64_t col) {
      G::clear(panel);
      pack_panel<G>(weight, col, panel, 0);
      return Place<G>{&panel, 0};
    };
    multiply_tiles<G>(a, weight.k, 0, row_tiles, col_tiles * cut / cuts, col_tiles * (cut + 1) / cuts, pack_one, use);
  });
}

// The right side of a product: a weight, and its packed form, which is missing (is_packed false) for few rows.
template <class G>
struct Right {
  Weight weight;
  typename G::B packed;
  bool is_packed;
};

// Whether a product's tasks are many enough for each to make its own rows of A, which then never leave its cache.
inline bool has_own_rows(int64_t m, int64_t k) {
  constexpr int64_t kLeastTasks = 12;
  return ceil_div(m, block_rows(m, k)) >= kLeastTasks;
}

// Calls use(row, col, tile, begin, end) for every 32 x 32 tile of A [m, k] times the right side, in the order of
// `product`. A is made by fill(row, a, place): the 32 rows `row` of it, as the 32 rows `place` of `a`.
template <class G, class Fill, class Use>
void filled_product(Session& memory, int64_t m, const Right<G>& right, Fill&& fill, Use&& use) {
  const int64_t k = right.weight.k, n = right.weight.n, tiles = ceil_div(m, kTile);
  if (!right.is_packed || !has_own_rows(m, k)) {
    typename G::A a = G::new_a(memory, m, k);
    parallel(tiles, [&](int64_t row) { fill(row, a, row); });
    if (right.is_packed) {
      product<G>(a, right.packed, m, n, k, use);
    } else {
      product<G>(a, right.weight, m, use);
    }
    return;
  }
  const int64_t block = block_rows(m, k) / kTile;
  parallel(ceil_div(tiles, block), [&](int64_t task) {
    const int64_t first = task * block, count = least(block, tiles - first);
    typename G::A a = G::a_in(thread_scratch(G::a_bytes(count * kTile, k)), count * kTile, k);
    for (int64_t i = 0; i < count; ++i) fill(first + i, a, i);
    multiply_tiles<G>(
        a, k, 0, count, 0, ceil_div(n, kTile), [&](int64_t col) { return Place<G>{&right.packed, col}; },
        [&](int64_t row, int64_t col, float* tile, int64_t begin, int64_t end) {
          use(first + row, col, tile, begin, end);
        });
  });
}

// The same for few rows and columns and a long k, as for the gradients of weights: use(row, col, tile) is called for
// one part of k after another, and adds up.
template <class G, class Use>
void long_product(const typename G::A& a, const typename G::B& b, int64_t m, int64_t n, int64_t k, Use&& use) {
  constexpr int64_t kPart = 512, kBlock = 4, kLeastTasks = 6;
  const int64_t row_tiles = ceil_div(m, kTile), col_tiles = ceil_div(n, kTile);
  const int64_t row_blocks = ceil_div(row_tiles, kBlock);
  const int64_t width = most(1, least(kBlock, col_tiles * row_blocks / kLeastTasks));
  const int64_t col_blocks = ceil_div(col_tiles, width), end = round_up(k, kTile);
  parallel(row_blocks * col_blocks, [&](int64_t task) {
    const int64_t row0 = task / col_blocks * kBlock, col0 = task % col_blocks * width;
    G::begin();
    alignas(64) float tile[kTile * kTile];
    for (int64_t part = 0; part < end; part += kPart) {
      for (int64_t col = col0; col < least(col0 + width, col_tiles); ++col) {
        for (int64_t row = row0; row < least(row0 + kBlock, row_tiles); ++row) {
          const bool turns = row + 1 == least(row0 + kBlock, row_tiles);
          G::multiply(a, b, {row, col, part, least(part + kPart, end), turns ? row0 : row + 1, turns ? col + 1 : col},
                      tile, [] {});
          use(row, col, tile);
        }
      }
    }
  });
}

}  // namespace MINDCV_ISA
}  // namespace mindcv
