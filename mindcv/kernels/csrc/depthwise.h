// 7x7 depthwise convolution of channels-last maps, forward and backward, one vector of channels at a time.
#pragma once
#include "gemm.h"
#include "pool.h"
#include "simd.h"

namespace mindcv {
namespace MINDCV_ISA {

constexpr int kSize = 7;
constexpr int kTaps = kSize * kSize;
constexpr int kBorder = kSize / 2;
// Columns of the output that are summed at once: as many as the registers hold beside the kernel's row.
constexpr int kColumns = kWidth == 8 ? 7 : 14;

struct MapShape {
  int64_t n, h, w, c;
  int64_t pixels() const { return h * w; }
  int64_t rows() const { return n * h * w; }
};

inline int64_t padded_floats(int64_t rows, int64_t w) { return (rows + kSize - 1) * (w + kSize - 1) * kWidth; }

// Rows [h0 - 3, h0 + rows + 3) of one image's channels [c0, c0 + kWidth), with zeros around the image and beyond its
// channels.
inline void pad_rows(const float* image, const MapShape& s, int64_t c0, int64_t h0, int64_t rows, float* to) {
  const int64_t width = s.w + kSize - 1;
  const int64_t channels = s.c - c0;
  for (int64_t i = 0; i < rows + kSize - 1; ++i) {
    const int64_t h = h0 + i - kBorder;
    float* line = to + i * width * kWidth;
    if (h < 0 || h >= s.h) {
      memset(line, 0, static_cast<size_t>(width * kWidth) * 4);
      continue;
    }
    for (int64_t j = 0; j < kBorder; ++j) {
      store(line + j * kWidth, Vec{});
      store(line + (s.w + kBorder + j) * kWidth, Vec{});
    }
    const float* from = image + h * s.w * s.c + c0;
    if (channels >= kWidth) {
      for (int64_t j = 0; j < s.w; ++j) store(line + (j + kBorder) * kWidth, load(from + j * s.c));
    } else {
      for (int64_t j = 0; j < s.w; ++j) store(line + (j + kBorder) * kWidth, load_part(from + j * s.c, channels));
    }
  }
}

// The kernel [C, 49] as [C / kWidth][49][kWidth], for correlation or (flip) turned by 180 degrees, for the gradient.
inline float* packed_taps(Session& memory, const float* weight, int64_t c, bool flip) {
  float* taps = memory.floats(ceil_div(c, kWidth) * kTaps * kWidth);
  parallel(ceil_div(c, kWidth), [&](int64_t block) {
    for (int t = 0; t < kTaps; ++t) {
      const int64_t from = flip ? kTaps - 1 - t : t;
      for (int64_t i = 0; i < kWidth; ++i) {
        const int64_t channel = block * kWidth + i;
        taps[(block * kTaps + t) * kWidth + i] = channel < c ? weight[channel * kTaps + from] : 0.0f;
      }
    }
  });
  return taps;
}

template <int kCount>
inline void correlate_columns(const float* padded, int64_t width, const float* taps, Vec start, Vec (&sums)[kCount]) {
  for (int j = 0; j < kCount; ++j) sums[j] = start;
  for (int i = 0; i < kSize; ++i) {
    Vec tap[kSize];
    for (int k = 0; k < kSize; ++k) tap[k] = load(taps + (i * kSize + k) * kWidth);
    const float* line = padded + i * width * kWidth;
#pragma GCC unroll 20
    for (int j = 0; j < kCount + kSize - 1; ++j) {
      const Vec x = load(line + j * kWidth);
#pragma GCC unroll 7
      for (int k = 0; k < kSize; ++k) {
        if (j - k >= 0 && j - k < kCount) sums[j - k] += x * tap[k];
      }
    }
  }
}

template <int kCount, class Use>
inline int64_t correlate_while(const float* padded, int64_t width, int64_t w, int64_t col, const float* taps, Vec start,
                               int64_t row, Use& use) {
  for (; col + kCount <= w; col += kCount) {
    Vec sums[kCount];
    correlate_columns<kCount>(padded + col * kWidth, width, taps, start, sums);
    for (int j = 0; j < kCount; ++j) use(row, col + j, sums[j]);
  }
  return col;
}

// Calls use(row, column, sums) for each pixel of `rows` rows whose surroundings are in `padded`.
template <class Use>
void correlate(const float* padded, int64_t rows, int64_t w, const float* taps, Vec start, Use&& use) {
  const int64_t width = w + kSize - 1;
  for (int64_t row = 0; row < rows; ++row) {
    const float* top = padded + row * width * kWidth;
    int64_t col = correlate_while<kColumns>(top, width, w, 0, taps, start, row, use);
    if (kColumns > 7) col = correlate_while<7>(top, width, w, col, taps, start, row, use);
    col = correlate_while<4>(top, width, w, col, taps, start, row, use);
    correlate_while<1>(top, width, w, col, taps, start, row, use);
  }
}

// sums[49] += for each tap, the sum over pixels of dy times the x that the tap saw; both maps padded by 3.
inline void correlate_maps(const float* x, const float* dy, int64_t rows, int64_t w, Vec (&sums)[kTaps]) {
  const int64_t width = w + kSize - 1;
  for (int i = 0; i < kSize; ++i) {
    Vec acc[kSize];
    for (int k = 0; k < kSize; ++k) acc[k] = sums[i * kSize + k];
    for (int64_t row = 0; row < rows; ++row) {
      const float* from = x + (row + i) * width * kWidth;
      const float* grad = dy + ((row + kBorder) * width + kBorder) * kWidth;
      for (int64_t col = 0; col < w; col += 4) {
        const int64_t have = least(4, w - col);
        Vec g[4];
        for (int j = 0; j < 4; ++j) g[j] = j < have ? load(grad + (col + j) * kWidth) : Vec{};
        const float* line = from + col * kWidth;
        if (have == 4) {
#pragma GCC unroll 10
          for (int j = 0; j < 4 + kSize - 1; ++j) {
            const Vec v = load(line + j * kWidth);
#pragma GCC unroll 7
            for (int k = 0; k < kSize; ++k) {
              if (j - k >= 0 && j - k < 4) acc[k] += v * g[j - k];
            }
          }
        } else {
          for (int j = 0; j < have; ++j) {
            for (int k = 0; k < kSize; ++k) acc[k] += load(line + (j + k) * kWidth) * g[j];
          }
        }
      }
    }
    for (int k = 0; k < kSize; ++k) sums[i * kSize + k] = acc[k];
  }
}

// y [rows, C]: the convolution plus bias.
inline void depthwise(Session& memory, const MapShape& s, const float* x, const float* weight, const float* bias,
                      float* y) {
  const float* taps = packed_taps(memory, weight, s.c, false);
  // A task has some rows of one image, and some of their channels.
  constexpr int64_t kChannels = 64;
  const int64_t strip = least(s.h, 14), strips = ceil_div(s.h, strip), groups = ceil_div(s.c, kChannels);
  parallel(s.n * strips * groups, [&](int64_t task) {
    const int64_t image = task / groups / strips, h0 = task / groups % strips * strip, rows = least(strip, s.h - h0);
    const int64_t first = task % groups * kChannels;
    float* padded = static_cast<float*>(thread_scratch(static_cast<size_t>(padded_floats(strip, s.w)) * 4));
    for (int64_t c0 = first; c0 < least(first + kChannels, s.c); c0 += kWidth) {
      const int64_t channels = s.c - c0;
      pad_rows(x + image * s.pixels() * s.c, s, c0, h0, rows, padded);
      float* to = y + (image * s.pixels() + h0 * s.w) * s.c + c0;
      correlate(padded, rows, s.w, taps + c0 * kTaps, load_part(bias + c0, channels),
                [&](int64_t row, int64_t col, Vec v) { store_part(to + (row * s.w + col) * s.c, v, channels); });
    }
  });
}

// From du, the gradient of the convolution's output: dx = du correlated with the turned kernel, plus `add`; and the
// sums for the kernel [C, 49], added to dw.
inline void depthwise_backward(Session& memory, const MapShape& s, const float* x, const float* weight, const float* du,
                               const float* add, float* dx, float* dw) {
  const float* taps = packed_taps(memory, weight, s.c, true);
  const int64_t blocks = ceil_div(s.c, kWidth);
  float* parts = memory.floats(s.n * blocks * kTaps * kWidth);
  parallel(s.n * blocks, [&](int64_t task) {
    const int64_t image = task / blocks, c0 = task % blocks * kWidth, channels = s.c - c0;
    const int64_t offset = image * s.pixels() * s.c;
    const int64_t floats = padded_floats(s.h, s.w);
    float* grad = static_cast<float*>(thread_scratch(static_cast<size_t>(2 * floats) * 4));
    float* seen = grad + floats;
    pad_rows(du + offset, s, c0, 0, s.h, grad);
    correlate(grad, s.h, s.w, taps + c0 * kTaps, Vec{}, [&](int64_t row, int64_t col, Vec v) {
      const int64_t at = offset + (row * s.w + col) * s.c + c0;
      store_part(dx + at, v + load_part(add + at, channels), channels);
    });
    pad_rows(x + offset, s, c0, 0, s.h, seen);
    Vec sums[kTaps] = {};
    correlate_maps(seen, grad, s.h, s.w, sums);
    for (int t = 0; t < kTaps; ++t) store(parts + (task * kTaps + t) * kWidth, sums[t]);
  });
  parallel(blocks, [&](int64_t block) {
    for (int t = 0; t < kTaps; ++t) {
      Vec total{};
      for (int64_t image = 0; image < s.n; ++image)
        total += load(parts + ((image * blocks + block) * kTaps + t) * kWidth);
      float values[kWidth];
      store(values, total);
      for (int i = 0; i < kWidth && block * kWidth + i < s.c; ++i) dw[(block * kWidth + i) * kTaps + t] += values[i];
    }
  });
}

}  // namespace MINDCV_ISA
}  // namespace mindcv
