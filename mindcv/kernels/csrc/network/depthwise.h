// The 7x7 depthwise convolution of channels-last maps, forward and backward, one vector of channels at a time. See
// decision 0028.
#pragma once
#include "runtime/parallel.h"
#include "runtime/thread_pool.h"
#include "runtime/visible_cells.h"
#include "simd/simd.h"

namespace mindcv {
namespace MINDCV_ISA {

constexpr int kKernelSize = 7;
constexpr int kTaps = kKernelSize * kKernelSize;
constexpr int kPadding = kKernelSize / 2;
// Columns of the output that are accumulated at once: as many as the registers hold beside a row of the kernel.
constexpr int kColumnsAtOnce = kWidth == 8 ? 7 : 14;

// Where the rows of a map of `n` images with h x w cells are in memory. DenseImages has all cells, row by row;
// VisibleImages has those of visible patches. A row is the channels of one cell.
struct DenseImages {
  int64_t n, h, w;

  // The rows of the cells of a line of an image.
  struct Line {
    int64_t first;
    int64_t operator[](int64_t col) const { return first + col; }
  };
  Line line(int64_t image, int64_t row) const { return {(image * h + row) * w}; }

  // Calls body(begin, end) for each run of columns that have rows.
  template <class Body>
  void for_each_run(Line, Body&& body) const {
    body(int64_t{0}, w);
  }
  static bool has_row(int64_t) { return true; }
};

struct VisibleImages {
  const VisibleCells* cells;
  int64_t image0;  // the first image
  int64_t n, h, w;

  struct Line {
    const int32_t* rows;
    int64_t first;
    int64_t operator[](int64_t col) const { return rows[col] - first; }
  };
  Line line(int64_t image, int64_t row) const { return {cells->line(image0 + image, row), cells->first_row(image0)}; }

  template <class Body>
  void for_each_run(Line line, Body&& body) const {
    for (int64_t begin = 0, end; begin < w; begin = end + 1) {
      for (end = begin; end < w && line.rows[end] >= 0;) ++end;
      if (end > begin) body(begin, end);
    }
  }
  static bool has_row(int64_t row) { return row >= 0; }
};

// Writes a line of one image's channels [c0, c0 + kWidth) with zero padding on both sides. Lines above and below the
// image, cells without a row, and channels that it does not have are zeros.
template <class Images>
inline void pad_line(const Images& images, const float* x, int64_t c, int64_t image, int64_t c0, int64_t h, float* to) {
  const int64_t w = images.w, channels = c - c0;
  if (h < 0 || h >= images.h) {
    memset(to, 0, static_cast<size_t>((w + kKernelSize - 1) * kWidth) * 4);
    return;
  }
  for (int64_t j = 0; j < kPadding; ++j) {
    store(to + j * kWidth, Vec{});
    store(to + (w + kPadding + j) * kWidth, Vec{});
  }
  const typename Images::Line line = images.line(image, h);
  x += c0;
  to += kPadding * kWidth;
  for (int64_t j = 0; j < w; ++j) {
    const int64_t row = line[j];
    if (!Images::has_row(row)) {
      store(to + j * kWidth, Vec{});
    } else if (channels >= kWidth) {
      store(to + j * kWidth, load(x + row * c));
    } else {
      store(to + j * kWidth, load_part(x + row * c, channels));
    }
  }
}

// The padded lines that the kernel covers. They are padded line by line, so that they stay in the first-level cache.
// See decision 0028.
template <class Images>
class Window {
 public:
  static int64_t floats(int64_t lines, int64_t w) { return (lines + kKernelSize - 1) * (w + kKernelSize - 1) * kWidth; }

  // The lines of an image from h0 on. `memory` holds floats() values.
  Window(const Images& images, const float* x, int64_t c, int64_t image, int64_t c0, int64_t h0, float* memory)
      : images_(images), x_(x), c_(c), image_(image), c0_(c0), h0_(h0), lines_(memory) {
    for (int64_t i = 0; i < kKernelSize - 1; ++i) pad(i);
  }

  // The first of the seven padded lines around `line`. Callers take the lines in order: 0, 1, 2 and so on.
  const float* around(int64_t line) {
    pad(line + kKernelSize - 1);
    return lines_ + line * width();
  }

  int64_t width() const { return (images_.w + kKernelSize - 1) * kWidth; }

 private:
  void pad(int64_t i) { pad_line(images_, x_, c_, image_, c0_, h0_ - kPadding + i, lines_ + i * width()); }

