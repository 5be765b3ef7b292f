#include "runtime/visible_cells.h"

#include <stdexcept>
#include <string>

namespace mindcv {
namespace {

int64_t count_in_image(const float* mask, int64_t image, int64_t patches) {
  int64_t count = 0;
  for (int64_t i = 0; i < patches; ++i) {
    const float value = mask[image * patches + i];
    if (value != 0.0f && value != 1.0f) {
      throw std::invalid_argument("the mask has the value " + std::to_string(value) +
                                  "; it expects 0 for a visible patch and 1 for a removed one");
    }
    count += value == 0.0f;
  }
  if (count == 0) {
    throw std::invalid_argument("the mask leaves no patch of image " + std::to_string(image) +
                                " visible; each image needs one visible patch");
  }
  return count;
}

}  // namespace

int64_t count_visible(const float* mask, int64_t n, int64_t patches) {
  int64_t count = 0;
  for (int64_t image = 0; image < n; ++image) count += count_in_image(mask, image, patches);
  return count;
}

VisibleCells::VisibleCells(Session& memory, const float* mask, int64_t n, int64_t grid_h, int64_t grid_w, int64_t side)
    : n_(n), h_(grid_h * side), w_(grid_w * side) {
  if (n * h_ * w_ > INT32_MAX) throw std::invalid_argument("a masked map has more cells than a batch may have");
  first_ = static_cast<int64_t*>(memory.bytes(static_cast<size_t>(n + 1) * sizeof(int64_t)));
  rows_ = static_cast<int32_t*>(memory.bytes(static_cast<size_t>(n * h_ * w_) * sizeof(int32_t)));
  const int64_t patches = grid_h * grid_w, cells = side * side;
  int64_t row = 0;
  for (int64_t image = 0; image < n; ++image) {
    first_[image] = row;
    count_in_image(mask, image, patches);
    for (int64_t patch = 0; patch < patches; ++patch) {
      const bool is_visible = mask[image * patches + patch] == 0.0f;
      int32_t* corner = rows_ + (image * h_ + patch / grid_w * side) * w_ + patch % grid_w * side;
      for (int64_t i = 0; i < cells; ++i) {
        corner[i / side * w_ + i % side] = is_visible ? static_cast<int32_t>(row + i) : -1;
      }
      row += is_visible ? cells : 0;
    }
  }
  first_[n] = row;
}

}  // namespace mindcv
