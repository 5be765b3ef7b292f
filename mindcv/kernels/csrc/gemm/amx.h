// Matrix products of float32 on the bfloat16 tile multiplier (AMX). See decision 0020.
//
// A float32 has 24 significant bits and a bfloat16 has 8, so x = x1 + x2 + x3 exactly, where each part is the bfloat16
// nearest to the rest. Of the nine products of two such sums, six are kept: x1y1 + x1y2 + x2y1 + x2y2 + x1y3 + x3y1.
// Each is exact and is accumulated in float32. The other three are below 2^-26 of |xy|, a quarter of float32's own
// rounding. The multiplier does 16 times the operations of the vector units, so that six products are still 2.7 times
// as fast.
//
// This does not work for infinities, NaN and values that round to a bfloat16 infinity. They are rare: 32 rows or
// columns that hold such a special value are flagged, and plain loops multiply them.
#pragma once
#include "gemm/tiles.h"

namespace mindcv {
namespace MINDCV_ISA {

constexpr int64_t kTileWords = 16 * 16;  // 32-bit words in a tile register: 16 rows of 16 pairs of bfloat16

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// A packed A or B. Each strip of 32 rows of A (or columns of B) has, for each 32 values of k and for each part of the
// split, two register tiles: in A [16 rows][16 pairs of k] each, in B [16 pairs of k][16 columns] each.
template <int kParts>
struct AmxMatrix {
  static constexpr int64_t kStep = kParts * 2 * kTileWords;

  int* flags;  // for each strip and each KC values of k, whether they hold a special value
  uint32_t* data;
  int64_t steps;  // of 32 along k
  int64_t count;  // of rows or columns

  // Whether the second half of a strip lies beyond the matrix.
  bool is_half(int64_t strip) const { return count - strip * kTile <= kTile / 2; }

  int* flag(int64_t strip, int64_t step) const {
    return flags + strip * ceil_div(steps * kTile, kKC) + step * kTile / kKC;
  }

  uint32_t* at(int64_t strip, int64_t step) const { return data + (strip * steps + step) * kStep; }
};

// Products of float32 (three parts), or of values rounded to bfloat16 (one part).
template <int kParts>
struct Amx {
  static constexpr bool kStoresLate = true;
  using Matrix = AmxMatrix<kParts>;
  using A = Matrix;
  using B = Matrix;
  using Kept = float;  // of a map between two products of an operator
  static constexpr int64_t kStep = Matrix::kStep;

  static A allocate_a(Session& memory, int64_t m, int64_t k) { return a_in_memory(memory.bytes(a_bytes(m, k)), m, k); }
  static A allocate_a_transposed(Session& memory, int64_t m, int64_t k) { return allocate_a(memory, m, k); }
  static B allocate_b(Session& memory, int64_t k, int64_t n) { return allocate_a(memory, n, k); }

  // B in memory that the caller has: first the flags, in whole cache lines, then the register tiles.
  static size_t flag_bytes(int64_t k, int64_t n) {
    return static_cast<size_t>(round_up(ceil_div(n, kTile) * ceil_div(k, kKC) * 4, 64));
  }
  static size_t b_bytes(int64_t k, int64_t n) {
    const int64_t strips = ceil_div(n, kTile);
    return flag_bytes(k, n) + static_cast<size_t>(strips * ceil_div(k, kTile) * kStep) * 4;
  }
  static B b_in_memory(void* memory, int64_t k, int64_t n) {
    char* tiles = static_cast<char*>(memory) + flag_bytes(k, n);
    return {static_cast<int*>(memory), reinterpret_cast<uint32_t*>(tiles), ceil_div(k, kTile), n};
  }
  // The same for A: both layouts have the same size.
  static size_t a_bytes(int64_t m, int64_t k) { return b_bytes(k, m); }
  static A a_in_memory(void* memory, int64_t m, int64_t k) {
    A a = b_in_memory(memory, k, m);
    clear(a);
    return a;
  }
  // A weight that PackWeight or PackPatch packed; products only read it.
  static B packed_b(const float* weight, int64_t k, int64_t n) { return b_in_memory(const_cast<float*>(weight), k, n); }
  static void clear(B& b) { memset(b.flags, 0, flag_bytes(b.steps * kTile, b.count)); }
  static int64_t rows(const A& a) { return a.count; }
  // What to prefetch for the column tile `col` of B over a part of k.
  static Prefetch prefetch(const B& b, int64_t col, Range part) {
    const auto* words = reinterpret_cast<const float*>(b.at(col, part.begin / kTile));
    return {words, 1, ceil_div(part.count(), kTile) * kStep, 0};
  }

