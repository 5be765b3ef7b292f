// Replaces bytes by the entries of tables with 256 values.
#include "runtime/registry.h"
#include "simd/simd.h"

namespace mindcv {

// Replaces the values of pixels by a table of 256 values for each channel. Pixels have 4 bytes, of which the first
// three are channels, or 1 byte.
using LookUp = void (*)(const uint8_t* source, int64_t pixels, int channels, const uint8_t* tables, uint8_t* out);

namespace MINDCV_ISA {
namespace {

void look_up(const uint8_t* source, int64_t pixels, int channels, const uint8_t* tables, uint8_t* out) {
  if (look_up_bytes(source, pixels * channels, channels, tables, out)) return;
  if (channels == 1) {
    for (int64_t i = 0; i < pixels; ++i) out[i] = tables[source[i]];
    return;
  }
  uint32_t words[3][256];  // the values, shifted to the place of their channel in a pixel
  for (int c = 0; c < 3; ++c) {
    for (int v = 0; v < 256; ++v) {
      uint8_t bytes[4] = {};
      bytes[c] = tables[256 * c + v];
      memcpy(&words[c][v], bytes, 4);
    }
  }
  for (int64_t i = 0; i < pixels; ++i, source += 4, out += 4) {
    uint32_t pixel = words[0][source[0]] | words[1][source[1]] | words[2][source[2]];
    asm("" : "+r"(pixel));  // without this GCC emits gather instructions, which take twice as long
    memcpy(out, &pixel, 4);
  }
}

const ImageKernelEntry look_up_entry("look_up", MINDCV_ISA_NAME, LookUp{look_up});

}  // namespace
}  // namespace MINDCV_ISA
}  // namespace mindcv

#if defined(MINDCV_ONCE)
#include "image/checks.h"

extern "C" int mindcv_look_up(const uint8_t* source, int64_t pixels, int32_t channels, const uint8_t* tables,
                              uint8_t* out) {
  using namespace mindcv;
  static const auto kernel = image_kernel<LookUp>("look_up");
  return with_last_error([&] {
    expect("a number of pixels of", pixels, 0, kMaxValues);
    expect_channels(channels);
    kernel(source, pixels, channels, tables, out);
  });
}
#endif
