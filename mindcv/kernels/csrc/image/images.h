// What the image kernels of all instruction sets share.
#pragma once
#include <cstdint>

namespace mindcv {

// Fixed point of Pillow's resizing: a weight of 1 is 2^22, a weighted sum of bytes is rounded once.
constexpr int kWeightBits = 22;
// Wide multiplications take a weight in two halves, high * 2^12 + low, each of which fits 16 bits.
constexpr int kLowBits = 12;
// Taps of one step of the horizontal pass.
constexpr int kTapGroup = 4;

// Which values of a row (or column) each output is the weighted sum of: `width` of them from `first[i]` on, all inside
// the source. Weights beyond the filter's support are 0.
struct Taps {
  int64_t outputs;
  int64_t width;
  const int32_t* first;
  const int32_t* weights;
  // The same weights in groups of four: high halves of (0, 1) and (2, 3), low halves of (0, 1) and (2, 3), two 16-bit
  // numbers a value. Null when the source is narrower than a whole number of groups.
  const int32_t* groups;
};

// Pixels are of 4 bytes (three channels and one that means nothing) or of 1; rows of an image have no gaps unless a
// stride is given. All run in the thread that calls them.
struct ImageKernels {
  // Rows of pixels, `stride` bytes apart, to rows of taps.outputs pixels.
  void (*resize_horizontal)(const uint8_t* source, int64_t stride, int64_t rows, int channels, const Taps& taps,
                            uint8_t* out);
  // Rows of `bytes` bytes, `stride` bytes apart, to taps.outputs such rows.
  void (*resize_vertical)(const uint8_t* source, int64_t stride, int64_t bytes, const Taps& taps, uint8_t* out);
  // Pixels to `planes` float32 planes of (value - mean) / std.
  void (*to_planes)(const uint8_t* source, int64_t pixels, int planes, const float* mean, const float* std, float* out);
  // Each of two images of `count` values becomes share * itself + (1 - share) * the other, rounded at each step.
  void (*mix)(float* a, float* b, int64_t count, float share_a, float share_b);
  // Pixels through a table of 256 values for each channel that means something.
  void (*look_up)(const uint8_t* source, int64_t pixels, int channels, const uint8_t* tables, uint8_t* out);
  // Blends with the image blurred, or with its grey (of 4 bytes): factor 0 is that, 1 the image, and it may be any.
  void (*sharpen)(const uint8_t* source, int64_t width, int64_t height, int channels, float factor, uint8_t* out);
  void (*saturate)(const uint8_t* source, int64_t pixels, float factor, uint8_t* out);
  // What is at (m[0] x + m[1] y + m[2], m[3] x + m[4] y + m[5]) of the source, for (x, y) the centres of the pixels of
  // a result of the same size; `fill` where that is outside. Pixels of 4 bytes.
  void (*affine)(const uint8_t* source, int64_t width, int64_t height, bool is_cubic, const double* m,
                 const uint8_t* fill, uint8_t* out);
};

}  // namespace mindcv