  static void pack_a(A& a, int64_t row, int64_t col, const float* tile, int64_t stride, int64_t rows, int64_t cols,
                     int64_t begin = 0, int64_t end = kTile) {
    pack_rows(a.flag(row, col), a.at(row, col), tile, stride, rows, cols, begin, end, tile);
  }
  static void pack_b(B& b, int64_t row, int64_t col, const float* tile, int64_t stride, int64_t rows, int64_t cols,
                     const float* next) {
    pack_pairs(b.flag(col, row), b.at(col, row), tile, stride, rows, cols, next);
  }
  static void pack_a_transposed(A& a, int64_t row, int64_t col, const float* tile, int64_t stride, int64_t rows,
                                int64_t cols) {
    pack_pairs(a.flag(col, row), a.at(col, row), tile, stride, rows, cols, tile);
    transpose_register_tiles(a.at(col, row));
  }
  static void pack_b_transposed(B& b, int64_t row, int64_t col, const float* tile, int64_t stride, int64_t rows,
                                int64_t cols, const float* next) {
    pack_rows(b.flag(row, col), b.at(row, col), tile, stride, rows, cols, 0, kTile, next);
    transpose_register_tiles(b.at(row, col));
  }

  // Packs the same tile as a tile of A and as a tile of B.
  static void pack_a_and_b(A& a, B& b, int64_t row, int64_t col, const float* tile, int64_t stride, int64_t rows,
                           int64_t cols) {
    uint32_t *to_a = a.at(row, col), *to_b = b.at(col, row);
    bool is_special = false;
    for (int64_t i = 0; i < kTile; i += 2) {
      const Row even = split_row(is_special, tile + i * stride, i < rows ? cols : 0);
      const Row odd = split_row(is_special, tile + (i + 1) * stride, i + 1 < rows ? cols : 0);
      store_row(to_a, i, even);
      store_row(to_a, i + 1, odd);
      store_pair(to_b, i / 2, even, odd);
    }
    mark(a.flag(row, col), is_special);
    mark(b.flag(col, row), is_special);
  }

  // Sets the shapes of the tile registers. They belong to the thread, and other libraries set them too (oneDNN does).
  static void begin() {
    static const TileConfig config;
    _tile_loadconfig(&config);
  }

  static void multiply(const A& a, const B& b, const TileProduct& at, bool accumulates, float* out) {
    if (__builtin_expect(is_special(a, b, at), 0)) {
      multiply_special(a, b, at, accumulates, out);
    } else {
      multiply_tiles(a, b, at, accumulates, out);
    }
  }

 private:
  static bool is_special(const A& a, const B& b, const TileProduct& at) {
    int found = 0;
    for (int64_t k = at.k0; k < at.k1; k += kKC) {
      found |= __atomic_load_n(a.flag(at.row, (k - at.a_k0) / kTile), __ATOMIC_RELAXED);
      found |= __atomic_load_n(b.flag(at.col, k / kTile), __ATOMIC_RELAXED);
    }
    return found != 0;
  }

  // Takes KC values of k at a time, so that the same values go through plain loops however k is split.
  __attribute__((noinline)) static void multiply_special(const A& a, const B& b, const TileProduct& at,
                                                         bool accumulates, float* out) {
    for (TileProduct part = at; part.k0 < at.k1; part.k0 = part.k1, accumulates = true) {
      part.k1 = min(at.k1, part.k0 + kKC);
      if (is_special(a, b, part)) {
        multiply_plainly(a.at(at.row, (part.k0 - at.a_k0) / kTile), b.at(at.col, part.k0 / kTile),
                         (part.k1 - part.k0) / kTile, accumulates, out);
      } else {
        multiply_tiles(a, b, part, accumulates, out);
      }
    }
  }

