// Vectors of float32 in the width of the instruction set that this is compiled for, in GCC's and Clang's vector types.
//
// Everything below is in a namespace named after the instruction set (MINDCV_ISA), and no template of the standard
// library is used: the linker keeps one copy of such functions, and might keep the one that an older processor cannot
// run.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

// Small functions on vectors: a call would pass these through memory.
#define MINDCV_INLINE inline __attribute__((always_inline))

namespace mindcv {
namespace MINDCV_ISA {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

typedef float Vec __attribute__((vector_size(kWidth * 4)));
typedef int32_t Int __attribute__((vector_size(kWidth * 4)));

MINDCV_INLINE Vec load(const float* p) {
  Vec v;
  memcpy(&v, p, sizeof(v));
  return v;
}

MINDCV_INLINE void store(float* p, Vec v) { memcpy(p, &v, sizeof(v)); }

MINDCV_INLINE Vec splat(float a) { return a - Vec{}; }  // minus keeps the sign of -0

// The first `count` values, the others 0; count may be kWidth or more.
MINDCV_INLINE Vec load_part(const float* p, int64_t count) {
  if (count >= kWidth) return load(p);
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), p);
#else
  Vec v{};
  memcpy(&v, p, static_cast<size_t>(count) * 4);
  return v;
#endif
}

MINDCV_INLINE void store_part(float* p, Vec v, int64_t count) {
  if (count >= kWidth) {
    store(p, v);
    return;
  }
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, (__mmask16)((1u << count) - 1), (__m512)v);
#else
  memcpy(p, &v, static_cast<size_t>(count) * 4);
#endif
}

inline float sum(Vec v) {
#if defined(__AVX512F__)
  return _mm512_reduce_add_ps((__m512)v);
#endif
  float part[kWidth];
  store(part, v);
  for (int half = kWidth / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) part[i] += part[i + half];
  }
  return part[0];
}

MINDCV_INLINE Vec absolute(Vec v) {
  Int bits;
  memcpy(&bits, &v, sizeof(v));
  bits &= 0x7fffffff;
  memcpy(&v, &bits, sizeof(v));
  return v;
}

MINDCV_INLINE Vec square_root(Vec v) {
#if defined(__AVX512F__)
  return (Vec)_mm512_sqrt_ps((__m512)v);
#elif defined(__AVX2__)
  return (Vec)_mm256_sqrt_ps((__m256)v);
#else
  for (int i = 0; i < kWidth; ++i) v[i] = __builtin_sqrtf(v[i]);
  return v;
#endif
}

// 1 / v for v from 1 to infinity, to about one unit in the last place (or, of infinity, near 0).
MINDCV_INLINE Vec reciprocal(Vec v) {
#if defined(__AVX512F__)
  // A division holds up the multiply-add units for eight times as long as this takes.
  const __m512 d = _mm512_min_ps((__m512)v, _mm512_set1_ps(1e30f));  // infinity times 0 would be NaN
  const __m512 near = _mm512_rcp14_ps(d);
  return (Vec)_mm512_fmadd_ps(near, _mm512_fnmadd_ps(d, near, _mm512_set1_ps(1.0f)), near);
#else
  return 1.0f / v;
#endif
}

// a / b, for b as above.
MINDCV_INLINE Vec quotient(Vec a, Vec b) {
#if defined(__AVX512F__)
  return a * reciprocal(b);
#else
  return a / b;
#endif
}

// v where it is positive, else 0; also for NaN.
MINDCV_INLINE Vec positive_part(Vec v) {
#if defined(__AVX512F__)
  return (Vec)_mm512_max_ps((__m512)v, _mm512_setzero_ps());
#elif defined(__AVX2__)
  return (Vec)_mm256_max_ps((__m256)v, _mm256_setzero_ps());
#else
  return v > 0.0f ? v : Vec{};
#endif
}

// Vectors that go through the same operations side by side: the chain of operations of one leaves the processor idle
// unless it finds those of others near by. With 16 registers, the next few hundred instructions hold too few of them.
template <int N>
struct Vecs {
  Vec v[N];
};

#if defined(__AVX512F__)
constexpr int kTogether = 1;  // 32 registers, and longer vectors
#else
constexpr int kTogether = 3;
#endif

template <int N>
struct Number {
  static constexpr int value = N;
};

// Calls body(j, Number<N>) for columns [j, j + N * kWidth) of [0, cols), the last of which may be beyond if N is 1.
template <class Body>
MINDCV_INLINE void by_columns(int64_t cols, Body&& body) {
  int64_t j = 0;
  for (; j + kTogether * kWidth <= cols; j += kTogether * kWidth) body(j, Number<kTogether>());
  for (; j < cols; j += kWidth) body(j, Number<1>());
}

