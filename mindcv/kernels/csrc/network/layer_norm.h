// Layer normalisation of one row, with eps = 1e-6.
#pragma once
#include "simd/simd.h"

namespace mindcv {
namespace MINDCV_ISA {

constexpr float kEps = 1e-6f;

// Writes (u - mean) / sqrt(variance + eps) of the row u [c] to `to`, which may be u. Returns 1 / sqrt(variance + eps).
inline float normalise_row(const float* u, int64_t c, float* to) {
  Vec total{};
  for (int64_t i = 0; i < c; i += kWidth) total += load_part(u + i, c - i);
  const float mean = reduce_add(total) / static_cast<float>(c);
  Vec squares{};
  int64_t i = 0;
  for (; i + kWidth <= c; i += kWidth) {
    const Vec d = load(u + i) - mean;
    squares += d * d;
  }
  float rest = 0.0f;
  for (int64_t j = i; j < c; ++j) rest += (u[j] - mean) * (u[j] - mean);
  const float factor = 1.0f / __builtin_sqrtf((reduce_add(squares) + rest) / static_cast<float>(c) + kEps);
  for (i = 0; i < c; i += kWidth) store_part(to + i, (load_part(u + i, c - i) - mean) * factor, c - i);
  return factor;
}

// y [c] = xhat * gamma + beta.
inline void scale_row(const float* xhat, const float* gamma, const float* beta, int64_t c, float* y) {
  for (int64_t i = 0; i < c; i += kWidth) {
    store_part(y + i, load_part(xhat + i, c - i) * load_part(gamma + i, c - i) + load_part(beta + i, c - i), c - i);
  }
}

// The gradient du of the row u [c], from the gradient dy of the output: du = factor * (g - mean(g) - xhat * mean(g *
// xhat)) with g = dy * gamma.
inline void normalise_row_backward(const float* dy, const float* xhat, const float* gamma, float factor, int64_t c,
                                   float* du) {
  Vec total{}, product{};
  for (int64_t i = 0; i < c; i += kWidth) {
    const Vec g = load_part(dy + i, c - i) * load_part(gamma + i, c - i);
    total += g;
    product += g * load_part(xhat + i, c - i);
  }
  const float mean = reduce_add(total) / static_cast<float>(c), slope = reduce_add(product) / static_cast<float>(c);
  for (int64_t i = 0; i < c; i += kWidth) {
    const Vec g = load_part(dy + i, c - i) * load_part(gamma + i, c - i);
    store_part(du + i, (g - mean - load_part(xhat + i, c - i) * slope) * factor, c - i);
  }
}

}  // namespace MINDCV_ISA
}  // namespace mindcv
