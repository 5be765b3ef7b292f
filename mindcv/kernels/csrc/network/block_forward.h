// The forward pass of a block; see block.h for the names.
#pragma once
#include "gemm/gemm.h"
#include "network/block.h"
#include "network/gelu.h"
#include "network/layer_norm.h"

namespace mindcv {
namespace MINDCV_ISA {

// `out` may be `x`: the convolution has read a group of images before any of their pixels is written.
template <class G>
class BlockForward {
 public:
  BlockForward(Session& memory, const BlockMap& map, const BlockParams& p, const BlockSaved<float>& saved,
               const float* x, float* out)
      : memory_(memory), map_(map), p_(p), saved_(saved), x_(x), out_(out), c_(map.c), wide_(4 * map.c) {}

  void run() {
    const int64_t images = images_per_group(map_, p_), rows = images * map_.max_pixels();
    const bool is_v2 = p_.grn_gamma != nullptr;
    float* u = saved_.xhat == nullptr ? memory_.floats(rows * c_) : nullptr;
    g_ = is_v2 ? static_cast<Kept*>(memory_.bytes(static_cast<size_t>(rows * wide_) * sizeof(Kept))) : nullptr;
    const OperandB<G> right1 = right_of(p_.weight1, p_.packed1, c_, wide_);
    const OperandB<G> right2 = right_of(p_.weight2, p_.packed2, wide_, c_);
    const Session::Mark mark = memory_.mark();
    for (int64_t image = 0; image < map_.num_images(); image += group_.count) {
      memory_.rewind(mark);
      group_ = map_.group(image, images);
      u_ = u == nullptr ? saved_.xhat + group_.row * c_ : u;
      map_.convolve(memory_, group_, x_ + group_.row * c_, p_.dw_weight, p_.dw_bias, u_);
      if (is_v2) {
        forward_v2(right1, right2);
      } else {
        forward_v1(right1, right2);
      }
    }
  }

 private:
  using Kept = typename G::Kept;

  OperandB<G> right_of(const float* weight, const float* packed, int64_t k, int64_t n) {
    const MatrixB source{weight, k, n, true};
    if (packed != nullptr) return {source, G::packed_b(packed, k, n), true};
    return operand_b<G>(memory_, source, map_.rows());
  }

  // V2: the response needs the whole wide map of an image before the second product can begin, so the map is kept.
  void forward_v2(const OperandB<G>& right1, const OperandB<G>& right2) {
    const int64_t rows = group_.rows();
    RowSums squares(memory_, rows, group_.pixels, wide_);
    const auto pack_normalised = [&](Rows rows, Range part, typename G::A& a, int64_t place) {
      normalise(rows, part, a, place);
    };
    multiply_packing_a<G>(memory_, rows, right1, kKC, pack_normalised,
                          [&](int64_t row, int64_t col, const float* tile) {
                            pwconv1_epilogue(row, col, tile, g_tile(row, col), &squares);
                          });
    const float* factor = response(squares);
    const auto pack_responded = [&](Rows rows, Range part, typename G::A& a, int64_t place) {
      apply_response(factor, rows, part, a, place);
    };
    multiply_packing_a<G>(memory_, rows, right2, kKC, pack_responded,
                          [&](int64_t row, int64_t col, const float* tile) { pwconv2_epilogue(row, col, tile); });
  }

  // V1: each row goes through both products independently of the others. A task computes the wide map of some rows part
  // by part, in the order in which the second product reads it, and the map never leaves the task's cache. Where there
  // are few rows, the two products run one after the other. See decision 0022.
  void forward_v1(const OperandB<G>& right1, const OperandB<G>& right2) {
    const int64_t rows = group_.rows(), tiles = ceil_div(rows, kTile), c = c_;
    const int64_t tasks = right1.is_packed ? num_row_tasks(rows, kFusedMCTiles) : 0;
    if (tasks == 0) {
      typename G::A q = G::allocate_a(memory_, rows, wide_);
      const auto pack_normalised = [&](Rows rows, Range part, typename G::A& a, int64_t place) {
        normalise(rows, part, a, place);
      };
      multiply_packing_a<G>(memory_, rows, right1, kKC, pack_normalised, [&](int64_t row, int64_t col, float* tile) {
        pwconv1_epilogue_packing(q, row, col, row, col, tile);
      });
      multiply<G>(q, right2, rows,
                  [&](int64_t row, int64_t col, const float* tile) { pwconv2_epilogue(row, col, tile); });
      return;
    }
    parallel(tasks, [&](int64_t task) {
      const Range own = split(tiles, task, tasks);
      const int64_t first = own.begin, count = own.count();
      multiply_both(first, count, min(count * kTile, rows - first * kTile), c, right1, right2);
    });
  }

