// The forward pass of a block; see block.h for the names.
#pragma once
#include "gemm/gemm.h"
#include "network/block.h"
#include "network/gelu.h"
#include "network/layer_norm.h"

namespace mindcv {
namespace MINDCV_ISA {

// `out` may be `x`: what a pixel's surroundings are needed for is done before the pixel is written.
template <class G>
class BlockForward {
 public:
  BlockForward(const MapShape& s, const BlockParams& p, const BlockSaved<float>& saved, const float* x, float* out)
      : all_(s), p_(p), saved_(saved), x_(x), out_(out), wide_(4 * s.c) {}

  void run() {
    const int64_t images = group_images(all_, p_), rows = images * all_.pixels();
    const bool is_v2 = p_.grn_gamma != nullptr;
    float* u = saved_.xhat == nullptr ? memory_.floats(rows * all_.c) : nullptr;
    g_ = is_v2 ? memory_.floats(rows * wide_) : nullptr;
    const Right<G> right1 = right_of(p_.weight1, p_.packed1, all_.c, wide_);
    const Right<G> right2 = right_of(p_.weight2, p_.packed2, wide_, all_.c);
    const Session::Mark mark = memory_.mark();
    for (int64_t image = 0; image < all_.n; image += images) {
      memory_.rewind(mark);
      s_ = all_;
      s_.n = min(images, all_.n - image);
      row0_ = image * all_.pixels();
      image0_ = image;
      u_ = u == nullptr ? saved_.xhat + row0_ * all_.c : u;
      depthwise(memory_, s_, x_ + row0_ * s_.c, p_.dw_weight, p_.dw_bias, u_);
      if (is_v2) {
        with_response(right1, right2);
      } else {
        without_response(right1, right2);
      }
    }
  }

 private:
  Right<G> right_of(const float* weight, const float* packed, int64_t k, int64_t n) {
    const Weight source{weight, k, n, true};
    if (packed != nullptr) return {source, G::packed_b(packed, k, n), true};
    return right_side<G>(memory_, source, all_.rows());
  }

  // V2: the response needs the whole wide map of an image, which is kept, before the second product can begin.
  void with_response(const Right<G>& right1, const Right<G>& right2) {
    const int64_t rows = s_.rows();
    RowSums squares(memory_, rows, s_.pixels(), wide_);
    const auto normalised = [&](Rows rows, Range part, typename G::A& a, int64_t place) {
      normalise(rows, part, a, place);
    };
    filled_product<G>(memory_, rows, right1, kDepth, normalised, [&](int64_t row, int64_t col, const float* tile) {
      widen(row, col, tile, g_tile(row, col), &squares);
    });
    const float* factor = response(squares);
    const auto responded = [&](Rows rows, Range part, typename G::A& a, int64_t place) {
      respond(factor, rows, part, a, place);
    };
    filled_product<G>(memory_, rows, right2, kDepth, responded,
                      [&](int64_t row, int64_t col, const float* tile) { narrow(row, col, tile); });
  }

  // V1: each row goes through both products by itself. So a task makes some rows' wide map part by part, as the second
  // product takes it, and it never leaves the task's cache; few rows go through one product after the other.
  void without_response(const Right<G>& right1, const Right<G>& right2) {
    const int64_t rows = s_.rows(), tiles = ceil_div(rows, kTile), c = s_.c;
    const int64_t tasks = right1.is_packed ? own_tasks(rows, kBlockOfTwoTiles) : 0;
    if (tasks == 0) {
      typename G::A q = G::new_a(memory_, rows, wide_);
      const auto normalised = [&](Rows rows, Range part, typename G::A& a, int64_t place) {
        normalise(rows, part, a, place);
      };
      filled_product<G>(memory_, rows, right1, kDepth, normalised,
                        [&](int64_t row, int64_t col, float* tile) { widen_into(q, row, col, row, col, tile); });
      product<G>(q, right2, rows, [&](int64_t row, int64_t col, const float* tile) { narrow(row, col, tile); });
      return;
    }
    parallel(tasks, [&](int64_t task) {
      const Range own = part_of(tiles, task, tasks);
      const int64_t first = own.begin, count = own.count();
      through_both(first, count, min(count * kTile, rows - first * kTile), c, right1, right2);
    });
  }

