// The gradients of a block; see block.h for the names.
#pragma once
#include "gemm/gemm.h"
#include "network/block.h"
#include "network/gelu.h"
#include "network/layer_norm.h"

namespace mindcv {
namespace MINDCV_ISA {

struct BlockGrads {
  float *dx, *dw_weight, *dw_bias, *norm_gamma, *norm_beta, *weight1, *bias1, *grn_gamma, *grn_beta, *weight2, *bias2,
      *scale;
};

template <class G>
class BlockBackward {
 public:
  BlockBackward(const MapShape& s, const BlockParams& p, const BlockSaved<const float>& saved, const float* x,
                const float* dout, const BlockGrads& d)
      : all_(s), p_(p), saved_(saved), x_(x), dout_(dout), d_(d), wide_(4 * s.c) {}

  void run() {
    clear_sums();
    const int64_t c = all_.c;
    const Right<G> weight1 = right_side<G>(memory_, {p_.weight1, wide_, c, false}, all_.rows());
    const Right<G> weight2 = right_side<G>(memory_, {p_.weight2, c, wide_, false}, all_.rows());
    const bool is_v2 = p_.grn_gamma != nullptr, is_single = takes_single_images(all_, p_);
    const int64_t images = group_images(all_, p_), group_rows = images * all_.pixels();
    // Few rows at a time go through all products, so that their wide maps stay in the caches; but no fewer than there
    // are columns in the gradients of the weights, to which each part is added. V2's response to several images is in
    // between, and wants all of their rows.
    const bool has_parts = !is_v2 || is_single;
    part_rows_ = has_parts ? min(group_rows, max(kDepth, round_up(c, kTile))) : group_rows;
    float* dq = has_parts ? nullptr : memory_.floats(group_rows * wide_);
    float* products = is_single ? memory_.floats(c * wide_) : nullptr;
    float* du = memory_.floats(group_rows * c);
    if (is_v2) {
      g_factor_ = memory_.floats(images * round_up(wide_, kTile));
      dq_factor_ = memory_.floats(images * round_up(wide_, kTile));
    }
    for (int64_t image = 0; image < all_.n; image += images) {
      s_ = all_;
      s_.n = min(images, all_.n - image);
      image0_ = image;
      const int64_t first = image * all_.pixels();
      if (is_single) respond_to_image(products);
      each_part([&] { back_to_u(weight1, weight2, dq, du + (row0_ - first) * c); });
      const Session::Mark mark = memory_.mark();
      depthwise_backward(memory_, s_, x_ + first * c, p_.dw_weight, du, dout_ + first * c, d_.dx + first * c,
                         d_.dw_weight);
      memory_.rewind(mark);
    }
    undo_scale();
  }

 private:
  // Calls body() for one part after the other of the group's rows, which are rows_ from row0_.
  template <class Body>
  void each_part(Body&& body) {
    const int64_t first = image0_ * s_.pixels(), last = first + s_.rows();
    const Session::Mark mark = memory_.mark();
    for (row0_ = first; row0_ < last; row0_ += part_rows_) {
      rows_ = min(part_rows_, last - row0_);
      body();
      memory_.rewind(mark);
    }
  }

  // The gradients of all weights but the depthwise ones (and pwconv2's, if respond_to_image has made it), and du.
  void back_to_u(const Right<G>& weight1, const Right<G>& weight2, float* dq, float* du) {
    const bool has_weight2 = takes_single_images(all_, p_);
    dr_ = G::new_a(memory_, rows_, all_.c);
    y_turned_ = G::new_a_transposed(memory_, all_.c, rows_);
    dz_ = G::new_a(memory_, rows_, wide_);
    dz_right_ = G::new_b(memory_, rows_, wide_);
    pack_dr_and_y();
    if (!has_weight2) {
      de_turned_ = G::new_a_transposed(memory_, all_.c, rows_);
      q_ = G::new_b(memory_, rows_, wide_);
      pack_de(d_.bias2);
    }
    if (dq == nullptr) {
      back_to_z(weight2);
    } else {
      back_to_q(weight2, dq);
      back_through_response(dq);
    }
    if (!has_weight2) weight2_gradient(d_.weight2, row0_ > 0);
    weight1_gradient(row0_ > 0);
    back_to_y(weight1, du);
    back_through_norm(du);
  }

