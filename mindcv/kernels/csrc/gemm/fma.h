// Matrix products in vector registers, for processors without a tile multiplier. See decisions 0021 and 0092.
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
static_assert(kTile % kMR == 0 && kTile % kNR == 0 && kTile % 16 == 0);

// How the factors of products are packed and multiplied. A word of B holds kDepth values that follow each other along
// k. A row of A has kRun values of k side by side.
struct Float32Factors {
  using Value = float;
  static constexpr int kDepth = 1, kRun = 16;

  // Stores kWidth values of a row of A.
  MINDCV_INLINE static void store_values(Value* to, Vec v) { store(to, v); }
  // Stores words of kWidth columns of B, where row[d] holds the value d of each word.
  MINDCV_INLINE static void store_words(Value* to, const Vec (&row)[kDepth]) { store(to, row[0]); }
  // Adds the products of the word at `a` with the words `b`.
  MINDCV_INLINE static Vec multiply_add(Vec sums, const Value* a, Vec b) { return sums + splat(*a) * b; }
};

// Values that are rounded to bfloat16 and multiplied as float32, where the processor cannot multiply bfloat16.
struct RoundedFactors : Float32Factors {
  MINDCV_INLINE static void store_values(Value* to, Vec v) { store(to, round_to_bf16(v)); }
  MINDCV_INLINE static void store_words(Value* to, const Vec (&row)[kDepth]) { store(to, round_to_bf16(row[0])); }
};

// Multiplies MR rows of A and NR columns of B over k values. The result goes to out [MR][NR], which is part of a tile,
// or is added to it. GCC 12 keeps sums in memory where this function is inlined or a loop over them is not unrolled.
template <class Factors>
__attribute__((noinline)) void micro_kernel(const typename Factors::Value* a, const typename Factors::Value* b,
                                            int64_t k, bool accumulates, float* out) {
  constexpr int kDepth = Factors::kDepth, kRun = Factors::kRun, kWords = kRun / kDepth;
  Vec acc[kMR][kNRVecs] = {};
  if (accumulates) {
#pragma GCC unroll 8
    for (int m = 0; m < kMR; ++m) {
      for (int v = 0; v < kNRVecs; ++v) acc[m][v] = load(out + m * kTile + v * kWidth);
    }
  }
  const auto step = [&](int64_t p) __attribute__((always_inline)) {
    Vec right[kNRVecs];
    for (int v = 0; v < kNRVecs; ++v) memcpy(&right[v], b + (p * kNR + v * kWidth) * kDepth, sizeof(Vec));
    for (int m = 0; m < kMR; ++m) {
      for (int v = 0; v < kNRVecs; ++v) {
        acc[m][v] = Factors::multiply_add(acc[m][v], a + m * kRun + p * kDepth, right[v]);
      }
    }
  };
  int64_t words = ceil_div(k, kDepth);
  for (; words >= kWords; words -= kWords, a += kMR * kRun, b += kRun * kNR) {
#pragma GCC unroll 4
    for (int64_t p = 0; p < kWords; ++p) step(p);
  }
  for (int64_t p = 0; p < words; ++p) step(p);
#pragma GCC unroll 8
  for (int m = 0; m < kMR; ++m) {
    for (int v = 0; v < kNRVecs; ++v) store(out + m * kTile + v * kWidth, acc[m][v]);
  }
}

#if MINDCV_HAS_BF16_PAIRS
// Pairs of bfloat16: one instruction adds both products. See decision 0092.
struct PairedFactors {
  using Value = Bf16;
  static constexpr int kDepth = 2, kRun = 16;

  MINDCV_INLINE static void store_values(Value* to, Vec v) { store(to, v); }
  MINDCV_INLINE static void store_words(Value* to, const Vec (&row)[kDepth]) { store_pairs(to, row[0], row[1]); }
  MINDCV_INLINE static Vec multiply_add(Vec sums, const Value* a, Vec b) { return add_pair_products(sums, a, b); }
};
#endif

#if MINDCV_HAS_BF16_BLOCKS
// Blocks of bfloat16: one instruction multiplies four values of k of two rows and two columns. See decision 0092.
struct BlockFactors {
  using Value = Bf16;
  static constexpr int kDepth = 4, kRun = 4;

