// Products C = A B of packed matrices, spread over the thread pool.
//
// The loops are those of BLIS: macro tiles of C, KC values of k at a time, and inside them tiles of kTile x kTile that
// an arithmetic computes (G: fma.h or amx.h). A product hands each finished tile of C to its epilogue, which adds the
// bias, applies GELU and so on, while the tile is in the cache.
#pragma once
#include "gemm/tiles.h"
#include "runtime/parallel.h"
#include "runtime/thread_pool.h"
#include "simd/simd.h"

namespace mindcv {
namespace MINDCV_ISA {

// With fewer rows than this, packing B takes about as long as the product. Each panel is then packed where it is used,
// and it never leaves the cache. See decision 0022.
constexpr int64_t kFewRows = 256;

// The number of row tiles in a macro tile where B has at most kSmallB values. Reading such a B from memory more often
// costs less than the cache that larger macro tiles would take from the maps A and C.
constexpr int64_t kSmallBMCTiles = 4, kSmallB = 384 * 1536;

// The right-hand matrix of a product before it is packed: B [k, n] is w [k][n], or the transposed w [n][k].
struct MatrixB {
  const float* w;
  int64_t k, n;
  bool is_transposed;

  int64_t stride() const { return is_transposed ? k : n; }
  const float* at(int64_t row, int64_t col) const { return is_transposed ? w + col * k + row : w + row * n + col; }
};

// Packs the rows `part` of B's panel `col` into the panel `to` of `b`. A panel is kTile columns; `part` begins with a
// whole tile.
template <class G>
void pack_b_panel(const MatrixB& weight, int64_t col, Range part, typename G::B& b, int64_t to) {
  const int64_t stride = weight.stride(), cols = min(kTile, weight.n - col * kTile);
  for (int64_t k = part.begin; k < part.end; k += kTile) {
    const int64_t depth = min(kTile, weight.k - k);
    const int64_t have_rows = weight.is_transposed ? cols : depth, have_cols = weight.is_transposed ? depth : cols;
    const float* tile = weight.at(k, col * kTile);
    const float* next = k + kTile < part.end ? weight.at(k + kTile, col * kTile) : tile;
    if (weight.is_transposed) {
      G::pack_b_transposed(b, to, k / kTile, tile, stride, have_rows, have_cols, next);
    } else {
      G::pack_b(b, k / kTile, to, tile, stride, have_rows, have_cols, next);
    }
  }
}

template <class G>
void pack_matrix_b(const MatrixB& weight, typename G::B& b) {
  G::clear(b);
  parallel(ceil_div(weight.n, kTile), [&](int64_t col) { pack_b_panel<G>(weight, col, {0, weight.k}, b, col); });
}

template <class G>
typename G::B packed_matrix_b(Session& memory, const MatrixB& weight) {
  typename G::B b = G::allocate_b(memory, weight.k, weight.n);
  pack_matrix_b<G>(weight, b);
  return b;
}

// A panel of a packed B.
template <class G>
struct PanelRef {
  const typename G::B* b;
  int64_t panel;
};

// Gives a product the panels of a B that was packed as a whole.
template <class G>
struct PackedPanels {
  const typename G::B& b;
  PanelRef<G> get(int64_t col, Range) const { return {&b, col}; }
  Prefetch prefetch(int64_t col, Range part) const { return G::prefetch(b, col, part); }
};

// Packs the panels of B one at a time, when the product needs them.
template <class G>
struct PanelsOnDemand {
  const MatrixB& weight;
  typename G::B panel;  // [k, kTile]

