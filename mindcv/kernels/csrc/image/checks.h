// The checks that the C functions of the image kernels make before they touch memory. See decision 0033.
#pragma once
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "runtime/last_error.h"

namespace mindcv {

// Throws std::invalid_argument where a number of the caller is out of range.
inline void expect(const char* name, int64_t value, int64_t min, int64_t max) {
  if (value >= min && value <= max) return;
  throw std::invalid_argument("an image kernel got " + std::string(name) + " " + std::to_string(value) +
                              "; it expects " + std::to_string(min) + " to " + std::to_string(max));
}

constexpr int64_t kMaxPixels = int64_t{1} << 28;  // pixels of a side, so that 32 bits hold every place in it
constexpr int64_t kMaxValues = int64_t{1} << 45;  // values of an image: more than a process has addresses

inline void expect_one_of(const char* name, int32_t value, int32_t first, int32_t second) {
  if (value == first || value == second) return;
  throw std::invalid_argument("an image kernel got " + std::to_string(value) + " " + name + "; it expects " +
                              std::to_string(first) + " or " + std::to_string(second));
}

inline void expect_channels(int32_t channels) { expect_one_of("channels", channels, 1, 4); }

inline void expect_finite(float factor) {
  if (!std::isfinite(factor)) throw std::invalid_argument("an image kernel got a factor that is not finite");
}

}  // namespace mindcv
