// The two passes of Pillow's antialiased resizing, on bytes.
//
// The weights are integers, so that every order of the additions gives the same bits.
#pragma once
#include "simd/simd.h"

namespace mindcv {

// Pillow resizes in fixed point: a weight of 1 is 2^22, and a weighted sum of bytes is rounded once.
constexpr int kWeightBits = 22;
// Wide multiplications take a weight in two parts, high * 2^12 + low, each of which fits into 16 bits.
constexpr int kLowBits = 12;
// The number of taps in one step of the horizontal pass.
constexpr int kTapGroup = 4;

// The weights of the outputs. Output i is the weighted sum of `width` values of a row (or column) from `first[i]` on,
// which all lie inside the source. Weights beyond the filter's support are 0.
struct Taps {
  int64_t outputs;
  int64_t width;
  const int32_t* first;
  const int32_t* weights;
  // The same weights in groups of four: the high parts of (0, 1) and (2, 3) and the low parts of (0, 1) and (2, 3),
  // with two 16-bit numbers in each value. Null where the source is narrower than a whole number of groups.
  const int32_t* groups;
};

namespace MINDCV_ISA {

constexpr int32_t kHalf = 1 << (kWeightBits - 1);

// Writes weighted sums, to which kHalf is already added, as bytes.
MINDCV_INLINE void store_sums(uint8_t* p, Int sum) { store_u8(p, sum >> kWeightBits); }

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
    for (int i = 0; i < kVectors; ++i) sums[i] += load_u8(source + t * stride + i * kWidth) * weight;
  }
  for (int i = 0; i < kVectors; ++i) store_sums(out + i * kWidth, sums[i]);
}

// `out` has no gaps between its rows.
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

#if MINDCV_HAS_LANES
// Resizes kLanes rows of four-byte pixels. Each lane holds four pixels of one row.
inline void horizontal_lanes(const uint8_t* const* rows, const Taps& taps, uint8_t* const* outs) {
  // These orders give the pixels (0, 1) and (2, 3) of a lane as pairs of 16-bit numbers, channel by channel.
  const Lanes first_two = broadcast_lane({0, -1, 4, -1, 1, -1, 5, -1, 2, -1, 6, -1, 3, -1, 7, -1});
  const Lanes last_two = broadcast_lane({8, -1, 12, -1, 9, -1, 13, -1, 10, -1, 14, -1, 11, -1, 15, -1});
  const int32_t* group = taps.groups;
  for (int64_t x = 0; x < taps.outputs; ++x) {
    Int high{}, low = Int{} + kHalf;
    for (int64_t t = 0; t < taps.width; t += kTapGroup, group += 4) {
      const Lanes pixels = load_lanes(rows, 4 * (taps.first[x] + t));
      const Lanes a = shuffle_bytes(pixels, first_two), b = shuffle_bytes(pixels, last_two);
      high += multiply_add_pairs(a, splat_lanes(group[0])) + multiply_add_pairs(b, splat_lanes(group[1]));
      low += multiply_add_pairs(a, splat_lanes(group[2])) + multiply_add_pairs(b, splat_lanes(group[3]));
    }
    uint8_t found[kWidth];
    store_sums(found, (high << kLowBits) + low);
    for (int i = 0; i < kLanes; ++i) memcpy(outs[i] + 4 * x, found + 4 * i, 4);
  }
}
#endif

// Resizes a row of four-byte pixels. A vector of four values holds the channels of one pixel.
inline void horizontal_pixels(const uint8_t* row, const Taps& taps, uint8_t* out) {
  const int32_t* weights = taps.weights;
  for (int64_t x = 0; x < taps.outputs; ++x, weights += taps.width) {
    const uint8_t* pixel = row + 4 * taps.first[x];
    Int sum = Int{} + kHalf;
    for (int64_t t = 0; t < taps.width; ++t) sum += load_u8(pixel + 4 * t) * weights[t];
    store_sums(out + 4 * x, sum);
  }
}

// Pixels have one or four bytes. `out` has no gaps between its rows.
inline void resize_horizontal(const uint8_t* source, int64_t stride, int64_t rows, int channels, const Taps& taps,
                              uint8_t* out) {
  const int64_t out_stride = taps.outputs * channels;
  int64_t y = 0;
#if MINDCV_HAS_LANES
  for (; channels == 4 && taps.groups != nullptr && y < rows; y += kLanes) {
    const uint8_t* from[kLanes];
    uint8_t* to[kLanes];
    for (int i = 0; i < kLanes; ++i) {  // the last row takes the place of rows that do not exist
      from[i] = source + min(y + i, rows - 1) * stride;
      to[i] = out + min(y + i, rows - 1) * out_stride;
    }
    horizontal_lanes(from, taps, to);
  }
#else
  constexpr bool kTakesPixels = kWidth == 4 && kHasByteConversion;
  for (; kTakesPixels && channels == 4 && y < rows; ++y)
    horizontal_pixels(source + y * stride, taps, out + y * out_stride);
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