  void clear_sums() {
    const int64_t c = all_.c;
    clear(d_.dw_weight, c * kTaps);
    clear(d_.dw_bias, c);
    clear(d_.norm_gamma, c);
    clear(d_.norm_beta, c);
    clear(d_.bias1, wide_);
    clear(d_.bias2, c);
    if (p_.grn_gamma != nullptr) {
      clear(d_.grn_gamma, wide_);
      clear(d_.grn_beta, wide_);
    }
  }
  static void clear(float* to, int64_t count) { memset(to, 0, static_cast<size_t>(count) * 4); }

  // With LayerScale, de = keep * dout takes the place of dr = keep * gamma * dout in the sums over rows, so that r need
  // not be known for the gradient of gamma: r = weight2 q + bias2, so sum(de * r) = weight2 . (sum of de q) +
  // bias2 * reduce_add(de).
  void undo_scale() {
    if (p_.scale == nullptr) return;
    parallel(all_.c, [&](int64_t o) {
      const float* weight = p_.weight2 + o * wide_;
      float* grad = d_.weight2 + o * wide_;
      const Vec scale = splat(p_.scale[o]);
      Vec total{};
      for (int64_t i = 0; i < wide_; i += kWidth) {
        const Vec g = load_part(grad + i, wide_ - i);
        total += g * load_part(weight + i, wide_ - i);
        store_part(grad + i, g * scale, wide_ - i);
      }
      d_.scale[o] = reduce_add(total) + p_.bias2[o] * d_.bias2[o];
      d_.bias2[o] *= p_.scale[o];
    });
  }

  // de, turned, for pwconv2's gradient; its sum over the rows is added to `total`.
  void pack_de(float* total) {
    const int64_t rows = rows_, c = s_.c;
    RowSums sums(memory_, rows, rows, c);
    parallel(ceil_div(rows, kTile), [&](int64_t tile) {
      const int64_t first = tile * kTile, count = min(kTile, rows - first);
      alignas(64) float de[kTile * kTile];
      sums.clear(tile, 0, c);
      for (int64_t col = 0; col < c; col += kTile) {
        const int64_t cols = min(kTile, c - col);
        float* sum = sums.at(first, col);
        each_image(row0_ + first, 0, count, s_.pixels(), [&](int64_t image, int64_t begin, int64_t end) {
          const Vec keep = splat(p_.keep[image]);
          for (int64_t j = 0; j < cols; j += kWidth) {
            Vec sum_j = load(sum + j);
            for (int64_t i = begin; i < end; ++i) {
              const Vec v = load_part(dout_ + (row0_ + first + i) * c + col + j, cols - j) * keep;
              store(de + i * kTile + j, v);
              sum_j += v;
            }
            store(sum + j, sum_j);
          }
        });
        G::put_a_transposed(de_turned_, tile, col / kTile, de, kTile, count, cols);
      }
    });
    add_sums(sums, c, total);
  }

  // dr as the left side of a product, and y, turned, for pwconv1's gradient.
  void pack_dr_and_y() {
    const int64_t rows = rows_, c = s_.c;
    parallel(ceil_div(rows, kTile), [&](int64_t tile) {
      const int64_t first = tile * kTile, count = min(kTile, rows - first);
      alignas(64) float dr[kTile * kTile], y[kTile * kTile];
      for (int64_t col = 0; col < c; col += kTile) {
        const int64_t cols = min(kTile, c - col);
        each_image(row0_ + first, 0, count, s_.pixels(), [&](int64_t image, int64_t begin, int64_t end) {
          for (int64_t j = 0; j < cols; j += kWidth) {
            Vec factor = splat(p_.keep[image]);
            if (p_.scale != nullptr) factor *= load_part(p_.scale + col + j, cols - j);
            const Vec gamma = load_part(p_.norm_gamma + col + j, cols - j),
                      beta = load_part(p_.norm_beta + col + j, cols - j);
            for (int64_t i = begin; i < end; ++i) {
              const int64_t at = (row0_ + first + i) * c + col + j;
              store(dr + i * kTile + j, load_part(dout_ + at, cols - j) * factor);
              store(y + i * kTile + j, load_part(saved_.xhat + at, cols - j) * gamma + beta);
            }
          }
        });
        G::put_a(dr_, tile, col / kTile, dr, kTile, count, cols);
        G::put_a_transposed(y_turned_, tile, col / kTile, y, kTile, count, cols);
      }
    });
  }