  // Tiles of rows [first, first + count), which hold `rows` rows, through both products of V1.
  void through_both(int64_t first, int64_t count, int64_t rows, int64_t c, const Right<G>& right1,
                    const Right<G>& right2) {
    const int64_t c_tiles = ceil_div(c, kTile), part_tiles = kDepth / kTile;
    const int64_t y_bytes = round_up(static_cast<int64_t>(G::a_bytes(rows, c)), 64);
    const int64_t q_bytes = round_up(static_cast<int64_t>(G::a_bytes(rows, min(wide_, kDepth))), 64);
    const int64_t inner_sums = block_sums(c, kDepth, count, part_tiles);
    const int64_t outer_sums = block_sums(wide_, kDepth, count, c_tiles);
    char* scratch =
        static_cast<char*>(thread_scratch(static_cast<size_t>(y_bytes + q_bytes + (inner_sums + outer_sums) * 4), 1));
    float* sums = reinterpret_cast<float*>(scratch + y_bytes + q_bytes);
    typename G::A y = G::a_in(scratch, rows, c), q{};
    for (int64_t i = 0; i < count; ++i) normalise({first + i, 0, kTile}, {0, c}, y, i);
    const auto widened = [&](Range part) {
      q = G::a_in(scratch + y_bytes, rows, part.count());
      const Range cols{part.begin / kTile, ceil_div(part.end, kTile)};
      multiply_block<G>(
          {&y, false, c, kDepth, {0, count}, cols, sums}, [](Range) {}, PackedPanels<G>{right1.packed},
          [&](int64_t row, int64_t col, float* tile) { widen_into(q, row, col - cols.begin, first + row, col, tile); });
    };
    multiply_block<G>({&q, true, wide_, kDepth, {0, count}, {0, c_tiles}, sums + inner_sums}, widened,
                      PackedPanels<G>{right2.packed},
                      [&](int64_t row, int64_t col, const float* tile) { narrow(first + row, col, tile); });
  }

  // Rows of u, normalised (in place), and of that the columns `part`, as rows of the tile `place` of pwconv1's left
  // side.
  void normalise(Rows rows, Range part, typename G::A& a, int64_t place) {
    const int64_t c = s_.c, first = rows.tile * kTile, count = min(kTile, s_.rows() - first);
    const int64_t last = min(rows.end, count);
    for (int64_t i = rows.begin; i < last && part.begin == 0; ++i) {
      float* row = u_ + (first + i) * c;
      const float factor = normalise_row(row, c, row);
      if (saved_.factor != nullptr) saved_.factor[row0_ + first + i] = factor;
    }
    alignas(64) float y[kTile * kTile];
    for (int64_t j = part.begin; j < part.end; j += kTile) {
      const int64_t cols = min(kTile, part.end - j);
      for (int64_t i = rows.begin; i < last; ++i) {
        scale_row(u_ + (first + i) * c + j, p_.norm_gamma + j, p_.norm_beta + j, cols, y + i * kTile);
      }
      G::put_a(a, place, (j - part.begin) / kTile, y, kTile, count, cols, rows.begin, rows.end);
    }
  }

  TileInMap<float> g_tile(int64_t row_tile, int64_t col_tile) const {
    const int64_t row = row_tile * kTile;
    return tile_of(g_, wide_, row, col_tile * kTile, min(kTile, s_.rows() - row));
  }

  // A tile of pwconv1's product: z = tile + bias and g = gelu(z), which goes to `g` (`tile` itself, for example); and
  // the sums of its squares.
  void widen(int64_t row_tile, int64_t col_tile, const float* tile, TileInMap<float> g, RowSums* squares) {
    const int64_t row = row_tile * kTile, col = col_tile * kTile;
    const int64_t count = min(kTile, s_.rows() - row), cols = min(kTile, wide_ - col);
    const bool saves = saved_.z != nullptr;
    const TileInMap<float> kept = saves ? tile_of(saved_.z, wide_, row0_ + row, col, count) : TileInMap<float>{};
    each_image(row, 0, count, s_.pixels(), [&](int64_t, int64_t begin, int64_t end) {
      float* sums = squares != nullptr ? squares->at(row + begin, col) : nullptr;
      for_each_columns(cols, [&](int64_t j, auto number) {
        constexpr int N = number.value;
        const Vecs<N> bias = load_vecs<N>(p_.bias1 + col + j, cols - j);
        Vecs<N> total{};
        for (int64_t i = begin; i < end; ++i) {
          const Vecs<N> z = load_vecs<N>(tile + i * kTile + j) + bias;
          if (saves) store_vecs(kept.data + i * kept.step + j, z, cols - j);
          const Vecs<N> v = gelu(z);
          store_vecs(g.data + i * g.step + j, v, cols - j);
          total = total + v * v;
        }
        if (sums != nullptr) store_vecs(sums + j, total);
      });
    });
  }

