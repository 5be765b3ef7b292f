// Pillow's antialiased resizing: the weights of the filters, the order of the two passes, and memory.
#include "image/resize_passes.h"
#include "runtime/registry.h"

namespace mindcv {

// Resizes rows of pixels, which are `stride` bytes apart, to rows of taps.outputs pixels.
using HorizontalPass = void (*)(const uint8_t* source, int64_t stride, int64_t rows, int channels, const Taps& taps,
                                uint8_t* out);
// Resizes columns: from rows of `bytes` bytes, which are `stride` bytes apart, to taps.outputs such rows.
using VerticalPass = void (*)(const uint8_t* source, int64_t stride, int64_t bytes, const Taps& taps, uint8_t* out);

namespace MINDCV_ISA {
namespace {
const ImageKernelEntry horizontal("resize_horizontal", MINDCV_ISA_NAME, HorizontalPass{resize_horizontal});
const ImageKernelEntry vertical("resize_vertical", MINDCV_ISA_NAME, VerticalPass{resize_vertical});
}  // namespace
}  // namespace MINDCV_ISA
}  // namespace mindcv

#if defined(MINDCV_ONCE)
#include <math.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <memory>
#include <vector>

#include "image/checks.h"

namespace mindcv {
namespace {

using Buffer = std::unique_ptr<uint8_t[]>;  // unlike a vector, it is not set to 0

double sinc(double x) { return x == 0 ? 1 : sin(x * M_PI) / (x * M_PI); }

double box(double x) { return x > -0.5 && x <= 0.5 ? 1 : 0; }

double bilinear(double x) { return fabs(x) < 1 ? 1 - fabs(x) : 0; }

double hamming(double x) {
  x = fabs(x);
  return x >= 1 ? 0 : sinc(x) * (0.54f + 0.46f * cos(x * M_PI));  // Pillow's constants are float32
}

double bicubic(double x) {  // Keys' kernel, a = -1/2
  x = fabs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}

double lanczos(double x) { return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0; }

struct Filter {
  double (*weight)(double);
  double support;
};

// FILTERS in mindcv/kernels/images.py numbers them in this order.
constexpr Filter kFilters[] = {{box, 0.5}, {bilinear, 1}, {hamming, 1}, {bicubic, 2}, {lanczos, 3}};

// How one side of an image is resized: from `size` to `resized` values, of which `kept` values from `from` on are kept.
struct Side {
  int32_t size, resized, from, kept, is_flipped;
};

void expect_side(const Side& side) {
  expect("a size of", side.size, 1, kMaxPixels);
  expect("a new size of", side.resized, 1, kMaxPixels);
  expect("a first pixel of", side.from, 0, side.resized - 1);
  expect("a number of pixels of", side.kept, 1, side.resized - side.from);
}

class TapTable {
 public:
  // The number of taps is rounded up to a multiple of `group`, unless the source has fewer values.
  TapTable(const Filter& filter, const Side& side, int64_t group) {
    const double scale = static_cast<double>(side.size) / side.resized;
    const double filter_scale = scale < 1 ? 1 : scale;
    const double support = side.size == side.resized ? 0.5 : filter.support * filter_scale;
    for (int32_t i = 0; i < side.kept; ++i) {
      const int32_t place = side.from + (side.is_flipped ? side.kept - 1 - i : i);
      const double center = (place + 0.5) * scale;
      const int32_t low = std::max(static_cast<int32_t>(center - support + 0.5), 0);
      const int32_t high = std::min(static_cast<int32_t>(center + support + 0.5), side.size);
      windows_.push_back({low, high, center});
      width_ = std::max<int64_t>(width_, high - low);
    }
    const int64_t grouped = (width_ + group - 1) / group * group;
    is_grouped_ = group == kTapGroup && grouped <= side.size;
    if (is_grouped_) width_ = grouped;
    first_.resize(side.kept);
    weights_.resize(side.kept * width_);
    for (int32_t i = 0; i < side.kept; ++i) set(i, filter, side.size, 1 / filter_scale);
    if (is_grouped_) make_groups();
  }

  Taps taps() const {
    return {static_cast<int64_t>(first_.size()), width_, first_.data(), weights_.data(),
            is_grouped_ ? groups_.data() : nullptr};
  }