  // From dr to dz in one pass over the wide map: V1, where q = g, and V2 when the factors of the response are known
  // before.
  void back_to_z(const Right<G>& weight2) {
    const int64_t rows = rows_;
    const bool is_v2 = p_.grn_gamma != nullptr;
    RowSums sums(memory_, rows, rows, wide_);
    const auto use = [&](int64_t row_tile, int64_t col_tile, float* dz) {
      const int64_t row = row_tile * kTile, col = col_tile * kTile;
      const int64_t count = min(kTile, rows - row), cols = min(kTile, wide_ - col);
      alignas(64) float q[kTile * kTile];
      const TileInMap<const float> z_tile = tile_of(saved_.z, wide_, row0_ + row, col, count);
      fetch_z(row + kTile, col);
      sums.clear(row_tile, col, cols);
      float* sum_at = sums.at(row, col);
      for_each_columns(cols, [&](int64_t j, auto number) {
        constexpr int N = number.value;
        const Vecs<N> dq_factor = is_v2 ? load_vecs<N>(dq_factor_ + col + j) : Vecs<N>{},
                      g_factor = is_v2 ? load_vecs<N>(g_factor_ + col + j) : Vecs<N>{};
        Vecs<N> total = load_vecs<N>(sum_at + j);
        for (int64_t i = 0; i < count; ++i) {
          const Vecs<N> z = load_vecs<N>(z_tile.data + i * z_tile.step + j, cols - j);
          const Normal<N> n = normal(z);
          const Vecs<N> g = z * n.phi;
          Vecs<N> dg = load_vecs<N>(dz + i * kTile + j);
          if (is_v2) {
            dg = dg * dq_factor + g * g_factor;
          } else {
            store_vecs(q + i * kTile + j, g);
          }
          const Vecs<N> v = dg * (n.phi + z * n.density);
          store_vecs(dz + i * kTile + j, v);
          total = total + v;
        }
        store_vecs(sum_at + j, total);
      });
      G::put_both(dz_, dz_right_, row_tile, col_tile, dz, kTile, count, cols);
      if (!is_v2) G::put_b(q_, row_tile, col_tile, q, kTile, count, cols, q);
    };
    product<G>(dr_, weight2, rows, use);
    add_sums(sums, wide_, d_.bias1);
  }

  // Into the cache, a tile of z that is wanted after the next product.
  void fetch_z(int64_t row, int64_t col) const {
    if (row >= rows_) return;
    const int64_t count = min(kTile, rows_ - row);
    const TileInMap<const float> z = tile_of(saved_.z, wide_, row0_ + row, col, count);
    for (int64_t i = 0; i < count * z.step; i += kLine) __builtin_prefetch(z.data + i);
  }

  // V2, one image: with P = sum over its pixels of de g, the sum of dq * g is weight2 . P (over the rows of both), so
  // the response can be differentiated before dq is there; and the gradient of the weight is P * (gamma n + 1) + (sum
  // of de) beta.
  void respond_to_image(float* products) {
    const int64_t c = s_.c;
    const Session::Mark mark = memory_.mark();
    float* de_sum = memory_.floats(round_up(c, kWidth));
    clear(de_sum, c);
    each_part([&] {
      de_turned_ = G::new_a_transposed(memory_, c, rows_);
      q_ = G::new_b(memory_, rows_, wide_);
      pack_de(de_sum);
      pack_g();
      weight2_gradient(products, row0_ > image0_ * s_.pixels());
    });
    for (int64_t o = 0; o < c; ++o) d_.bias2[o] += de_sum[o];
    add_to_grn_beta(de_sum);
    parallel(ceil_div(wide_, kWidth), [&](int64_t block) {
      const int64_t i = block * kWidth;
      Vec total{};
      for (int64_t o = 0; o < c; ++o) {
        total += load_part(p_.weight2 + o * wide_ + i, wide_ - i) * load_part(products + o * wide_ + i, wide_ - i);
      }
      store(g_factor_ + i, total);
    });
    response_factors(0);
    parallel(c, [&](int64_t o) {
      for (int64_t i = 0; i < wide_; i += kWidth) {
        float* to = d_.weight2 + o * wide_ + i;
        const Vec grown = load_part(products + o * wide_ + i, wide_ - i) * load(dq_factor_ + i);
        const Vec v = grown + load_part(p_.grn_beta + i, wide_ - i) * de_sum[o];
        store_part(to, image0_ > 0 ? load_part(to, wide_ - i) + v : v, wide_ - i);
      }
    });
    memory_.rewind(mark);
  }

