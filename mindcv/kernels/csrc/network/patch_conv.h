// Convolution whose stride equals its kernel (the stem and the downsampling), and layer normalisation of its own.
#pragma once
#include "gemm/gemm.h"
#include "network/depthwise.h"
#include "network/layer_norm.h"

namespace mindcv {
namespace MINDCV_ISA {

struct PatchShape {
  int64_t n, h, w, c;   // of the map that comes in
  int64_t k, o;         // kernel, channels that go out
  bool channels_first;  // x is [N, C, H, W] (images) instead of [N, H, W, C]; what goes out is [N, H / k, W / k, O] in
                        // any case
  int64_t out_h() const { return h / k; }
  int64_t out_w() const { return w / k; }
  int64_t patches() const { return n * out_h() * out_w(); }
  int64_t patch() const { return k * k * c; }
  // A patch is `lines` runs of `line` values: its rows, or, with channels first, the rows of each channel.
  int64_t line() const { return channels_first ? k : k * c; }
  int64_t lines() const { return patch() / line(); }
};

// Where line `line` of patch `index` begins in x.
inline int64_t line_offset(const PatchShape& s, int64_t index, int64_t line) {
  const int64_t col = index % s.out_w() * s.k, block = index / s.out_w();
  const int64_t image = block / s.out_h(), row = block % s.out_h() * s.k;
  if (s.channels_first) return ((image * s.c + line / s.k) * s.h + row + line % s.k) * s.w + col;
  return ((image * s.h + row + line) * s.w + col) * s.c;
}

// Patches [first, first + count) as rows of k * k * c values.
inline void gather_patches(const PatchShape& s, const float* x, int64_t first, int64_t count, float* to) {
  const int64_t length = s.line();
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t j = 0; j < s.lines(); ++j) {
      const float* from = x + line_offset(s, first + i, j);
      for (int64_t v = 0; v < length; ++v) *to++ = from[v];
    }
  }
}

// The weight [O, C, k, k] in the order of a patch: as it is with channels first, else [O][k][k][C].
inline const float* patch_weight(Session& memory, const PatchShape& s, const float* weight) {
  if (s.channels_first) return weight;
  float* to = memory.floats(s.o * s.patch());
  parallel(s.o, [&](int64_t o) {
    for (int64_t i = 0; i < s.c; ++i) {
      for (int64_t t = 0; t < s.k * s.k; ++t) to[o * s.patch() + t * s.c + i] = weight[(o * s.c + i) * s.k * s.k + t];
    }
  });
  return to;
}

struct PatchParams {
  const float *weight, *bias;
  void* packed;  // the weight as `pack_patch` made it, or null
  // Of a layer normalisation, or null: of the map that comes in, with channels first of the one that goes out.
  const float *norm_gamma, *norm_beta;
};

// The weight as the product takes it, for many calls of the forward pass.
template <class G>
void pack_patch(const PatchShape& s, const float* weight, void* to) {
  Session memory;
  typename G::B b = G::b_in(to, s.patch(), s.o);
  pack<G>({patch_weight(memory, s, weight), s.patch(), s.o, true}, b);
}

inline void normalise_in_place(float* row, int64_t c, const PatchParams& p) {
  normalise_row(row, c, row);
  scale_row(row, p.norm_gamma, p.norm_beta, c, row);
}

