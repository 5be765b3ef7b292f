// Matrix products of float32 from the bfloat16 tile multiplier (AMX).
//
// A float32 has 24 significant bits, a bfloat16 8: x = x1 + x2 + x3 exactly, each the bfloat16 nearest to what is left. Of the
// nine products of two such sums, six are kept, x1y1 + x1y2 + x2y1 + x2y2 + x1y3 + x3y1, each computed exactly and summed in
// float32; those left out are below 2^-26 of |xy|, a quarter of float32's own rounding. The multiplier does 16 times the
// operations of the vector units, so six products still leave it 2.7 times their speed.
//
// Values that this cannot do, infinities, NaN and those that round to a bfloat16 infinity, are rare: a matrix that holds one
// says so, and its products are taken by plain loops.
#pragma once
#include "gemm_fma.h"
#include "pool.h"
#include "simd.h"

namespace mindcv {
namespace MINDCV_ISA {

constexpr int kParts = 3;
constexpr int64_t kBlock = 16 * 16;  // a tile register: 16 rows of 16 pairs of bfloat16, in 32-bit words

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// A [m, k]: for each 32 rows, each 32 of k, each part: two blocks of 16 rows, [16 rows][16 pairs of k].
// B [k, n]: for each 32 columns, each 32 of k, each part: two blocks of 16 columns, [16 pairs of k][16 columns].
struct AmxMatrix {
  uint32_t* data;
  int64_t steps;          // of 32 along k
  int* has_special;       // set by any thread that packs such a value

  uint32_t* at(int64_t strip, int64_t step) const { return data + (strip * steps + step) * kParts * 2 * kBlock; }
};

struct Amx {
  using A = AmxMatrix;
  using B = AmxMatrix;

  static A new_a(Session& memory, int64_t m, int64_t k) { return make(memory, ceil_div(m, kTile), ceil_div(k, kTile)); }
  static A new_a_transposed(Session& memory, int64_t m, int64_t k) { return new_a(memory, m, k); }
  static B new_b(Session& memory, int64_t k, int64_t n) { return make(memory, ceil_div(n, kTile), ceil_div(k, kTile)); }

  static void put_a(A& a, int64_t row, int64_t col, const float* tile, int64_t step, int64_t rows, int64_t cols) {
    put_rows<false>(a, a.at(row, col), tile, step, rows, cols);
  }
  static void put_b_transposed(B& b, int64_t row, int64_t col, const float* tile, int64_t step, int64_t rows, int64_t cols) {
    put_rows<true>(b, b.at(row, col), tile, step, rows, cols);
  }
  static void put_b(B& b, int64_t row, int64_t col, const float* tile, int64_t step, int64_t rows, int64_t cols) {
    put_pairs<false>(b, b.at(col, row), tile, step, rows, cols);
  }
  static void put_a_transposed(A& a, int64_t row, int64_t col, const float* tile, int64_t step, int64_t rows, int64_t cols) {
    put_pairs<true>(a, a.at(col, row), tile, step, rows, cols);
  }

  // put_a and put_b of the same tile.
  static void put_both(A& a, B& b, int64_t row, int64_t col, const float* tile, int64_t step, int64_t rows, int64_t cols) {
    uint32_t *to_a = a.at(row, col), *to_b = b.at(col, row);
    for (int half = 0; half < 2; ++half) {
      Words words;
      split_rows(a, tile + half * 16 * step, step, rows - half * 16, cols, words);
      for (int p = 0; p < kParts; ++p) {
        store_rows<false>(to_a + (p * 2 + half) * kBlock, words[p]);
        store_pairs(to_b + p * 2 * kBlock, words[p], half);
      }
    }
    if (is_special(a)) __atomic_store_n(b.has_special, 1, __ATOMIC_RELAXED);
  }

  // The registers' shapes are a thread's own state, which others set too (MindSpore's oneDNN does).
  static void begin() {
    static const TileConfig config;
    _tile_loadconfig(&config);
  }

  static void multiply(const A& a, const B& b, int64_t row, int64_t col, int64_t k0, int64_t k1, float* out) {
    const uint32_t* pa = a.at(row, k0 / kTile);
    const uint32_t* pb = b.at(col, k0 / kTile);
    const int64_t steps = (k1 - k0) / kTile;
    if (__builtin_expect(is_special(a) || is_special(b), 0)) {
      multiply_plainly(pa, pb, steps, out);
      return;
    }
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t s = 0; s < steps; ++s, pa += kParts * 2 * kBlock, pb += kParts * 2 * kBlock) {
      // An order in which each product finds one of its factors loaded, the small products first.
      load_a(pa, 2);
      load_b(pb, 0);
      dot();
      fetch_next(pa, pb, 0);
      load_a(pa, 1);
      dot();
      fetch_next(pa, pb, 1);
      load_b(pb, 1);
      dot();
      fetch_next(pa, pb, 2);
      load_a(pa, 0);
      dot();
      fetch_next(pa, pb, 3);
      load_b(pb, 2);
      dot();
      fetch_next(pa, pb, 4);
      load_b(pb, 0);
      dot();
      fetch_next(pa, pb, 5);
    }
    _tile_stored(0, out, kTile * 4);
    _tile_stored(1, out + 16, kTile * 4);
    _tile_stored(2, out + 16 * kTile, kTile * 4);
    _tile_stored(3, out + 16 * kTile + 16, kTile * 4);
  }