  MINDCV_INLINE static void store_values(Value* to, Vec v) { store(to, v); }
  MINDCV_INLINE static void store_words(Value* to, const Vec (&row)[kDepth]) {
    Vec columns[kWidth];
    for (int d = 0; d < kDepth; ++d) columns[d] = row[d];
    transpose(columns);
    for (int i = 0; i < kWidth; ++i) store(to + i * kDepth, columns[i]);
  }
};

template <>
__attribute__((noinline)) inline void micro_kernel<BlockFactors>(const Bf16* a, const Bf16* b, int64_t k,
                                                                 bool accumulates, float* out) {
  constexpr int kDepth = BlockFactors::kDepth;
  static_assert(kMR % 2 == 0 && kWidth == kDepth);
  Vec acc[kMR / 2][2 * kNRVecs] = {};  // of two rows and two columns
  const auto for_each_pair = [&](auto&& body) __attribute__((always_inline)) {
    for (int m = 0; m < kMR / 2; ++m) {
      for (int v = 0; v < kNRVecs; ++v) {
        body(out + 2 * m * kTile + v * kWidth, acc[m][2 * v], acc[m][2 * v + 1]);
      }
    }
  };
  if (accumulates) {
    for_each_pair([](const float* from, Vec& left, Vec& right) __attribute__((always_inline)) {
      left = load(from);
      right = load(from + kTile);
      exchange_halves(left, right);
    });
  }
  for (; k > 0; k -= kDepth, a += kMR * kDepth, b += kNR * kDepth) {
    Block rows[kMR / 2];
    for (int m = 0; m < kMR / 2; ++m) rows[m] = load_block(a + 2 * m * kDepth);
    for (int n = 0; n < 2 * kNRVecs; ++n) {
      const Block columns = load_block(b + 2 * n * kDepth);
      for (int m = 0; m < kMR / 2; ++m) acc[m][n] = add_block_products(acc[m][n], rows[m], columns);
    }
  }
  for_each_pair([](float* to, Vec left, Vec right) __attribute__((always_inline)) {
    exchange_halves(left, right);
    store(to, left);
    store(to + kTile, right);
  });
}
#endif

// A packed A [m, k]: panels of MR rows, each [k / kRun][MR][kRun].
template <class Value, int kRun>
struct FmaA {
  Value* data;
  int64_t m, k;
  Value* at(int64_t row, int64_t col) const {
    const int64_t in_panel = row % kMR, in_run = col % kRun;
    return data + (row - in_panel) * round_up(k, kTile) + (col - in_run) * kMR + in_panel * kRun + in_run;
  }
};

// A packed B [k, n]: panels of NR columns, each [k / kDepth][NR][kDepth].
template <class Value, int kDepth>
struct FmaB {
  Value* data;
  int64_t k, n;
  // `row` is a multiple of kDepth.
  Value* at(int64_t row, int64_t col) const {
    const int64_t in_panel = col % kNR;
    return data + (col - in_panel) * round_up(k, kTile) + row * kNR + in_panel * kDepth;
  }
};

template <class Factors>
struct Fma {
  static constexpr bool kStoresLate = false;
  static constexpr int kDepth = Factors::kDepth, kRun = Factors::kRun;
  using Value = typename Factors::Value;
  using A = FmaA<Value, kRun>;
  using B = FmaB<Value, kDepth>;
  // A value of a map between two products of an operator: as exact as the factor that it becomes.
  using Kept = Value;

  static A allocate_a(Session& memory, int64_t m, int64_t k) { return a_in_memory(memory.bytes(a_bytes(m, k)), m, k); }
  // Memory for an A that is packed from its transposed form, [k, m].
  static A allocate_a_transposed(Session& memory, int64_t m, int64_t k) { return allocate_a(memory, m, k); }
  static B allocate_b(Session& memory, int64_t k, int64_t n) { return b_in_memory(memory.bytes(b_bytes(k, n)), k, n); }

