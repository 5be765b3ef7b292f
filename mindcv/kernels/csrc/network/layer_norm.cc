// Layer normalisation as a separate operator. Blocks and packed patch convolutions include their own.
#include "network/layer_norm.h"

#include "gemm/tiles.h"
#include "runtime/operator.h"
#include "runtime/parallel.h"
#include "runtime/visible_cells.h"

namespace mindcv {
namespace MINDCV_ISA {
namespace {

// Also gives xhat and the factor of each row, which the gradient needs.
void norm_forward(const Arguments& arguments, int64_t rows) {
  const int64_t c = arguments.size('C');
  const float *x = arguments.input("x"), *gamma = arguments.input("gamma"), *beta = arguments.input("beta");
  float *out = arguments.output("out"), *xhat = arguments.output("xhat"), *factor = arguments.output("factor");
  Session memory;
  parallel(ceil_div(rows, kTile), [&](int64_t tile) {
    for (int64_t row = tile * kTile; row < min((tile + 1) * kTile, rows); ++row) {
      factor[row] = normalise_row(x + row * c, c, xhat + row * c);
      scale_row(xhat + row * c, gamma, beta, c, out + row * c);
    }
  });
}

void norm_backward(const Arguments& arguments, int64_t rows) {
  const int64_t c = arguments.size('C');
  const float *xhat = arguments.input("xhat"), *factor = arguments.input("factor"), *gamma = arguments.input("gamma");
  const float* dout = arguments.input("dout");
  float *dx = arguments.output("grad.x"), *dgamma = arguments.output("grad.gamma");
  float* dbeta = arguments.output("grad.beta");
  Session memory;
  const int64_t tiles = ceil_div(rows, kTile), wide = round_up(c, kWidth);
  float* parts = memory.floats(2 * tiles * wide);
  memset(parts, 0, static_cast<size_t>(2 * tiles * wide) * 4);
  parallel(tiles, [&](int64_t tile) {
    float *to_gamma = parts + 2 * tile * wide, *to_beta = to_gamma + wide;
    for (int64_t row = tile * kTile; row < min((tile + 1) * kTile, rows); ++row) {
      for (int64_t j = 0; j < c; j += kWidth) {
        const Vec v = load_part(dout + row * c + j, c - j);
        store(to_gamma + j, load(to_gamma + j) + v * load_part(xhat + row * c + j, c - j));
        store(to_beta + j, load(to_beta + j) + v);
      }
      normalise_row_backward(dout + row * c, xhat + row * c, gamma, factor[row], c, dx + row * c);
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

void dense_norm_forward(const Arguments& arguments) { norm_forward(arguments, arguments.rest_size()); }
void dense_norm_backward(const Arguments& arguments) { norm_backward(arguments, arguments.rest_size()); }

// The number of rows of the visible patches of a compact map (see visible_cells.h).
int64_t visible_rows(const Arguments& arguments) {
  const int64_t patches = arguments.size('S') * arguments.size('T'), side = arguments.size('P');
  return count_visible(arguments.input("mask"), arguments.size('N'), patches) * side * side;
}

void visible_norm_forward(const Arguments& arguments) { norm_forward(arguments, visible_rows(arguments)); }
void visible_norm_backward(const Arguments& arguments) { norm_backward(arguments, visible_rows(arguments)); }

}  // namespace
}  // namespace MINDCV_ISA
}  // namespace mindcv

MINDCV_OPERATOR(Norm, "x[...,C] gamma[C] beta[C] -> out[...,C] xhat[...,C] factor[...]", dense_norm_forward)
MINDCV_OPERATOR(NormGrad, "xhat[...,C] factor[...] gamma[C] dout[...,C] -> grad.x[...,C] grad.gamma[C] grad.beta[C]",
                dense_norm_backward)

#define VISIBLE_NORM                             \
  "x[N*S*T,P,P,C] mask[N,S,T] gamma[C] beta[C] " \
  "-> out[N*S*T,P,P,C] xhat[N*S*T,P,P,C] factor[N*S*T*P*P]"
#define VISIBLE_NORM_GRAD                                                                              \
  "mask[N,S,T] xhat[N*S*T,P,P,C] factor[N*S*T*P*P] gamma[C] dout[N*S*T,P,P,C] -> grad.x[N*S*T,P,P,C] " \
  "grad.gamma[C] grad.beta[C]"
MINDCV_OPERATOR(VisibleNorm, VISIBLE_NORM, visible_norm_forward)
MINDCV_OPERATOR(VisibleNormGrad, VISIBLE_NORM_GRAD, visible_norm_backward)
