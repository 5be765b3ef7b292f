// A whole ConvNeXt block, forward and backward:
//
//   out = x + keep * gamma * pwconv2(grn(gelu(pwconv1(norm(dwconv(x))))))
//
// with gamma (LayerScale) in V1 and grn in V2. `keep` is one factor for each image (stochastic depth). Images are
// processed in groups, so that the maps between two steps stay in a cache.
//
// Names: u = dwconv(x); y = norm(u); z = pwconv1(y); g = gelu(z); q = grn(g); r = pwconv2(q). dz is the gradient with
// respect to z, and so on. The wide maps z, g and q have 4C channels.
#pragma once
#include "gemm/gemm.h"
#include "network/block_map.h"
#include "runtime/operator.h"

namespace mindcv {
namespace MINDCV_ISA {

constexpr float kGrnEps = 1e-6f;

// The arguments that the signatures of the blocks share.
#define MINDCV_BLOCK_CONV "dwconv.weight[C,1,7,7] dwconv.bias[C] norm.gamma[C] norm.beta[C] "
#define MINDCV_BLOCK_V1 \
  MINDCV_BLOCK_CONV     \
  "pwconv1.weight[4*C,C] pwconv1.bias[4*C] pwconv2.weight[C,4*C] pwconv2.bias[C] gamma_[C] "
#define MINDCV_BLOCK_V2                                                               \
  MINDCV_BLOCK_CONV                                                                   \
  "pwconv1.weight[4*C,C] pwconv1.bias[4*C] grn.gamma[1,1,1,4*C] grn.beta[1,1,1,4*C] " \
  "pwconv2.weight[C,4*C] pwconv2.bias[C] "
#define MINDCV_BLOCK_SAVED "xhat[N,H,W,C] factor[N*H*W] z[N,H,W,4*C]"
#define MINDCV_VISIBLE_BLOCK_SAVED "xhat[N*S*T,P,P,C] factor[N*S*T*P*P] z[N*S*T,P,P,4*C] norms[N,4*C]"

struct BlockParams {
  const float *dw_weight, *dw_bias;     // [C, 49], [C]
  const float *norm_gamma, *norm_beta;  // [C]
  const float *weight1, *bias1;         // [4C, C], [4C]
  const float *grn_gamma, *grn_beta;    // [4C], or null in V1
  const float *weight2, *bias2;         // [C, 4C], [C]
  const float* scale;                   // gamma [C], or null in V2
  const float* keep;                    // [N], or null for ones
  const float *packed1, *packed2;       // the two weights as PackWeight made them, or null
};

// Reads the parameters of a block; those that the signature does not have become null.
inline BlockParams block_params(const Arguments& arguments, int64_t repetition = 0) {
  BlockParams p{};
  p.dw_weight = arguments.input("dwconv.weight", repetition);
  p.dw_bias = arguments.input("dwconv.bias", repetition);
  p.norm_gamma = arguments.input("norm.gamma", repetition);
  p.norm_beta = arguments.input("norm.beta", repetition);
  p.weight1 = arguments.input("pwconv1.weight", repetition);
  p.bias1 = arguments.input("pwconv1.bias", repetition);
  p.grn_gamma = arguments.optional_input("grn.gamma", repetition);
  p.grn_beta = arguments.optional_input("grn.beta", repetition);
  p.weight2 = arguments.input("pwconv2.weight", repetition);
  p.bias2 = arguments.input("pwconv2.bias", repetition);
  p.scale = arguments.optional_input("gamma_", repetition);
  p.keep = arguments.optional_input("keep");
  return p;
}

inline DenseMap dense_map(const Arguments& arguments) {
  return {{arguments.size('N'), arguments.size('H'), arguments.size('W')}, arguments.size('C')};
}

inline VisibleCells visible_cells(Session& memory, const Arguments& arguments) {
  return {memory,
          arguments.input("mask"),
          arguments.size('N'),
          arguments.size('S'),
          arguments.size('T'),
          arguments.size('P')};
}

// `grn_scope` is 0 for the norms of each image, and 1 for those of the batch.
inline VisibleMap visible_map(const VisibleCells& cells, const Arguments& arguments) {
  return {cells, arguments.size('C'), arguments.input("grn_scope")[0] != 0.0f};
}

// What the forward pass saves (Float is float) and the backward pass reads (const float). All are null in a forward
// pass without gradients.
template <class Float>
struct BlockSaved {
  Float* xhat;    // [rows, C]: u normalised, before norm's gamma and beta
  Float* factor;  // [rows]: what it was normalised by
  Float* z;       // [rows, 4C], in tiles: see tile_of
  Float* norms;   // [N, 4C]: L2 norm of g over the rows of each image; null in V1
};

// A tile of a wide map in memory. The rows of the tile are `stride` values apart.
//
// Wide maps are written and read in tiles, so they are stored tile by tile: in a row-major map, the rows of a tile
// would lie a whole row of the map apart, and each would come from memory by itself. tile_of() gives the tile that
// begins at (row, col) of the map [rows, width] and has `count` rows. See decision 0022.
template <class Float>
struct TileInMap {
  Float* data;
  int64_t stride;
};

template <class Float>
TileInMap<Float> tile_of(Float* map, int64_t width, int64_t row, int64_t col, int64_t count) {
  return {map + row * width + col * count, min(kTile, width - col)};
}

// Whether V2 processes one image at a time. It does so where an image has more rows than channels (the first stages):
// the wide map of one image then fills a cache. The backward pass differentiates the response of a single image through
// the gradient of the weight (see BlockBackward::respond_to_image and decision 0026).
inline bool takes_single_images(const BlockMap& map, const BlockParams& p) {
  return p.grn_gamma != nullptr && map.max_pixels() >= map.c;
}

// The number of images whose rows are processed together: enough for a fast product, few enough to stay in the cache.
inline int64_t images_per_group(const BlockMap& map, const BlockParams& p) {
  return takes_single_images(map, p) ? 1 : max(1, min(map.num_images(), 3136 / max(1, map.max_pixels())));
}

// Sums over the rows of one group for each channel, kept separately for each tile of rows and each image in it. One
// thread writes the sums of a tile in the order of its rows, and they are added up in a fixed order. So the bits do not
// depend on the number of threads. See decision 0030.
class RowSums {
 public:
  RowSums(Session& memory, int64_t rows, int64_t pixels, int64_t c)
      : pixels_(pixels), c_(round_up(c, kTile)), images_(pixels % kTile == 0 ? 1 : (kTile - 1) / pixels + 2) {
    data_ = memory.floats(ceil_div(rows, kTile) * images_ * c_);
  }