template <class G>
void patch_forward(const PatchShape& s, const PatchParams& p, const float* x, float* out) {
  Session memory;
  const int64_t rows = s.patches(), length = s.patch();
  const Weight weight{p.packed == nullptr ? patch_weight(memory, s, p.weight) : nullptr, length, s.o, true};
  const Right<G> right{weight, p.packed == nullptr ? packed<G>(memory, weight) : G::b_in(p.packed, length, s.o), true};
  const auto gather = [&](Rows part, Range, typename G::A& a, int64_t place) {
    const int64_t row = part.tile * kTile, count = min(kTile, rows - row);
    float* patches = static_cast<float*>(thread_scratch(static_cast<size_t>(kTile * length) * 4));
    for (int64_t i = part.begin; i < min(part.end, count); ++i) {
      gather_patches(s, x, row + i, 1, patches + i * length);
      if (p.norm_gamma == nullptr || s.channels_first) continue;
      for (int64_t j = 0; j < length; j += s.c) normalise_in_place(patches + i * length + j, s.c, p);
    }
    for (int64_t j = 0; j < length; j += kTile) {
      G::put_a(a, place, j / kTile, patches + j, length, count, min(kTile, length - j), part.begin, part.end);
    }
  };
  const auto use = [&](int64_t row_tile, int64_t col_tile, const float* tile) {
    const int64_t col = col_tile * kTile, cols = min(kTile, s.o - col);
    for (int64_t i = 0; i < min(kTile, rows - row_tile * kTile); ++i) {
      float* to = out + (row_tile * kTile + i) * s.o + col;
      for (int64_t j = 0; j < cols; j += kWidth)
        store_part(to + j, load(tile + i * kTile + j) + load_part(p.bias + col + j, cols - j), cols - j);
    }
  };
  filled_product<G>(memory, rows, right, round_up(length, kTile), gather, use);  // a patch is gathered whole
  if (p.norm_gamma == nullptr || !s.channels_first) return;
  parallel(ceil_div(rows, kTile), [&](int64_t tile) {
    for (int64_t row = tile * kTile; row < min((tile + 1) * kTile, rows); ++row) {
      normalise_in_place(out + row * s.o, s.o, p);
    }
  });
}

// The gradient with respect to x; rows and columns that fill no patch get 0.
template <class G>
void patch_backward_input(const PatchShape& s, const float* weight, const float* dout, float* dx) {
  Session memory;
  const int64_t rows = s.patches(), length = s.patch();
  memset(dx, 0, static_cast<size_t>(s.n * s.h * s.w * s.c) * 4);
  const Weight source{patch_weight(memory, s, weight), s.o, length, false};
  const Right<G> right{source, packed<G>(memory, source), true};
  typename G::A left = G::new_a(memory, rows, s.o);
  parallel(ceil_div(rows, kTile), [&](int64_t tile) {
    const int64_t count = min(kTile, rows - tile * kTile);
    for (int64_t j = 0; j < s.o; j += kTile) {
      G::put_a(left, tile, j / kTile, dout + tile * kTile * s.o + j, s.o, count, min(kTile, s.o - j));
    }
  });
  const auto use = [&](int64_t row_tile, int64_t col_tile, const float* tile) {
    for (int64_t i = 0; i < min(kTile, rows - row_tile * kTile); ++i) {
      const float* from = tile + i * kTile;
      const int64_t last = min(length, (col_tile + 1) * kTile);
      for (int64_t j = col_tile * kTile, count; j < last; j += count, from += count) {
        const int64_t line = j / s.line(), begin = j % s.line();
        count = min(s.line() - begin, last - j);
        memcpy(dx + line_offset(s, row_tile * kTile + i, line) + begin, from, static_cast<size_t>(count) * 4);
      }
    }
  };
  product<G>(left, right, rows, use);
}

