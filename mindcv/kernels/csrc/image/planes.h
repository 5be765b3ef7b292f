// Bytes to normalised float32 planes, and blends of such images.
#pragma once
#include "image/resize.h"

namespace mindcv {
namespace MINDCV_ISA {

// Pixels of four bytes to three planes, or of one byte to one: (value - mean) / std in float32, each rounded once.
inline void to_planes(const uint8_t* source, int64_t pixels, int planes, const float* mean, const float* std,
                      float* out) {
  const int step = planes == 1 ? 1 : 4;
  int64_t i = 0;
  for (; i + kWidth <= pixels; i += kWidth) {
    Int values;
    if (step == 4) memcpy(&values, source + 4 * i, sizeof(values));
    for (int c = 0; c < planes; ++c) {
      const Int bytes = step == 1 ? load_u8(source + i) : values >> 8 * c & 255;
      store(out + c * pixels + i, (__builtin_convertvector(bytes, Vec) - splat(mean[c])) / splat(std[c]));
    }
  }
  for (; i < pixels; ++i) {
    for (int c = 0; c < planes; ++c) out[c * pixels + i] = (source[step * i + c] - mean[c]) / std[c];
  }
}

// Blends two images of `count` values with one another, each with its own share of itself; NumPy's a *= s, a += b (1 -
// s). They may be the same one.
inline void mix(float* a, float* b, int64_t count, float share_a, float share_b) {
  const float rest_a = 1.0f - share_a, rest_b = 1.0f - share_b;
  int64_t i = 0;
  for (; i + kWidth <= count; i += kWidth) {
    const Vec own = load(a + i), other = load(b + i);
    store(a + i, own * splat(share_a) + other * splat(rest_a));
    store(b + i, other * splat(share_b) + own * splat(rest_b));
  }
  for (; i < count; ++i) {
    const float own = a[i], other = b[i];
    a[i] = own * share_a + other * rest_a;
    b[i] = other * share_b + own * rest_b;
  }
}

}  // namespace MINDCV_ISA
}  // namespace mindcv