 private:
  static AmxMatrix make(Session& memory, int64_t strips, int64_t steps) {
    auto* data = static_cast<uint32_t*>(memory.bytes(static_cast<size_t>(strips * steps * kParts * 2 * kBlock) * 4));
    int* flag = static_cast<int*>(memory.bytes(sizeof(int)));
    *flag = 0;
    return {data, steps, flag};
  }

  static bool is_special(const AmxMatrix& m) { return __atomic_load_n(m.has_special, __ATOMIC_RELAXED) != 0; }

  static void load_a(const uint32_t* p, int part) {
    _tile_loadd(4, p + (part * 2 + 0) * kBlock, 64);
    _tile_loadd(5, p + (part * 2 + 1) * kBlock, 64);
  }
  static void load_b(const uint32_t* p, int part) {
    _tile_loadd(6, p + (part * 2 + 0) * kBlock, 64);
    _tile_loadd(7, p + (part * 2 + 1) * kBlock, 64);
  }
  // A sixth of the operands of the next step, into the first-level cache: tile loads come too late for the processor's own prefetching.
  static void fetch_next(const uint32_t* pa, const uint32_t* pb, int sixth) {
    const int64_t at = (kParts * 2 + sixth) * kBlock;
    for (int64_t i = 0; i < kBlock; i += 16) {
      __builtin_prefetch(pa + at + i, 0, 3);
      __builtin_prefetch(pb + at + i, 0, 3);
    }
  }
  static void dot() {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }

  // The parts of 16 floats as 32-bit words: bfloat16 in the upper half, 0 in the lower; so each word is the part's own float.
  static void split(AmxMatrix& to, __m512 x, __m512i part[kParts]) {
    const __m512i exponent = _mm512_set1_epi32(0x7f800000);
    part[0] = rounded(x);
    __m512 rest = _mm512_sub_ps(x, _mm512_castsi512_ps(part[0]));
    const __mmask16 special = _mm512_cmpeq_epi32_mask(_mm512_and_si512(part[0], exponent), exponent);
    if (__builtin_expect(special != 0, 0)) {
      __atomic_store_n(to.has_special, 1, __ATOMIC_RELAXED);
      split_special(x, special, part[0], rest);
    }
    part[1] = rounded(rest);
    part[2] = rounded(_mm512_sub_ps(rest, _mm512_castsi512_ps(part[1])));
  }
  static __m512i rounded(__m512 x) { return _mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x)), 16); }

  // A finite value that would round to infinity is cut off instead; of infinities and NaN nothing is left.
  static void split_special(__m512 x, __mmask16 special, __m512i& word, __m512& rest) {
    const __m512i exponent = _mm512_set1_epi32(0x7f800000);
    const __mmask16 is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    __m512i cut = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(int(0xffff0000)));
    cut = _mm512_mask_or_epi32(cut, is_nan, cut, _mm512_set1_epi32(0x00400000));  // a bit that keeps it NaN
    word = _mm512_mask_mov_epi32(word, special, cut);
    rest = _mm512_sub_ps(x, _mm512_castsi512_ps(word));
    const __mmask16 infinite = _mm512_cmpeq_epi32_mask(_mm512_and_si512(word, exponent), exponent);
    rest = _mm512_mask_mov_ps(rest, infinite, _mm512_setzero_ps());
  }

  // Two rows' words as pairs that lie below one another, and one row's 32 words as pairs that lie side by side.
  static __m512i pairs_down(__m512i upper, __m512i lower) { return _mm512_or_si512(_mm512_srli_epi32(upper, 16), lower); }
  static __m512i pairs_across(__m512i left, __m512i right) {
    const __m512i four = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60);
    // Halves of words, counted through both: 1, 3, 5, ...
    const __m512i odd = _mm512_or_si512(_mm512_add_epi32(four, _mm512_set1_epi32(1)), _mm512_slli_epi32(_mm512_add_epi32(four, _mm512_set1_epi32(3)), 16));
    return _mm512_permutex2var_epi16(left, odd, right);
  }

  static Vec load_some(const float* p, int64_t count) { return count > 0 ? load_part(p, count) : Vec{}; }

  // 16 rows of a tile as words: [part][half of the columns][row].
  typedef __m512i Words[kParts][2][16];

  static void split_rows(AmxMatrix& m, const float* tile, int64_t step, int64_t rows, int64_t cols, Words& words) {
    for (int i = 0; i < 16; ++i) {
      for (int half = 0; half < 2; ++half) {
        __m512i part[kParts] = {};
        if (i < rows) split(m, (__m512)load_some(tile + i * step + half * 16, cols - half * 16), part);
        for (int p = 0; p < kParts; ++p) words[p][half][i] = part[p];
      }
    }
  }

  // Blocks whose 16 rows are rows of the source, and whose pairs lie along its columns; or (kSwap) the transposed blocks.
  template <bool kSwap>
  static void put_rows(AmxMatrix& m, uint32_t* to, const float* tile, int64_t step, int64_t rows, int64_t cols) {
    for (int half = 0; half < 2; ++half) {
      Words words;
      split_rows(m, tile + half * 16 * step, step, rows - half * 16, cols, words);
      for (int p = 0; p < kParts; ++p) store_rows<kSwap>(to + (p * 2 + half) * kBlock, words[p]);
    }
  }

  // Blocks whose 16 rows are pairs of rows of the source, and whose columns are its columns; or (kSwap) the transposed blocks.
  template <bool kSwap>
  static void put_pairs(AmxMatrix& m, uint32_t* to, const float* tile, int64_t step, int64_t rows, int64_t cols) {
    for (int half = 0; half < 2; ++half) {
      Words words;
      split_rows(m, tile + half * 16 * step, step, rows - half * 16, cols, words);
      for (int p = 0; p < kParts; ++p) store_pairs(to + p * 2 * kBlock, words[p], half);
    }
    if (!kSwap) return;
    for (int i = 0; i < kParts * 2; ++i) {
      __m512i row[16];
      for (int j = 0; j < 16; ++j) row[j] = _mm512_load_si512(to + i * kBlock + 16 * j);
      put_block<true>(to + i * kBlock, row);
    }
  }

  template <bool kSwap>
  static void store_rows(uint32_t* to, const __m512i (&words)[2][16]) {
    __m512i row[16];
    for (int i = 0; i < 16; ++i) row[i] = pairs_across(words[0][i], words[1][i]);
    put_block<kSwap>(to, row);
  }
  // Of rows 0 to 15 or (half 1) 16 to 31: pairs 0 to 7 or 8 to 15.
  static void store_pairs(uint32_t* to, const __m512i (&words)[2][16], int half) {
    for (int side = 0; side < 2; ++side) {
      for (int i = 0; i < 8; ++i) {
        _mm512_store_si512(to + side * kBlock + (half * 8 + i) * 16, pairs_down(words[side][2 * i], words[side][2 * i + 1]));
      }
    }
  }

  template <bool kSwap>
  static void put_block(uint32_t* to, __m512i row[16]) {
    if (kSwap) transpose(row);
    for (int i = 0; i < 16; ++i) _mm512_store_si512(to + 16 * i, row[i]);
  }

  // 16 x 16 words, in four rounds; round r exchanges what lies 2^r apart.
  static void transpose(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 8; ++i) {
      t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
      t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; ++i) {
      for (int j = 0; j < 2; ++j) {
        r[4 * i + 2 * j] = _mm512_unpacklo_epi64(t[4 * i + j], t[4 * i + j + 2]);
        r[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(t[4 * i + j], t[4 * i + j + 2]);
      }
    }
    for (int i = 0; i < 2; ++i) {
      for (int j = 0; j < 4; ++j) {
        t[8 * i + j] = _mm512_shuffle_i32x4(r[8 * i + j], r[8 * i + j + 4], 0x88);
        t[8 * i + j + 4] = _mm512_shuffle_i32x4(r[8 * i + j], r[8 * i + j + 4], 0xdd);
      }
    }
    for (int j = 0; j < 8; ++j) {
      r[j] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0x88);
      r[j + 8] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0xdd);
    }
  }

  static float value(const uint32_t* part, int64_t index, int odd) {
    float total = 0.0f;
    for (int p = kParts - 1; p >= 0; --p) {
      const uint32_t pair = part[p * 2 * kBlock + index];
      const uint32_t word = odd ? pair & 0xffff0000u : pair << 16;
      float x;
      memcpy(&x, &word, 4);
      total += x;
    }
    return total;
  }

  __attribute__((noinline)) static void multiply_plainly(const uint32_t* a, const uint32_t* b, int64_t steps, float* out) {
    for (int i = 0; i < kTile; ++i) {
      for (int j = 0; j < kTile; ++j) {
        float total = 0.0f;
        for (int64_t k = 0; k < steps * kTile; ++k) {
          const int64_t step = k / kTile * kParts * 2 * kBlock;
          const int64_t pair = k % kTile / 2;
          const float x = value(a + step + i / 16 * kBlock, i % 16 * 16 + pair, k % 2);
          const float y = value(b + step + j / 16 * kBlock, pair * 16 + j % 16, k % 2);
          total += x * y;
        }
        out[i * kTile + j] = total;
      }
    }
  }
};

}  // namespace MINDCV_ISA
}  // namespace mindcv
