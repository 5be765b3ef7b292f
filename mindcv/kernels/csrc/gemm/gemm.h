// Products of packed matrices, spread over the threads.
#pragma once
#include "gemm/tiles.h"
#include "runtime/thread_pool.h"
#include "simd/simd.h"

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

// Tiles of rows in a block where A and what is made of the product are maps in memory, and B is of so few values that
// fetching it three times as often costs less than the room that it leaves to them.
constexpr int64_t kMapTiles = 4, kFewValues = 384 * 1536;

// A matrix in memory as the right side of products: B [k, n] is w [k][n], or the transposed w [n][k].
struct Weight {
  const float* w;
  int64_t k, n;
  bool is_transposed;

  int64_t step() const { return is_transposed ? k : n; }
  const float* at(int64_t row, int64_t col) const { return is_transposed ? w + col * k + row : w + row * n + col; }
};

// The tile `col` of B's columns, of k the `part` that begins with a whole tile, into the tile `to` of `b`.
template <class G>
void pack_panel(const Weight& weight, int64_t col, Range part, typename G::B& b, int64_t to) {
  const int64_t step = weight.step(), cols = min(kTile, weight.n - col * kTile);
  for (int64_t k = part.begin; k < part.end; k += kTile) {
    const int64_t depth = min(kTile, weight.k - k);
    const int64_t have_rows = weight.is_transposed ? cols : depth, have_cols = weight.is_transposed ? depth : cols;
    const float* tile = weight.at(k, col * kTile);
    const float* next = k + kTile < part.end ? weight.at(k + kTile, col * kTile) : tile;
    if (weight.is_transposed) {
      G::put_b_transposed(b, to, k / kTile, tile, step, have_rows, have_cols, next);
    } else {
      G::put_b(b, k / kTile, to, tile, step, have_rows, have_cols, next);
    }
  }
}

