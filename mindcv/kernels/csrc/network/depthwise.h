// The 7x7 depthwise convolution of channels-last maps, forward and backward, one vector of channels at a time. See
// decision 0028.
#pragma once
#include "runtime/parallel.h"
#include "runtime/thread_pool.h"
#include "simd/simd.h"

namespace mindcv {
namespace MINDCV_ISA {

constexpr int kKernelSize = 7;
constexpr int kTaps = kKernelSize * kKernelSize;
constexpr int kPadding = kKernelSize / 2;
// Columns of the output that are accumulated at once: as many as the registers hold beside a row of the kernel.
constexpr int kColumnsAtOnce = kWidth == 8 ? 7 : 14;

struct MapShape {
  int64_t n, h, w, c;
  int64_t pixels() const { return h * w; }
  int64_t rows() const { return n * h * w; }
};

// Writes row h of one image's channels [c0, c0 + kWidth) with zero padding on both sides. Rows above and below the
// image and channels that it does not have are zeros.
inline void pad_row(const float* image, const MapShape& s, int64_t c0, int64_t h, float* to) {
  const int64_t channels = s.c - c0;
  if (h < 0 || h >= s.h) {
    memset(to, 0, static_cast<size_t>((s.w + kKernelSize - 1) * kWidth) * 4);
    return;
  }
  for (int64_t j = 0; j < kPadding; ++j) {
    store(to + j * kWidth, Vec{});
    store(to + (s.w + kPadding + j) * kWidth, Vec{});
  }
  const float* from = image + h * s.w * s.c + c0;
  to += kPadding * kWidth;
  if (channels >= kWidth) {
    for (int64_t j = 0; j < s.w; ++j) store(to + j * kWidth, load(from + j * s.c));
  } else {
    for (int64_t j = 0; j < s.w; ++j) store(to + j * kWidth, load_part(from + j * s.c, channels));
  }
}

// The padded rows that the kernel covers. They are padded row by row, so that they stay in the first-level cache. See
// decision 0028.
class Window {
 public:
  static int64_t floats(int64_t rows, int64_t w) { return (rows + kKernelSize - 1) * (w + kKernelSize - 1) * kWidth; }

  // The rows of an image from h0 on. `memory` holds floats() values.
  Window(const float* image, const MapShape& s, int64_t c0, int64_t h0, float* memory)
      : image_(image), s_(s), c0_(c0), h0_(h0), rows_(memory) {
    for (int64_t i = 0; i < kKernelSize - 1; ++i) pad(i);
  }

  // The first of the seven padded rows around `row`. Callers take the rows in order: 0, 1, 2 and so on.
  const float* around(int64_t row) {
    pad(row + kKernelSize - 1);
    return rows_ + row * width();
  }

  int64_t width() const { return (s_.w + kKernelSize - 1) * kWidth; }

 private:
  void pad(int64_t i) { pad_row(image_, s_, c0_, h0_ - kPadding + i, rows_ + i * width()); }

