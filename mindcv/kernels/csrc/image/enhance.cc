// Pillow's enhancements that use more than one value of a pixel: blends of an image with a blurred or a grey image.
#include "runtime/registry.h"
#include "simd/simd.h"

namespace mindcv {

// Blends an image with a blurred one (pixels of 1 or 4 bytes). A factor of 0 gives the blurred image, 1 the image
// itself; the factor may be any finite number.
using Sharpen = void (*)(const uint8_t* source, int64_t width, int64_t height, int channels, float factor,
                         uint8_t* out);
// The same with a grey image, for pixels of 4 bytes.
using Saturate = void (*)(const uint8_t* source, int64_t pixels, float factor, uint8_t* out);

namespace MINDCV_ISA {
namespace {

// Blends `base` (factor 0) and `value` (factor 1) in float32, with Pillow's rounding. The factor may be any number.
MINDCV_INLINE uint8_t blend(int32_t base, int32_t value, float factor) {
  const float mixed = static_cast<float>(base) + factor * static_cast<float>(value - base);
  return static_cast<uint8_t>(mixed <= 0 ? 0 : mixed >= 255 ? 255 : static_cast<int32_t>(mixed));
}

// Sharpens a row that has a row above and one below; `step` bytes lie between two pixels. The blurred value is the
// rounded mean with a weight of 5 in the middle and of 1 around it. Pillow computes it in float32. Integers give the
// same bits, because sums of bytes / 13 are never close to a half.
MINDCV_INLINE void sharpen_row(const uint8_t* row, int64_t stride, int64_t bytes, int64_t step, float factor,
                               uint8_t* out) {
  const uint8_t *above = row - stride, *below = row + stride;
  for (int64_t i = step; i < bytes - step; ++i) {
    const int32_t sum = above[i - step] + above[i] + above[i + step] + row[i - step] + 5 * row[i] + row[i + step] +
                        below[i - step] + below[i] + below[i + step];
    out[i] = blend((sum + 6) * 5042 >> 16, row[i], factor);  // (sum + 6) / 13
  }
}

// Pixels at the border have no blurred value and stay as they are.
void sharpen(const uint8_t* source, int64_t width, int64_t height, int channels, float factor, uint8_t* out) {
  const int64_t stride = width * channels;
  memcpy(out, source, static_cast<size_t>(height * stride));
  for (int64_t y = 1; y < height - 1; ++y) {
    const uint8_t* row = source + y * stride;
    (channels == 4) ? sharpen_row(row, stride, stride, 4, factor, out + y * stride)
                    : sharpen_row(row, stride, stride, 1, factor, out + y * stride);
  }
}

// Grey is 0.299 red + 0.587 green + 0.114 blue, in fixed point with 16 bits.
void saturate(const uint8_t* source, int64_t pixels, float factor, uint8_t* out) {
  for (int64_t i = 0; i < pixels; ++i, source += 4, out += 4) {
    const int32_t grey = (source[0] * 19595 + source[1] * 38470 + source[2] * 7471 + 0x8000) >> 16;
    for (int c = 0; c < 4; ++c) out[c] = blend(grey, source[c], factor);
  }
}

const ImageKernelEntry sharpen_entry("sharpen", MINDCV_ISA_NAME, Sharpen{sharpen});
const ImageKernelEntry saturate_entry("saturate", MINDCV_ISA_NAME, Saturate{saturate});

}  // namespace
}  // namespace MINDCV_ISA
}  // namespace mindcv

#if defined(MINDCV_ONCE)
#include "image/checks.h"

extern "C" int mindcv_sharpen(const uint8_t* source, int64_t width, int64_t height, int32_t channels, float factor,
                              uint8_t* out) {
  using namespace mindcv;
  static const auto kernel = image_kernel<Sharpen>("sharpen");
  return with_last_error([&] {
    expect("a width of", width, 1, kMaxPixels);
    expect("a height of", height, 1, kMaxPixels);
    expect_channels(channels);
    expect_finite(factor);
    kernel(source, width, height, channels, factor, out);
  });
}

extern "C" int mindcv_saturate(const uint8_t* source, int64_t pixels, float factor, uint8_t* out) {
  using namespace mindcv;
  static const auto kernel = image_kernel<Saturate>("saturate");
  return with_last_error([&] {
    expect("a number of pixels of", pixels, 0, kMaxValues);
    expect_finite(factor);
    kernel(source, pixels, factor, out);
  });
}
#endif
