// The gradients of a block; see block.h for the names.
#pragma once
#include "block.h"

namespace mindcv {
namespace MINDCV_ISA {

template <class G>
class BlockBackward {
 public:
  BlockBackward(const MapShape& s, const BlockParams& p, const BlockSaved& saved, const float* x, const float* dout,
                const BlockGrads& d)
      : all_(s), p_(p), saved_(saved), x_(x), dout_(dout), d_(d), wide_(4 * s.c) {}

  void run() {
    clear_sums();
    const int64_t c = all_.c;
    const Right<G> weight1 = packed_right({p_.weight1, wide_, c, false});
    const Right<G> weight2 = packed_right({scaled_weight2(), c, wide_, false});
    const int64_t images = group_images(all_, p_), rows = images * all_.pixels();
    de_ = G::new_a(memory_, rows, c);
    de_turned_ = G::new_a_transposed(memory_, c, rows);
    y_turned_ = G::new_a_transposed(memory_, c, rows);
    dz_ = G::new_a(memory_, rows, wide_);
    dz_right_ = G::new_b(memory_, rows, wide_);
    q_ = G::new_b(memory_, rows, wide_);
    const bool is_v2 = p_.grn_gamma != nullptr, is_single = takes_single_images(all_, p_);
    float* dq = is_v2 && !is_single ? memory_.floats(rows * round_up(wide_, kTile)) : nullptr;
    float* products = is_single ? memory_.floats(c * wide_) : nullptr;
    float* du = memory_.floats(rows * c);
    const Session::Mark mark = memory_.mark();
    for (int64_t image = 0; image < all_.n; image += images) {
      memory_.rewind(mark);
      s_ = all_;
      s_.n = least(images, all_.n - image);
      row0_ = image * all_.pixels();
      image0_ = image;
      G::clear(dz_right_);
      G::clear(q_);
      const float* de_sum = pack_rows();
      if (is_single) {
        respond_to_image(products, de_sum);
        back_to_z(weight2);
      } else if (is_v2) {
        back_to_q(weight2, dq, de_sum);
        back_through_response(dq);
        weight2_gradient(d_.weight2);
      } else {
        back_to_z(weight2);
        weight2_gradient(d_.weight2);
      }
      weight1_gradient();
      back_to_u(weight1, du);
      depthwise_backward(memory_, s_, x_ + row0_ * c, p_.dw_weight, du, dout_ + row0_ * c, d_.dx + row0_ * c,
                         d_.dw_weight);
    }
    undo_scale();
  }

 private:
  Right<G> packed_right(const Weight& weight) { return {weight, packed<G>(memory_, weight), true}; }

  void clear_sums() {
    const int64_t c = all_.c;
    clear(d_.dw_weight, c * kTaps);
    clear(d_.dw_bias, c);
    clear(d_.norm_gamma, c);
    clear(d_.norm_beta, c);
    clear(d_.weight1, wide_ * c);
    clear(d_.bias1, wide_);
    clear(d_.weight2, c * wide_);
    clear(d_.bias2, c);
    if (p_.grn_gamma != nullptr) {
      clear(d_.grn_gamma, wide_);
      clear(d_.grn_beta, wide_);
    }
  }
  static void clear(float* to, int64_t count) { memset(to, 0, static_cast<size_t>(count) * 4); }

  // With LayerScale, de = keep * dout takes the place of dr = keep * gamma * dout, and gamma is multiplied into the
  // weight instead: so the gradient of gamma comes from that of the weight, and r need not be known.
  const float* scaled_weight2() {
    if (p_.scale == nullptr) return p_.weight2;
    float* scaled = memory_.floats(all_.c * wide_);
    parallel(all_.c, [&](int64_t o) {
      for (int64_t i = 0; i < wide_; ++i) scaled[o * wide_ + i] = p_.weight2[o * wide_ + i] * p_.scale[o];
    });
    return scaled;
  }

