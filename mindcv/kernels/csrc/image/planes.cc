// Converts bytes to normalised float32 planes, and blends such images.
#include "runtime/registry.h"
#include "simd/simd.h"

namespace mindcv {

// Writes (value - mean) / std of each channel to its float32 plane: three planes for pixels of 4 bytes, one for pixels
// of 1 byte.
using ToPlanes = void (*)(const uint8_t* source, int64_t pixels, int planes, const float* mean, const float* std,
                          float* out);
// Each of two images of `count` values becomes share * itself + (1 - share) * the other, rounded at each step.
using Mix = void (*)(float* a, float* b, int64_t count, float share_a, float share_b);

namespace MINDCV_ISA {
namespace {

// Each operation is rounded once, as in NumPy.
void to_planes(const uint8_t* source, int64_t pixels, int planes, const float* mean, const float* std, float* out) {
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

// The bits are those of NumPy's a *= s; a += b * (1 - s). The two images may be the same memory.
void mix(float* a, float* b, int64_t count, float share_a, float share_b) {
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

const ImageKernelEntry to_planes_entry("to_planes", MINDCV_ISA_NAME, ToPlanes{to_planes});
const ImageKernelEntry mix_entry("mix", MINDCV_ISA_NAME, Mix{mix});

}  // namespace
}  // namespace MINDCV_ISA
}  // namespace mindcv

#if defined(MINDCV_ONCE)
#include "image/checks.h"

extern "C" int mindcv_to_planes(const uint8_t* source, int64_t pixels, int32_t planes, const float* mean,
                                const float* std, float* out) {
  using namespace mindcv;
  static const auto kernel = image_kernel<ToPlanes>("to_planes");
  return with_last_error([&] {
    expect("a number of pixels of", pixels, 0, kMaxValues);
    expect_one_of("planes", planes, 1, 3);
    kernel(source, pixels, planes, mean, std, out);
  });
}

extern "C" int mindcv_mix(float* a, float* b, int64_t count, float share_a, float share_b) {
  using namespace mindcv;
  static const auto kernel = image_kernel<Mix>("mix");
  return with_last_error([&] {
    expect("a number of values of", count, 0, kMaxValues);
    kernel(a, b, count, share_a, share_b);
  });
}
#endif
