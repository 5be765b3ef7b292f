// A whole ConvNeXt block, forward and backward:
//
//   out = x + keep * gamma * pwconv2(grn(gelu(pwconv1(norm(dwconv(x))))))
//
// with gamma (LayerScale) in V1 and grn in V2, and `keep` one factor an image (stochastic depth). Images are taken in
// groups, so that what lies between two steps stays in a cache. Names: u = dwconv(x); y = norm(u); z = pwconv1(y); g =
// gelu(z); q = grn(g); r = pwconv2(q); dz is the gradient with respect to z, and so on.
#pragma once
#include "depthwise.h"
#include "gelu.h"
#include "gemm.h"
#include "layer_norm.h"

namespace mindcv {
namespace MINDCV_ISA {

constexpr float kGrnEps = 1e-6f;

struct BlockParams {
  const float *dw_weight, *dw_bias;     // [C, 49], [C]
  const float *norm_gamma, *norm_beta;  // [C]
  const float *weight1, *bias1;         // [4C, C], [4C]
  const float *grn_gamma, *grn_beta;    // [4C], or null in V1
  const float *weight2, *bias2;         // [C, 4C], [C]
  const float* scale;                   // gamma [C], or null in V2
  const float* keep;                    // [N]
  void *packed1, *packed2;              // the two weights as `pack_weight` made them, or null
};

// What the backward pass needs again. In a forward pass without gradients all are null.
struct BlockSaved {
  float* xhat;    // [rows, C]: u normalised, before norm's gamma and beta
  float* factor;  // [rows]: what it was normalised by
  float* z;       // [rows, 4C]
  float* norms;   // [N, 4C]: L2 norm of g over the pixels of each image; null in V1
};

struct BlockGrads {
  float *dx, *dw_weight, *dw_bias, *norm_gamma, *norm_beta, *weight1, *bias1, *grn_gamma, *grn_beta, *weight2, *bias2,
      *scale;
};

// V2's response multiplies each channel of an image by a number. Where an image has more pixels than channels (the
// first stages) it is cheaper to multiply pwconv2's weight by these, once an image, than the wide map.
inline bool takes_single_images(const MapShape& s, const BlockParams& p) {
  return p.grn_gamma != nullptr && s.pixels() >= s.c;
}

// Images whose rows are handled together: enough for a good product, few enough to stay in cache.
inline int64_t group_images(const MapShape& s, const BlockParams& p) {
  return takes_single_images(s, p) ? 1 : most(1, least(s.n, 3136 / most(1, s.pixels())));
}

// Sums over rows of one group, per block of rows, per image in it, per channel. A block's part is written by one thread
// in the order of its rows, and the parts are added up in order.
class RowSums {
 public:
  RowSums(Session& memory, int64_t rows, int64_t block, int64_t pixels, int64_t c)
      : block_(block), pixels_(pixels), c_(round_up(c, kTile)), images_((block - 1) / pixels + 2) {
    const int64_t count = ceil_div(rows, block) * images_ * c_;
    data_ = memory.floats(count);
    memset(data_, 0, static_cast<size_t>(count) * 4);
  }

  // Where the sums go for the channels from c0 of `row`'s image, in `row`'s block.
  float* at(int64_t row, int64_t c0) {
    const int64_t block = row / block_;
    const int64_t image = row / pixels_ - block * block_ / pixels_;
    return data_ + (block * images_ + image) * c_ + c0;
  }

  // The vector of sums over one image of the group.
  Vec of_image(int64_t image, int64_t c0) const {
    Vec total{};
    const int64_t first = image * pixels_, last = first + pixels_ - 1;
    for (int64_t block = first / block_; block <= last / block_; ++block) {
      total += load(data_ + (block * images_ + image - block * block_ / pixels_) * c_ + c0);
    }
    return total;
  }