  const float* image_;
  const MapShape& s_;
  const int64_t c0_, h0_;
  float* rows_;
};

// Packs the kernel [C, 49] as [C / kWidth][49][kWidth]. With `flip` it is rotated by 180 degrees, for the gradient.
inline float* pack_taps(Session& memory, const float* weight, int64_t c, bool flip) {
  float* taps = memory.floats(ceil_div(c, kWidth) * kTaps * kWidth);
  parallel(ceil_div(c, kWidth), [&](int64_t vector) {
    for (int t = 0; t < kTaps; ++t) {
      const int64_t from = flip ? kTaps - 1 - t : t;
      for (int64_t i = 0; i < kWidth; ++i) {
        const int64_t channel = vector * kWidth + i;
        taps[(vector * kTaps + t) * kWidth + i] = channel < c ? weight[channel * kTaps + from] : 0.0f;
      }
    }
  });
  return taps;
}

template <int kCount>
inline void correlate_group(const float* padded, int64_t width, const float* taps, Vec start, Vec (&sums)[kCount]) {
  for (int j = 0; j < kCount; ++j) sums[j] = start;
  for (int i = 0; i < kKernelSize; ++i) {
    Vec tap[kKernelSize];
    for (int k = 0; k < kKernelSize; ++k) tap[k] = load(taps + (i * kKernelSize + k) * kWidth);
    const float* line = padded + i * width * kWidth;
#pragma GCC unroll 20
    for (int j = 0; j < kCount + kKernelSize - 1; ++j) {
      const Vec x = load(line + j * kWidth);
#pragma GCC unroll 7
      for (int k = 0; k < kKernelSize; ++k) {
        if (j - k >= 0 && j - k < kCount) sums[j - k] += x * tap[k];
      }
    }
  }
}

template <int kCount, class Epilogue>
inline int64_t correlate_groups(const float* padded, int64_t w, int64_t col, const float* taps, Vec start,
                                Epilogue& epilogue) {
  for (; col + kCount <= w; col += kCount) {
    Vec sums[kCount];
    correlate_group<kCount>(padded + col * kWidth, w + kKernelSize - 1, taps, start, sums);
    for (int j = 0; j < kCount; ++j) epilogue(col + j, sums[j]);
  }
  return col;
}

// Convolves a row of `w` pixels, given the padded rows around it. Calls use(column, sums) for each pixel.
template <class Epilogue>
void correlate_row(const float* padded, int64_t w, const float* taps, Vec start, Epilogue&& epilogue) {
  int64_t col = correlate_groups<kColumnsAtOnce>(padded, w, 0, taps, start, epilogue);
  if (kColumnsAtOnce > 7) col = correlate_groups<7>(padded, w, col, taps, start, epilogue);
  col = correlate_groups<4>(padded, w, col, taps, start, epilogue);
  correlate_groups<1>(padded, w, col, taps, start, epilogue);
}

// Accumulates the gradient of the kernel over a row of pixels: sums[t] += dy times the value of x under tap t. `x` are
// the padded rows around the row, and `dy` is the row.
inline void accumulate_tap_sums(const float* x, const float* dy, int64_t w, Vec (&sums)[kTaps]) {
  const int64_t width = (w + kKernelSize - 1) * kWidth;
  for (int i = 0; i < kKernelSize; ++i, x += width) {
    Vec acc[kKernelSize];
    for (int k = 0; k < kKernelSize; ++k) acc[k] = sums[i * kKernelSize + k];
    int64_t col = 0;
    for (; col + 4 <= w; col += 4) {
      Vec g[4];
      for (int j = 0; j < 4; ++j) g[j] = load(dy + (col + j) * kWidth);
      const float* line = x + col * kWidth;
#pragma GCC unroll 10
      for (int j = 0; j < 4 + kKernelSize - 1; ++j) {
        const Vec v = load(line + j * kWidth);
#pragma GCC unroll 7
        for (int k = 0; k < kKernelSize; ++k) {
          if (j - k >= 0 && j - k < 4) acc[k] += v * g[j - k];
        }
      }
    }
    for (; col < w; ++col) {
      const Vec g = load(dy + col * kWidth);
      for (int k = 0; k < kKernelSize; ++k) acc[k] += load(x + (col + k) * kWidth) * g;
    }
    for (int k = 0; k < kKernelSize; ++k) sums[i * kKernelSize + k] = acc[k];
  }
}

// y [rows, C] = the convolution of x plus bias.
inline void depthwise(Session& memory, const MapShape& s, const float* x, const float* weight, const float* bias,
                      float* y) {
  const float* taps = pack_taps(memory, weight, s.c, false);
  // A task takes some channels of one image and, where that gives too few tasks, some of its rows.
  constexpr int64_t kChannels = 32;
  const int64_t groups = ceil_div(s.c, kChannels);
  const int64_t strip = s.n * groups >= 4 * pool_threads() ? s.h : min(s.h, 14), strips = ceil_div(s.h, strip);
  parallel(s.n * strips * groups, [&](int64_t task) {
    const int64_t image = task / groups / strips, h0 = task / groups % strips * strip, rows = min(strip, s.h - h0);
    const int64_t first = task % groups * kChannels, offset = image * s.pixels() * s.c;
    float* window_memory = static_cast<float*>(thread_scratch(static_cast<size_t>(Window::floats(strip, s.w)) * 4));
    for (int64_t c0 = first; c0 < min(first + kChannels, s.c); c0 += kWidth) {
      const int64_t channels = s.c - c0;
      const Vec start = load_part(bias + c0, channels);
      Window window(x + offset, s, c0, h0, window_memory);
      for (int64_t row = 0; row < rows; ++row) {
        float* to = y + offset + (h0 + row) * s.w * s.c + c0;
        correlate_row(window.around(row), s.w, taps + c0 * kTaps, start,
                      [&](int64_t col, Vec v) { store_part(to + col * s.c, v, channels); });
      }
    }
  });
}

// The gradients of the convolution, from the gradient du of its output: dx = du correlated with the flipped kernel,
// plus `add`; the gradient of the kernel [C, 49] is added to dw.
inline void depthwise_backward(Session& memory, const MapShape& s, const float* x, const float* weight, const float* du,
                               const float* add, float* dx, float* dw) {
  const float* taps = pack_taps(memory, weight, s.c, true);
  const int64_t vectors = ceil_div(s.c, kWidth);
  float* parts = memory.floats(s.n * vectors * kTaps * kWidth);
  parallel(s.n * vectors, [&](int64_t task) {
    const int64_t image = task / vectors, c0 = task % vectors * kWidth, channels = s.c - c0;
    const int64_t offset = image * s.pixels() * s.c, floats = Window::floats(s.h, s.w);
    float* windows = static_cast<float*>(thread_scratch(static_cast<size_t>(2 * floats) * 4));
    Window grad(du + offset, s, c0, 0, windows), seen(x + offset, s, c0, 0, windows + floats);
    Vec sums[kTaps] = {};
    for (int64_t row = 0; row < s.h; ++row) {
      const float* grad_rows = grad.around(row);
      correlate_row(grad_rows, s.w, taps + c0 * kTaps, Vec{}, [&](int64_t col, Vec v) {
        const int64_t at = offset + (row * s.w + col) * s.c + c0;
        store_part(dx + at, v + load_part(add + at, channels), channels);
      });
      accumulate_tap_sums(seen.around(row), grad_rows + kPadding * (grad.width() + kWidth), s.w, sums);
    }
    for (int t = 0; t < kTaps; ++t) store(parts + (task * kTaps + t) * kWidth, sums[t]);
  });
  parallel(vectors, [&](int64_t vector) {
    for (int t = 0; t < kTaps; ++t) {
      Vec total{};
      for (int64_t image = 0; image < s.n; ++image)
        total += load(parts + ((image * vectors + vector) * kTaps + t) * kWidth);
      float values[kWidth];
      store(values, total);
      for (int i = 0; i < kWidth && vector * kWidth + i < s.c; ++i) dw[(vector * kWidth + i) * kTaps + t] += values[i];
    }
  });
}

}  // namespace MINDCV_ISA
}  // namespace mindcv
