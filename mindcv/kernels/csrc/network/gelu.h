// The exact GELU, x * Phi(x) with the normal distribution function Phi, and its derivative. See decision 0027.
#pragma once
#include "simd/simd.h"

namespace mindcv {
namespace MINDCV_ISA {

// exp(v) for v <= 0, to about one unit in the last place. Values below -87 give 0, and NaN stays NaN.
template <int N>
MINDCV_INLINE Vecs<N> exp_of_negative(const Vecs<N>& v) {
  constexpr float kBig = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const Vecs<N> n = (v * 1.44269504f + kBig) - kBig;
  Vecs<N> r = v - n * 0.693145752f;  // log(2) in two parts; the first has few bits, so that the product is exact
  r = r - n * 1.42860677e-6f;
  Vecs<N> p = r * 0.00138145394f + 0.00836874545f;  // fitted to 3e-9 relative
  p = p * r + 0.041668389f;
  p = p * r + 0.166665211f;
  p = p * r + 0.49999994f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  return make_vecs<N>([&](int i) __attribute__((always_inline)) { return ldexp_or_zero(p.v[i], n.v[i], v.v[i]); });
}

template <int N>
struct Normal {
  Vecs<N> phi;      // Phi(x)
  Vecs<N> density;  // its derivative, exp(-x*x/2) / sqrt(2 pi)
};

// For a = |x|, Phi(-a) = exp(-a*a/2) * t * P(t) with t = 1 / (1 + 0.345 a); P was fitted to 2e-8 relative on [0, 14].
template <int N>
MINDCV_INLINE Normal<N> normal(const Vecs<N>& x) {
  const Vecs<N> t =
      make_vecs<N>([&](int i) __attribute__((always_inline)) { return reciprocal(1.0f + 0.345f * abs(x.v[i])); });
  Vecs<N> p = t * -0.028382271698f + 0.145283281774f;
  p = p * t + -0.271175387511f;
  p = p * t + 0.187198887697f;
  p = p * t + -0.037602932417f;
  p = p * t + 0.111800031875f;
  p = p * t + 0.117238196553f;
  p = p * t + 0.138020895323f;
  p = p * t + 0.137619289939f;
  const Vecs<N> e = exp_of_negative(-0.5f * x * x);
  const Vecs<N> tail = e * p * t;
  const auto side = [&](int i) __attribute__((always_inline)) { return x.v[i] < 0.0f ? tail.v[i] : 1.0f - tail.v[i]; };
  return {make_vecs<N>(side), e * 0.3989422804f};
}

// GELU without its derivative, in half as many instructions. For a = |x|, Phi(-a) = (n(a) / d(a))^2, fitted so that the
// error of GELU is below 8e-9 before rounding. For a > 6.11, n is negative and is replaced by 0.
template <int N>
MINDCV_INLINE Vecs<N> gelu(const Vecs<N>& x) {
  const Vecs<N> a = make_vecs<N>([&](int i) __attribute__((always_inline)) { return abs(x.v[i]); });
  Vecs<N> d = a * 1.71218926e-05f + 4.10569328e-06f;
  d = d * a + 0.0001423785f;
  d = d * a + 0.00164958392f;
  d = d * a + 0.00530347042f;
  Vecs<N> n = a * -0.00444057304f + 0.0792428404f;
  d = d * a + 0.0047697667f;
  n = n * a + -0.479263932f;
  d = d * a + 0.173523813f;
  n = n * a + 0.982878387f;
  d = d * a + -0.123253047f;
  d = d * a + 1.38999999f;
  return make_vecs<N>([&](int i) __attribute__((always_inline)) {
    const Vec root = max(quotient(n.v[i], d.v[i]), Vec{}), tail = root * root;
    return x.v[i] * (x.v[i] < 0.0f ? tail : 1.0f - tail);
  });
}

}  // namespace MINDCV_ISA
}  // namespace mindcv
