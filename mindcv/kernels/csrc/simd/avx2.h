// The SIMD interface on AVX2 with fused multiply-add: vectors of 8 float32.
#pragma once
#include <immintrin.h>

#include <cstdint>

namespace mindcv {
namespace MINDCV_ISA {
constexpr int kWidth = 8;
constexpr int kRegisters = 16;
constexpr int kUnroll = 3;
}  // namespace MINDCV_ISA
}  // namespace mindcv

#include "simd/vector.h"

namespace mindcv {
namespace MINDCV_ISA {

MINDCV_INLINE Vec load_part(const float* p, int64_t count) {
  if (count >= kWidth) return load(p);
  Vec v{};
  memcpy(&v, p, static_cast<size_t>(count) * 4);
  return v;
}

MINDCV_INLINE void store_part(float* p, Vec v, int64_t count) {
  if (count >= kWidth) {
    store(p, v);
  } else {
    memcpy(p, &v, static_cast<size_t>(count) * 4);
  }
}

inline float reduce_add(Vec v) {
  float part[kWidth];
  store(part, v);
  for (int half = kWidth / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) part[i] += part[i + half];
  }
  return part[0];
}

MINDCV_INLINE Vec sqrt(Vec v) { return (Vec)_mm256_sqrt_ps((__m256)v); }

MINDCV_INLINE Vec reciprocal(Vec v) { return 1.0f / v; }

MINDCV_INLINE Vec quotient(Vec a, Vec b) { return a / b; }

MINDCV_INLINE Vec max(Vec a, Vec b) { return (Vec)_mm256_max_ps((__m256)a, (__m256)b); }

MINDCV_INLINE Vec ldexp_or_zero(Vec p, Vec n, Vec v) {
  const Int is_zero = v < -87.0f;
  const Vec exponent = is_zero ? Vec{} : n;
  const Int scale = (__builtin_convertvector(exponent, Int) + 127) << 23;
  Vec power;
  memcpy(&power, &scale, sizeof(power));
  return is_zero ? Vec{} : p * power;
}

// 8 x 8 values in three rounds; round r exchanges values that lie 2^r apart.
MINDCV_INLINE void transpose(Vec (&r)[kWidth]) {
  __m256 t[8], u[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps((__m256)r[i], (__m256)r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps((__m256)r[i], (__m256)r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int j = 0; j < 2; ++j) {
      u[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0x44);
      u[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0xee);
    }
  }
  for (int j = 0; j < 4; ++j) {
    r[j] = (Vec)_mm256_permute2f128_ps(u[j], u[j + 4], 0x20);
    r[j + 4] = (Vec)_mm256_permute2f128_ps(u[j], u[j + 4], 0x31);
  }
}

#define MINDCV_HAS_BF16_PAIRS 0
#define MINDCV_HAS_BF16_BLOCKS 0

constexpr bool kHasByteConversion = true;

MINDCV_INLINE Int load_u8(const uint8_t* p) {
  return (Int)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}

MINDCV_INLINE void store_u8(uint8_t* p, Int v) {
  const __m128i halves = _mm_packs_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(halves, halves));
}

#define MINDCV_HAS_LANES 1
constexpr int kLanes = 2;
typedef __m256i Lanes;

MINDCV_INLINE Lanes splat_lanes(int32_t v) { return _mm256_set1_epi32(v); }

MINDCV_INLINE Lanes broadcast_lane(const int8_t (&bytes)[16]) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
}

MINDCV_INLINE Lanes load_lanes(const uint8_t* const* rows, int64_t offset) {
  const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[0] + offset));
  const __m128i second = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[1] + offset));
  return _mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1);
}

MINDCV_INLINE Lanes shuffle_bytes(Lanes v, Lanes order) { return _mm256_shuffle_epi8(v, order); }

MINDCV_INLINE Int multiply_add_pairs(Lanes a, Lanes b) { return (Int)_mm256_madd_epi16(a, b); }

inline bool look_up_bytes(const uint8_t*, int64_t, int, const uint8_t*, uint8_t*) { return false; }

constexpr int kPixels = 1;
typedef double Pixels __attribute__((vector_size(kPixels * 32)));

MINDCV_INLINE Pixels load_pixels(const uint8_t* const* rows, const int64_t* offsets) {
  uint32_t word;
  memcpy(&word, rows[0] + offsets[0], 4);
  return (Pixels)_mm256_cvtepi32_pd(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(static_cast<int>(word))));
}

MINDCV_INLINE void store_pixels(uint8_t* out, Pixels values) {
  const __m128i whole = _mm256_cvttpd_epi32((__m256d)values);
  const __m128i halves = _mm_packs_epi32(whole, whole);
  const int word = _mm_cvtsi128_si32(_mm_packus_epi16(halves, halves));
  memcpy(out, &word, 4);
}

MINDCV_INLINE Pixels splat_pixels(const double* d) { return (Pixels)_mm256_set1_pd(d[0]); }

}  // namespace MINDCV_ISA
}  // namespace mindcv