template <class G>
void patch_backward_params(const PatchShape& s, const float* x, const float* dout, float* dweight, float* dbias) {
  Session memory;
  const int64_t rows = s.patches(), length = s.patch();
  typename G::A left = G::new_a_transposed(memory, s.o, rows);
  typename G::B right = G::new_b(memory, rows, length);
  const int64_t tiles = ceil_div(rows, kTile), wide = round_up(s.o, kWidth);
  float* parts = memory.floats(tiles * wide);
  parallel(tiles, [&](int64_t tile) {
    const int64_t first = tile * kTile, count = min(kTile, rows - first);
    float* patches = static_cast<float*>(thread_scratch(static_cast<size_t>(kTile * length) * 4));
    gather_patches(s, x, first, count, patches);
    for (int64_t j = 0; j < length; j += kTile)
      G::put_b(right, tile, j / kTile, patches + j, length, count, min(kTile, length - j), patches + j);
    for (int64_t j = 0; j < s.o; j += kTile) {
      G::put_a_transposed(left, tile, j / kTile, dout + first * s.o + j, s.o, count, min(kTile, s.o - j));
    }
    for (int64_t j = 0; j < s.o; j += kWidth) {
      Vec total{};
      for (int64_t i = 0; i < count; ++i) total += load_part(dout + (first + i) * s.o + j, s.o - j);
      store(parts + tile * wide + j, total);
    }
  });
  for (int64_t j = 0; j < s.o; j += kWidth) {
    Vec total{};
    for (int64_t tile = 0; tile < tiles; ++tile) total += load(parts + tile * wide + j);
    store_part(dbias + j, total, s.o - j);
  }
  // k's parts are added up in the order of a patch, and put in the weight's order at the end.
  float* sums = s.channels_first ? dweight : memory.floats(s.o * length);
  const auto use = [&](int64_t row_tile, int64_t col_tile, bool is_first, const float* tile) {
    const int64_t row = row_tile * kTile, col = col_tile * kTile;
    put_tile(tile, min(kTile, s.o - row), min(kTile, length - col), !is_first, sums + row * length + col, length);
  };
  long_product<G>(left, right, s.o, length, rows, use);
  if (s.channels_first) return;
  parallel(s.o, [&](int64_t o) {
    for (int64_t t = 0; t < s.k * s.k; ++t) {
      for (int64_t i = 0; i < s.c; ++i) dweight[(o * s.c + i) * s.k * s.k + t] = sums[o * length + t * s.c + i];
    }
  });
}

// Layer normalisation by itself: y [rows, c], and what its gradient needs.
inline void norm_forward(int64_t rows, int64_t c, const float* x, const float* gamma, const float* beta, float* y,
                         float* xhat, float* factor) {
  Session memory;
  parallel(ceil_div(rows, kTile), [&](int64_t tile) {
    for (int64_t row = tile * kTile; row < min((tile + 1) * kTile, rows); ++row) {
      factor[row] = normalise_row(x + row * c, c, xhat + row * c);
      scale_row(xhat + row * c, gamma, beta, c, y + row * c);
    }
  });
}

inline void norm_backward(int64_t rows, int64_t c, const float* xhat, const float* factor, const float* gamma,
                          const float* dy, float* dx, float* dgamma, float* dbeta) {
  Session memory;
  const int64_t tiles = ceil_div(rows, kTile), wide = round_up(c, kWidth);
  float* parts = memory.floats(2 * tiles * wide);
  memset(parts, 0, static_cast<size_t>(2 * tiles * wide) * 4);
  parallel(tiles, [&](int64_t tile) {
    float *to_gamma = parts + 2 * tile * wide, *to_beta = to_gamma + wide;
    for (int64_t row = tile * kTile; row < min((tile + 1) * kTile, rows); ++row) {
      for (int64_t j = 0; j < c; j += kWidth) {
        const Vec v = load_part(dy + row * c + j, c - j);
        store(to_gamma + j, load(to_gamma + j) + v * load_part(xhat + row * c + j, c - j));
        store(to_beta + j, load(to_beta + j) + v);
      }
      normalise_row_backward(dy + row * c, xhat + row * c, gamma, factor[row], c, dx + row * c);
    }
  });
  for (int64_t j = 0; j < c; j += kWidth) {
    Vec gamma_total{}, beta_total{};
    for (int64_t tile = 0; tile < tiles; ++tile) {
      gamma_total += load(parts + 2 * tile * wide + j);
      beta_total += load(parts + 2 * tile * wide + wide + j);
    }
    store_part(dgamma + j, gamma_total, c - j);
    store_part(dbeta + j, beta_total, c - j);
  }
}

}  // namespace MINDCV_ISA
}  // namespace mindcv
