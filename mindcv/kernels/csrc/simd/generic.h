// The SIMD interface on what every processor of the compiler's target has: SSE2 on x86-64, Advanced SIMD on aarch64.
#pragma once
#include <cstdint>

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace mindcv {
namespace MINDCV_ISA {
constexpr int kWidth = 4;
#if defined(__aarch64__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif
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

MINDCV_INLINE Vec sqrt(Vec v) {
  for (int i = 0; i < kWidth; ++i) v[i] = __builtin_sqrtf(v[i]);
  return v;
}

MINDCV_INLINE Vec reciprocal(Vec v) { return 1.0f / v; }

MINDCV_INLINE Vec quotient(Vec a, Vec b) { return a / b; }

MINDCV_INLINE Vec max(Vec a, Vec b) { return a > b ? a : b; }

MINDCV_INLINE Vec ldexp_or_zero(Vec p, Vec n, Vec v) {
  const Int is_zero = v < -87.0f;
  const Vec exponent = is_zero ? Vec{} : n;
  const Int scale = (__builtin_convertvector(exponent, Int) + 127) << 23;
  Vec power;
  memcpy(&power, &scale, sizeof(power));
  return is_zero ? Vec{} : p * power;
}

MINDCV_INLINE void transpose(Vec (&r)[kWidth]) {
  for (int i = 0; i < kWidth; ++i) {
    for (int j = 0; j < i; ++j) {
      const float value = r[i][j];
      r[i][j] = r[j][i];
      r[j][i] = value;
    }
  }
}

#define MINDCV_HAS_BF16_PAIRS 0
#if defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#define MINDCV_HAS_BF16_BLOCKS 1

struct Bf16 {
  uint16_t bits;
};

MINDCV_INLINE Vec load(const Bf16* p) { return (Vec)vshlq_n_u32(vmovl_u16(vld1_u16(&p->bits)), 16); }

MINDCV_INLINE void store(Bf16* p, Vec v) { vst1_u16(&p->bits, vreinterpret_u16_bf16(vcvt_bf16_f32((float32x4_t)v))); }

MINDCV_INLINE Vec load_part(const Bf16* p, int64_t count) {
  if (count >= kWidth) return load(p);
  Bf16 values[kWidth] = {};
  memcpy(values, p, static_cast<size_t>(count) * sizeof(Bf16));
  return load(values);
}

MINDCV_INLINE void store_part(Bf16* p, Vec v, int64_t count) {
  Bf16 values[kWidth];
  store(values, v);
  memcpy(p, values, static_cast<size_t>(min(count, kWidth)) * sizeof(Bf16));
}

typedef bfloat16x8_t Block;

MINDCV_INLINE Block load_block(const Bf16* p) { return vreinterpretq_bf16_u16(vld1q_u16(&p->bits)); }

MINDCV_INLINE Vec add_block_products(Vec sums, Block rows, Block columns) {
  return (Vec)vbfmmlaq_f32((float32x4_t)sums, rows, columns);
}

MINDCV_INLINE void exchange_halves(Vec& a, Vec& b) {
  const float32x4_t first = (float32x4_t)a, second = (float32x4_t)b;
  a = (Vec)vcombine_f32(vget_low_f32(first), vget_low_f32(second));
  b = (Vec)vcombine_f32(vget_high_f32(first), vget_high_f32(second));
}
#else
#define MINDCV_HAS_BF16_BLOCKS 0
#endif

// GCC's __builtin_convertvector takes a vector of bytes apart, byte by byte, so aarch64 has its own instructions here.
#if defined(__aarch64__)
constexpr bool kHasByteConversion = true;

MINDCV_INLINE Int load_u8(const uint8_t* p) {
  uint32_t word;
  memcpy(&word, p, sizeof(word));
  const uint16x8_t halves = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(word)));
  return (Int)vmovl_u16(vget_low_u16(halves));
}

MINDCV_INLINE void store_u8(uint8_t* p, Int v) {
  const uint16x4_t halves = vqmovun_s32((int32x4_t)v);
  const uint32_t word = vget_lane_u32(vreinterpret_u32_u8(vqmovn_u16(vcombine_u16(halves, halves))), 0);
  memcpy(p, &word, sizeof(word));
}
#else
constexpr bool kHasByteConversion = false;

MINDCV_INLINE Int load_u8(const uint8_t* p) {
  Int v;
  for (int i = 0; i < kWidth; ++i) v[i] = p[i];
  return v;
}

MINDCV_INLINE void store_u8(uint8_t* p, Int v) {
  for (int i = 0; i < kWidth; ++i) p[i] = static_cast<uint8_t>(v[i] < 0 ? 0 : v[i] > 255 ? 255 : v[i]);
}
#endif

#define MINDCV_HAS_LANES 0

inline bool look_up_bytes(const uint8_t*, int64_t, int, const uint8_t*, uint8_t*) { return false; }

constexpr int kPixels = 1;
typedef double Pixels __attribute__((vector_size(kPixels * 32)));

MINDCV_INLINE Pixels load_pixels(const uint8_t* const* rows, const int64_t* offsets) {
  uint32_t word;
  memcpy(&word, rows[0] + offsets[0], 4);
  return Pixels{static_cast<double>(word & 255), static_cast<double>(word >> 8 & 255),
                static_cast<double>(word >> 16 & 255), static_cast<double>(word >> 24)};
}

MINDCV_INLINE void store_pixels(uint8_t* out, Pixels values) {
  for (int c = 0; c < 4; ++c) {
    const int whole = static_cast<int>(values[c]);
    out[c] = static_cast<uint8_t>(whole < 0 ? 0 : whole > 255 ? 255 : whole);
  }
}

MINDCV_INLINE Pixels splat_pixels(const double* d) { return Pixels{d[0], d[0], d[0], d[0]}; }

}  // namespace MINDCV_ISA
}  // namespace mindcv
