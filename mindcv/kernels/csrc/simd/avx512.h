// The SIMD interface on AVX-512 (F, BW, VL and DQ): vectors of 16 float32.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace mindcv {
namespace MINDCV_ISA {
constexpr int kWidth = 16;
constexpr int kRegisters = 32;
constexpr int kUnroll = 1;
}  // namespace MINDCV_ISA
}  // namespace mindcv

#include "simd/vector.h"

namespace mindcv {
namespace MINDCV_ISA {

MINDCV_INLINE Vec load_part(const float* p, int64_t count) {
  if (count >= kWidth) return load(p);
  return (Vec)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), p);
}

MINDCV_INLINE void store_part(float* p, Vec v, int64_t count) {
  if (count >= kWidth) {
    store(p, v);
  } else {
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << count) - 1), (__m512)v);
  }
}

inline float reduce_add(Vec v) { return _mm512_reduce_add_ps((__m512)v); }

MINDCV_INLINE Vec sqrt(Vec v) { return (Vec)_mm512_sqrt_ps((__m512)v); }

// A division holds up the multiply-add units for eight times as long as this takes.
MINDCV_INLINE Vec reciprocal(Vec v) {
  const __m512 d = _mm512_min_ps((__m512)v, _mm512_set1_ps(1e30f));  // infinity times 0 would be NaN
  const __m512 near = _mm512_rcp14_ps(d);
  return (Vec)_mm512_fmadd_ps(near, _mm512_fnmadd_ps(d, near, _mm512_set1_ps(1.0f)), near);
}

MINDCV_INLINE Vec quotient(Vec a, Vec b) { return a * reciprocal(b); }

MINDCV_INLINE Vec max(Vec a, Vec b) { return (Vec)_mm512_max_ps((__m512)a, (__m512)b); }

MINDCV_INLINE Vec ldexp_or_zero(Vec p, Vec n, Vec v) {
  const __mmask16 is_kept = _mm512_cmp_ps_mask((__m512)v, _mm512_set1_ps(-87.0f), _CMP_NLT_UQ);
  return (Vec)_mm512_maskz_scalef_ps(is_kept, (__m512)p, (__m512)n);
}

// 16 x 16 words in four rounds; round r exchanges words that lie 2^r apart.
MINDCV_INLINE void transpose(__m512i (&r)[16]) {
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

MINDCV_INLINE void transpose(Vec (&r)[kWidth]) {
  __m512i words[16];
  memcpy(words, r, sizeof(r));
  transpose(words);
  memcpy(r, words, sizeof(r));
}

#if defined(__AVX512BF16__)
#define MINDCV_HAS_BF16_PAIRS 1

struct Bf16 {
  uint16_t bits;
};

MINDCV_INLINE __mmask16 first_lanes(int64_t count) { return (__mmask16)((1u << count) - 1); }

MINDCV_INLINE Vec widened(__m256i halves) { return (Vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16); }

MINDCV_INLINE Vec load(const Bf16* p) { return widened(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }

MINDCV_INLINE Vec load_part(const Bf16* p, int64_t count) {
  return count >= kWidth ? load(p) : widened(_mm256_maskz_loadu_epi16(first_lanes(count), p));
}

MINDCV_INLINE void store(Bf16* p, Vec v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh((__m512)v));
}

MINDCV_INLINE void store_part(Bf16* p, Vec v, int64_t count) {
  if (count >= kWidth) {
    store(p, v);
  } else {
    _mm256_mask_storeu_epi16(p, first_lanes(count), (__m256i)_mm512_cvtneps_pbh((__m512)v));
  }
}

MINDCV_INLINE void store_pairs(Bf16* p, Vec even, Vec odd) {
  const __m512i low = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i order = _mm512_or_si512(low, _mm512_slli_epi32(_mm512_add_epi32(low, _mm512_set1_epi32(16)), 16));
  const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh((__m512)odd, (__m512)even);
  _mm512_storeu_si512(p, _mm512_permutexvar_epi16(order, halves));
}

MINDCV_INLINE Vec add_pair_products(Vec sums, const Bf16* pair, Vec pairs) {
  int32_t word;
  memcpy(&word, pair, sizeof(word));
  return (Vec)_mm512_dpbf16_ps((__m512)sums, (__m512bh)pairs, (__m512bh)_mm512_set1_epi32(word));
}
#else
#define MINDCV_HAS_BF16_PAIRS 0
#endif
#define MINDCV_HAS_BF16_BLOCKS 0

constexpr bool kHasByteConversion = true;

MINDCV_INLINE Int load_u8(const uint8_t* p) {
  return (Int)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

MINDCV_INLINE void store_u8(uint8_t* p, Int v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtusepi32_epi8((__m512i)(v < 0 ? Int{} : v)));
}

#define MINDCV_HAS_LANES 1
constexpr int kLanes = 4;
typedef __m512i Lanes;

MINDCV_INLINE Lanes splat_lanes(int32_t v) { return _mm512_set1_epi32(v); }

MINDCV_INLINE Lanes broadcast_lane(const int8_t (&bytes)[16]) {
  return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
}

MINDCV_INLINE __m256i load_two_lanes(const uint8_t* const* rows, int64_t offset) {
  const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[0] + offset));
  const __m128i second = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[1] + offset));
  return _mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1);
}

