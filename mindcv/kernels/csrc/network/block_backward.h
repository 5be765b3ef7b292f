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
  BlockBackward(Session& memory, const BlockMap& map, const BlockParams& p, const BlockSaved<const float>& saved,
                const float* x, const float* dout, const BlockGrads& d)
      : memory_(memory), map_(map), p_(p), saved_(saved), x_(x), dout_(dout), d_(d), c_(map.c), wide_(4 * map.c) {}

  void run() {
    clear_sums();
    const int64_t c = c_;
    const OperandB<G> weight1 = operand_b<G>(memory_, {p_.weight1, wide_, c, false}, map_.rows());
    const OperandB<G> weight2 = operand_b<G>(memory_, {p_.weight2, c, wide_, false}, map_.rows());
    const bool is_v2 = p_.grn_gamma != nullptr, is_single = takes_single_images(map_, p_);
    const int64_t images = images_per_group(map_, p_), group_rows = images * map_.max_pixels();
    // Few rows at a time go through all products, so that their wide maps stay in the caches. Each part of the rows is
    // added to the gradients of the weights, so a part has no fewer rows than these have columns. V2's response to
    // several images needs all of their rows between two products. See decision 0026.
    const bool has_parts = !is_v2 || is_single;
    part_rows_ = has_parts ? min(group_rows, max(kKC, round_up(c, kTile))) : group_rows;
    float* dq = has_parts ? nullptr : memory_.floats(group_rows * wide_);
    float* products = is_single ? memory_.floats(c * wide_) : nullptr;
    float* du = memory_.floats(group_rows * c);
    if (is_v2) {
      g_factor_ = memory_.floats(images * round_up(wide_, kTile));
      dq_factor_ = memory_.floats(images * round_up(wide_, kTile));
    }
    for (int64_t image = 0; image < map_.num_images(); image += group_.count) {
      group_ = map_.group(image, images);
      const int64_t first = group_.row;
      if (is_single) respond_to_image(products);
      for_each_part([&] { compute_du(weight1, weight2, dq, du + (row0_ - first) * c); });
      const Session::Mark mark = memory_.mark();
      map_.convolve_backward(memory_, group_, x_ + first * c, p_.dw_weight, du, dout_ + first * c, d_.dx + first * c,
                             d_.dw_weight);
      memory_.rewind(mark);
    }
    unscale_gradients();
  }

 private:
  // Calls body() for each part of the group's rows: `rows_` rows from `row0_`.
  template <class Body>
  void for_each_part(Body&& body) {
    const int64_t first = group_.row, last = first + group_.rows();
    const Session::Mark mark = memory_.mark();
    for (row0_ = first; row0_ < last; row0_ += part_rows_) {
      rows_ = min(part_rows_, last - row0_);
      body();
      memory_.rewind(mark);
    }
  }

  // Computes du and the gradients of all weights but those of the depthwise convolution (and but that of pwconv2, where
  // respond_to_image has computed it).
  void compute_du(const OperandB<G>& weight1, const OperandB<G>& weight2, float* dq, float* du) {
    const bool has_weight2 = takes_single_images(map_, p_);
    dr_ = G::allocate_a(memory_, rows_, c_);
    y_transposed_ = G::allocate_a_transposed(memory_, c_, rows_);
    dz_ = G::allocate_a(memory_, rows_, wide_);
    dz_right_ = G::allocate_b(memory_, rows_, wide_);
    pack_dr_and_y();
    if (!has_weight2) {
      de_transposed_ = G::allocate_a_transposed(memory_, c_, rows_);
      q_ = G::allocate_b(memory_, rows_, wide_);
      pack_de(d_.bias2);
    }
    if (dq == nullptr) {
      compute_dz(weight2);
    } else {
      compute_dq(weight2, dq);
      backward_response(dq);
    }
    if (!has_weight2) weight2_gradient(d_.weight2, row0_ > 0);
    weight1_gradient(row0_ > 0);
    compute_dy(weight1, du);
    backward_norm(du);
  }

  void clear_sums() {
    const int64_t c = c_;
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

  // With LayerScale, the sums over rows use de = keep * dout instead of dr = keep * gamma * dout. The gradient of gamma
  // is then known without r: r = weight2 q + bias2, so sum(de * r) = weight2 . (sum of de q) + bias2 * sum(de). This
  // function computes it, and multiplies the gradients of weight2 and bias2 by gamma.
  void unscale_gradients() {
    if (p_.scale == nullptr) return;
    parallel(c_, [&](int64_t o) {
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

  // Packs de, transposed, for the gradient of pwconv2. Adds its sum over the rows to `total`.
  void pack_de(float* total) {
    const int64_t rows = rows_, c = c_;
    RowSums sums(memory_, rows, rows, c);
    parallel(ceil_div(rows, kTile), [&](int64_t tile) {
      const int64_t first = tile * kTile, count = min(kTile, rows - first);
      alignas(64) float de[kTile * kTile];
      sums.clear(tile, 0, c);
      for (int64_t col = 0; col < c; col += kTile) {
        const int64_t cols = min(kTile, c - col);
        float* sum = sums.at(first, col);
        for_each_image(row0_ - group_.row + first, 0, count, group_.pixels,
                       [&](int64_t image, int64_t begin, int64_t end) {
                         const Vec keep = splat(keep_of(image));
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
        G::pack_a_transposed(de_transposed_, tile, col / kTile, de, kTile, count, cols);
      }
    });
    add_sums(sums, c, total);
  }

  // Packs dr as the left-hand matrix of a product, and y, transposed, for the gradient of pwconv1.
  void pack_dr_and_y() {
    const int64_t rows = rows_, c = c_;
    parallel(ceil_div(rows, kTile), [&](int64_t tile) {
      const int64_t first = tile * kTile, count = min(kTile, rows - first);
      alignas(64) float dr[kTile * kTile], y[kTile * kTile];
      for (int64_t col = 0; col < c; col += kTile) {
        const int64_t cols = min(kTile, c - col);
        for_each_image(row0_ - group_.row + first, 0, count, group_.pixels,
                       [&](int64_t image, int64_t begin, int64_t end) {
                         for (int64_t j = 0; j < cols; j += kWidth) {
                           Vec factor = splat(keep_of(image));
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
        G::pack_a(dr_, tile, col / kTile, dr, kTile, count, cols);
        G::pack_a_transposed(y_transposed_, tile, col / kTile, y, kTile, count, cols);
      }
    });
  }

  // Computes dz from dr in one pass over the wide map: for V1, where q = g, and for V2 where the factors of the
  // response are already known.
  void compute_dz(const OperandB<G>& weight2) {
    const int64_t rows = rows_;
    const bool is_v2 = p_.grn_gamma != nullptr;
    RowSums sums(memory_, rows, rows, wide_);
    const auto epilogue = [&](int64_t row_tile, int64_t col_tile, float* dz) {
      const int64_t row = row_tile * kTile, col = col_tile * kTile;
      const int64_t count = min(kTile, rows - row), cols = min(kTile, wide_ - col);
      alignas(64) float q[kTile * kTile];
      const TileInMap<const float> z_tile = tile_of(saved_.z, wide_, row0_ + row, col, count);
      prefetch_z(row + kTile, col);
      sums.clear(row_tile, col, cols);
      float* sum_at = sums.at(row, col);
      for_each_columns(cols, [&](int64_t j, auto number) {
        constexpr int N = number.value;
        const Vecs<N> dq_factor = is_v2 ? load_vecs<N>(dq_factor_ + col + j) : Vecs<N>{},
                      g_factor = is_v2 ? load_vecs<N>(g_factor_ + col + j) : Vecs<N>{};
        Vecs<N> total = load_vecs<N>(sum_at + j);
        for (int64_t i = 0; i < count; ++i) {
          const Vecs<N> z = load_vecs<N>(z_tile.data + i * z_tile.stride + j, cols - j);
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
      G::pack_a_and_b(dz_, dz_right_, row_tile, col_tile, dz, kTile, count, cols);
      if (!is_v2) G::pack_b(q_, row_tile, col_tile, q, kTile, count, cols, q);
    };
    multiply<G>(dr_, weight2, rows, epilogue);
    add_sums(sums, wide_, d_.bias1);
  }

  // Prefetches the tile of z that the epilogue of the next product reads. See decision 0026.
  void prefetch_z(int64_t row, int64_t col) const {
    if (row >= rows_) return;
    const int64_t count = min(kTile, rows_ - row);
    const TileInMap<const float> z = tile_of(saved_.z, wide_, row0_ + row, col, count);
    for (int64_t i = 0; i < count * z.stride; i += kCacheLine) __builtin_prefetch(z.data + i);
  }

  // V2 with one image. Let P be the sum over its pixels of de g. The sum of dq * g is then weight2 . P (over the rows
  // of both), so that the response can be differentiated before dq is computed. The gradient of the weight is P *
  // (gamma n + 1) + (sum of de) beta. See decision 0026.
  void respond_to_image(float* products) {
    const int64_t c = c_;
    const Session::Mark mark = memory_.mark();
    float* de_sum = memory_.floats(round_up(c, kWidth));
    clear(de_sum, c);
    for_each_part([&] {
      de_transposed_ = G::allocate_a_transposed(memory_, c, rows_);
      q_ = G::allocate_b(memory_, rows_, wide_);
      pack_de(de_sum);
      pack_g();
      weight2_gradient(products, row0_ > group_.row);
    });
    for (int64_t o = 0; o < c; ++o) d_.bias2[o] += de_sum[o];
    add_to_grn_beta(de_sum);
    parallel(ceil_div(wide_, kWidth), [&](int64_t vector) {
      const int64_t i = vector * kWidth;
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
        const Vec scaled = load_part(products + o * wide_ + i, wide_ - i) * load(dq_factor_ + i);
        const Vec v = scaled + load_part(p_.grn_beta + i, wide_ - i) * de_sum[o];
        store_part(to, group_.image > 0 ? load_part(to, wide_ - i) + v : v, wide_ - i);
      }
    });
    memory_.rewind(mark);
  }

  // Packs g as the right-hand matrix of a product, in the memory of q. Goes column by column, as the product reads it.
  void pack_g() {
    const int64_t rows = rows_, row_tiles = ceil_div(rows, kTile);
    parallel(ceil_div(wide_, kTile) * row_tiles, [&](int64_t task) {
      const int64_t row = task % row_tiles * kTile, col = task / row_tiles * kTile;
      const int64_t count = min(kTile, rows - row), cols = min(kTile, wide_ - col);
      alignas(64) float g[kTile * kTile];
      const TileInMap<const float> z_tile = tile_of(saved_.z, wide_, row0_ + row, col, count);
      for (int64_t i = 0; i < count; ++i) {
        const float* z = z_tile.data + i * z_tile.stride;
        for_each_columns(cols, [&](int64_t j, auto number) {
          store_vecs(g + i * kTile + j, gelu(load_vecs<number.value>(z + j, cols - j)));
        });
      }
      G::pack_b(q_, row / kTile, col / kTile, g, kTile, count, cols, g);
    });
  }

  // Adds the sum of dq = weight2 de to the gradient of GRN's beta.
  void add_to_grn_beta(const float* de_sum) {
    constexpr int64_t kCols = 64;  // columns of a task: whole cache lines of the weight's rows, which come from memory
    parallel(ceil_div(wide_, kCols), [&](int64_t vector) {
      const int64_t first = vector * kCols, cols = min(kCols, wide_ - first);
      Vec total[kCols / kWidth];
      for (int64_t j = 0; j < cols; j += kWidth) total[j / kWidth] = load_part(d_.grn_beta + first + j, cols - j);
      for (int64_t o = 0; o < c_; ++o) {
        const float* weight = p_.weight2 + o * wide_ + first;
        for (int64_t j = 0; j < cols; j += kWidth) total[j / kWidth] += load_part(weight + j, cols - j) * de_sum[o];
      }
      for (int64_t j = 0; j < cols; j += kWidth) store_part(d_.grn_beta + first + j, total[j / kWidth], cols - j);
    });
  }

  // V2 with several images: computes dq, its sum over the rows, and the sums over each image's pixels that the response
  // needs.
  void compute_dq(const OperandB<G>& weight2, float* dq) {
    const int64_t rows = rows_, step = round_up(wide_, kTile);
    RowSums sums(memory_, rows, rows, wide_), with_g(memory_, rows, group_.pixels, wide_);
    const auto epilogue = [&](int64_t row_tile, int64_t col_tile, const float* tile) {
      const int64_t row = row_tile * kTile, col = col_tile * kTile;
      const int64_t count = min(kTile, rows - row), cols = min(kTile, wide_ - col);
      const TileInMap<const float> z_tile = tile_of(saved_.z, wide_, row0_ + row, col, count);
      const TileInMap<float> dq_tile = tile_of(dq, wide_, row, col, count);
      prefetch_z(row + kTile, col);
      sums.clear(row_tile, col, cols);
      with_g.clear(row_tile, col, cols);
      float* sum_at = sums.at(row, col);
      for_each_image(row, 0, count, group_.pixels, [&](int64_t, int64_t begin, int64_t end) {
        float* with_g_at = with_g.at(row + begin, col);
        for_each_columns(cols, [&](int64_t j, auto number) {
          constexpr int N = number.value;
          Vecs<N> total = load_vecs<N>(sum_at + j), total_with_g = load_vecs<N>(with_g_at + j);
          for (int64_t i = begin; i < end; ++i) {
            const Vecs<N> v = load_vecs<N>(tile + i * kTile + j);
            const Vecs<N> g = gelu(load_vecs<N>(z_tile.data + i * z_tile.stride + j, cols - j));
            store_vecs(dq_tile.data + i * dq_tile.stride + j, v, cols - j);
            total = total + v;
            total_with_g = total_with_g + v * g;
          }
          store_vecs(sum_at + j, total);
          store_vecs(with_g_at + j, total_with_g);
        });
      });
    };
    multiply<G>(dr_, weight2, rows, epilogue);
    add_sums(sums, wide_, d_.grn_beta);
    parallel(group_.count, [&](int64_t image) {
      for (int64_t i = 0; i < wide_; i += kWidth) store(g_factor_ + image * step + i, with_g.of_image(image, i));
    });
    for (int64_t image = 0; image < group_.count; ++image) response_factors(image);
  }

  // Computes the factors of the response of one image, from t = the sum over its pixels of dq * g. `g_factor_` holds t
  // at first. With n = norm / m and m = mean(norm) + eps:
  //   q = g * (gamma n + 1) + beta;  dgamma = t n;  dn = gamma t;  dnorm = dn / m - mean(dn * norm) / m^2;
  //   dg = dq * (gamma n + 1) + g * dnorm / norm, where a norm of 0 (a dead channel) takes no gradient.
  void response_factors(int64_t image) {
    const int64_t step = round_up(wide_, kTile);
    const float* norms = saved_.norms + (group_.image + image) * wide_;
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

  void backward_response(float* dq) {
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
        for_each_image(row, 0, count, group_.pixels, [&](int64_t image, int64_t begin, int64_t end) {
          for_each_columns(cols, [&](int64_t j, auto number) {
            constexpr int N = number.value;
            const Vecs<N> scale = load_vecs<N>(dq_factor_ + image * step + col + j),
                          g_factor = load_vecs<N>(g_factor_ + image * step + col + j);
            const Vecs<N> beta = load_vecs<N>(p_.grn_beta + col + j, cols - j);
            Vecs<N> sum_j = load_vecs<N>(total + j);
            for (int64_t i = begin; i < end; ++i) {
              const Vecs<N> z = load_vecs<N>(z_tile.data + i * z_tile.stride + j, cols - j);
              const Normal<N> n = normal(z);
              const Vecs<N> g = z * n.phi;
              const Vecs<N> dg = load_vecs<N>(dq_tile.data + i * dq_tile.stride + j, cols - j) * scale + g * g_factor;
              const Vecs<N> v = dg * (n.phi + z * n.density);
              store_vecs(dz + i * kTile + j, v);
              store_vecs(q + i * kTile + j, g * scale + beta);
              sum_j = sum_j + v;
            }
            store_vecs(total + j, sum_j);
          });
        });
        G::pack_a_and_b(dz_, dz_right_, row_tile, col / kTile, dz, kTile, count, cols);
        G::pack_b(q_, row_tile, col / kTile, q, kTile, count, cols, q);
      }
    });
    add_sums(sums, wide_, d_.bias1);
  }

  // The sum over the rows of de q, where `q_` holds q. It is added to `grad` where `accumulates`.
  void weight2_gradient(float* grad, bool accumulates) {
    const int64_t c = c_;
    multiply_long_k<G>(de_transposed_, q_, c, wide_, rows_,
                       [&](int64_t row_tile, int64_t col_tile, bool is_first, const float* tile) {
                         const int64_t row = row_tile * kTile, col = col_tile * kTile;
                         store_tile(tile, min(kTile, c - row), min(kTile, wide_ - col), accumulates || !is_first,
                                    grad + row * wide_ + col, wide_);
                       });
  }

  // The sum over the rows of dz y. It is computed as y dz, and its tiles are transposed.
  void weight1_gradient(bool accumulates) {
    const int64_t c = c_;
    multiply_long_k<G>(y_transposed_, dz_right_, c, wide_, rows_,
                       [&](int64_t row_tile, int64_t col_tile, bool is_first, const float* tile) {
                         const int64_t row = col_tile * kTile, col = row_tile * kTile;
                         alignas(64) float transposed[kTile * kTile];
                         transpose_tile(tile, transposed);
                         store_tile(transposed, min(kTile, wide_ - row), min(kTile, c - col), accumulates || !is_first,
                                    d_.weight1 + row * c + col, c);
                       });
  }

  void compute_dy(const OperandB<G>& weight1, float* dy) {
    const int64_t rows = rows_, c = c_;
    const auto epilogue = [&](int64_t row_tile, int64_t col_tile, const float* tile) {
      const int64_t row = row_tile * kTile, col = col_tile * kTile;
      const int64_t cols = min(kTile, c - col);
      for (int64_t i = 0; i < min(kTile, rows - row); ++i) {
        for (int64_t j = 0; j < cols; j += kWidth)
          store_part(dy + (row + i) * c + col + j, load(tile + i * kTile + j), cols - j);
      }
    };
    multiply<G>(dz_, weight1, rows, epilogue);
  }

  // Computes du from dy, in place.
  void backward_norm(float* du) {
    const int64_t rows = rows_, c = c_;
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

  // The factor of the branch of an image of the group, which stochastic depth sets.
  float keep_of(int64_t image) const { return p_.keep == nullptr ? 1.0f : p_.keep[group_.image + image]; }

  Session& memory_;
  const BlockMap& map_;
  const BlockParams p_;
  const BlockSaved<const float> saved_;
  const float* x_;
  const float* dout_;
  const BlockGrads d_;
  const int64_t c_, wide_;
  ImageGroup group_{};
  int64_t part_rows_ = 0, row0_ = 0, rows_ = 0;
  typename G::A dr_{}, de_transposed_{}, y_transposed_{}, dz_{};
  typename G::B dz_right_{}, q_{};
  float *dq_factor_ = nullptr, *g_factor_ = nullptr;
};

}  // namespace MINDCV_ISA
}  // namespace mindcv
