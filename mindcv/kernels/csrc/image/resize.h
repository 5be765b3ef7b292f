// The two passes of Pillow's antialiased resizing, on bytes.
//
// A pass multiplies by integer weights and rounds to bytes, so that any order of the sums gives the same bits.
#pragma once
#include "image/images.h"
#include "simd/simd.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace mindcv {
namespace MINDCV_ISA {

constexpr int32_t kHalf = 1 << (kWeightBits - 1);

// GCC's __builtin_convertvector takes the vector apart, byte by byte.
MINDCV_INLINE Int load_bytes(const uint8_t* p) {
#if defined(__AVX512F__)
  return (Int)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#elif defined(__AVX2__)
  return (Int)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#elif defined(__aarch64__)
  uint32_t word;
  memcpy(&word, p, sizeof(word));
  const uint16x8_t halves = vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(word)));
  return (Int)vmovl_u16(vget_low_u16(halves));
#else
  Int v;
  for (int i = 0; i < kWidth; ++i) v[i] = p[i];
  return v;
#endif
}

// Weighted sums, in which the half for rounding is already, to bytes.
MINDCV_INLINE void store_sums(uint8_t* p, Int sum) {
  Int v = sum >> kWeightBits;
#if defined(__AVX512F__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtusepi32_epi8((__m512i)(v < 0 ? Int{} : v)));
#elif defined(__AVX2__)
  const __m128i halves = _mm_packs_epi32(_mm256_castsi256_si128((__m256i)v), _mm256_extracti128_si256((__m256i)v, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(halves, halves));
#elif defined(__aarch64__)
  const uint16x4_t halves = vqmovun_s32((int32x4_t)v);
  const uint32_t word = vget_lane_u32(vreinterpret_u32_u8(vqmovn_u16(vcombine_u16(halves, halves))), 0);
  memcpy(p, &word, sizeof(word));
#else
  for (int i = 0; i < kWidth; ++i) p[i] = static_cast<uint8_t>(v[i] < 0 ? 0 : v[i] > 255 ? 255 : v[i]);
#endif
}

inline uint8_t byte_of_sum(int32_t sum) {
  const int32_t v = sum >> kWeightBits;
  return static_cast<uint8_t>(v < 0 ? 0 : v > 255 ? 255 : v);
}

inline uint8_t weighted_byte(const uint8_t* source, int64_t step, const int32_t* weights, int64_t width) {
  int32_t sum = kHalf;
  for (int64_t t = 0; t < width; ++t) sum += source[t * step] * weights[t];
  return byte_of_sum(sum);
}

template <int kVectors>
MINDCV_INLINE void vertical_chunk(const uint8_t* source, int64_t stride, const int32_t* weights, int64_t width,
                                  uint8_t* out) {
  Int sums[kVectors];
  for (int i = 0; i < kVectors; ++i) sums[i] = Int{} + kHalf;
  for (int64_t t = 0; t < width; ++t) {
    const Int weight = Int{} + weights[t];
    for (int i = 0; i < kVectors; ++i) sums[i] += load_bytes(source + t * stride + i * kWidth) * weight;
  }
  for (int i = 0; i < kVectors; ++i) store_sums(out + i * kWidth, sums[i]);
}

// Rows of `bytes` bytes, `stride` apart, to taps.outputs rows of as many, without gaps.
inline void resize_vertical(const uint8_t* source, int64_t stride, int64_t bytes, const Taps& taps, uint8_t* out) {
  constexpr int kVectors = 4;
  for (int64_t y = 0; y < taps.outputs; ++y, out += bytes) {
    const uint8_t* rows = source + taps.first[y] * stride;
    const int32_t* weights = taps.weights + y * taps.width;
    int64_t x = 0;
    for (; x + kVectors * kWidth <= bytes; x += kVectors * kWidth) {
      vertical_chunk<kVectors>(rows + x, stride, weights, taps.width, out + x);
    }
    for (; x + kWidth <= bytes; x += kWidth) vertical_chunk<1>(rows + x, stride, weights, taps.width, out + x);
    for (; x < bytes; ++x) out[x] = weighted_byte(rows + x, stride, weights, taps.width);
  }
}

#if defined(__AVX2__)
// One row in each 128 bits of a vector, four pixels of four bytes at a time.
#if defined(__AVX512BW__)
typedef __m512i Lanes;
MINDCV_INLINE Lanes lanes_of(__m128i v) { return _mm512_broadcast_i32x4(v); }
MINDCV_INLINE Lanes splat_lanes(int32_t v) { return _mm512_set1_epi32(v); }
MINDCV_INLINE Lanes shuffled(Lanes v, Lanes order) { return _mm512_shuffle_epi8(v, order); }
MINDCV_INLINE Lanes pair_sums(Lanes a, Lanes b) { return _mm512_madd_epi16(a, b); }
#else
typedef __m256i Lanes;
MINDCV_INLINE Lanes lanes_of(__m128i v) { return _mm256_broadcastsi128_si256(v); }
MINDCV_INLINE Lanes splat_lanes(int32_t v) { return _mm256_set1_epi32(v); }
MINDCV_INLINE Lanes shuffled(Lanes v, Lanes order) { return _mm256_shuffle_epi8(v, order); }
MINDCV_INLINE Lanes pair_sums(Lanes a, Lanes b) { return _mm256_madd_epi16(a, b); }
#endif

constexpr int kLaneRows = kWidth / 4;

MINDCV_INLINE __m128i load_row(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }

MINDCV_INLINE Lanes load_lanes(const uint8_t* const* rows, int64_t offset) {
  const __m256i two =
      _mm256_inserti128_si256(_mm256_castsi128_si256(load_row(rows[0] + offset)), load_row(rows[1] + offset), 1);
#if defined(__AVX512BW__)
  const __m256i more =
      _mm256_inserti128_si256(_mm256_castsi128_si256(load_row(rows[2] + offset)), load_row(rows[3] + offset), 1);
  return _mm512_inserti64x4(_mm512_castsi256_si512(two), more, 1);
#else
  return two;
#endif
}

// kLaneRows rows of four-byte pixels.
inline void horizontal_lanes(const uint8_t* const* rows, const Taps& taps, uint8_t* const* outs) {
  // Pixels (0, 1) and (2, 3) of a lane as pairs of 16-bit numbers, a channel after the other.
  const Lanes first_two = lanes_of(_mm_setr_epi8(0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1));
  const Lanes last_two = lanes_of(_mm_setr_epi8(8, -1, 12, -1, 9, -1, 13, -1, 10, -1, 14, -1, 11, -1, 15, -1));
  const int32_t* group = taps.groups;
  for (int64_t x = 0; x < taps.outputs; ++x) {
    Int high{}, low = Int{} + kHalf;
    for (int64_t t = 0; t < taps.width; t += kTapGroup, group += 4) {
      const Lanes pixels = load_lanes(rows, 4 * (taps.first[x] + t));
      const Lanes a = shuffled(pixels, first_two), b = shuffled(pixels, last_two);
      high += (Int)pair_sums(a, splat_lanes(group[0])) + (Int)pair_sums(b, splat_lanes(group[1]));
      low += (Int)pair_sums(a, splat_lanes(group[2])) + (Int)pair_sums(b, splat_lanes(group[3]));
    }
    uint8_t found[kWidth];
    store_sums(found, (high << kLowBits) + low);
    for (int i = 0; i < kLaneRows; ++i) memcpy(outs[i] + 4 * x, found + 4 * i, 4);
  }
}
#elif defined(__aarch64__)
// A row of four-byte pixels, the channels of one in a vector.
inline void horizontal_pixels(const uint8_t* row, const Taps& taps, uint8_t* out) {
  const int32_t* weights = taps.weights;
  for (int64_t x = 0; x < taps.outputs; ++x, weights += taps.width) {
    const uint8_t* pixel = row + 4 * taps.first[x];
    Int sum = Int{} + kHalf;
    for (int64_t t = 0; t < taps.width; ++t) sum += load_bytes(pixel + 4 * t) * weights[t];
    store_sums(out + 4 * x, sum);
  }
}
#endif

// Rows of pixels of one or four bytes, `stride` bytes apart, to rows of taps.outputs such pixels, without gaps.
inline void resize_horizontal(const uint8_t* source, int64_t stride, int64_t rows, int channels, const Taps& taps,
                              uint8_t* out) {
  const int64_t out_stride = taps.outputs * channels;
  int64_t y = 0;
#if defined(__AVX2__)
  for (; channels == 4 && taps.groups != nullptr && y < rows; y += kLaneRows) {
    const uint8_t* from[kLaneRows];
    uint8_t* to[kLaneRows];
    for (int i = 0; i < kLaneRows; ++i) {  // the last row stands in for those that are not there
      from[i] = source + least(y + i, rows - 1) * stride;
      to[i] = out + least(y + i, rows - 1) * out_stride;
    }
    horizontal_lanes(from, taps, to);
  }
#elif defined(__aarch64__)
  for (; channels == 4 && y < rows; ++y) horizontal_pixels(source + y * stride, taps, out + y * out_stride);
#endif
  for (; y < rows; ++y) {
    const uint8_t* row = source + y * stride;
    uint8_t* target = out + y * out_stride;
    for (int64_t x = 0; x < taps.outputs; ++x) {
      const int32_t* weights = taps.weights + x * taps.width;
      for (int c = 0; c < channels; ++c) {
        *target++ = weighted_byte(row + taps.first[x] * channels + c, channels, weights, taps.width);
      }
    }
  }
}

}  // namespace MINDCV_ISA
}  // namespace mindcv