  // The size of a packed A or B, and a packed A or B in memory that the caller has.
  static size_t a_bytes(int64_t m, int64_t k) { return b_bytes(k, m); }
  static A a_in_memory(void* memory, int64_t m, int64_t k) { return {static_cast<Value*>(memory), m, k}; }
  static size_t b_bytes(int64_t k, int64_t n) {
    return static_cast<size_t>(round_up(k, kTile) * round_up(n, kTile)) * sizeof(Value);
  }
  static B b_in_memory(void* memory, int64_t k, int64_t n) { return {static_cast<Value*>(memory), k, n}; }
  // A weight that PackWeight or PackPatch packed; products only read it.
  static B packed_b(const float* weight, int64_t k, int64_t n) { return b_in_memory(const_cast<float*>(weight), k, n); }
  static void clear(B&) {}
  static int64_t rows(const A& a) { return a.m; }
  // What to prefetch for the column tile `col` of B over a part of k.
  static Prefetch prefetch(const B& b, int64_t col, Range part) {
    const int64_t panels = ceil_div(min(kTile, b.n - col * kTile), kNR);
    const auto* words = reinterpret_cast<const float*>(b.at(part.begin, col * kTile));
    constexpr int64_t kValues = 4 / sizeof(Value);  // in a float
    return {words, panels, ceil_div(part.count() * kNR, kValues), kNR * round_up(b.k, kTile) / kValues};
  }

  // These functions pack the tile (row, col) of a row-major matrix, counted in tiles. `tile` is its first value, and
  // `rows` x `cols` values of it exist; the rest of a panel becomes 0. pack_a can pack the rows [begin, end) of the
  // tile alone. pack_b prefetches the tile that comes `next` (or this one again): its rows lie too far apart for the
  // processor to guess.
  static void pack_a(A& a, int64_t row, int64_t col, const float* tile, int64_t stride, int64_t rows, int64_t cols,
                     int64_t begin = 0, int64_t end = kTile) {
    for (int64_t i = begin; i < min(end, round_up(rows, kMR)); ++i) {
      Value* to = a.at(row * kTile + i, col * kTile);
      for (int64_t j = 0; j < cols; j += kRun, to += kMR * kRun) {
        for (int64_t v = 0; v < kRun; v += kWidth) {
          Factors::store_values(to + v, load_existing(tile + i * stride + j + v, i < rows ? cols - j - v : 0));
        }
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
          Factors::store_values(a.at(col * kTile + j + k, row * kTile + i), square[k]);
        }
      }
    }
  }
  static void pack_b(B& b, int64_t row, int64_t col, const float* tile, int64_t stride, int64_t rows, int64_t cols,
                     const float* next) {
    for (int64_t i = 0; i < rows; i += kDepth) {
      for (int d = 0; d < kDepth; ++d) prefetch_row(next + (i + d) * stride);
      Value* to = b.at(row * kTile + i, col * kTile);
      for (int64_t j = 0; j < cols; j += kNR, to += kNR * round_up(b.k, kTile)) {
        for (int64_t v = 0; v < kNR; v += kWidth) {
          Vec words[kDepth];
          for (int d = 0; d < kDepth; ++d) {
            words[d] = load_existing(tile + (i + d) * stride + j + v, i + d < rows ? cols - j - v : 0);
          }
          Factors::store_words(to + v * kDepth, words);
        }
      }
    }
  }
  static void pack_b_transposed(B& b, int64_t row, int64_t col, const float* tile, int64_t stride, int64_t rows,
                                int64_t cols, const float* next) {
    for (int64_t i = 0; i < rows; ++i) prefetch_row(next + i * stride);
    for (int64_t i = 0; i < round_up(rows, kNR); i += kWidth) {
      Value* to = b.at(col * kTile, row * kTile + i);
      for (int64_t j = 0; j < cols; j += kWidth) {
        Vec square[kWidth];
        load_transposed(tile + i * stride + j, stride, rows - i, cols - j, square);
        for (int k = 0; k < kWidth && j + k < cols; k += kDepth) {
          Vec words[kDepth];
          for (int d = 0; d < kDepth; ++d) words[d] = square[k + d];
          Factors::store_words(to + (j + k) * kNR, words);
        }
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
      const Value* panel = b.at(at.k0, at.col * kTile + n);
      for (int64_t m = 0; m < rows; m += kMR) {
        prefetch.advance(lines);
        micro_kernel<Factors>(a.at(at.row * kTile + m, at.k0 - at.a_k0), panel, end - at.k0, accumulates,
                              out + m * kTile + n);
      }
    }
    *at.prefetch = prefetch;
  }

 private:
  // Loads kWidth values, of which `count` exist; the others become 0.
  MINDCV_INLINE static Vec load_existing(const float* p, int64_t count) {
    return count > 0 ? load_part(p, count) : Vec{};
  }
};

}  // namespace MINDCV_ISA
}  // namespace mindcv
