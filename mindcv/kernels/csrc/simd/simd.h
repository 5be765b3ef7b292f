// Vectors of float32 in the width of the instruction set that this file is compiled for.
//
// generic.h, avx2.h and avx512.h implement one interface, each on its own instruction set (the AMX kernels use that of
// AVX-512). All intrinsics of the vector instructions are in these three files:
//
//   kWidth, kRegisters     float32 values in a vector; vector registers of the processor
//   kUnroll                vectors that functions with long dependency chains process side by side, see Vecs
//   load_part, store_part  the first `count` values; load_part sets the others to 0; `count` may be kWidth or more
//   reduce_add, sqrt       the sum of a vector's values; the square root of each value
//   max(a, b)              the larger value, or b where a is NaN
//   reciprocal(v)          1 / v for v from 1 to infinity, to about one unit in the last place (near 0 for infinity)
//   quotient(a, b)         a / b for b as above
//   ldexp_or_zero(p, n, v) p * 2^n for whole n, or 0 where v is below -87; NaN stays NaN
//   transpose              a square of kWidth x kWidth values
//
// for products of bfloat16, where MINDCV_HAS_BF16_PAIRS (AVX512_BF16) or MINDCV_HAS_BF16_BLOCKS (aarch64) is 1:
//
//   Bf16                   a bfloat16 in memory, with load, store and their forms for parts; store rounds to the
//                          nearest (ties to even)
//
//   store_pairs            kWidth pairs, with the first value of each in one vector and the second in the other
//   add_pair_products      adds to each sum the two products of its own pair with the pair in memory
//
//   Block, load_block      eight values: four of each of two rows or columns
//   add_block_products     adds the products of two rows and two columns to their sums [2][2]
//   exchange_halves(a, b)  the second half of a and the first half of b change places
//
// and for the image kernels:
//
//   load_u8, store_u8      kWidth bytes to and from int32; store_u8 clamps to 0..255
//   kHasByteConversion     whether load_u8 and store_u8 are vector instructions
//   Lanes                  kLanes groups of 16 bytes, with byte shuffles; only where MINDCV_HAS_LANES is 1
//   look_up_bytes          bytes through tables of 256; returns false where the processor has no instruction for it
//   Pixels                 the four channels of kPixels pixels as float64; store_pixels truncates and clamps to 0..255
//
// Everything is in a namespace named after the instruction set (MINDCV_ISA), and code that is compiled for an
// instruction set uses no template or inline function of the standard library: the linker keeps one copy of such a
// function, and it might keep the copy that an older processor cannot run.
#pragma once

#if defined(__AVX512F__)
#include "simd/avx512.h"
#elif defined(__AVX2__)
#include "simd/avx2.h"
#else
#include "simd/generic.h"
#endif

namespace mindcv {
namespace MINDCV_ISA {

// Vectors that go through the same operations side by side. A chain of dependent operations on one vector leaves the
// processor idle unless it finds independent operations among the next few hundred instructions. With 16 registers,
// these hold too few of them.
template <int N>
struct Vecs {
  Vec v[N];
};

template <int N>
struct Number {
  static constexpr int value = N;
};

// Calls body(j, Number<N>) for the columns [j, j + N * kWidth) of [0, cols). Where N is 1 the last columns may lie
// beyond `cols`.
template <class Body>
MINDCV_INLINE void for_each_columns(int64_t cols, Body&& body) {
  int64_t j = 0;
  for (; j + kUnroll * kWidth <= cols; j += kUnroll * kWidth) body(j, Number<kUnroll>());
  for (; j < cols; j += kWidth) body(j, Number<1>());
}

template <int N, class F>
MINDCV_INLINE Vecs<N> make_vecs(F&& make) {
  Vecs<N> result;
  for (int i = 0; i < N; ++i) result.v[i] = make(i);
  return result;
}

template <int N, class Value>
MINDCV_INLINE Vecs<N> load_vecs(const Value* p) {
  return make_vecs<N>([&](int i) __attribute__((always_inline)) { return load(p + i * kWidth); });
}

// Columns that for_each_columns gives, of which `count` exist; the others become 0.
template <int N, class Value>
MINDCV_INLINE Vecs<N> load_vecs(const Value* p, int64_t count) {
  if (N > 1) return load_vecs<N>(p);
  return {{load_part(p, count)}};
}

template <int N, class Value>
MINDCV_INLINE void store_vecs(Value* p, const Vecs<N>& a) {
  for (int i = 0; i < N; ++i) store(p + i * kWidth, a.v[i]);
}

template <int N, class Value>
MINDCV_INLINE void store_vecs(Value* p, const Vecs<N>& a, int64_t count) {
  if (N > 1) {
    store_vecs(p, a);
  } else {
    store_part(p, a.v[0], count);
  }
}

#define MINDCV_VECS_OPERATOR(op)                                                                 \
  template <int N>                                                                               \
  MINDCV_INLINE Vecs<N> operator op(const Vecs<N>& a, const Vecs<N>& b) {                        \
    return make_vecs<N>([&](int i) __attribute__((always_inline)) { return a.v[i] op b.v[i]; }); \
  }                                                                                              \
  template <int N>                                                                               \
  MINDCV_INLINE Vecs<N> operator op(const Vecs<N>& a, float b) {                                 \
    return make_vecs<N>([&](int i) __attribute__((always_inline)) { return a.v[i] op b; });      \
  }                                                                                              \
  template <int N>                                                                               \
  MINDCV_INLINE Vecs<N> operator op(float a, const Vecs<N>& b) {                                 \
    return make_vecs<N>([&](int i) __attribute__((always_inline)) { return a op b.v[i]; });      \
  }
MINDCV_VECS_OPERATOR(+)
MINDCV_VECS_OPERATOR(-)
MINDCV_VECS_OPERATOR(*)
#undef MINDCV_VECS_OPERATOR

}  // namespace MINDCV_ISA
}  // namespace mindcv