  static void multiply_tiles(const A& a, const B& b, const TileProduct& at, bool accumulates, float* out) {
    const bool has_right = !b.is_half(at.col);
    if (a.is_half(at.row)) {
      has_right ? multiply_quadrants<false, true>(a, b, at, accumulates, out)
                : multiply_quadrants<false, false>(a, b, at, accumulates, out);
    } else {
      has_right ? multiply_quadrants<true, true>(a, b, at, accumulates, out)
                : multiply_quadrants<true, false>(a, b, at, accumulates, out);
    }
  }

  // With or without the lower half of the rows, and with or without the right half of the columns.
  template <bool kLower, bool kRight>
  static void multiply_quadrants(const A& a, const B& b, const TileProduct& at, bool accumulates, float* out) {
    const int64_t a_step = (at.k0 - at.a_k0) / kTile;
    const uint32_t* pa = a.at(at.row, a_step);
    const uint32_t* pb = b.at(at.col, at.k0 / kTile);
    const int64_t steps = (at.k1 - at.k0) / kTile;
    const int64_t lines = ceil_div(at.lines, max(1, steps * kFetches));
    Prefetch prefetch = *at.prefetch;
    if (accumulates) {
      _tile_loadd(0, out, kTile * 4);
      if (kRight) _tile_loadd(1, out + 16, kTile * 4);
      if (kLower) _tile_loadd(2, out + 16 * kTile, kTile * 4);
      if (kLower && kRight) _tile_loadd(3, out + 16 * kTile + 16, kTile * 4);
    } else {
      _tile_zero(0);
      _tile_zero(1);
      _tile_zero(2);
      _tile_zero(3);
    }
    // A tile store that comes 2,000 cycles after the last one holds up the multiplier for 250 ns, which is as long as
    // two steps of three parts take. A store in between, from a register whose values are no longer needed, costs
    // nothing. See decision 0024.
    constexpr int64_t kStepsBetween = 6 / kParts;
    alignas(64) uint32_t unused[kTileWords / 16];
    for (int64_t s = 1; s <= steps; ++s) {
      const uint32_t* next_a = s < steps ? pa + kStep : a.at(at.next_row, a_step);
      const uint32_t* next_b = s < steps ? pb + kStep : b.at(at.next_col, at.k0 / kTile);
      step<kLower, kRight>(pa, pb, next_a, next_b, prefetch, lines);
      if (s % kStepsBetween == 0) _tile_stored(4, unused, 0);
      pa = next_a;
      pb = next_b;
    }
    *at.prefetch = prefetch;
    _tile_stored(0, out, kTile * 4);
    if (kRight) _tile_stored(1, out + 16, kTile * 4);
    if (kLower) _tile_stored(2, out + 16 * kTile, kTile * 4);
    if (kLower && kRight) _tile_stored(3, out + 16 * kTile + 16, kTile * 4);
  }