  // r = weight2 q + bias2, so sum(de * r) = weight2 . (sum of de q) + bias2 * sum(de).
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
      d_.scale[o] = sum(total) + p_.bias2[o] * d_.bias2[o];
      d_.bias2[o] *= p_.scale[o];
    });
  }

  // de and y of the group, as the products want them, and the sum of de over its rows.
  const float* pack_rows() {
    const int64_t rows = s_.rows(), c = s_.c;
    RowSums sums(memory_, rows, rows, c);
    parallel(ceil_div(rows, kTile), [&](int64_t tile) {
      const int64_t first = tile * kTile, count = least(kTile, rows - first);
      float* de = static_cast<float*>(thread_scratch(static_cast<size_t>(2 * kTile * c) * 4));
      float* y = de + kTile * c;
      sums.clear(tile, 0, c);
      float* total = sums.at(first, 0);
      each_image(first, 0, count, s_.pixels(), [&](int64_t image, int64_t begin, int64_t end) {
        const Vec keep = splat(p_.keep[image0_ + image]);
        for (int64_t j = 0; j < c; j += kWidth) {
          const Vec gamma = load_part(p_.norm_gamma + j, c - j), beta = load_part(p_.norm_beta + j, c - j);
          Vec sum_j = load(total + j);
          for (int64_t i = begin; i < end; ++i) {
            const int64_t at = (row0_ + first + i) * c + j;
            const Vec v = load_part(dout_ + at, c - j) * keep;
            store_part(de + i * c + j, v, c - j);
            sum_j += v;
            store_part(y + i * c + j, load_part(saved_.xhat + at, c - j) * gamma + beta, c - j);
          }
          store(total + j, sum_j);
        }
      });
      for (int64_t j = 0; j < c; j += kTile) {
        const int64_t cols = least(kTile, c - j);
        G::put_a(de_, tile, j / kTile, de + j, c, count, cols);
        G::put_a_transposed(de_turned_, tile, j / kTile, de + j, c, count, cols);
        G::put_a_transposed(y_turned_, tile, j / kTile, y + j, c, count, cols);
      }
    });
    add_sums(sums, c, d_.bias2);
    float* total = memory_.floats(round_up(c, kWidth));
    clear(total, c);
    add_sums(sums, c, total);
    return total;
  }

  // From de to dz in one pass over the wide map: V1, where q = g, and V2 when the factors of the response are known
  // before.
  void back_to_z(const Right<G>& weight2) {
    const int64_t rows = s_.rows();
    const bool is_v2 = p_.grn_gamma != nullptr;
    RowSums sums(memory_, rows, rows, wide_);
    const auto use = [&](int64_t row_tile, int64_t col_tile, float* dz) {
      const int64_t row = row_tile * kTile, col = col_tile * kTile;
      const int64_t count = least(kTile, rows - row), cols = least(kTile, wide_ - col);
      alignas(64) float q[kTile * kTile];
      sums.clear(row_tile, col, cols);
      float* sum_at = sums.at(row, col);
      for (int64_t j = 0; j < cols; j += kWidth) {
        const Vec dq_factor = is_v2 ? load(dq_factor_ + col + j) : Vec{},
                  g_factor = is_v2 ? load(g_factor_ + col + j) : Vec{};
        Vec total = load(sum_at + j);
        for (int64_t i = 0; i < count; ++i) {
          const Vec z = load_part(saved_.z + (row0_ + row + i) * wide_ + col + j, cols - j);
          const Normal n = normal(z);
          const Vec g = z * n.phi;
          Vec dg = load(dz + i * kTile + j);
          if (is_v2) {
            dg = dg * dq_factor + g * g_factor;
          } else {
            store(q + i * kTile + j, g);
          }
          const Vec v = dg * (n.phi + z * n.density);
          store(dz + i * kTile + j, v);
          total += v;
        }
        store(sum_at + j, total);
      }
      G::put_both(dz_, dz_right_, row_tile, col_tile, dz, kTile, count, cols);
      if (!is_v2) G::put_b(q_, row_tile, col_tile, q, kTile, count, cols);
    };
    product<G>(de_, weight2, rows, use);
    add_sums(sums, wide_, d_.bias1);
  }

  // V2, one image: with P = sum over its pixels of de g, the sum of dq * g is weight2 . P (over the rows of both), so
  // the response can be differentiated before dq is there; and the gradient of the weight is P * (gamma n + 1) + (sum
  // of de) beta.
  void respond_to_image(float* products, const float* de_sum) {
    const int64_t rows = s_.rows(), c = s_.c, step = round_up(wide_, kTile);
    parallel(ceil_div(rows, kTile), [&](int64_t row_tile) {
      const int64_t row = row_tile * kTile, count = least(kTile, rows - row);
      alignas(64) float g[kTile * kTile];
      for (int64_t col = 0; col < wide_; col += kTile) {
        const int64_t cols = least(kTile, wide_ - col);
        for (int64_t i = 0; i < count; ++i) {
          const float* z = saved_.z + (row0_ + row + i) * wide_ + col;
          for (int64_t j = 0; j < cols; j += kWidth) store(g + i * kTile + j, gelu(load_part(z + j, cols - j)));
        }
        G::put_b(q_, row_tile, col / kTile, g, kTile, count, cols);
      }
    });
    clear(products, c * wide_);
    weight2_gradient(products);
    g_factor_ = memory_.floats(step);
    dq_factor_ = memory_.floats(step);
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
        store_part(to, load_part(to, wide_ - i) + (grown + load_part(p_.grn_beta + i, wide_ - i) * de_sum[o]),
                   wide_ - i);
      }
    });
  }

  // The sum of dq = weight2 de.
  void add_to_grn_beta(const float* de_sum) {
    parallel(ceil_div(wide_, kWidth), [&](int64_t block) {
      const int64_t i = block * kWidth;
      Vec total = load_part(d_.grn_beta + i, wide_ - i);
      for (int64_t o = 0; o < s_.c; ++o) total += load_part(p_.weight2 + o * wide_ + i, wide_ - i) * de_sum[o];
      store_part(d_.grn_beta + i, total, wide_ - i);
    });
  }

  // V2, several images: dq, and the sums over each image's pixels that the response needs.
  void back_to_q(const Right<G>& weight2, float* dq, const float* de_sum) {
    const int64_t rows = s_.rows(), step = round_up(wide_, kTile);
    RowSums with_g(memory_, rows, s_.pixels(), wide_);
    const auto use = [&](int64_t row_tile, int64_t col_tile, const float* tile) {
      const int64_t row = row_tile * kTile, col = col_tile * kTile;
      const int64_t count = least(kTile, rows - row), cols = least(kTile, wide_ - col);
      with_g.clear(row_tile, col, cols);
      each_image(row, 0, count, s_.pixels(), [&](int64_t, int64_t begin, int64_t end) {
        float* sum_at = with_g.at(row + begin, col);
        for (int64_t j = 0; j < cols; j += kWidth) {
          Vec total = load(sum_at + j);
          for (int64_t i = begin; i < end; ++i) {
            const Vec v = load(tile + i * kTile + j);
            const Vec g = gelu(load_part(saved_.z + (row0_ + row + i) * wide_ + col + j, cols - j));
            store(dq + (row + i) * step + col + j, v);
            total += v * g;
          }
          store(sum_at + j, total);
        }
      });
    };
    product<G>(de_, weight2, rows, use);
    add_to_grn_beta(de_sum);
    g_factor_ = memory_.floats(s_.n * step);
    dq_factor_ = memory_.floats(s_.n * step);
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

  void back_through_response(const float* dq) {
    const int64_t rows = s_.rows(), step = round_up(wide_, kTile);
    RowSums sums(memory_, rows, rows, wide_);
    parallel(ceil_div(rows, kTile), [&](int64_t row_tile) {
      const int64_t row = row_tile * kTile, count = least(kTile, rows - row);
      alignas(64) float dz[kTile * kTile], q[kTile * kTile];
      for (int64_t col = 0; col < wide_; col += kTile) {
        const int64_t cols = least(kTile, wide_ - col);
        sums.clear(row_tile, col, cols);
        float* total = sums.at(row, col);
        each_image(row, 0, count, s_.pixels(), [&](int64_t image, int64_t begin, int64_t end) {
          for (int64_t j = 0; j < cols; j += kWidth) {
            const Vec grow = load(dq_factor_ + image * step + col + j),
                      g_factor = load(g_factor_ + image * step + col + j);
            const Vec beta = load_part(p_.grn_beta + col + j, cols - j);
            Vec sum_j = load(total + j);
            for (int64_t i = begin; i < end; ++i) {
              const Vec z = load_part(saved_.z + (row0_ + row + i) * wide_ + col + j, cols - j);
              const Normal n = normal(z);
              const Vec g = z * n.phi;
              const Vec dg = load(dq + (row + i) * step + col + j) * grow + g * g_factor;
              const Vec v = dg * (n.phi + z * n.density);
              store(dz + i * kTile + j, v);
              store(q + i * kTile + j, g * grow + beta);
              sum_j += v;
            }
            store(total + j, sum_j);
          }
        });
        G::put_both(dz_, dz_right_, row_tile, col / kTile, dz, kTile, count, cols);
        G::put_b(q_, row_tile, col / kTile, q, kTile, count, cols);
      }
    });
    add_sums(sums, wide_, d_.bias1);
  }

  // Adds the sum over rows of de q, q as q_ holds it.
  void weight2_gradient(float* grad) {
    const int64_t rows = s_.rows(), c = s_.c;
    long_product<G>(de_turned_, q_, c, wide_, rows, [&](int64_t row_tile, int64_t col_tile, const float* tile) {
      const int64_t row = row_tile * kTile, col = col_tile * kTile;
      for (int64_t i = 0; i < least(kTile, c - row); ++i) {
        float* to = grad + (row + i) * wide_ + col;
        for (int64_t j = 0; j < least(kTile, wide_ - col); ++j) to[j] += tile[i * kTile + j];
      }
    });
  }

  void weight1_gradient() {
    const int64_t rows = s_.rows(), c = s_.c;
    long_product<G>(y_turned_, dz_right_, c, wide_, rows, [&](int64_t row_tile, int64_t col_tile, const float* tile) {
      const int64_t row = row_tile * kTile, col = col_tile * kTile;
      for (int64_t j = 0; j < least(kTile, wide_ - col); ++j) {
        float* to = d_.weight1 + (col + j) * c + row;
        for (int64_t i = 0; i < least(kTile, c - row); ++i) to[i] += tile[i * kTile + j];
      }
    });
  }

  void back_to_u(const Right<G>& weight1, float* du) {
    const int64_t rows = s_.rows(), c = s_.c;
    const auto use = [&](int64_t row_tile, int64_t col_tile, const float* tile) {
      const int64_t row = row_tile * kTile, col = col_tile * kTile;
      const int64_t cols = least(kTile, c - col);
      for (int64_t i = 0; i < least(kTile, rows - row); ++i) {
        for (int64_t j = 0; j < cols; j += kWidth)
          store_part(du + (row + i) * c + col + j, load(tile + i * kTile + j), cols - j);
      }
    };
    product<G>(dz_, weight1, rows, use);
    RowSums gamma(memory_, rows, rows, c), beta(memory_, rows, rows, c), bias(memory_, rows, rows, c);
    parallel(ceil_div(rows, kTile), [&](int64_t tile) {
      const int64_t first = tile * kTile;
      gamma.clear(tile, 0, c);
      beta.clear(tile, 0, c);
      bias.clear(tile, 0, c);
      float *to_gamma = gamma.at(first, 0), *to_beta = beta.at(first, 0), *to_bias = bias.at(first, 0);
      for (int64_t row = first; row < least(first + kTile, rows); ++row) {
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
  const BlockSaved saved_;
  const float* x_;
  const float* dout_;
  const BlockGrads d_;
  const int64_t wide_;
  MapShape s_{};  // of the group
  int64_t row0_ = 0, image0_ = 0;
  typename G::A de_{}, de_turned_{}, y_turned_{}, dz_{};
  typename G::B dz_right_{}, q_{};
  float *dq_factor_ = nullptr, *g_factor_ = nullptr;
};

}  // namespace MINDCV_ISA
}  // namespace mindcv