 private:
  float* data_;
  int64_t block_, pixels_, c_, images_;
};

// Calls body(image, begin, end) for rows [begin, end) of `count` rows from `row` on, image by image.
template <class Body>
MINDCV_INLINE void each_image(int64_t row, int64_t count, int64_t pixels, Body&& body) {
  int64_t image = row / pixels;
  for (int64_t begin = 0; begin < count; ++image) {
    const int64_t end = least(count, (image + 1) * pixels - row);
    body(image, begin, end);
    begin = end;
  }
}

// Adds sums over all rows of a group (made with all of them as one image) to `to` [c].
inline void add_sums(const RowSums& sums, int64_t c, float* to) {
  parallel(ceil_div(c, kWidth), [&](int64_t block) {
    const int64_t c0 = block * kWidth;
    store_part(to + c0, load_part(to + c0, c - c0) + sums.of_image(0, c0), c - c0);
  });
}

// A weight [n, k] as products take it, for many calls of the forward pass.
template <class G>
void pack_weight(const float* w, int64_t n, int64_t k, void* to) {
  Session memory;
  typename G::B b = G::b_in(to, k, n);
  pack<G>({w, k, n, true}, b);
}

template <class G>
class BlockForward {
 public:
  BlockForward(const MapShape& s, const BlockParams& p, const BlockSaved& saved, const float* x, float* out)
      : all_(s), p_(p), saved_(saved), x_(x), out_(out), wide_(4 * s.c) {}

  void run() {
    const Weight weight1{p_.weight1, all_.c, wide_, true};
    const int64_t images = group_images(all_, p_);
    const int64_t rows = images * all_.pixels();
    float* u = saved_.xhat == nullptr ? memory_.floats(rows * all_.c) : nullptr;
    const bool scales_map = p_.grn_gamma != nullptr && !takes_single_images(all_, p_);
    const bool scales_weight = takes_single_images(all_, p_);
    float* g = scales_map ? memory_.floats(rows * round_up(wide_, kTile)) : nullptr;
    typename G::A a1 = G::new_a(memory_, rows, all_.c);
    typename G::A a2 = G::new_a(memory_, rows, wide_);
    Weight weight2{p_.weight2, wide_, all_.c, true};
    // Weights are packed once for all groups of images, or, for a few rows, in the products.
    const bool packs_late = p_.packed1 == nullptr && all_.rows() <= kFewRows;
    typename G::B packed1{}, packed2{};
    if (p_.packed1 != nullptr) {
      packed1 = G::b_in(p_.packed1, all_.c, wide_);
      packed2 = scales_weight ? G::new_b(memory_, wide_, all_.c) : G::b_in(p_.packed2, wide_, all_.c);
    } else if (!packs_late) {
      packed1 = packed<G>(memory_, weight1);
      packed2 = G::new_b(memory_, wide_, all_.c);
      if (!scales_weight) pack<G>(weight2, packed2);
    }
    bias2_ = scales_weight ? bias_with_beta() : p_.bias2;
    const Session::Mark mark = memory_.mark();
    for (int64_t image = 0; image < all_.n; image += images) {
      memory_.rewind(mark);
      s_ = all_;
      s_.n = least(images, all_.n - image);
      row0_ = image * all_.pixels();
      image0_ = image;
      float* own_u = u == nullptr ? saved_.xhat + row0_ * all_.c : u;
      depthwise(memory_, s_, x_ + row0_ * s_.c, p_.dw_weight, p_.dw_bias, own_u);
      RowSums squares(memory_, s_.rows(), block_rows(s_.rows(), s_.c), s_.pixels(), wide_);
      const auto widened = [&](int64_t row, int64_t col, float* tile) { widen(row, col, tile, squares, g, a2); };
      const auto narrowed = [&](int64_t row, int64_t col, const float* tile) { narrow(row, col, tile); };
      if (p_.grn_gamma == nullptr && !packs_late && s_.rows() > kFewRows) {
        chain(own_u, a1, packed1, widened, a2, packed2, narrowed);
        continue;
      }
      parallel(ceil_div(s_.rows(), kTile), [&](int64_t tile) { normalise(own_u, tile, a1); });
      if (packs_late) {
        product<G>(a1, weight1, s_.rows(), widened);
      } else {
        product<G>(a1, packed1, s_.rows(), wide_, s_.c, widened);
      }
      if (p_.grn_gamma != nullptr) {
        const float* factor = response(squares);
        if (scales_weight) weight2.factor = factor;
        if (scales_weight && !packs_late) pack<G>(weight2, packed2);
        if (scales_map) respond(factor, g, a2);
      }
      if (packs_late) {
        product<G>(a2, weight2, s_.rows(), narrowed);
      } else {
        product<G>(a2, packed2, s_.rows(), s_.c, wide_, narrowed);
      }
    }
  }