  PanelRef<G> get(int64_t col, Range part) {
    G::clear(panel);
    pack_b_panel<G>(weight, col, part, panel, 0);
    return {&panel, 0};
  }
  Prefetch prefetch(int64_t col, Range part) const {
    const int64_t cols = min(kTile, weight.n - col * kTile), depth = part.count();
    const float* first = weight.at(part.begin, col * kTile);
    return {first, weight.is_transposed ? cols : depth, weight.is_transposed ? depth : cols, weight.stride()};
  }
};

// The right-hand matrix of a product. It has no packed form (is_packed is false) where A has few rows.
template <class G>
struct OperandB {
  MatrixB weight;
  typename G::B packed;
  bool is_packed;
};

// Packs B for a product with `rows` rows of A; for few rows, the product packs the panels itself.
template <class G>
OperandB<G> operand_b(Session& memory, const MatrixB& weight, int64_t rows) {
  if (rows <= kFewRows) return {weight, {}, false};
  return {weight, packed_matrix_b<G>(memory, weight), true};
}

// The rows [begin, end) of a row tile of a matrix, counted from the tile's first row.
struct Rows {
  int64_t tile, begin, end;
};

// The part with number `part` of `count` things that are split into `parts` parts of nearly equal size.
inline Range split(int64_t count, int64_t part, int64_t parts) {
  return {count * part / parts, count * (part + 1) / parts};
}

// The tiles of C that one task computes together, KC (`depth`) values of k at a time.
template <class G>
struct MacroTile {
  const typename G::A* a;
  bool a_holds_part;  // `a` holds only the values of k that are being multiplied, instead of all of k
  int64_t k, depth;
  Range rows, cols;
  float* sums;  // macro_tile_sums() floats, which accumulate the tiles while k is multiplied in parts
};

inline int64_t macro_tile_sums(int64_t k, int64_t depth, int64_t rows, int64_t cols) {
  return round_up(k, kTile) > depth ? rows * cols * kTile * kTile : 0;
}

// Computes a macro tile: one part of k after the other, and inside a part column by column. Calls epilogue(row, col,
// tile) for each finished tile in that order; the tile is a float [kTile][kTile] that the epilogue may write. Calls
// make(part) before it multiplies a part of k. While the rows are multiplied with one panel of B, the data of the next
// panel is prefetched, a share with each row. See decisions 0022 and 0025.
template <class G, class Make, class Panels, class Epilogue>
void multiply_macro_tile(const MacroTile<G>& macro_tile, Make&& make, Panels&& panels, Epilogue&& epilogue) {
  // Stores of tile registers are slow, so the epilogue of a tile runs only after the next tile is computed.
  constexpr int kRing = G::kStoresLate ? 2 : 1;
  alignas(64) float ring[kRing][kTile * kTile];
  float* last = nullptr;
  int64_t count = 0, last_row = 0, last_col = 0;
  const int64_t end = round_up(macro_tile.k, kTile);
  for (int64_t k0 = 0; k0 < end; k0 += macro_tile.depth) {
    const int64_t k1 = min(end, k0 + macro_tile.depth);
    const Range part{k0, min(k1, macro_tile.k)};
    make(part);
    G::begin();
    const int64_t first_row = macro_tile.rows.begin * kTile;
    const int64_t height = min(macro_tile.rows.end * kTile, G::rows(*macro_tile.a)) - first_row;
    for (int64_t col = macro_tile.cols.begin; col < macro_tile.cols.end; ++col) {
      const PanelRef<G> place = panels.get(col, part);
      Prefetch prefetch{};
      if (col + 1 < macro_tile.cols.end) {
        prefetch = panels.prefetch(col + 1, part);
      } else if (k1 < end) {
        prefetch = panels.prefetch(macro_tile.cols.begin, {k1, min(macro_tile.k, k1 + macro_tile.depth)});
      }
      const int64_t lines = prefetch.lines();
      for (int64_t row = macro_tile.rows.begin; row < macro_tile.rows.end; ++row, ++count) {
        const int64_t index = (col - macro_tile.cols.begin) * macro_tile.rows.count() + row - macro_tile.rows.begin;
        float* tile = end > macro_tile.depth ? macro_tile.sums + index * kTile * kTile : ring[count % kRing];
        const bool is_last_row = row + 1 == macro_tile.rows.end;
        const int64_t next_row = is_last_row ? macro_tile.rows.begin : row + 1,
                      next_panel = is_last_row ? place.panel + 1 : place.panel;
        const int64_t share = ceil_div(lines * min(kTile, first_row + height - row * kTile), height);
        const TileProduct at{row,      place.panel, k0,        k1,   macro_tile.a_holds_part ? k0 : 0,
                             next_row, next_panel,  &prefetch, share};
        G::multiply(*macro_tile.a, *place.b, at, k0 > 0, tile);
        if (!G::kStoresLate) {
          if (k1 == end) epilogue(row, col, tile);
          continue;
        }
        if (last != nullptr) epilogue(last_row, last_col, last);
        last = k1 < end ? nullptr : tile;
        last_row = row;
        last_col = col;
      }
    }
  }
  if (last != nullptr) epilogue(last_row, last_col, last);
}

// The tasks of a product: the rows of C are split into `rows` parts and the columns into `cols` parts.
struct TaskGrid {
  int64_t rows, cols;
};

// The number of rows in the largest part, where the tiles of `count` rows are split into `parts` parts. Where some
// parts have one tile more than others, the last part is one of them, and its last tile may hold few rows.
inline int64_t max_rows_of_a_task(int64_t count, int64_t parts) {
  if (parts == 1) return count;
  const int64_t tiles = ceil_div(count, kTile), height = ceil_div(tiles, parts);
  return max((tiles % parts == 1 ? height - 1 : height) * kTile, count - (tiles - height) * kTile);
}

// Gives each thread one task. Of all such splits it takes the one in which the busiest thread has the least work; of
// equal ones, the one in which a task reads the fewest rows and columns. See decision 0023.
inline TaskGrid grid_for_threads(int64_t m, int64_t n) {
  const int64_t threads = pool_threads(), row_tiles = ceil_div(m, kTile), col_tiles = ceil_div(n, kTile);
  TaskGrid best{1, 1};
  int64_t min_work = m * n, min_fetched = m + n;
  for (int64_t rows = 1; rows <= min(row_tiles, threads); ++rows) {
    const int64_t cols = min(col_tiles, ceil_div(threads, rows)), tasks = rows * cols;
    const int64_t height = max_rows_of_a_task(m, rows), width = max_rows_of_a_task(n, cols);
    const int64_t work = ceil_div(tasks, threads) * height * width, fetched = height + width;
    if (work > min_work || (work == min_work && fetched >= min_fetched)) continue;
    best = {rows, cols};
    min_work = work;
    min_fetched = fetched;
  }
  return best;
}

inline TaskGrid grid_for_product(int64_t m, const MatrixB& weight, bool is_packed) {
  const int64_t threads = pool_threads(), row_tiles = ceil_div(m, kTile), col_tiles = ceil_div(weight.n, kTile);
  if (!is_packed) return {1, min(col_tiles, threads)};
  if (row_tiles <= kMCTiles) return grid_for_threads(m, weight.n);
  const int64_t rows = ceil_div(row_tiles, weight.k * weight.n <= kSmallB ? kSmallBMCTiles : kMCTiles);
  return {rows, min(col_tiles, ceil_div(2 * threads, rows))};
}

// Calls epilogue(row, col, tile) for every tile of A [m, k] times B; row and col count tiles. The tasks depend on the
// number of threads, and the way in which a tile is computed does not, so the bits do not depend on it either. See
// decision 0030.
template <class G, class Epilogue>
void multiply(const typename G::A& a, const OperandB<G>& right, int64_t m, Epilogue&& epilogue) {
  const int64_t k = right.weight.k, row_tiles = ceil_div(m, kTile), col_tiles = ceil_div(right.weight.n, kTile);
  const TaskGrid cuts = grid_for_product(m, right.weight, right.is_packed);
  const auto nothing = [](Range) {};
  parallel(cuts.rows * cuts.cols, [&](int64_t task) {
    const Range rows = split(row_tiles, task / cuts.cols, cuts.rows);
    const Range cols = split(col_tiles, task % cuts.cols, cuts.cols);
    const size_t sum_bytes = static_cast<size_t>(macro_tile_sums(k, kKC, rows.count(), cols.count())) * 4;
    const size_t panel_bytes = right.is_packed ? 0 : G::b_bytes(k, kTile);
    char* scratch = static_cast<char*>(thread_scratch(sum_bytes + panel_bytes, 1));
    const MacroTile<G> macro_tile{&a, false, k, kKC, rows, cols, reinterpret_cast<float*>(scratch)};
    if (right.is_packed) {
      multiply_macro_tile<G>(macro_tile, nothing, PackedPanels<G>{right.packed}, epilogue);
    } else {
      multiply_macro_tile<G>(macro_tile, nothing,
                             PanelsOnDemand<G>{right.weight, G::b_in_memory(scratch + sum_bytes, k, kTile)}, epilogue);
    }
  });
}

// Number of tasks that `m` rows are split into when each task packs its own rows of A, at most `max_tiles` tiles each.
// Of the allowed numbers it gives the one with which the busiest thread has the least work. It gives 0 where a task
// would have too few rows to pay for reading all of B. See decision 0023.
inline int64_t num_row_tasks(int64_t m, int64_t max_tiles = kMCTiles) {
  constexpr int64_t kFetchRows = 8;  // reading all of B takes a task as long as computing this many rows
  const int64_t tiles = ceil_div(m, kTile), threads = pool_threads(), fewest = max_tiles / 2;
  if (tiles < fewest * threads) return 0;
  int64_t best = 0, min_work = 0;
  // A last tile of few rows may come on top of the largest number of tiles.
  const int64_t first = max(1, ceil_div(tiles - 1, max_tiles));
  for (int64_t tasks = first; tasks <= min(tiles / fewest, first + 2 * threads); ++tasks) {
    const auto row_of = [&](int64_t task) { return min(m, split(tiles, task, tasks).begin * kTile); };
    int64_t work = 0;
    for (int64_t i = 0; i < threads; ++i) {
      const Range share = split(tasks, i, threads);
      work = max(work, row_of(share.end) - row_of(share.begin) + share.count() * kFetchRows);
    }
    if (max_rows_of_a_task(m, tasks) > max_tiles * kTile + kTile / 2 || (best > 0 && work >= min_work)) continue;
    best = tasks;
    min_work = work;
  }
  return best;
}

// Multiplies an A that fill(rows, part, a, place) packs: `rows` and of them the columns `part`, into the row tile
// `place` of `a`, whose columns then begin at 0. Where there are enough rows, each task packs its own rows part by
// part, and they never leave its cache. See decision 0022.
template <class G, class Fill, class Epilogue>
void multiply_packing_a(Session& memory, int64_t m, const OperandB<G>& right, int64_t depth, Fill&& fill,
                        Epilogue&& epilogue) {
  const int64_t k = right.weight.k, tiles = ceil_div(m, kTile), tasks = right.is_packed ? num_row_tasks(m) : 0;
  if (tasks == 0) {
    constexpr int64_t kRows = 8, kParts = kTile / kRows;
    typename G::A a = G::allocate_a(memory, m, k);
    parallel(tiles * kParts, [&](int64_t task) {
      const int64_t row = task / kParts, begin = task % kParts * kRows;
      fill(Rows{row, begin, begin + kRows}, Range{0, k}, a, row);
    });
    multiply<G>(a, right, m, epilogue);
    return;
  }
  parallel(tasks, [&](int64_t task) {
    const Range own = split(tiles, task, tasks);
    const int64_t first = own.begin, count = own.count();
    const int64_t rows = min(count * kTile, m - first * kTile), cols = ceil_div(right.weight.n, kTile);
    const size_t a_bytes = static_cast<size_t>(round_up(static_cast<int64_t>(G::a_bytes(rows, min(k, depth))), 64));
    const size_t sum_bytes = static_cast<size_t>(macro_tile_sums(k, depth, count, cols)) * 4;
    char* scratch = static_cast<char*>(thread_scratch(a_bytes + sum_bytes, 1));
    typename G::A a{};
    multiply_macro_tile<G>(
        {&a, true, k, depth, {0, count}, {0, cols}, reinterpret_cast<float*>(scratch + a_bytes)},
        [&](Range part) {
          a = G::a_in_memory(scratch, rows, part.count());
          for (int64_t i = 0; i < count; ++i) fill(Rows{first + i, 0, kTile}, part, a, i);
        },
        PackedPanels<G>{right.packed},
        [&](int64_t row, int64_t col, float* tile) { epilogue(first + row, col, tile); });
  });
}

// Writes the first rows and columns of a tile to a row-major matrix, or adds them to it.
inline void store_tile(const float* tile, int64_t rows, int64_t cols, bool accumulates, float* to, int64_t stride) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < cols; j += kWidth) {
      float* at = to + i * stride + j;
      const Vec v = load(tile + i * kTile + j);
      store_part(at, accumulates ? load_part(at, cols - j) + v : v, cols - j);
    }
  }
}