  const Images& images_;
  const float* x_;
  const int64_t c_, image_, c0_, h0_;
  float* lines_;
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
inline int64_t correlate_groups(const float* padded, int64_t width, int64_t col, int64_t end, const float* taps,
                                Vec start, Epilogue& epilogue) {
  for (; col + kCount <= end; col += kCount) {
    Vec sums[kCount];
    correlate_group<kCount>(padded + col * kWidth, width, taps, start, sums);
    for (int j = 0; j < kCount; ++j) epilogue(col + j, sums[j]);
  }
  return col;
}

// Convolves the columns [begin, end) of a line, given the padded lines around it, which have `width` cells each. Calls
// use(column, sums) for each column. The bits of a column do not depend on the columns that are computed beside it.
template <class Epilogue>
void correlate_line(const float* padded, int64_t width, int64_t begin, int64_t end, const float* taps, Vec start,
                    Epilogue&& epilogue) {
  int64_t col = begin;
  // A run of visible patches often has a multiple of 8 columns, which are 14 + 1 + 1 otherwise.
  if ((end - begin) % 8 == 0 && (end - begin) % kColumnsAtOnce != 0) {
    correlate_groups<8>(padded, width, col, end, taps, start, epilogue);
    return;
  }
  col = correlate_groups<kColumnsAtOnce>(padded, width, col, end, taps, start, epilogue);
  if (kColumnsAtOnce > 7) col = correlate_groups<7>(padded, width, col, end, taps, start, epilogue);
  col = correlate_groups<4>(padded, width, col, end, taps, start, epilogue);
  correlate_groups<1>(padded, width, col, end, taps, start, epilogue);
}

// Accumulates the gradient of the kernel over `w` cells of a line: sums[t] += dy times the value of x under tap t. `x`
// are the padded lines around the line, `width` values apart, and `dy` are the cells.
inline void accumulate_tap_sums(const float* x, int64_t width, const float* dy, int64_t w, Vec (&sums)[kTaps]) {
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
template <class Images>
void depthwise(Session& memory, const Images& images, int64_t c, const float* x, const float* weight, const float* bias,
               float* y) {
  const float* taps = pack_taps(memory, weight, c, false);
  // A task takes some channels of one image and, where that gives too few tasks, some of its lines.
  constexpr int64_t kChannels = 32;
  const int64_t groups = ceil_div(c, kChannels);
  const int64_t strip = images.n * groups >= 4 * pool_threads() ? images.h : min(images.h, 14);
  const int64_t strips = ceil_div(images.h, strip);
  parallel(images.n * strips * groups, [&](int64_t task) {
    const int64_t image = task / groups / strips, h0 = task / groups % strips * strip,
                  lines = min(strip, images.h - h0);
    const int64_t first = task % groups * kChannels;
    float* window_memory =
        static_cast<float*>(thread_scratch(static_cast<size_t>(Window<Images>::floats(strip, images.w)) * 4));
    for (int64_t c0 = first; c0 < min(first + kChannels, c); c0 += kWidth) {
      const int64_t channels = c - c0;
      const Vec start = load_part(bias + c0, channels);
      Window<Images> window(images, x, c, image, c0, h0, window_memory);
      for (int64_t line = 0; line < lines; ++line) {
        const float* padded = window.around(line);
        const typename Images::Line rows = images.line(image, h0 + line);
        images.for_each_run(rows, [&](int64_t begin, int64_t end) {
          correlate_line(padded, images.w + kKernelSize - 1, begin, end, taps + c0 * kTaps, start,
                         [&](int64_t col, Vec v) { store_part(y + rows[col] * c + c0, v, channels); });
        });
      }
    }
  });
}

// The gradients of the convolution, from the gradient du of its output: dx = du correlated with the flipped kernel,
// plus `add`; the gradient of the kernel [C, 49] is added to dw.
template <class Images>
void depthwise_backward(Session& memory, const Images& images, int64_t c, const float* x, const float* weight,
                        const float* du, const float* add, float* dx, float* dw) {
  const float* taps = pack_taps(memory, weight, c, true);
  const int64_t vectors = ceil_div(c, kWidth);
  float* parts = memory.floats(images.n * vectors * kTaps * kWidth);
  parallel(images.n * vectors, [&](int64_t task) {
    const int64_t image = task / vectors, c0 = task % vectors * kWidth, channels = c - c0;
    const int64_t floats = Window<Images>::floats(images.h, images.w);
    float* windows = static_cast<float*>(thread_scratch(static_cast<size_t>(2 * floats) * 4));
    Window<Images> grad(images, du, c, image, c0, 0, windows), seen(images, x, c, image, c0, 0, windows + floats);
    Vec sums[kTaps] = {};
    for (int64_t line = 0; line < images.h; ++line) {
      const float *grad_lines = grad.around(line), *seen_lines = seen.around(line);
      const typename Images::Line rows = images.line(image, line);
      images.for_each_run(rows, [&](int64_t begin, int64_t end) {
        correlate_line(grad_lines, images.w + kKernelSize - 1, begin, end, taps + c0 * kTaps, Vec{},
                       [&](int64_t col, Vec v) {
                         const int64_t at = rows[col] * c + c0;
                         store_part(dx + at, v + load_part(add + at, channels), channels);
                       });
        accumulate_tap_sums(seen_lines + begin * kWidth, seen.width(),
                            grad_lines + kPadding * (grad.width() + kWidth) + begin * kWidth, end - begin, sums);
      });
    }
    for (int t = 0; t < kTaps; ++t) store(parts + (task * kTaps + t) * kWidth, sums[t]);
  });
  parallel(vectors, [&](int64_t vector) {
    for (int t = 0; t < kTaps; ++t) {
      Vec total{};
      for (int64_t image = 0; image < images.n; ++image)
        total += load(parts + ((image * vectors + vector) * kTaps + t) * kWidth);
      float values[kWidth];
      store(values, total);
      for (int i = 0; i < kWidth && vector * kWidth + i < c; ++i) dw[(vector * kWidth + i) * kTaps + t] += values[i];
    }
  });
}

}  // namespace MINDCV_ISA
}  // namespace mindcv
