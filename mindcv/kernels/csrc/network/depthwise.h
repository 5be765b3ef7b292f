// 7x7 depthwise convolution of channels-last maps, forward and backward, one vector of channels at a time.
#pragma once
#include "gemm/gemm.h"
#include "runtime/thread_pool.h"
#include "simd/simd.h"

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

// Row h of one image's channels [c0, c0 + kWidth), with zeros beside the image, and in place of rows above and below it
// and of channels that it does not have.
inline void pad_row(const float* image, const MapShape& s, int64_t c0, int64_t h, float* to) {
  const int64_t channels = s.c - c0;
  if (h < 0 || h >= s.h) {
    memset(to, 0, static_cast<size_t>((s.w + kSize - 1) * kWidth) * 4);
    return;
  }
  for (int64_t j = 0; j < kBorder; ++j) {
    store(to + j * kWidth, Vec{});
    store(to + (s.w + kBorder + j) * kWidth, Vec{});
  }
  const float* from = image + h * s.w * s.c + c0;
  to += kBorder * kWidth;
  if (channels >= kWidth) {
    for (int64_t j = 0; j < s.w; ++j) store(to + j * kWidth, load(from + j * s.c));
  } else {
    for (int64_t j = 0; j < s.w; ++j) store(to + j * kWidth, load_part(from + j * s.c, channels));
  }
}

// The padded rows that lie within the kernel's reach, row by row, so that they stay in the first-level cache.
class Window {
 public:
  static int64_t floats(int64_t rows, int64_t w) { return (rows + kSize - 1) * (w + kSize - 1) * kWidth; }

  // Of the rows of an image from h0 on, in memory of its own.
  Window(const float* image, const MapShape& s, int64_t c0, int64_t h0, float* memory)
      : image_(image), s_(s), c0_(c0), h0_(h0), rows_(memory) {
    for (int64_t i = 0; i < kSize - 1; ++i) pad(i);
  }

  // The first of the padded rows around `row`, which follow each other; called for row 0, 1, 2 and so on.
  const float* around(int64_t row) {
    pad(row + kSize - 1);
    return rows_ + row * width();
  }

  int64_t width() const { return (s_.w + kSize - 1) * kWidth; }

 private:
  void pad(int64_t i) { pad_row(image_, s_, c0_, h0_ - kBorder + i, rows_ + i * width()); }

  const float* image_;
  const MapShape& s_;
  const int64_t c0_, h0_;
  float* rows_;
};

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
inline int64_t correlate_while(const float* padded, int64_t w, int64_t col, const float* taps, Vec start, Use& use) {
  for (; col + kCount <= w; col += kCount) {
    Vec sums[kCount];
    correlate_columns<kCount>(padded + col * kWidth, w + kSize - 1, taps, start, sums);
    for (int j = 0; j < kCount; ++j) use(col + j, sums[j]);
  }
  return col;
}

// Calls use(column, sums) for each pixel of a row, from the padded rows around it.
template <class Use>
void correlate_row(const float* padded, int64_t w, const float* taps, Vec start, Use&& use) {
  int64_t col = correlate_while<kColumns>(padded, w, 0, taps, start, use);
  if (kColumns > 7) col = correlate_while<7>(padded, w, col, taps, start, use);
  col = correlate_while<4>(padded, w, col, taps, start, use);
  correlate_while<1>(padded, w, col, taps, start, use);
}

// sums[49] += for each tap, the sum over a row's pixels of dy times the x that the tap saw: from the padded rows of x
// around it, and the row of dy.
inline void correlate_maps(const float* x, const float* dy, int64_t w, Vec (&sums)[kTaps]) {
  const int64_t width = (w + kSize - 1) * kWidth;
  for (int i = 0; i < kSize; ++i, x += width) {
    Vec acc[kSize];
    for (int k = 0; k < kSize; ++k) acc[k] = sums[i * kSize + k];
    int64_t col = 0;
    for (; col + 4 <= w; col += 4) {
      Vec g[4];
      for (int j = 0; j < 4; ++j) g[j] = load(dy + (col + j) * kWidth);
      const float* line = x + col * kWidth;
#pragma GCC unroll 10
      for (int j = 0; j < 4 + kSize - 1; ++j) {
        const Vec v = load(line + j * kWidth);
#pragma GCC unroll 7
        for (int k = 0; k < kSize; ++k) {
          if (j - k >= 0 && j - k < 4) acc[k] += v * g[j - k];
        }
      }
    }
    for (; col < w; ++col) {
      const Vec g = load(dy + col * kWidth);
      for (int k = 0; k < kSize; ++k) acc[k] += load(x + (col + k) * kWidth) * g;
    }
    for (int k = 0; k < kSize; ++k) sums[i * kSize + k] = acc[k];
  }
}

// y [rows, C]: the convolution plus bias.
inline void depthwise(Session& memory, const MapShape& s, const float* x, const float* weight, const float* bias,
                      float* y) {
  const float* taps = packed_taps(memory, weight, s.c, false);
  // A task has some of one image's channels; and, where these are too few tasks, some of its rows.
  constexpr int64_t kChannels = 32;
  const int64_t groups = ceil_div(s.c, kChannels);
  const int64_t strip = s.n * groups >= 4 * pool_threads() ? s.h : min(s.h, 14), strips = ceil_div(s.h, strip);
  parallel(s.n * strips * groups, [&](int64_t task) {
    const int64_t image = task / groups / strips, h0 = task / groups % strips * strip, rows = min(strip, s.h - h0);
    const int64_t first = task % groups * kChannels, offset = image * s.pixels() * s.c;
    float* memory_of_window = static_cast<float*>(thread_scratch(static_cast<size_t>(Window::floats(strip, s.w)) * 4));
    for (int64_t c0 = first; c0 < min(first + kChannels, s.c); c0 += kWidth) {
      const int64_t channels = s.c - c0;
      const Vec start = load_part(bias + c0, channels);
      Window window(x + offset, s, c0, h0, memory_of_window);
      for (int64_t row = 0; row < rows; ++row) {
        float* to = y + offset + (h0 + row) * s.w * s.c + c0;
        correlate_row(window.around(row), s.w, taps + c0 * kTaps, start,
                      [&](int64_t col, Vec v) { store_part(to + col * s.c, v, channels); });
      }
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
      correlate_maps(seen.around(row), grad_rows + kBorder * (grad.width() + kWidth), s.w, sums);
    }
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