 private:
  // Without a response between them the steps need no more than their own rows: each task takes some of these through
  // all of them, and the wide map never leaves its cache.
  template <class Widen, class Narrow>
  void chain(float* u, typename G::A& a1, const typename G::B& packed1, Widen& widened, typename G::A& a2,
             const typename G::B& packed2, Narrow& narrowed) {
    const int64_t tiles = ceil_div(s_.rows(), kTile), block = block_rows(s_.rows(), wide_) / kTile;
    parallel(ceil_div(tiles, block), [&](int64_t task) {
      const int64_t first = task * block, last = least(first + block, tiles);
      for (int64_t tile = first; tile < last; ++tile) normalise(u, tile, a1);
      multiply_tiles<G>(
          a1, s_.c, first, last, 0, ceil_div(wide_, kTile), [&](int64_t col) { return Place<G>{&packed1, col}; },
          widened);
      multiply_tiles<G>(
          a2, wide_, first, last, 0, ceil_div(s_.c, kTile), [&](int64_t col) { return Place<G>{&packed2, col}; },
          narrowed);
    });
  }

  // Rows [32 tile, 32 tile + 32) of u, normalised in place, and as the left side of pwconv1.
  void normalise(float* u, int64_t tile, typename G::A& a1) {
    const int64_t c = s_.c, first = tile * kTile, rows = least(kTile, s_.rows() - first);
    float* y = static_cast<float*>(thread_scratch(static_cast<size_t>(kTile * c) * 4));
    for (int64_t i = 0; i < rows; ++i) {
      float* row = u + (first + i) * c;
      const float factor = normalise_row(row, c, row);
      if (saved_.factor != nullptr) saved_.factor[row0_ + first + i] = factor;
      scale_row(row, p_.norm_gamma, p_.norm_beta, c, y + i * c);
    }
    for (int64_t j = 0; j < c; j += kTile) G::put_a(a1, tile, j / kTile, y + j, c, rows, least(kTile, c - j));
  }

  // q = g * factor + beta, so pwconv2 of it is the scaled weight times g, plus bias2 + weight2 beta.
  const float* bias_with_beta() {
    float* bias = memory_.floats(round_up(all_.c, kWidth));
    parallel(all_.c, [&](int64_t o) {
      Vec total{};
      for (int64_t i = 0; i < wide_; i += kWidth) {
        total += load_part(p_.weight2 + o * wide_ + i, wide_ - i) * load_part(p_.grn_beta + i, wide_ - i);
      }
      bias[o] = p_.bias2[o] + sum(total);
    });
    return bias;
  }

  // A tile of pwconv1's product: z = tile + bias and g = gelu(z), which goes to `g` where that is wanted and else into
  // a2; and the sums of its squares.
  void widen(int64_t row_tile, int64_t col_tile, float* tile, RowSums& squares, float* g, typename G::A& a2) {
    const int64_t row = row_tile * kTile, col = col_tile * kTile, step = round_up(wide_, kTile);
    const int64_t count = least(kTile, s_.rows() - row), cols = least(kTile, wide_ - col);
    each_image(row, count, s_.pixels(), [&](int64_t, int64_t begin, int64_t end) {
      float* sums = p_.grn_gamma != nullptr ? squares.at(row + begin, col) : nullptr;
      for (int64_t j = 0; j < cols; j += kWidth) {
        const Vec bias = load_part(p_.bias1 + col + j, cols - j);
        Vec total{};
        for (int64_t i = begin; i < end; ++i) {
          const Vec z = load(tile + i * kTile + j) + bias;
          if (saved_.z != nullptr) store_part(saved_.z + (row0_ + row + i) * wide_ + col + j, z, cols - j);
          const Vec v = gelu(z);
          store(tile + i * kTile + j, v);
          total += v * v;
          if (g != nullptr) store(g + (row + i) * step + col + j, v);
        }
        if (sums != nullptr) store(sums + j, load(sums + j) + total);
      }
    });
    if (g == nullptr) G::put_a(a2, row_tile, col_tile, tile, kTile, count, cols);
  }