template <class G>
void pack(const Weight& weight, typename G::B& b) {
  G::clear(b);
  parallel(ceil_div(weight.n, kTile), [&](int64_t col) { pack_panel<G>(weight, col, {0, weight.k}, b, col); });
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

// Where products find the tiles of B's columns, of k a part: all in a packed matrix,
template <class G>
struct PackedPanels {
  const typename G::B& b;
  Place<G> get(int64_t col, Range) const { return {&b, col}; }
  Ahead ahead(int64_t col, Range part) const { return G::ahead(b, col, part); }
};

// or one at a time, packed when it is wanted.
template <class G>
struct WeightPanels {
  const Weight& weight;
  typename G::B panel;  // [k, kTile]

  Place<G> get(int64_t col, Range part) {
    G::clear(panel);
    pack_panel<G>(weight, col, part, panel, 0);
    return {&panel, 0};
  }
  Ahead ahead(int64_t col, Range part) const {
    const int64_t cols = min(kTile, weight.n - col * kTile), depth = part.count();
    const float* first = weight.at(part.begin, col * kTile);
    return {first, weight.is_transposed ? cols : depth, weight.is_transposed ? depth : cols, weight.step()};
  }
};

// The right side of a product: a weight, and its packed form, which is missing (is_packed false) for few rows.
template <class G>
struct Right {
  Weight weight;
  typename G::B packed;
  bool is_packed;
};

// For one call: packed at once for all of `rows` rows, or, for few rows, in the products.
template <class G>
Right<G> right_side(Session& memory, const Weight& weight, int64_t rows) {
  if (rows <= kFewRows) return {weight, {}, false};
  return {weight, packed<G>(memory, weight), true};
}

// Rows [begin, end) of the rows `tile` of a matrix.
struct Rows {
  int64_t tile, begin, end;
};

inline Range part_of(int64_t count, int64_t part, int64_t parts) {
  return {count * part / parts, count * (part + 1) / parts};
}

// Tiles of A's rows times tiles of B's columns, multiplied in parts of k.
template <class G>
struct Block {
  const typename G::A* a;
  bool has_part;  // `a` holds the part of k that is being multiplied, instead of all of k
  int64_t k, depth;
  Range rows, cols;
  float* sums;  // block_sums() floats: the tiles between two parts of k
};

inline int64_t block_sums(int64_t k, int64_t depth, int64_t rows, int64_t cols) {
  return round_up(k, kTile) > depth ? rows * cols * kTile * kTile : 0;
}

// Computes a block, one part of k after the other, in each column by column. Calls use(row, col, tile) for each tile, a
// float [kTile][kTile] that may be written, in that order. make(part) is called before a part of k is multiplied. While
// all rows meet one panel of B, what the panel after it is made of comes from memory, a part with each row.
template <class G, class Make, class Panels, class Use>
void multiply_block(const Block<G>& block, Make&& make, Panels&& panels, Use&& use) {
  // Tile registers' stores take their time: such a tile is used only after the next one is computed.
  constexpr int kRing = G::kStoresLate ? 2 : 1;
  alignas(64) float ring[kRing][kTile * kTile];
  float* last = nullptr;
  int64_t count = 0, last_row = 0, last_col = 0;
  const int64_t end = round_up(block.k, kTile);
  for (int64_t k0 = 0; k0 < end; k0 += block.depth) {
    const int64_t k1 = min(end, k0 + block.depth);
    const Range part{k0, min(k1, block.k)};
    make(part);
    G::begin();
    const int64_t first_row = block.rows.begin * kTile;
    const int64_t height = min(block.rows.end * kTile, G::rows(*block.a)) - first_row;
    for (int64_t col = block.cols.begin; col < block.cols.end; ++col) {
      const Place<G> place = panels.get(col, part);
      Ahead ahead{};
      if (col + 1 < block.cols.end) {
        ahead = panels.ahead(col + 1, part);
      } else if (k1 < end) {
        ahead = panels.ahead(block.cols.begin, {k1, min(block.k, k1 + block.depth)});
      }
      const int64_t lines = ahead.lines();
      for (int64_t row = block.rows.begin; row < block.rows.end; ++row, ++count) {
        const int64_t index = (col - block.cols.begin) * block.rows.count() + row - block.rows.begin;
        float* tile = end > block.depth ? block.sums + index * kTile * kTile : ring[count % kRing];
        const bool turns = row + 1 == block.rows.end;
        const int64_t next_row = turns ? block.rows.begin : row + 1, next_panel = turns ? place.panel + 1 : place.panel;
        const int64_t share = ceil_div(lines * min(kTile, first_row + height - row * kTile), height);
        const Product at{row, place.panel, k0, k1, block.has_part ? k0 : 0, next_row, next_panel, &ahead, share};
        G::multiply(*block.a, *place.b, at, k0 > 0, tile);
        if (!G::kStoresLate) {
          if (k1 == end) use(row, col, tile);
          continue;
        }
        if (last != nullptr) use(last_row, last_col, last);
        last = k1 < end ? nullptr : tile;
        last_row = row;
        last_col = col;
      }
    }
  }
  if (last != nullptr) use(last_row, last_col, last);
}

// Into how many parts a product's rows and columns are cut for its tasks.
struct Cuts {
  int64_t rows, cols;
};

// The rows of the largest of `parts` parts of all tiles of `count` rows. Where some have a tile more, the last is one
// of them, and its last tile may hold few rows.
inline int64_t most_rows(int64_t count, int64_t parts) {
  if (parts == 1) return count;
  const int64_t tiles = ceil_div(count, kTile), height = ceil_div(tiles, parts);
  return max((tiles % parts == 1 ? height - 1 : height) * kTile, count - (tiles - height) * kTile);
}

// One task a thread, and of such cuts those with which the busiest thread has the least to do, or else to fetch.
inline Cuts cut_for_threads(int64_t m, int64_t n) {
  const int64_t threads = pool_threads(), row_tiles = ceil_div(m, kTile), col_tiles = ceil_div(n, kTile);
  Cuts best{1, 1};
  int64_t least_work = m * n, least_fetched = m + n;
  for (int64_t rows = 1; rows <= min(row_tiles, threads); ++rows) {
    const int64_t cols = min(col_tiles, ceil_div(threads, rows)), tasks = rows * cols;
    const int64_t height = most_rows(m, rows), width = most_rows(n, cols);
    const int64_t work = ceil_div(tasks, threads) * height * width, fetched = height + width;
    if (work > least_work || (work == least_work && fetched >= least_fetched)) continue;
    best = {rows, cols};
    least_work = work;
    least_fetched = fetched;
  }
  return best;
}

inline Cuts cut_product(int64_t m, const Weight& weight, bool is_packed) {
  const int64_t threads = pool_threads(), row_tiles = ceil_div(m, kTile), col_tiles = ceil_div(weight.n, kTile);
  if (!is_packed) return {1, min(col_tiles, threads)};
  if (row_tiles <= kBlockTiles) return cut_for_threads(m, weight.n);
  const int64_t rows = ceil_div(row_tiles, weight.k * weight.n <= kFewValues ? kMapTiles : kBlockTiles);
  return {rows, min(col_tiles, ceil_div(2 * threads, rows))};
}

// Calls use(row, col, tile) for every tile of A [m, k] times the right side; row and col count tiles. A tile is
// computed in the same way whatever the tasks are, which depend on the number of threads.
template <class G, class Use>
void product(const typename G::A& a, const Right<G>& right, int64_t m, Use&& use) {
  const int64_t k = right.weight.k, row_tiles = ceil_div(m, kTile), col_tiles = ceil_div(right.weight.n, kTile);
  const Cuts cuts = cut_product(m, right.weight, right.is_packed);
  const auto nothing = [](Range) {};
  parallel(cuts.rows * cuts.cols, [&](int64_t task) {
    const Range rows = part_of(row_tiles, task / cuts.cols, cuts.rows);
    const Range cols = part_of(col_tiles, task % cuts.cols, cuts.cols);
    const size_t sum_bytes = static_cast<size_t>(block_sums(k, kDepth, rows.count(), cols.count())) * 4;
    const size_t panel_bytes = right.is_packed ? 0 : G::b_bytes(k, kTile);
    char* scratch = static_cast<char*>(thread_scratch(sum_bytes + panel_bytes, 1));
    const Block<G> block{&a, false, k, kDepth, rows, cols, reinterpret_cast<float*>(scratch)};
    if (right.is_packed) {
      multiply_block<G>(block, nothing, PackedPanels<G>{right.packed}, use);
    } else {
      multiply_block<G>(block, nothing, WeightPanels<G>{right.weight, G::b_in(scratch + sum_bytes, k, kTile)}, use);
    }
  });
}

// Into how many tasks `m` rows are cut where a product's tasks make their own rows of A, each part_of their tiles; 0
// where these would be too few to fetch all of B for. Of the numbers allowed that with which the busiest thread has the
// least to do.
inline int64_t own_tasks(int64_t m, int64_t most_tiles = kBlockTiles) {
  constexpr int64_t kFetchRows = 8;  // a task fetches all of B, which takes as long as some of its rows
  const int64_t tiles = ceil_div(m, kTile), threads = pool_threads(), fewest = most_tiles / 2;
  if (tiles < fewest * threads) return 0;
  int64_t best = 0, least_work = 0;
  // A last tile of few rows may be one more than a task's most.
  const int64_t first = max(1, ceil_div(tiles - 1, most_tiles));
  for (int64_t tasks = first; tasks <= min(tiles / fewest, first + 2 * threads); ++tasks) {
    const auto row_of = [&](int64_t task) { return min(m, part_of(tiles, task, tasks).begin * kTile); };
    int64_t work = 0;
    for (int64_t i = 0; i < threads; ++i) {
      const Range share = part_of(tasks, i, threads);
      work = max(work, row_of(share.end) - row_of(share.begin) + share.count() * kFetchRows);
    }
    if (most_rows(m, tasks) > most_tiles * kTile + kTile / 2 || (best > 0 && work >= least_work)) continue;
    best = tasks;
    least_work = work;
  }
  return best;
}

// The same where A is made by fill(rows, part, a, place): these rows, and of them the columns `part`, as rows of the
// tile `place` and columns from 0 of `a`. Where there are rows enough each task makes its own, part by part, and they
// never leave its cache.
template <class G, class Fill, class Use>
void filled_product(Session& memory, int64_t m, const Right<G>& right, int64_t depth, Fill&& fill, Use&& use) {
  const int64_t k = right.weight.k, tiles = ceil_div(m, kTile), tasks = right.is_packed ? own_tasks(m) : 0;
  if (tasks == 0) {
    constexpr int64_t kRows = 8, kParts = kTile / kRows;
    typename G::A a = G::new_a(memory, m, k);
    parallel(tiles * kParts, [&](int64_t task) {
      const int64_t row = task / kParts, begin = task % kParts * kRows;
      fill(Rows{row, begin, begin + kRows}, Range{0, k}, a, row);
    });
    product<G>(a, right, m, use);
    return;
  }
  parallel(tasks, [&](int64_t task) {
    const Range own = part_of(tiles, task, tasks);
    const int64_t first = own.begin, count = own.count();
    const int64_t rows = min(count * kTile, m - first * kTile), cols = ceil_div(right.weight.n, kTile);
    const size_t a_bytes = static_cast<size_t>(round_up(static_cast<int64_t>(G::a_bytes(rows, min(k, depth))), 64));
    const size_t sum_bytes = static_cast<size_t>(block_sums(k, depth, count, cols)) * 4;
    char* scratch = static_cast<char*>(thread_scratch(a_bytes + sum_bytes, 1));
    typename G::A a{};
    multiply_block<G>(
        {&a, true, k, depth, {0, count}, {0, cols}, reinterpret_cast<float*>(scratch + a_bytes)},
        [&](Range part) {
          a = G::a_in(scratch, rows, part.count());
          for (int64_t i = 0; i < count; ++i) fill(Rows{first + i, 0, kTile}, part, a, i);
        },
        PackedPanels<G>{right.packed}, [&](int64_t row, int64_t col, float* tile) { use(first + row, col, tile); });
  });
}

// The first rows and columns of a tile to a matrix in memory, or added to it.
inline void put_tile(const float* tile, int64_t rows, int64_t cols, bool adds, float* to, int64_t step) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; j += kWidth) {
      float* at = to + i * step + j;
      const Vec v = load(tile + i * kTile + j);
      store_part(at, adds ? load_part(at, cols - j) + v : v, cols - j);
    }
  }
}