  // The same without a response: g is at once the left side of pwconv2, in the tile (place, col_place) of it.
  void widen_into(typename G::A& q, int64_t place, int64_t col_place, int64_t row_tile, int64_t col_tile, float* tile) {
    widen(row_tile, col_tile, tile, {tile, kTile}, nullptr);
    G::put_a(q, place, col_place, tile, kTile, min(kTile, s_.rows() - row_tile * kTile),
             min(kTile, wide_ - col_tile * kTile));
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
        norms[i] = __builtin_sqrtf(norms[i]);
        total += norms[i];
        if (saved_.norms != nullptr) saved_.norms[(image0_ + image) * wide_ + i] = norms[i];
      }
      const float mean = static_cast<float>(total / static_cast<double>(wide_)) + kGrnEps;
      for (int64_t i = 0; i < wide_; ++i) norms[i] = p_.grn_gamma[i] * (norms[i] / mean) + 1.0f;
    });
    return factor;
  }

  // Rows of the wide map with their response, and of these the columns `part`, as rows of the tile `place` of pwconv2's
  // left side.
  void respond(const float* factor, Rows rows, Range part, typename G::A& a, int64_t place) {
    const int64_t row = rows.tile * kTile, count = min(kTile, s_.rows() - row), step = round_up(wide_, kTile);
    alignas(64) float q[kTile * kTile];
    for (int64_t col = part.begin; col < part.end; col += kTile) {
      const int64_t cols = min(kTile, part.end - col);
      const TileInMap<float> g = g_tile(rows.tile, col / kTile);
      each_image(row, rows.begin, min(rows.end, count), s_.pixels(), [&](int64_t image, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {  // row by row, as g comes from memory
          for (int64_t j = 0; j < cols; j += kWidth) {
            const Vec grown = load(factor + image * step + col + j), beta = load_part(p_.grn_beta + col + j, cols - j);
            store(q + i * kTile + j, load_part(g.data + i * g.step + j, cols - j) * grown + beta);
          }
        }
      });
      G::put_a(a, place, (col - part.begin) / kTile, q, kTile, count, cols, rows.begin, rows.end);
    }
  }

  // A tile of pwconv2's product, to the output.
  void narrow(int64_t row_tile, int64_t col_tile, const float* tile) {
    const int64_t row = row_tile * kTile, col = col_tile * kTile, c = s_.c;
    const int64_t count = min(kTile, s_.rows() - row), cols = min(kTile, c - col);
    each_image(row, 0, count, s_.pixels(), [&](int64_t image, int64_t begin, int64_t end) {
      const Vec keep = splat(p_.keep == nullptr ? 1.0f : p_.keep[image0_ + image]);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = (row0_ + row + i) * c + col;
        for (int64_t j = 0; j < cols; j += kWidth) {
          Vec v = load(tile + i * kTile + j) + load_part(p_.bias2 + col + j, cols - j);
          if (p_.scale != nullptr) v *= load_part(p_.scale + col + j, cols - j);
          store_part(out_ + at + j, load_part(x_ + at + j, cols - j) + v * keep, cols - j);
        }
      }
    });
  }

  Session memory_;
  const MapShape all_;
  const BlockParams p_;
  const BlockSaved<float> saved_;
  const float* x_;
  float* out_;
  const int64_t wide_;
  MapShape s_{};  // of the group
  int64_t row0_ = 0, image0_ = 0;
  float *u_ = nullptr, *g_ = nullptr;
};

}  // namespace MINDCV_ISA
}  // namespace mindcv