  // Sets the sums of a tile to 0, for `count` channels from c0.
  void clear(int64_t tile, int64_t c0, int64_t count) {
    for (int64_t i = 0; i < images_; ++i) {
      memset(data_ + (tile * images_ + i) * c_ + c0, 0, static_cast<size_t>(round_up(count, kWidth)) * 4);
    }
  }

  // The sums of the channels from c0, for the image and the tile of `row`.
  float* at(int64_t row, int64_t c0) {
    const int64_t tile = row / kTile, image = divide_32bit(row, pixels_) - divide_32bit(tile * kTile, pixels_);
    return data_ + (tile * images_ + image) * c_ + c0;
  }

  // The sums over one image of the group, for the vector of channels from c0.
  Vec of_image(int64_t image, int64_t c0) const {
    Vec total{};
    const int64_t first = image * pixels_, last = first + pixels_ - 1;
    for (int64_t tile = first / kTile; tile <= last / kTile; ++tile) {
      total += load(data_ + (tile * images_ + image - divide_32bit(tile * kTile, pixels_)) * c_ + c0);
    }
    return total;
  }

 private:
  float* data_;
  int64_t pixels_, c_, images_;
};

// Calls body(image, begin, end) for each image that the rows [begin, end), counted from `row`, belong to.
template <class Body>
MINDCV_INLINE void for_each_image(int64_t row, int64_t begin, int64_t end, int64_t pixels, Body&& body) {
  for (int64_t image = divide_32bit(row + begin, pixels); begin < end; ++image) {
    const int64_t last = min(end, (image + 1) * pixels - row);
    body(image, begin, last);
    begin = last;
  }
}

// Adds the sums over all rows of a group to `to` [c]. `sums` was made with these rows as one image.
inline void add_sums(const RowSums& sums, int64_t c, float* to) {
  parallel(ceil_div(c, kWidth), [&](int64_t vector) {
    const int64_t c0 = vector * kWidth;
    store_part(to + c0, load_part(to + c0, c - c0) + sums.of_image(0, c0), c - c0);
  });
}

}  // namespace MINDCV_ISA
}  // namespace mindcv