  // g as the right side of a product, in the place of q; column by column, as that product takes it.
  void pack_g() {
    const int64_t rows = rows_, row_tiles = ceil_div(rows, kTile);
    parallel(ceil_div(wide_, kTile) * row_tiles, [&](int64_t task) {
      const int64_t row = task % row_tiles * kTile, col = task / row_tiles * kTile;
      const int64_t count = min(kTile, rows - row), cols = min(kTile, wide_ - col);
      alignas(64) float g[kTile * kTile];
      const TileInMap<const float> z_tile = tile_of(saved_.z, wide_, row0_ + row, col, count);
      for (int64_t i = 0; i < count; ++i) {
        const float* z = z_tile.data + i * z_tile.step;
        for_each_columns(cols, [&](int64_t j, auto number) {
          store_vecs(g + i * kTile + j, gelu(load_vecs<number.value>(z + j, cols - j)));
        });
      }
      G::put_b(q_, row / kTile, col / kTile, g, kTile, count, cols, g);
    });
  }

  // The sum of dq = weight2 de.
  void add_to_grn_beta(const float* de_sum) {
    constexpr int64_t kCols = 64;  // of a row of the weight, which comes from memory: whole lines
    parallel(ceil_div(wide_, kCols), [&](int64_t block) {
      const int64_t first = block * kCols, cols = min(kCols, wide_ - first);
      Vec total[kCols / kWidth];
      for (int64_t j = 0; j < cols; j += kWidth) total[j / kWidth] = load_part(d_.grn_beta + first + j, cols - j);
      for (int64_t o = 0; o < s_.c; ++o) {
        const float* weight = p_.weight2 + o * wide_ + first;
        for (int64_t j = 0; j < cols; j += kWidth) total[j / kWidth] += load_part(weight + j, cols - j) * de_sum[o];
      }
      for (int64_t j = 0; j < cols; j += kWidth) store_part(d_.grn_beta + first + j, total[j / kWidth], cols - j);
    });
  }

  // V2, several images: dq, its sum over the rows, and the sums over each image's pixels that the response needs.
  void back_to_q(const Right<G>& weight2, float* dq) {
    const int64_t rows = rows_, step = round_up(wide_, kTile);
    RowSums sums(memory_, rows, rows, wide_), with_g(memory_, rows, s_.pixels(), wide_);
    const auto use = [&](int64_t row_tile, int64_t col_tile, const float* tile) {
      const int64_t row = row_tile * kTile, col = col_tile * kTile;
      const int64_t count = min(kTile, rows - row), cols = min(kTile, wide_ - col);
      const TileInMap<const float> z_tile = tile_of(saved_.z, wide_, row0_ + row, col, count);
      const TileInMap<float> dq_tile = tile_of(dq, wide_, row, col, count);
      fetch_z(row + kTile, col);
      sums.clear(row_tile, col, cols);
      with_g.clear(row_tile, col, cols);
      float* sum_at = sums.at(row, col);
      each_image(row, 0, count, s_.pixels(), [&](int64_t, int64_t begin, int64_t end) {
        float* with_g_at = with_g.at(row + begin, col);
        for_each_columns(cols, [&](int64_t j, auto number) {
          constexpr int N = number.value;
          Vecs<N> total = load_vecs<N>(sum_at + j), total_with_g = load_vecs<N>(with_g_at + j);
          for (int64_t i = begin; i < end; ++i) {
            const Vecs<N> v = load_vecs<N>(tile + i * kTile + j);
            const Vecs<N> g = gelu(load_vecs<N>(z_tile.data + i * z_tile.step + j, cols - j));
            store_vecs(dq_tile.data + i * dq_tile.step + j, v, cols - j);
            total = total + v;
            total_with_g = total_with_g + v * g;
          }
          store_vecs(sum_at + j, total);
          store_vecs(with_g_at + j, total_with_g);
        });
      });
    };
    product<G>(dr_, weight2, rows, use);
    add_sums(sums, wide_, d_.grn_beta);
    parallel(s_.n, [&](int64_t image) {
      for (int64_t i = 0; i < wide_; i += kWidth) store(g_factor_ + image * step + i, with_g.of_image(image, i));
    });
    for (int64_t image = 0; image < s_.n; ++image) response_factors(image);
  }