// The same for few rows and columns and a long k, as for the gradients of weights: use(row, col, is_first, tile) is
// called for one part of k after another, and adds up.
template <class G, class Use>
void long_product(const typename G::A& a, const typename G::B& b, int64_t m, int64_t n, int64_t k, Use&& use) {
  constexpr int64_t kPart = 2 * kDepth, kMost = 4;
  const int64_t row_tiles = ceil_div(m, kTile), col_tiles = ceil_div(n, kTile), end = round_up(k, kTile);
  const int64_t row_cuts = ceil_div(row_tiles, kMost), least_cuts = ceil_div(3 * pool_threads(), row_cuts);
  const int64_t col_cuts = max(ceil_div(col_tiles, kMost), min(col_tiles, least_cuts));
  // In the order of columns: those that a thread has made in the product before are its own here too.
  parallel(row_cuts * col_cuts, [&](int64_t task) {
    const Range rows = part_of(row_tiles, task % row_cuts, row_cuts);
    const Range cols = part_of(col_tiles, task / row_cuts, col_cuts);
    G::begin();
    alignas(64) float tile[kTile * kTile];
    for (int64_t part = 0; part < end; part += kPart) {
      const int64_t part_end = min(part + kPart, end);
      for (int64_t col = cols.begin; col < cols.end; ++col) {
        Ahead ahead{};
        if (col + 1 < cols.end) ahead = G::ahead(b, col + 1, {part, min(part_end, k)});
        const int64_t share = ceil_div(ahead.lines(), rows.count());
        for (int64_t row = rows.begin; row < rows.end; ++row) {
          const bool turns = row + 1 == rows.end;
          const int64_t next_row = turns ? rows.begin : row + 1, next_col = turns ? col + 1 : col;
          const Product at{row, col, part, part_end, 0, next_row, next_col, &ahead, share};
          G::multiply(a, b, at, false, tile);
          use(row, col, part == 0, tile);
        }
      }
    }
  });
}

}  // namespace MINDCV_ISA
}  // namespace mindcv
