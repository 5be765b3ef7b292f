// Pillow's affine transform of an image, bilinear or bicubic, in float64 with Pillow's order of operations.
#include "runtime/registry.h"
#include "simd/simd.h"

namespace mindcv {

// Writes a result of the size of the source, with pixels of 4 bytes. The pixel with its centre at (x, y) gets the value
// of the source at (m[0] x + m[1] y + m[2], m[3] x + m[4] y + m[5]), or `fill` where that lies outside the source.
using Affine = void (*)(const uint8_t* source, int64_t width, int64_t height, bool is_cubic, const double* m,
                        const uint8_t* fill, uint8_t* out);

namespace MINDCV_ISA {
namespace {

struct Bilinear {
  static constexpr int kTaps = 2, kBefore = 0;
  // Interpolates between v[0] (d = 0) and v[1] (d = 1).
  static MINDCV_INLINE Pixels between(const Pixels* v, Pixels d) { return v[0] + (v[1] - v[0]) * d; }
};

struct Bicubic {  // Keys' kernel with a = -1
  static constexpr int kTaps = 4, kBefore = 1;
  // Interpolates between v[1] (d = 0) and v[2] (d = 1).
  static MINDCV_INLINE Pixels between(const Pixels* v, Pixels d) {
    const Pixels p2 = v[2] - v[0];
    const Pixels p3 = 2 * (v[0] - v[1]) + v[2] - v[3];
    const Pixels p4 = v[1] - v[0] - v[2] + v[3];
    return v[1] + d * (p2 + d * (p3 + d * p4));
  }
};

// The places in the source that the pixels of a part of a row come from.
template <class Curve>
struct Places {
  static constexpr int kCount = 64;

  // Finds the places for the pixels of row `y` from `x` on. A place outside the source becomes that of its first pixel.
  void find(double x, double y, const double* m, int64_t width, int64_t height) {
    int outside = 0, slanted_across = 0, slanted_down = 0;
    for (int i = 0; i < kCount; ++i) {
      const double from_x = m[0] * (x + i + 0.5) + m[1] * (y + 0.5) + m[2];
      const double from_y = m[3] * (x + i + 0.5) + m[4] * (y + 0.5) + m[5];
      const int32_t is_inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height);
      set(i, is_inside ? from_x - 0.5 : 0, width, column, across);
      set(i, is_inside ? from_y - 0.5 : 0, height, row, down);
      inside[i] = is_inside;
      outside += 1 - is_inside;
      slanted_across += across[i] != 0;
      slanted_down += down[i] != 0;
    }
    is_all_outside = outside == kCount;
    is_level_across = slanted_across == 0;
    is_level_down = slanted_down == 0;
  }

  double across[kCount], down[kCount];  // the distance from the pixel before the place, 0 to 1
  int32_t column[Curve::kTaps][kCount], row[Curve::kTaps][kCount];
  int32_t inside[kCount];
  bool is_all_outside, is_level_across, is_level_down;

 private:
  static MINDCV_INLINE void set(int i, double place, int64_t size, int32_t (*taps)[kCount], double* beyond) {
    const double whole = __builtin_floor(place);
    beyond[i] = place - whole;
    const int32_t last = static_cast<int32_t>(size) - 1;
    for (int t = 0; t < Curve::kTaps; ++t) {
      const int32_t tap = static_cast<int32_t>(whole) + t - Curve::kBefore;
      taps[t][i] = tap < 0 ? 0 : tap > last ? last : tap;
    }
  }
};

// Interpolates the pixels of a part of a row. In a level direction every place is exactly at a pixel, and the curve
// gives the value of that pixel.
template <class Curve, bool kLevelAcross, bool kLevelDown>
void affine_part(const uint8_t* source, int64_t width, const Places<Curve>& places, uint8_t* found) {
  constexpr int kRows = kLevelDown ? 1 : Curve::kTaps, kColumns = kLevelAcross ? 1 : Curve::kTaps;
  for (int i = 0; i < places.kCount; i += kPixels) {
    Pixels down[kRows];
    for (int r = 0; r < kRows; ++r) {
      const uint8_t* rows[kPixels];
      for (int k = 0; k < kPixels; ++k) {
        rows[k] = source + 4 * width * places.row[kLevelDown ? Curve::kBefore : r][i + k];
      }
      Pixels across[kColumns];
      for (int c = 0; c < kColumns; ++c) {
        int64_t offsets[kPixels];
        for (int k = 0; k < kPixels; ++k) offsets[k] = 4 * places.column[kLevelAcross ? Curve::kBefore : c][i + k];
        across[c] = load_pixels(rows, offsets);
      }
      down[r] = kLevelAcross ? across[0] : Curve::between(across, splat_pixels(places.across + i));
    }
    store_pixels(found + 4 * i, kLevelDown ? down[0] : Curve::between(down, splat_pixels(places.down + i)));
  }
}

template <class Curve>
void affine_image(const uint8_t* source, int64_t width, int64_t height, const double* m, const uint8_t* fill,
                  uint8_t* out) {
  constexpr int kCount = Places<Curve>::kCount;
  Places<Curve> places;
  uint8_t found[4 * kCount];
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; x += kCount) {
      places.find(static_cast<double>(x), static_cast<double>(y), m, width, height);
      if (places.is_all_outside) {
      } else if (places.is_level_across) {
        (places.is_level_down ? affine_part<Curve, true, true> : affine_part<Curve, true, false>)(source, width, places,
                                                                                                  found);
      } else {
        (places.is_level_down ? affine_part<Curve, false, true> : affine_part<Curve, false, false>)(source, width,
                                                                                                    places, found);
      }
      for (int64_t i = 0; i < min(kCount, width - x); ++i, out += 4) {
        memcpy(out, places.inside[i] ? found + 4 * i : fill, 4);
      }
    }
  }
}

void affine(const uint8_t* source, int64_t width, int64_t height, bool is_cubic, const double* m, const uint8_t* fill,
            uint8_t* out) {
  (is_cubic ? affine_image<Bicubic> : affine_image<Bilinear>)(source, width, height, m, fill, out);
}

const ImageKernelEntry affine_entry("affine", MINDCV_ISA_NAME, Affine{affine});

}  // namespace
}  // namespace MINDCV_ISA
}  // namespace mindcv

#if defined(MINDCV_ONCE)
#include "image/checks.h"

extern "C" int mindcv_affine(const uint8_t* source, int64_t width, int64_t height, int32_t is_cubic, const double* m,
                             const uint8_t* fill, uint8_t* out) {
  using namespace mindcv;
  static const auto kernel = image_kernel<Affine>("affine");
  return with_last_error([&] {
    expect("a width of", width, 1, kMaxPixels);
    expect("a height of", height, 1, kMaxPixels);
    kernel(source, width, height, is_cubic != 0, m, fill, out);
  });
}
#endif