  // Gives the range [begin, end) of the source's values that the outputs use. Outputs count from `begin` afterwards.
  void crop(int32_t* begin, int32_t* end) {
    *begin = *std::min_element(first_.begin(), first_.end());
    *end = *std::max_element(first_.begin(), first_.end()) + static_cast<int32_t>(width_);
    for (int32_t& first : first_) first -= *begin;
  }

 private:
  // The range [low, high) of the source's values that an output uses, and the place of the output's centre in it.
  struct Window {
    int32_t low, high;
    double center;
  };

  void set(int32_t i, const Filter& filter, int32_t size, double shrink) {
    const Window& window = windows_[i];
    exact_.clear();
    double sum = 0;
    for (int32_t x = window.low; x < window.high; ++x) {
      exact_.push_back(filter.weight((x - window.center + 0.5) * shrink));
      sum += exact_.back();
    }
    first_[i] = std::min(window.low, size - static_cast<int32_t>(width_));
    int32_t* weights = &weights_[i * width_ + window.low - first_[i]];
    for (double weight : exact_) {
      if (sum != 0) weight /= sum;
      weight *= 1 << kWeightBits;
      *weights++ = static_cast<int32_t>(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
  }

  void make_groups() {
    const auto pair = [](int32_t a, int32_t b) {
      return static_cast<int32_t>((static_cast<uint32_t>(b) << 16) | (static_cast<uint32_t>(a) & 0xffff));
    };
    const auto high = [](int32_t weight) { return weight >> kLowBits; };
    const auto low = [](int32_t weight) { return weight & ((1 << kLowBits) - 1); };
    groups_.reserve(weights_.size());
    for (size_t i = 0; i < weights_.size(); i += kTapGroup) {
      const int32_t* w = &weights_[i];
      groups_.push_back(pair(high(w[0]), high(w[1])));
      groups_.push_back(pair(high(w[2]), high(w[3])));
      groups_.push_back(pair(low(w[0]), low(w[1])));
      groups_.push_back(pair(low(w[2]), low(w[3])));
    }
  }

  int64_t width_ = 1;
  bool is_grouped_ = false;
  std::vector<Window> windows_;
  std::vector<int32_t> first_, weights_, groups_;
  std::vector<double> exact_;
};

}  // namespace
}  // namespace mindcv

// Resizes an image with pixels of one or four bytes. Its rows are `stride` bytes apart; `out` has no gaps between rows.
// Returns what `with_last_error` returns.
extern "C" int mindcv_resize(const uint8_t* source, int64_t stride, int32_t channels, int32_t filter,
                             const int32_t* sides, int32_t is_vertical_first, uint8_t* out) {
  using namespace mindcv;
  static const auto horizontal = image_kernel<HorizontalPass>("resize_horizontal");
  static const auto vertical = image_kernel<VerticalPass>("resize_vertical");
  return with_last_error([&] {
    const Side across = {sides[0], sides[1], sides[2], sides[3], sides[4]};
    const Side down = {sides[5], sides[6], sides[7], sides[8], sides[9]};
    expect_channels(channels);
    expect("filter number", filter, 0, static_cast<int64_t>(std::size(kFilters)) - 1);
    expect_side(across);
    expect_side(down);
    TapTable columns(kFilters[filter], across, kTapGroup), rows(kFilters[filter], down, 1);
    int32_t left, right, top, bottom;
    columns.crop(&left, &right);
    rows.crop(&top, &bottom);
    source += top * stride + static_cast<int64_t>(left) * channels;
    if (is_vertical_first) {
      const int64_t bytes = static_cast<int64_t>(right - left) * channels;
      const Buffer between(new uint8_t[static_cast<size_t>(down.kept * bytes)]);
      vertical(source, stride, bytes, rows.taps(), between.get());
      horizontal(between.get(), bytes, down.kept, channels, columns.taps(), out);
    } else {
      const int64_t bytes = static_cast<int64_t>(across.kept) * channels;
      const Buffer between(new uint8_t[static_cast<size_t>((bottom - top) * bytes)]);
      horizontal(source, stride, bottom - top, channels, columns.taps(), between.get());
      vertical(between.get(), bytes, bytes, rows.taps(), out);
    }
  });
}
#endif