template <int N, class F>
MINDCV_INLINE Vecs<N> each(F&& make) {
  Vecs<N> result;
  for (int i = 0; i < N; ++i) result.v[i] = make(i);
  return result;
}

template <int N>
MINDCV_INLINE Vecs<N> load_vecs(const float* p) {
  return each<N>([&](int i) __attribute__((always_inline)) { return load(p + i * kWidth); });
}

// Of columns that by_columns gives: `count` are left, the others become 0.
template <int N>
MINDCV_INLINE Vecs<N> load_vecs(const float* p, int64_t count) {
  if (N > 1) return load_vecs<N>(p);
  return {{load_part(p, count)}};
}

template <int N>
MINDCV_INLINE void store_vecs(float* p, const Vecs<N>& a) {
  for (int i = 0; i < N; ++i) store(p + i * kWidth, a.v[i]);
}

template <int N>
MINDCV_INLINE void store_vecs(float* p, const Vecs<N>& a, int64_t count) {
  if (N > 1) {
    store_vecs(p, a);
  } else {
    store_part(p, a.v[0], count);
  }
}

#define MINDCV_ON_VECS(op)                                                                  \
  template <int N>                                                                          \
  MINDCV_INLINE Vecs<N> operator op(const Vecs<N>& a, const Vecs<N>& b) {                   \
    return each<N>([&](int i) __attribute__((always_inline)) { return a.v[i] op b.v[i]; }); \
  }                                                                                         \
  template <int N>                                                                          \
  MINDCV_INLINE Vecs<N> operator op(const Vecs<N>& a, float b) {                            \
    return each<N>([&](int i) __attribute__((always_inline)) { return a.v[i] op b; });      \
  }                                                                                         \
  template <int N>                                                                          \
  MINDCV_INLINE Vecs<N> operator op(float a, const Vecs<N>& b) {                            \
    return each<N>([&](int i) __attribute__((always_inline)) { return a op b.v[i]; });      \
  }
MINDCV_ON_VECS(+)
MINDCV_ON_VECS(-)
MINDCV_ON_VECS(*)
#undef MINDCV_ON_VECS

#if defined(__AVX512F__)
// 16 x 16 words, in four rounds; round r exchanges what lies 2^r apart.
MINDCV_INLINE void transpose(__m512i (&r)[16]) {
  __m512i t[16];
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    for (int j = 0; j < 2; ++j) {
      r[4 * i + 2 * j] = _mm512_unpacklo_epi64(t[4 * i + j], t[4 * i + j + 2]);
      r[4 * i + 2 * j + 1] = _mm512_unpackhi_epi64(t[4 * i + j], t[4 * i + j + 2]);
    }
  }
  for (int i = 0; i < 2; ++i) {
    for (int j = 0; j < 4; ++j) {
      t[8 * i + j] = _mm512_shuffle_i32x4(r[8 * i + j], r[8 * i + j + 4], 0x88);
      t[8 * i + j + 4] = _mm512_shuffle_i32x4(r[8 * i + j], r[8 * i + j + 4], 0xdd);
    }
  }
  for (int j = 0; j < 8; ++j) {
    r[j] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0x88);
    r[j + 8] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0xdd);
  }
}
MINDCV_INLINE void transpose(Vec (&r)[kWidth]) {
  __m512i words[16];
  memcpy(words, r, sizeof(r));
  transpose(words);
  memcpy(r, words, sizeof(r));
}
#elif defined(__AVX2__)
// 8 x 8 values, in three rounds as above.
MINDCV_INLINE void transpose(Vec (&r)[kWidth]) {
  __m256 t[8], u[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps((__m256)r[i], (__m256)r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps((__m256)r[i], (__m256)r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    for (int j = 0; j < 2; ++j) {
      u[i + 2 * j] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0x44);
      u[i + 2 * j + 1] = _mm256_shuffle_ps(t[i + j], t[i + j + 2], 0xee);
    }
  }
  for (int j = 0; j < 4; ++j) {
    r[j] = (Vec)_mm256_permute2f128_ps(u[j], u[j + 4], 0x20);
    r[j + 4] = (Vec)_mm256_permute2f128_ps(u[j], u[j + 4], 0x31);
  }
}
#else
MINDCV_INLINE void transpose(Vec (&r)[kWidth]) {
  for (int i = 0; i < kWidth; ++i) {
    for (int j = 0; j < i; ++j) {
      const float value = r[i][j];
      r[i][j] = r[j][i];
      r[j][i] = value;
    }
  }
}
#endif

constexpr int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
// a / b of numbers below 2^32, which takes a fraction of the time.
constexpr int64_t divide(int64_t a, int64_t b) { return static_cast<uint32_t>(a) / static_cast<uint32_t>(b); }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

}  // namespace MINDCV_ISA
}  // namespace mindcv