  static constexpr int kFetches = 2 * kParts;  // how often a step calls prefetch_operands
  template <bool kLower, bool kRight>
  MINDCV_INLINE static void step(const uint32_t* pa, const uint32_t* pb, const uint32_t* next_a, const uint32_t* next_b,
                                 Prefetch& prefetch, int64_t lines) {
    const auto dot = [&](int tile) __attribute__((always_inline)) {
      _tile_dpbf16ps(0, 4, 6);
      if (kRight) _tile_dpbf16ps(1, 4, 7);
      if (kLower) _tile_dpbf16ps(2, 5, 6);
      if (kLower && kRight) _tile_dpbf16ps(3, 5, 7);
      prefetch_operands(next_a, next_b, prefetch, lines, tile);
    };
    load_a<kLower>(pa, kParts - 1);
    load_b<kRight>(pb, 0);
    if constexpr (kParts == 1) {
      prefetch_operands(next_a, next_b, prefetch, lines, 1);
      dot(0);
    } else {
      // The small products come first. In this order each product finds one of its factors loaded.
      dot(0);
      load_a<kLower>(pa, 1);
      dot(1);
      load_b<kRight>(pb, 1);
      dot(2);
      load_a<kLower>(pa, 0);
      dot(3);
      load_b<kRight>(pb, 2);
      dot(4);
      load_b<kRight>(pb, 0);
      dot(5);
    }
  }
  template <bool kLower>
  MINDCV_INLINE static void load_a(const uint32_t* p, int part) {
    _tile_loadd(4, p + (part * 2 + 0) * kTileWords, 64);
    if (kLower) _tile_loadd(5, p + (part * 2 + 1) * kTileWords, 64);
  }
  template <bool kRight>
  MINDCV_INLINE static void load_b(const uint32_t* p, int part) {
    _tile_loadd(6, p + (part * 2 + 0) * kTileWords, 64);
    if (kRight) _tile_loadd(7, p + (part * 2 + 1) * kTileWords, 64);
  }
  // Prefetches one register tile of each operand of the next step into the first-level cache: tile loads come too late
  // for the processor's own prefetching. See decision 0025.
  MINDCV_INLINE static void prefetch_operands(const uint32_t* next_a, const uint32_t* next_b, Prefetch& prefetch,
                                              int64_t lines, int tile) {
    for (int64_t i = tile * kTileWords; i < (tile + 1) * kTileWords; i += 16) {
      __builtin_prefetch(next_a + i, 0, 3);
      __builtin_prefetch(next_b + i, 0, 3);
    }
    // This data comes from memory and goes to the second-level cache only: it would occupy the few line buffers of the
    // first-level cache for too long.
    prefetch.advance(lines);
  }
  // A row of a tile after the split: 32 bfloat16 in each part.
  struct Row {
    __m512i parts[kParts];
  };

  static __m512i rounded(__m512 left, __m512 right) { return (__m512i)_mm512_cvtne2ps_pbh(right, left); }
  static __m512 widened(__m256i halves) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  }

  MINDCV_INLINE static Row split_row(bool& is_special, const float* row, int64_t cols) {
    __m512 left = (__m512)load_some(row, cols), right = (__m512)load_some(row + 16, cols - 16);
    const __m512i exponent = _mm512_set1_epi16(0x7f80);
    Row split;
    split.parts[0] = rounded(left, right);
    const __m512i high = _mm512_and_si512(split.parts[0], exponent);
    if (__builtin_expect(_mm512_cmpeq_epi16_mask(high, exponent) != 0, 0)) {
      is_special = true;
      return kParts > 1 ? split_special(left, right) : split;
    }
    for (int p = 1; p < kParts; ++p) {
      left = _mm512_sub_ps(left, widened(_mm512_castsi512_si256(split.parts[p - 1])));
      right = _mm512_sub_ps(right, widened(_mm512_extracti64x4_epi64(split.parts[p - 1], 1)));
      split.parts[p] = rounded(left, right);
    }
    return split;
  }

  static void mark(int* flag, bool is_special) {
    if (is_special) __atomic_store_n(flag, 1, __ATOMIC_RELAXED);
  }

  // A finite value that would round to infinity is truncated instead. Infinities and NaN have no rest. See decision
  // 0020.
  __attribute__((noinline)) static Row split_special(__m512 left, __m512 right) {
    float x[32];
    uint16_t words[kParts][32];
    _mm512_storeu_ps(x, left);
    _mm512_storeu_ps(x + 16, right);
    for (int i = 0; i < 32; ++i) {
      for (int p = 0; p < kParts; ++p) {
        uint32_t bits, word;
        memcpy(&bits, &x[i], 4);
        const bool is_finite = (bits & 0x7f800000u) != 0x7f800000u;
        const float near = round_to_bf16(splat(x[i]))[0];
        memcpy(&word, &near, 4);
        if (!is_finite || (word & 0x7f800000u) == 0x7f800000u) word = bits & 0xffff0000u;
        if ((bits & 0x7fffffffu) > 0x7f800000u) word |= 0x00400000u;  // this bit keeps the value a NaN
        float part;
        memcpy(&part, &word, 4);
        words[p][i] = static_cast<uint16_t>(word >> 16);
        x[i] = is_finite ? x[i] - part : 0.0f;
      }
    }
    Row split;
    for (int p = 0; p < kParts; ++p) split.parts[p] = _mm512_loadu_si512(words[p]);
    return split;
  }

