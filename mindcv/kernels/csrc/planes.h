// Bytes to normalised float32 planes.
#pragma once
#include "resize.h"

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
      const Int bytes = step == 1 ? load_bytes(source + i) : values >> 8 * c & 255;
      store(out + c * pixels + i, (__builtin_convertvector(bytes, Vec) - splat(mean[c])) / splat(std[c]));
    }
  }
  for (; i < pixels; ++i) {
    for (int c = 0; c < planes; ++c) out[c * pixels + i] = (source[step * i + c] - mean[c]) / std[c];
  }
}

}  // namespace MINDCV_ISA
}  // namespace mindcv
