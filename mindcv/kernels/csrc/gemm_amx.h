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

  static void multiply(const A& a, const B& b, int64_t row, int64_t col, int64_t k0, int64_t k1, float* out) {
    const uint32_t* pa = a.at(row, k0 / kTile);
    const uint32_t* pb = b.at(col, k0 / kTile);
    const int64_t steps = (k1 - k0) / kTile;
    if (__builtin_expect(is_special(a) || is_special(b), 0)) {
      multiply_plainly(pa, pb, steps, out);
      return;
    }
    configure();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t s = 0; s < steps; ++s, pa += kParts * 2 * kBlock, pb += kParts * 2 * kBlock) {
      // An order in which each product finds one of its factors loaded, the small products first.
      load_a(pa, 2);
      load_b(pb, 0);
      dot();
      load_a(pa, 1);
      dot();
      load_b(pb, 1);
      dot();
      load_a(pa, 0);
      dot();
      load_b(pb, 2);
      dot();
      load_b(pb, 0);
      dot();
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

  static void configure() {
    // The registers' shapes are a thread's own state. Others may use the multiplier in the same thread (MindSpore's oneDNN does),
    // so it is set for every tile; it costs a hundredth of the shortest product.
    static const TileConfig config;
    _tile_loadconfig(&config);
  }

  static void load_a(const uint32_t* p, int part) {
    _tile_loadd(4, p + (part * 2 + 0) * kBlock, 64);
    _tile_loadd(5, p + (part * 2 + 1) * kBlock, 64);
  }
  static void load_b(const uint32_t* p, int part) {
    _tile_loadd(6, p + (part * 2 + 0) * kBlock, 64);
    _tile_loadd(7, p + (part * 2 + 1) * kBlock, 64);
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
    for (int i = 0; i < kParts; ++i) {
      __m512i word = _mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x)), 16);
      const __mmask16 special = _mm512_cmpeq_epi32_mask(_mm512_and_si512(word, exponent), exponent);
      if (__builtin_expect(special != 0, 0)) {
        __atomic_store_n(to.has_special, 1, __ATOMIC_RELAXED);
        word = special_word(x, word, special);
      }
      part[i] = word;
      x = _mm512_sub_ps(x, _mm512_castsi512_ps(word));
      x = _mm512_mask_mov_ps(x, special, special_rest(x, word, special));
    }
  }
  // A finite value that would round to infinity is cut off instead; NaN keeps a bit that makes it one.
  static __m512i special_word(__m512 x, __m512i word, __mmask16 special) {
    const __m512i cut = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(int(0xffff0000)));
    const __mmask16 is_nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    const __m512i fixed = _mm512_mask_or_epi32(cut, is_nan, cut, _mm512_set1_epi32(0x00400000));
    return _mm512_mask_mov_epi32(word, special, fixed);
  }
  // What is left of infinities and NaN is 0, not their difference with themselves.
  static __m512 special_rest(__m512 rest, __m512i word, __mmask16 special) {
    const __m512i exponent = _mm512_set1_epi32(0x7f800000);
    const __mmask16 infinite = _mm512_mask_cmpeq_epi32_mask(special, _mm512_and_si512(word, exponent), exponent);
    return _mm512_mask_mov_ps(rest, infinite, _mm512_setzero_ps());
  }

  // 16 words of pairs: `low` and `high` hold the first and the second of each.
  static __m512i pairs(__m512i low, __m512i high) { return _mm512_or_si512(_mm512_srli_epi32(low, 16), high); }

  // Blocks whose 16 rows are rows of the source, and whose pairs lie along its columns; or (kSwap) the transposed blocks.
  template <bool kSwap>
  static void put_rows(AmxMatrix& m, uint32_t* to, const float* tile, int64_t step, int64_t rows, int64_t cols) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    for (int half = 0; half < 2; ++half) {
      __m512i word[kParts][16];
      for (int i = 0; i < 16; ++i) {
        const int64_t row = half * 16 + i;
        __m512i left[kParts] = {}, right[kParts] = {};
        if (row < rows) {
          const __m512 x = (__m512)load_some(tile + row * step, cols);
          const __m512 y = (__m512)load_some(tile + row * step + 16, cols - 16);
          split(m, _mm512_permutex2var_ps(x, even, y), left);
          split(m, _mm512_permutex2var_ps(x, odd, y), right);
        }
        for (int p = 0; p < kParts; ++p) word[p][i] = pairs(left[p], right[p]);
      }
      for (int p = 0; p < kParts; ++p) put_block<kSwap>(to + (p * 2 + half) * kBlock, word[p]);
    }
  }

  // Blocks whose 16 rows are pairs of rows of the source, and whose columns are its columns; or (kSwap) the transposed blocks.
  template <bool kSwap>
  static void put_pairs(AmxMatrix& m, uint32_t* to, const float* tile, int64_t step, int64_t rows, int64_t cols) {
    for (int half = 0; half < 2; ++half) {
      __m512i word[kParts][16];
      for (int i = 0; i < 16; ++i) {
        __m512i low[kParts] = {}, high[kParts] = {};
        const float* from = tile + 2 * i * step + half * 16;
        if (2 * i < rows) split(m, (__m512)load_some(from, cols - half * 16), low);
        if (2 * i + 1 < rows) split(m, (__m512)load_some(from + step, cols - half * 16), high);
        for (int p = 0; p < kParts; ++p) word[p][i] = pairs(low[p], high[p]);
      }
      for (int p = 0; p < kParts; ++p) put_block<kSwap>(to + (p * 2 + half) * kBlock, word[p]);
    }
  }

  static Vec load_some(const float* p, int64_t count) { return count > 0 ? load_part(p, count) : Vec{}; }

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