  static Vec load_some(const float* p, int64_t count) { return count > 0 ? load_part(p, count) : Vec{}; }

  // Packs register tiles whose rows are the rows of the source.
  static void pack_rows(int* flag, uint32_t* to, const float* tile, int64_t stride, int64_t rows, int64_t cols,
                        int64_t begin, int64_t end, const float* next) {
    bool is_special = false;
    for (int64_t i = begin; i < end; ++i) {
      prefetch_row(next + i * stride);
      store_row(to, i, split_row(is_special, tile + i * stride, i < rows ? cols : 0));
    }
    mark(flag, is_special);
  }
  MINDCV_INLINE static void store_row(uint32_t* to, int64_t i, const Row& row) {
    for (int p = 0; p < kParts; ++p) {
      _mm512_storeu_si512(to + (p * 2 + i / 16) * kTileWords + i % 16 * 16, row.parts[p]);
    }
  }

  // Packs register tiles whose 16 rows are pairs of rows of the source, and whose columns are its columns.
  static void pack_pairs(int* flag, uint32_t* to, const float* tile, int64_t stride, int64_t rows, int64_t cols,
                         const float* next) {
    bool is_special = false;
    for (int64_t i = 0; i < kTile; i += 2) {
      prefetch_row(next + i * stride);
      prefetch_row(next + (i + 1) * stride);
      const Row even = split_row(is_special, tile + i * stride, i < rows ? cols : 0);
      const Row odd = split_row(is_special, tile + (i + 1) * stride, i + 1 < rows ? cols : 0);
      store_pair(to, i / 2, even, odd);
    }
    mark(flag, is_special);
  }
  MINDCV_INLINE static void store_pair(uint32_t* to, int64_t i, const Row& even, const Row& odd) {
    const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i first = _mm512_or_si512(low, _mm512_slli_epi32(_mm512_add_epi32(low, _mm512_set1_epi32(32)), 16));
    const __m512i second = _mm512_add_epi16(first, _mm512_set1_epi16(16));
    for (int p = 0; p < kParts; ++p) {
      uint32_t* place = to + p * 2 * kTileWords + i * 16;
      _mm512_storeu_si512(place, _mm512_permutex2var_epi16(even.parts[p], first, odd.parts[p]));
      _mm512_storeu_si512(place + kTileWords, _mm512_permutex2var_epi16(even.parts[p], second, odd.parts[p]));
    }
  }

  static void transpose_register_tiles(uint32_t* tiles) {
    for (int i = 0; i < kParts * 2; ++i) {
      __m512i row[16];
      for (int j = 0; j < 16; ++j) row[j] = _mm512_loadu_si512(tiles + i * kTileWords + 16 * j);
      transpose(row);
      for (int j = 0; j < 16; ++j) _mm512_storeu_si512(tiles + i * kTileWords + 16 * j, row[j]);
    }
  }

  static float value(const uint32_t* part, int64_t index, int odd) {
    float total = 0.0f;
    for (int p = kParts - 1; p >= 0; --p) {
      const uint32_t pair = part[p * 2 * kTileWords + index];
      const uint32_t word = odd ? pair & 0xffff0000u : pair << 16;
      float x;
      memcpy(&x, &word, 4);
      total += x;
    }
    return total;
  }

  __attribute__((noinline)) static void multiply_plainly(const uint32_t* a, const uint32_t* b, int64_t steps,
                                                         bool accumulates, float* out) {
    for (int i = 0; i < kTile; ++i) {
      for (int j = 0; j < kTile; ++j) {
        float total = 0.0f;
        for (int64_t k = 0; k < steps * kTile; ++k) {
          const int64_t step = k / kTile * kStep;
          const int64_t pair = k % kTile / 2;
          const float x = value(a + step + i / 16 * kTileWords, i % 16 * 16 + pair, k % 2);
          const float y = value(b + step + j / 16 * kTileWords, pair * 16 + j % 16, k % 2);
          total += x * y;
        }
        out[i * kTile + j] = (accumulates ? out[i * kTile + j] : 0.0f) + total;
      }
    }
  }
};

}  // namespace MINDCV_ISA
}  // namespace mindcv