  // Computes both products of V1 for the row tiles [first, first + count), which hold `rows` rows.
  void multiply_both(int64_t first, int64_t count, int64_t rows, int64_t c, const OperandB<G>& right1,
                     const OperandB<G>& right2) {
    const int64_t c_tiles = ceil_div(c, kTile), part_tiles = kKC / kTile;
    const int64_t y_bytes = round_up(static_cast<int64_t>(G::a_bytes(rows, c)), 64);
    const int64_t q_bytes = round_up(static_cast<int64_t>(G::a_bytes(rows, min(wide_, kKC))), 64);
    const int64_t inner_sums = macro_tile_sums(c, kKC, count, part_tiles);
    const int64_t outer_sums = macro_tile_sums(wide_, kKC, count, c_tiles);
    char* scratch =
        static_cast<char*>(thread_scratch(static_cast<size_t>(y_bytes + q_bytes + (inner_sums + outer_sums) * 4), 1));
    float* sums = reinterpret_cast<float*>(scratch + y_bytes + q_bytes);
    typename G::A y = G::a_in_memory(scratch, rows, c), q{};
    for (int64_t i = 0; i < count; ++i) normalise({first + i, 0, kTile}, {0, c}, y, i);
    const auto widened = [&](Range part) {
      q = G::a_in_memory(scratch + y_bytes, rows, part.count());
      const Range cols{part.begin / kTile, ceil_div(part.end, kTile)};
      multiply_macro_tile<G>(
          {&y, false, c, kKC, {0, count}, cols, sums}, [](Range) {}, PackedPanels<G>{right1.packed},
          [&](int64_t row, int64_t col, float* tile) {
            pwconv1_epilogue_packing(q, row, col - cols.begin, first + row, col, tile);
          });
    };
    multiply_macro_tile<G>(
        {&q, true, wide_, kKC, {0, count}, {0, c_tiles}, sums + inner_sums}, widened, PackedPanels<G>{right2.packed},
        [&](int64_t row, int64_t col, const float* tile) { pwconv2_epilogue(first + row, col, tile); });
  }

  // Normalises rows of u in place, and packs their columns `part` as rows of the tile `place` of A, the left-hand
  // matrix of pwconv1.
  void normalise(Rows rows, Range part, typename G::A& a, int64_t place) {
    const int64_t c = c_, first = rows.tile * kTile, count = min(kTile, group_.rows() - first);
    const int64_t last = min(rows.end, count);
    for (int64_t i = rows.begin; i < last && part.begin == 0; ++i) {
      float* row = u_ + (first + i) * c;
      const float factor = normalise_row(row, c, row);
      if (saved_.factor != nullptr) saved_.factor[group_.row + first + i] = factor;
    }
    alignas(64) float y[kTile * kTile];
    for (int64_t j = part.begin; j < part.end; j += kTile) {
      const int64_t cols = min(kTile, part.end - j);
      for (int64_t i = rows.begin; i < last; ++i) {
        scale_row(u_ + (first + i) * c + j, p_.norm_gamma + j, p_.norm_beta + j, cols, y + i * kTile);
      }
      G::pack_a(a, place, (j - part.begin) / kTile, y, kTile, count, cols, rows.begin, rows.end);
    }
  }

  TileInMap<Kept> g_tile(int64_t row_tile, int64_t col_tile) const {
    const int64_t row = row_tile * kTile;
    return tile_of(g_, wide_, row, col_tile * kTile, min(kTile, group_.rows() - row));
  }

  // The epilogue of pwconv1: z = tile + bias, and g = gelu(z), which goes to `g` (it may be `tile` itself). Adds the
  // squares of g to `squares`.
  template <class Value>
  void pwconv1_epilogue(int64_t row_tile, int64_t col_tile, const float* tile, TileInMap<Value> g, RowSums* squares) {
    const int64_t row = row_tile * kTile, col = col_tile * kTile;
    const int64_t count = min(kTile, group_.rows() - row), cols = min(kTile, wide_ - col);
    const bool saves = saved_.z != nullptr;
    const TileInMap<float> kept = saves ? tile_of(saved_.z, wide_, group_.row + row, col, count) : TileInMap<float>{};
    for_each_image(row, 0, count, group_.pixels, [&](int64_t, int64_t begin, int64_t end) {
      float* sums = squares != nullptr ? squares->at(row + begin, col) : nullptr;
      for_each_columns(cols, [&](int64_t j, auto number) {
        constexpr int N = number.value;
        const Vecs<N> bias = load_vecs<N>(p_.bias1 + col + j, cols - j);
        Vecs<N> total{};
        for (int64_t i = begin; i < end; ++i) {
          const Vecs<N> z = load_vecs<N>(tile + i * kTile + j) + bias;
          if (saves) store_vecs(kept.data + i * kept.stride + j, z, cols - j);
          const Vecs<N> v = gelu(z);
          store_vecs(g.data + i * g.stride + j, v, cols - j);
          total = total + v * v;
        }
        if (sums != nullptr) store_vecs(sums + j, total);
      });
    });
  }