// Multiplies matrices of few rows and columns and a long k, as the gradients of weights are. Calls epilogue(row, col,
// is_first, tile) for one part of k after another; the epilogue accumulates them.
template <class G, class Epilogue>
void multiply_long_k(const typename G::A& a, const typename G::B& b, int64_t m, int64_t n, int64_t k,
                     Epilogue&& epilogue) {
  constexpr int64_t kPart = 2 * kKC, kMaxTiles = 4;
  const int64_t row_tiles = ceil_div(m, kTile), col_tiles = ceil_div(n, kTile), end = round_up(k, kTile);
  const int64_t row_cuts = ceil_div(row_tiles, kMaxTiles), min_cuts = ceil_div(3 * pool_threads(), row_cuts);
  const int64_t col_cuts = max(ceil_div(col_tiles, kMaxTiles), min(col_tiles, min_cuts));
  // In the order of the columns, so that a thread finds the columns that it wrote in the product before in its cache.
  parallel(row_cuts * col_cuts, [&](int64_t task) {
    const Range rows = split(row_tiles, task % row_cuts, row_cuts);
    const Range cols = split(col_tiles, task / row_cuts, col_cuts);
    G::begin();
    alignas(64) float tile[kTile * kTile];
    for (int64_t part = 0; part < end; part += kPart) {
      const int64_t part_end = min(part + kPart, end);
      for (int64_t col = cols.begin; col < cols.end; ++col) {
        Prefetch prefetch{};
        if (col + 1 < cols.end) prefetch = G::prefetch(b, col + 1, {part, min(part_end, k)});
        const int64_t share = ceil_div(prefetch.lines(), rows.count());
        for (int64_t row = rows.begin; row < rows.end; ++row) {
          const bool is_last_row = row + 1 == rows.end;
          const int64_t next_row = is_last_row ? rows.begin : row + 1, next_col = is_last_row ? col + 1 : col;
          const TileProduct at{row, col, part, part_end, 0, next_row, next_col, &prefetch, share};
          G::multiply(a, b, at, false, tile);
          epilogue(row, col, part == 0, tile);
        }
      }
    }
  });
}

}  // namespace MINDCV_ISA
}  // namespace mindcv
