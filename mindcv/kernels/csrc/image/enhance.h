// Pillow's enhancements that look at more than one value: blends of an image with a blurred or a grey one.
#pragma once
#include "image/images.h"
#include "simd/simd.h"

namespace mindcv {
namespace MINDCV_ISA {

// Between `base` (factor 0) and `value` (factor 1), or beyond, in float32 with Pillow's roundings.
MINDCV_INLINE uint8_t blend(int32_t base, int32_t value, float factor) {
  const float mixed = static_cast<float>(base) + factor * static_cast<float>(value - base);
  return static_cast<uint8_t>(mixed <= 0 ? 0 : mixed >= 255 ? 255 : static_cast<int32_t>(mixed));
}

// A row between two others; `step` bytes from one pixel to the next. The blurred value is the mean with a weight of 5
// in the middle and 1 around it, rounded: Pillow computes it in float32, but sums of bytes / 13 are never close to a
// half.
MINDCV_INLINE void sharpen_row(const uint8_t* row, int64_t stride, int64_t bytes, int64_t step, float factor,
                               uint8_t* out) {
  const uint8_t *above = row - stride, *below = row + stride;
  for (int64_t i = step; i < bytes - step; ++i) {
    const int32_t sum = above[i - step] + above[i] + above[i + step] + row[i - step] + 5 * row[i] + row[i + step] +
                        below[i - step] + below[i] + below[i + step];
    out[i] = blend((sum + 6) * 5042 >> 16, row[i], factor);  // (sum + 6) / 13
  }
}

// Pixels of one or four bytes; those at the border, which have no blurred value, stay.
inline void sharpen(const uint8_t* source, int64_t width, int64_t height, int channels, float factor, uint8_t* out) {
  const int64_t stride = width * channels;
  memcpy(out, source, static_cast<size_t>(height * stride));
  for (int64_t y = 1; y < height - 1; ++y) {
    const uint8_t* row = source + y * stride;
    (channels == 4) ? sharpen_row(row, stride, stride, 4, factor, out + y * stride)
                    : sharpen_row(row, stride, stride, 1, factor, out + y * stride);
  }
}

// Pixels of four bytes: blends with their grey, 0.299 red + 0.587 green + 0.114 blue in 16 bits' fixed point.
inline void saturate(const uint8_t* source, int64_t pixels, float factor, uint8_t* out) {
  for (int64_t i = 0; i < pixels; ++i, source += 4, out += 4) {
    const int32_t grey = (source[0] * 19595 + source[1] * 38470 + source[2] * 7471 + 0x8000) >> 16;
    for (int c = 0; c < 4; ++c) out[c] = blend(grey, source[c], factor);
  }
}

}  // namespace MINDCV_ISA
}  // namespace mindcv