  // The same for V1, which has no response: packs g as the tile (place, col_place) of the left-hand matrix of pwconv2.
  void pwconv1_epilogue_packing(typename G::A& q, int64_t place, int64_t col_place, int64_t row_tile, int64_t col_tile,
                                float* tile) {
    pwconv1_epilogue(row_tile, col_tile, tile, TileInMap<float>{tile, kTile}, nullptr);
    G::pack_a(q, place, col_place, tile, kTile, min(kTile, group_.rows() - row_tile * kTile),
              min(kTile, wide_ - col_tile * kTile));
  }

  // Global response normalisation: q = g * (gamma * n + 1) + beta, where n is the norm over the pixels, divided by its
  // mean over the channels + eps. Returns gamma * n + 1 for each image.
  const float* response(const RowSums& squares) {
    const int64_t step = round_up(wide_, kTile);
    float* factor = memory_.floats(group_.count * step);
    parallel(group_.count, [&](int64_t image) {
      float* norms = factor + image * step;
      for (int64_t c0 = 0; c0 < wide_; c0 += kWidth) store(norms + c0, squares.of_image(image, c0));
      double total = 0.0;
      for (int64_t i = 0; i < wide_; ++i) {
        norms[i] = __builtin_sqrtf(norms[i]);
        total += norms[i];
        if (saved_.norms != nullptr) saved_.norms[(group_.image + image) * wide_ + i] = norms[i];
      }
      const float mean = static_cast<float>(total / static_cast<double>(wide_)) + kGrnEps;
      for (int64_t i = 0; i < wide_; ++i) norms[i] = p_.grn_gamma[i] * (norms[i] / mean) + 1.0f;
    });
    return factor;
  }

  // Applies the response to rows of the wide map, and packs their columns `part` as rows of the tile `place` of A, the
  // left-hand matrix of pwconv2.
  void apply_response(const float* factor, Rows rows, Range part, typename G::A& a, int64_t place) {
    const int64_t row = rows.tile * kTile, count = min(kTile, group_.rows() - row), step = round_up(wide_, kTile);
    alignas(64) float q[kTile * kTile];
    for (int64_t col = part.begin; col < part.end; col += kTile) {
      const int64_t cols = min(kTile, part.end - col);
      const TileInMap<Kept> g = g_tile(rows.tile, col / kTile);
      for_each_image(row, rows.begin, min(rows.end, count), group_.pixels,
                     [&](int64_t image, int64_t begin, int64_t end) {
                       for (int64_t i = begin; i < end; ++i) {  // row by row, because g comes from memory
                         for (int64_t j = 0; j < cols; j += kWidth) {
                           const Vec scale = load(factor + image * step + col + j),
                                     beta = load_part(p_.grn_beta + col + j, cols - j);
                           store(q + i * kTile + j, load_part(g.data + i * g.stride + j, cols - j) * scale + beta);
                         }
                       }
                     });
      G::pack_a(a, place, (col - part.begin) / kTile, q, kTile, count, cols, rows.begin, rows.end);
    }
  }

  // The epilogue of pwconv2: writes the output.
  void pwconv2_epilogue(int64_t row_tile, int64_t col_tile, const float* tile) {
    const int64_t row = row_tile * kTile, col = col_tile * kTile, c = c_;
    const int64_t count = min(kTile, group_.rows() - row), cols = min(kTile, c - col);
    for_each_image(row, 0, count, group_.pixels, [&](int64_t image, int64_t begin, int64_t end) {
      const Vec keep = splat(p_.keep == nullptr ? 1.0f : p_.keep[group_.image + image]);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t at = (group_.row + row + i) * c + col;
        for (int64_t j = 0; j < cols; j += kWidth) {
          Vec v = load(tile + i * kTile + j) + load_part(p_.bias2 + col + j, cols - j);
          if (p_.scale != nullptr) v *= load_part(p_.scale + col + j, cols - j);
          store_part(out_ + at + j, load_part(x_ + at + j, cols - j) + v * keep, cols - j);
        }
      }
    });
  }

  Session& memory_;
  const BlockMap& map_;
  const BlockParams p_;
  const BlockSaved<float> saved_;
  const float* x_;
  float* out_;
  const int64_t c_, wide_;
  ImageGroup group_{};
  float* u_ = nullptr;
  Kept* g_ = nullptr;
};

}  // namespace MINDCV_ISA
}  // namespace mindcv
