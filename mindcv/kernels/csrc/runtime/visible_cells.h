// The cells of the visible patches in FCMAE, and where their rows are in a compact map.
//
// A mask [N, S, T] removes patches of P x P cells from maps of S * P x T * P cells. A compact map [N * S * T, P, P, C]
// holds the rows of the visible patches one after the other: image by image, in an image the patches row by row of the
// grid, and in a patch its cells row by row. The values behind the last visible patch are undefined. So a convolution
// whose kernel and stride divide P takes a compact map as a batch of small images.
#pragma once
#include <cstdint>

#include "runtime/thread_pool.h"

namespace mindcv {

// The number of visible patches of `n` images with `patches` patches each. `mask` holds 1 for a removed patch and 0 for
// a visible one. Throws std::invalid_argument if it holds another value, or no visible patch of an image.
int64_t count_visible(const float* mask, int64_t n, int64_t patches);

class VisibleCells {
 public:
  // `mask` [n, grid_h, grid_w], patches of side x side cells. Throws as count_visible().
  VisibleCells(Session& memory, const float* mask, int64_t n, int64_t grid_h, int64_t grid_w, int64_t side);

  int64_t images() const { return n_; }
  int64_t h() const { return h_; }
  int64_t w() const { return w_; }
  // The number of rows of the compact map.
  int64_t rows() const { return first_[n_]; }
  // The first row of an image. The rows of all images before it come before this row.
  int64_t first_row(int64_t image) const { return first_[image]; }
  // The rows of the cells [w] of a line of an image. A removed cell has the row -1.
  const int32_t* line(int64_t image, int64_t h) const { return rows_ + (image * h_ + h) * w_; }

 private:
  int64_t n_, h_, w_;
  int64_t* first_;
  int32_t* rows_;
};

}  // namespace mindcv