MINDCV_INLINE Lanes load_lanes(const uint8_t* const* rows, int64_t offset) {
  const __m256i low = load_two_lanes(rows, offset), high = load_two_lanes(rows + 2, offset);
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

MINDCV_INLINE Lanes shuffle_bytes(Lanes v, Lanes order) { return _mm512_shuffle_epi8(v, order); }

MINDCV_INLINE Int multiply_add_pairs(Lanes a, Lanes b) { return (Int)_mm512_madd_epi16(a, b); }

// Cannon Lake has AVX512_VBMI and Skylake does not, so the functions that use it are compiled for it one by one.
#define MINDCV_VBMI __attribute__((target("avx512vbmi")))

struct ByteTable {
  __m512i quarters[4];
};

MINDCV_VBMI inline __m512i look_up_vector(const ByteTable& table, __m512i values) {
  const __m512i low = _mm512_permutex2var_epi8(table.quarters[0], values, table.quarters[1]);
  const __m512i high = _mm512_permutex2var_epi8(table.quarters[2], values, table.quarters[3]);
  return _mm512_mask_blend_epi8(_mm512_movepi8_mask(values), low, high);
}

MINDCV_VBMI inline void look_up_bytes_vbmi(const uint8_t* source, int64_t bytes, int channels, const uint8_t* tables,
                                           uint8_t* out) {
  ByteTable table[3];
  for (int c = 0; c < (channels == 1 ? 1 : 3); ++c) memcpy(table[c].quarters, tables + 256 * c, 256);
  for (int64_t i = 0; i < bytes; i += 64) {
    const __mmask64 exists = bytes - i < 64 ? (uint64_t{1} << (bytes - i)) - 1 : ~uint64_t{0};
    const __m512i values = _mm512_maskz_loadu_epi8(exists, source + i);
    __m512i found = look_up_vector(table[0], values);
    if (channels == 4) {
      found = _mm512_mask_mov_epi8(found, 0x2222222222222222, look_up_vector(table[1], values));
      found = _mm512_mask_mov_epi8(found, 0x4444444444444444, look_up_vector(table[2], values));
    }
    _mm512_mask_storeu_epi8(out + i, exists, found);
  }
}

inline bool look_up_bytes(const uint8_t* source, int64_t bytes, int channels, const uint8_t* tables, uint8_t* out) {
  if (!__builtin_cpu_supports("avx512vbmi")) return false;
  look_up_bytes_vbmi(source, bytes, channels, tables, out);
  return true;
}

constexpr int kPixels = 2;
typedef double Pixels __attribute__((vector_size(kPixels * 32)));

MINDCV_INLINE Pixels load_pixels(const uint8_t* const* rows, const int64_t* offsets) {
  uint32_t words[kPixels];
  for (int i = 0; i < kPixels; ++i) memcpy(&words[i], rows[i] + offsets[i], 4);
  const __m128i both = _mm_insert_epi32(_mm_cvtsi32_si128(static_cast<int>(words[0])), static_cast<int>(words[1]), 1);
  return (Pixels)_mm512_cvtepi32_pd(_mm256_cvtepu8_epi32(both));
}

MINDCV_INLINE void store_pixels(uint8_t* out, Pixels values) {
  const __m256i whole = _mm256_max_epi32(_mm512_cvttpd_epi32((__m512d)values), _mm256_setzero_si256());
  _mm_storel_epi64(reinterpret_cast<__m128i*>(out), _mm256_cvtusepi32_epi8(whole));
}

MINDCV_INLINE Pixels splat_pixels(const double* d) {
  const __m512d first = _mm512_set1_pd(d[0]);
  return (Pixels)_mm512_mask_mov_pd(first, 0xf0, _mm512_set1_pd(d[1]));
}

}  // namespace MINDCV_ISA
}  // namespace mindcv
