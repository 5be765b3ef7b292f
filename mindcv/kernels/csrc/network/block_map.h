// The maps of a block: which rows belong to an image, and which cells are neighbours.
#pragma once
#include "network/depthwise.h"

namespace mindcv {
namespace MINDCV_ISA {

// Images whose rows are processed together: `count` images from `image` on, each of `pixels` rows, from row `row` on.
struct ImageGroup {
  int64_t image, count, pixels, row;
  int64_t rows() const { return count * pixels; }
};

// An image is what global response normalisation takes the norms of a channel over.
class BlockMap {
 public:
  explicit BlockMap(int64_t channels) : c(channels) {}
  BlockMap(const BlockMap&) = delete;
  BlockMap& operator=(const BlockMap&) = delete;
  virtual ~BlockMap() = default;

  virtual int64_t num_images() const = 0;
  virtual int64_t rows() const = 0;
  // The number of rows of the largest image.
  virtual int64_t max_pixels() const = 0;
  // The group of up to `most` images from `image` on.
  virtual ImageGroup group(int64_t image, int64_t most) const = 0;
  // The depthwise convolution of the rows of a group, and its gradients (see depthwise.h). The pointers to maps point
  // to the first row of the group.
  virtual void convolve(Session& memory, const ImageGroup& group, const float* x, const float* weight,
                        const float* bias, float* y) const = 0;
  virtual void convolve_backward(Session& memory, const ImageGroup& group, const float* x, const float* weight,
                                 const float* du, const float* add, float* dx, float* dw) const = 0;

  const int64_t c;
};

// A map with all cells of its images, [N, H, W, C].
class DenseMap final : public BlockMap {
 public:
  DenseMap(const DenseImages& images, int64_t channels) : BlockMap(channels), images_(images) {}

  int64_t num_images() const override { return images_.n; }
  int64_t rows() const override { return images_.n * max_pixels(); }
  int64_t max_pixels() const override { return images_.h * images_.w; }
  ImageGroup group(int64_t image, int64_t most) const override {
    return {image, min(most, images_.n - image), max_pixels(), image * max_pixels()};
  }
  void convolve(Session& memory, const ImageGroup& group, const float* x, const float* weight, const float* bias,
                float* y) const override {
    depthwise(memory, images_of(group), c, x, weight, bias, y);
  }
  void convolve_backward(Session& memory, const ImageGroup& group, const float* x, const float* weight, const float* du,
                         const float* add, float* dx, float* dw) const override {
    depthwise_backward(memory, images_of(group), c, x, weight, du, add, dx, dw);
  }

 private:
  DenseImages images_of(const ImageGroup& group) const { return {group.count, images_.h, images_.w}; }

  const DenseImages images_;
};

// A compact map of visible patches (see visible_cells.h). With `is_batch`, the cells of the whole batch are one image
// to the normalisation.
class VisibleMap final : public BlockMap {
 public:
  VisibleMap(const VisibleCells& cells, int64_t channels, bool is_batch)
      : BlockMap(channels), cells_(cells), is_batch_(is_batch) {
    for (int64_t image = 0; image < num_images(); ++image) max_pixels_ = max(max_pixels_, pixels(image));
  }

  int64_t num_images() const override { return is_batch_ ? 1 : cells_.images(); }
  int64_t rows() const override { return cells_.rows(); }
  int64_t max_pixels() const override { return max_pixels_; }
  // The images of a group have the same number of rows.
  ImageGroup group(int64_t image, int64_t most) const override {
    int64_t count = 1;
    while (count < most && image + count < num_images() && pixels(image + count) == pixels(image)) ++count;
    return {image, count, pixels(image), is_batch_ ? 0 : cells_.first_row(image)};
  }
  void convolve(Session& memory, const ImageGroup& group, const float* x, const float* weight, const float* bias,
                float* y) const override {
    depthwise(memory, images_of(group), c, x, weight, bias, y);
  }
  void convolve_backward(Session& memory, const ImageGroup& group, const float* x, const float* weight, const float* du,
                         const float* add, float* dx, float* dw) const override {
    depthwise_backward(memory, images_of(group), c, x, weight, du, add, dx, dw);
  }

 private:
  int64_t pixels(int64_t image) const {
    return is_batch_ ? cells_.rows() : cells_.first_row(image + 1) - cells_.first_row(image);
  }
  VisibleImages images_of(const ImageGroup& group) const {
    return {&cells_, group.image, is_batch_ ? cells_.images() : group.count, cells_.h(), cells_.w()};
  }

  const VisibleCells& cells_;
  const bool is_batch_;
  int64_t max_pixels_ = 0;
};

}  // namespace MINDCV_ISA
}  // namespace mindcv