  // Global response normalisation: q = g * (gamma * n + 1) + beta, with n = norm over pixels / (mean of that over
  // channels + eps). Gives gamma * n + 1 of each image.
  const float* response(const RowSums& squares) {
    const int64_t step = round_up(wide_, kTile);
    float* factor = memory_.floats(s_.n * step);
    parallel(s_.n, [&](int64_t image) {
      float* norms = factor + image * step;
      for (int64_t c0 = 0; c0 < wide_; c0 += kWidth) store(norms + c0, squares.of_image(image, c0));
      double total = 0.0;
      for (int64_t i = 0; i < wide_; ++i) {
        norms[i] = std::sqrt(norms[i]);
        total += norms[i];
        if (saved_.norms != nullptr) saved_.norms[(image0_ + image) * wide_ + i] = norms[i];
      }
      const float mean = static_cast<float>(total / static_cast<double>(wide_)) + kGrnEps;
      for (int64_t i = 0; i < wide_; ++i) norms[i] = p_.grn_gamma[i] * (norms[i] / mean) + 1.0f;
    });
    return factor;
  }

  void respond(const float* factor, const float* g, typename G::A& a2) {
    const int64_t rows = s_.rows(), step = round_up(wide_, kTile);
    parallel(ceil_div(rows, kTile), [&](int64_t row_tile) {
      const int64_t row = row_tile * kTile, count = least(kTile, rows - row);
      alignas(64) float tile[kTile * kTile];
      for (int64_t col = 0; col < wide_; col += kTile) {
        const int64_t cols = least(kTile, wide_ - col);
        each_image(row, count, s_.pixels(), [&](int64_t image, int64_t begin, int64_t end) {
          for (int64_t j = 0; j < cols; j += kWidth) {
            const Vec grown = load(factor + image * step + col + j), beta = load_part(p_.grn_beta + col + j, cols - j);
            for (int64_t i = begin; i < end; ++i)
              store(tile + i * kTile + j, load(g + (row + i) * step + col + j) * grown + beta);
          }
        });
        G::put_a(a2, row_tile, col / kTile, tile, kTile, count, cols);
      }
    });
  }

  // A tile of pwconv2's product, to the output.
  void narrow(int64_t row_tile, int64_t col_tile, const float* tile) {
    const int64_t row = row_tile * kTile, col = col_tile * kTile, c = s_.c;
    const int64_t count = least(kTile, s_.rows() - row), cols = least(kTile, c - col);
    each_image(row, count, s_.pixels(), [&](int64_t image, int64_t begin, int64_t end) {
      const Vec keep = splat(p_.keep[image0_ + image]);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = (row0_ + row + i) * c + col;
        for (int64_t j = 0; j < cols; j += kWidth) {
          Vec v = load(tile + i * kTile + j) + load_part(bias2_ + col + j, cols - j);
          if (p_.scale != nullptr) v *= load_part(p_.scale + col + j, cols - j);
          store_part(out_ + at + j, load_part(x_ + at + j, cols - j) + v * keep, cols - j);
        }
      }
    });
  }

  Session memory_;
  const MapShape all_;
  const BlockParams p_;
  const BlockSaved saved_;
  const float* x_;
  float* out_;
  const int64_t wide_;
  MapShape s_{};  // of the group
  int64_t row0_ = 0, image0_ = 0;
  const float* bias2_ = nullptr;
};

}  // namespace MINDCV_ISA
}  // namespace mindcv
