// The image kernels' C functions, for ctypes: weights of the filters, the order of passes, memory. Compiled without
// fused multiply-add, since the weights' bits are to be Pillow's.
#include "image/images.h"

#include <math.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "runtime/kernels.h"
#include "runtime/last_error.h"

namespace {

using mindcv::kernels;
using mindcv::Taps;
using mindcv::with_last_error;
using Buffer = std::unique_ptr<uint8_t[]>;  // not set to 0, as a vector is

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

// Numbered as mindcv/kernels/images.py numbers them.
constexpr Filter kFilters[] = {{box, 0.5}, {bilinear, 1}, {hamming, 1}, {bicubic, 2}, {lanczos, 3}};

// How one side of an image is resized: `size` values to `resized`, of which `kept` from `from` on are wanted.
struct Side {
  int32_t size, resized, from, kept, is_flipped;
};

// Throws std::invalid_argument where a caller's number is out of range.
void expect(const char* name, int64_t value, int64_t least, int64_t most) {
  if (value >= least && value <= most) return;
  throw std::invalid_argument("an image kernel got " + std::string(name) + " " + std::to_string(value) +
                              "; it expects " + std::to_string(least) + " to " + std::to_string(most));
}

constexpr int64_t kMostPixels = int64_t{1} << 28;  // of a side, so that 32 bits hold every place in it
constexpr int64_t kMostValues = int64_t{1} << 45;  // of an image; more than the addresses of a process

void expect_one_of(const char* name, int32_t value, int32_t first, int32_t second) {
  if (value == first || value == second) return;
  throw std::invalid_argument("an image kernel got " + std::to_string(value) + " " + name + "; it expects " +
                              std::to_string(first) + " or " + std::to_string(second));
}

void expect_channels(int32_t channels) { expect_one_of("channels", channels, 1, 4); }

void expect_finite(float factor) {
  if (!std::isfinite(factor)) throw std::invalid_argument("an image kernel got a factor that is not finite");
}

void expect_side(const Side& side) {
  expect("a size of", side.size, 1, kMostPixels);
  expect("a new size of", side.resized, 1, kMostPixels);
  expect("a first pixel of", side.from, 0, side.resized - 1);
  expect("a number of pixels of", side.kept, 1, side.resized - side.from);
}

class TapTable {
 public:
  // The number of taps is rounded up to a multiple of `group`, where the source has as many values.
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
    is_grouped_ = group == mindcv::kTapGroup && grouped <= side.size;
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

  // The values that any output takes, from `begin` to before `end`; outputs count from `begin` afterwards.
  void crop(int32_t* begin, int32_t* end) {
    *begin = *std::min_element(first_.begin(), first_.end());
    *end = *std::max_element(first_.begin(), first_.end()) + static_cast<int32_t>(width_);
    for (int32_t& first : first_) first -= *begin;
  }

 private:
  // The values from `low` to before `high` that an output takes, and where between them it is.
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
      weight *= 1 << mindcv::kWeightBits;
      *weights++ = static_cast<int32_t>(weight < 0 ? weight - 0.5 : weight + 0.5);
    }
  }

  void make_groups() {
    const auto pair = [](int32_t a, int32_t b) {
      return static_cast<int32_t>((static_cast<uint32_t>(b) << 16) | (static_cast<uint32_t>(a) & 0xffff));
    };
    const auto high = [](int32_t weight) { return weight >> mindcv::kLowBits; };
    const auto low = [](int32_t weight) { return weight & ((1 << mindcv::kLowBits) - 1); };
    groups_.reserve(weights_.size());
    for (size_t i = 0; i < weights_.size(); i += mindcv::kTapGroup) {
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

// The functions give 0, or what `with_last_error` gives.

// Resizes pixels of one or four bytes, whose rows are `stride` bytes apart; `out` has none between them.
extern "C" int mindcv_resize(const uint8_t* source, int64_t stride, int32_t channels, int32_t filter,
                             const int32_t* sides, int32_t is_vertical_first, uint8_t* out) {
  return with_last_error([&] {
    const Side across = {sides[0], sides[1], sides[2], sides[3], sides[4]};
    const Side down = {sides[5], sides[6], sides[7], sides[8], sides[9]};
    expect_channels(channels);
    expect("filter number", filter, 0, static_cast<int64_t>(std::size(kFilters)) - 1);
    expect_side(across);
    expect_side(down);
    TapTable columns(kFilters[filter], across, mindcv::kTapGroup), rows(kFilters[filter], down, 1);
    int32_t left, right, top, bottom;
    columns.crop(&left, &right);
    rows.crop(&top, &bottom);
    source += top * stride + static_cast<int64_t>(left) * channels;
    if (is_vertical_first) {
      const int64_t bytes = static_cast<int64_t>(right - left) * channels;
      const Buffer between(new uint8_t[static_cast<size_t>(down.kept * bytes)]);
      kernels().images->resize_vertical(source, stride, bytes, rows.taps(), between.get());
      kernels().images->resize_horizontal(between.get(), bytes, down.kept, channels, columns.taps(), out);
    } else {
      const int64_t bytes = static_cast<int64_t>(across.kept) * channels;
      const Buffer between(new uint8_t[static_cast<size_t>((bottom - top) * bytes)]);
      kernels().images->resize_horizontal(source, stride, bottom - top, channels, columns.taps(), between.get());
      kernels().images->resize_vertical(between.get(), bytes, bytes, rows.taps(), out);
    }
  });
}

extern "C" int mindcv_to_planes(const uint8_t* source, int64_t pixels, int32_t planes, const float* mean,
                                const float* std, float* out) {
  return with_last_error([&] {
    expect("a number of pixels of", pixels, 0, kMostValues);
    expect_one_of("planes", planes, 1, 3);
    kernels().images->to_planes(source, pixels, planes, mean, std, out);
  });
}

extern "C" int mindcv_mix(float* a, float* b, int64_t count, float share_a, float share_b) {
  return with_last_error([&] {
    expect("a number of values of", count, 0, kMostValues);
    kernels().images->mix(a, b, count, share_a, share_b);
  });
}

extern "C" int mindcv_look_up(const uint8_t* source, int64_t pixels, int32_t channels, const uint8_t* tables,
                              uint8_t* out) {
  return with_last_error([&] {
    expect("a number of pixels of", pixels, 0, kMostValues);
    expect_channels(channels);
    kernels().images->look_up(source, pixels, channels, tables, out);
  });
}

extern "C" int mindcv_sharpen(const uint8_t* source, int64_t width, int64_t height, int32_t channels, float factor,
                              uint8_t* out) {
  return with_last_error([&] {
    expect("a width of", width, 1, kMostPixels);
    expect("a height of", height, 1, kMostPixels);
    expect_channels(channels);
    expect_finite(factor);
    kernels().images->sharpen(source, width, height, channels, factor, out);
  });
}

extern "C" int mindcv_saturate(const uint8_t* source, int64_t pixels, float factor, uint8_t* out) {
  return with_last_error([&] {
    expect("a number of pixels of", pixels, 0, kMostValues);
    expect_finite(factor);
    kernels().images->saturate(source, pixels, factor, out);
  });
}

extern "C" int mindcv_affine(const uint8_t* source, int64_t width, int64_t height, int32_t is_cubic, const double* m,
                             const uint8_t* fill, uint8_t* out) {
  return with_last_error([&] {
    expect("a width of", width, 1, kMostPixels);
    expect("a height of", height, 1, kMostPixels);
    kernels().images->affine(source, width, height, is_cubic != 0, m, fill, out);
  });
}
