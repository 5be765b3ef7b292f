// The exact GELU, x * Phi(x) with the normal distribution function Phi, and its derivative.
#pragma once
#include "simd.h"

namespace mindcv {
namespace MINDCV_ISA {

// exp(v) for v <= 0, to about one unit in the last place; 0 below -87. NaN stays NaN.
MINDCV_INLINE Vec exp_of_negative(Vec v) {
  const Vec big = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  Vec n = (v * 1.44269504f + big) - big;
  Vec r = v - n * 0.693145752f;  // log(2) in two parts; the first has few bits, so that the product is exact
  r = r - n * 1.42860677e-6f;
  Vec p = splat(1.0f / 5040);
  p = p * r + (1.0f / 720);
  p = p * r + (1.0f / 120);
  p = p * r + (1.0f / 24);
  p = p * r + (1.0f / 6);
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const Int is_zero = v < -87.0f;
  Vec clamped = is_zero ? Vec{} : n;
  Int scale = (__builtin_convertvector(clamped, Int) + 127) << 23;
  Vec power;
  memcpy(&power, &scale, sizeof(power));
  return is_zero ? Vec{} : p * power;
}

struct Normal {
  Vec phi;      // Phi(x)
  Vec density;  // its derivative, exp(-x*x/2) / sqrt(2 pi)
};

// For a = |x|, Phi(-a) = exp(-a*a/2) * t * P(t) with t = 1 / (1 + 0.345 a); P was fitted to 2e-8 relative on [0, 14].
MINDCV_INLINE Normal normal(Vec x) {
  Vec a = x < 0.0f ? -x : x;
  Vec t = reciprocal(1.0f + 0.345f * a);
  Vec p = splat(-0.028382271698f);
  p = p * t + 0.145283281774f;
  p = p * t + -0.271175387511f;
  p = p * t + 0.187198887697f;
  p = p * t + -0.037602932417f;
  p = p * t + 0.111800031875f;
  p = p * t + 0.117238196553f;
  p = p * t + 0.138020895323f;
  p = p * t + 0.137619289939f;
  Vec e = exp_of_negative(-0.5f * x * x);
  Vec tail = e * p * t;
  return {x < 0.0f ? tail : 1.0f - tail, e * 0.3989422804f};
}

MINDCV_INLINE Vec gelu(Vec x) { return x * normal(x).phi; }

}  // namespace MINDCV_ISA
}  // namespace mindcv