  // Of one image, from t = sum over its pixels of dq * g, which g_factor_ holds at first. With n = norm / m, m =
  // mean(norm) + eps:
  //   q = g * (gamma n + 1) + beta;  dgamma = t n;  dn = gamma t;  dnorm = dn / m - mean(dn * norm) / m^2;
  //   dg = dq * (gamma n + 1) + g * dnorm / norm, where a norm of 0 (a dead channel) takes no gradient.
  void response_factors(int64_t image) {
    const int64_t step = round_up(wide_, kTile);
    const float* norms = saved_.norms + (image0_ + image) * wide_;
    float* dq_factor = dq_factor_ + image * step;
    float* g_factor = g_factor_ + image * step;
    double total = 0.0, slope = 0.0;
    for (int64_t i = 0; i < wide_; ++i) {
      total += norms[i];
      slope += static_cast<double>(p_.grn_gamma[i]) * g_factor[i] * norms[i];
    }
    const float mean = static_cast<float>(total / static_cast<double>(wide_)) + kGrnEps;
    const float common = static_cast<float>(slope / static_cast<double>(wide_)) / (mean * mean);
    for (int64_t i = 0; i < wide_; ++i) {
      const float n = norms[i] / mean, t = g_factor[i];
      d_.grn_gamma[i] += t * n;
      dq_factor[i] = p_.grn_gamma[i] * n + 1.0f;
      g_factor[i] = norms[i] == 0.0f ? 0.0f : (p_.grn_gamma[i] * t / mean - common) / norms[i];
    }
  }

  void back_through_response(float* dq) {
    const int64_t rows = rows_, step = round_up(wide_, kTile);
    RowSums sums(memory_, rows, rows, wide_);
    parallel(ceil_div(rows, kTile), [&](int64_t row_tile) {
      const int64_t row = row_tile * kTile, count = min(kTile, rows - row);
      alignas(64) float dz[kTile * kTile], q[kTile * kTile];
      for (int64_t col = 0; col < wide_; col += kTile) {
        const int64_t cols = min(kTile, wide_ - col);
        sums.clear(row_tile, col, cols);
        float* total = sums.at(row, col);
        const TileInMap<const float> z_tile = tile_of(saved_.z, wide_, row0_ + row, col, count);
        const TileInMap<float> dq_tile = tile_of(dq, wide_, row, col, count);
        each_image(row, 0, count, s_.pixels(), [&](int64_t image, int64_t begin, int64_t end) {
          for_each_columns(cols, [&](int64_t j, auto number) {
            constexpr int N = number.value;
            const Vecs<N> grow = load_vecs<N>(dq_factor_ + image * step + col + j),
                          g_factor = load_vecs<N>(g_factor_ + image * step + col + j);
            const Vecs<N> beta = load_vecs<N>(p_.grn_beta + col + j, cols - j);
            Vecs<N> sum_j = load_vecs<N>(total + j);
            for (int64_t i = begin; i < end; ++i) {
              const Vecs<N> z = load_vecs<N>(z_tile.data + i * z_tile.step + j, cols - j);
              const Normal<N> n = normal(z);
              const Vecs<N> g = z * n.phi;
              const Vecs<N> dg = load_vecs<N>(dq_tile.data + i * dq_tile.step + j, cols - j) * grow + g * g_factor;
              const Vecs<N> v = dg * (n.phi + z * n.density);
              store_vecs(dz + i * kTile + j, v);
              store_vecs(q + i * kTile + j, g * grow + beta);
              sum_j = sum_j + v;
            }
            store_vecs(total + j, sum_j);
          });
        });
        G::put_both(dz_, dz_right_, row_tile, col / kTile, dz, kTile, count, cols);
        G::put_b(q_, row_tile, col / kTile, q, kTile, count, cols, q);
      }
    });
    add_sums(sums, wide_, d_.bias1);
  }

  // The sum over the rows of de q, q as q_ holds it; with `adds` it is added to what is there.
  void weight2_gradient(float* grad, bool adds) {
    const int64_t c = s_.c;
    long_product<G>(de_turned_, q_, c, wide_, rows_,
                    [&](int64_t row_tile, int64_t col_tile, bool is_first, const float* tile) {
                      const int64_t row = row_tile * kTile, col = col_tile * kTile;
                      put_tile(tile, min(kTile, c - row), min(kTile, wide_ - col), adds || !is_first,
                               grad + row * wide_ + col, wide_);
                    });
  }

  // The same of dz y, computed as y dz.
  void weight1_gradient(bool adds) {
    const int64_t c = s_.c;
    long_product<G>(y_turned_, dz_right_, c, wide_, rows_,
                    [&](int64_t row_tile, int64_t col_tile, bool is_first, const float* tile) {
                      const int64_t row = col_tile * kTile, col = row_tile * kTile;
                      alignas(64) float turned[kTile * kTile];
                      turn(tile, turned);
                      put_tile(turned, min(kTile, wide_ - row), min(kTile, c - col), adds || !is_first,
                               d_.weight1 + row * c + col, c);
                    });
  }

  void back_to_y(const Right<G>& weight1, float* dy) {
    const int64_t rows = rows_, c = s_.c;
    const auto use = [&](int64_t row_tile, int64_t col_tile, const float* tile) {
      const int64_t row = row_tile * kTile, col = col_tile * kTile;
      const int64_t cols = min(kTile, c - col);
      for (int64_t i = 0; i < min(kTile, rows - row); ++i) {
        for (int64_t j = 0; j < cols; j += kWidth)
          store_part(dy + (row + i) * c + col + j, load(tile + i * kTile + j), cols - j);
      }
    };
    product<G>(dz_, weight1, rows, use);
  }

  // From dy to du, in place.
  void back_through_norm(float* du) {
    const int64_t rows = rows_, c = s_.c;
    RowSums gamma(memory_, rows, rows, c), beta(memory_, rows, rows, c), bias(memory_, rows, rows, c);
    parallel(ceil_div(rows, kTile), [&](int64_t tile) {
      const int64_t first = tile * kTile;
      gamma.clear(tile, 0, c);
      beta.clear(tile, 0, c);
      bias.clear(tile, 0, c);
      float *to_gamma = gamma.at(first, 0), *to_beta = beta.at(first, 0), *to_bias = bias.at(first, 0);
      for (int64_t row = first; row < min(first + kTile, rows); ++row) {
        const float* xhat = saved_.xhat + (row0_ + row) * c;
        float* dy = du + row * c;
        for (int64_t j = 0; j < c; j += kWidth) {
          const Vec v = load_part(dy + j, c - j);
          store(to_gamma + j, load(to_gamma + j) + v * load_part(xhat + j, c - j));
          store(to_beta + j, load(to_beta + j) + v);
        }
        normalise_row_backward(dy, xhat, p_.norm_gamma, saved_.factor[row0_ + row], c, dy);
        for (int64_t j = 0; j < c; j += kWidth) store(to_bias + j, load(to_bias + j) + load_part(dy + j, c - j));
      }
    });
    add_sums(gamma, c, d_.norm_gamma);
    add_sums(beta, c, d_.norm_beta);
    add_sums(bias, c, d_.dw_bias);
  }

  Session memory_;
  const MapShape all_;
  const BlockParams p_;
  const BlockSaved<const float> saved_;
  const float* x_;
  const float* dout_;
  const BlockGrads d_;
  const int64_t wide_;
  MapShape s_{};  // of the group of images
  int64_t part_rows_ = 0, row0_ = 0, rows_ = 0, image0_ = 0;
  typename G::A dr_{}, de_turned_{}, y_turned_{}, dz_{};
  typename G::B dz_right_{}, q_{};
  float *dq_factor_ = nullptr, *g_factor_ = nullptr;
};

}  // namespace MINDCV_ISA
}  // namespace mindcv
