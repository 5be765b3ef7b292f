// The parts of the SIMD interface that are written once for every vector width, in GCC's and Clang's vector types.
//
// The header of an instruction set sets kWidth and then includes this file.
#pragma once
#include <cstdint>
#include <cstring>

// Small functions on vectors must be inlined: a call would pass the vectors through memory.
#define MINDCV_INLINE inline __attribute__((always_inline))

namespace mindcv {
namespace MINDCV_ISA {

typedef float Vec __attribute__((vector_size(kWidth * 4)));
typedef int32_t Int __attribute__((vector_size(kWidth * 4)));

MINDCV_INLINE Vec load(const float* p) {
  Vec v;
  memcpy(&v, p, sizeof(v));
  return v;
}

MINDCV_INLINE void store(float* p, Vec v) { memcpy(p, &v, sizeof(v)); }

MINDCV_INLINE Vec splat(float a) { return a - Vec{}; }  // minus keeps the sign of -0

MINDCV_INLINE Vec abs(Vec v) {
  Int bits;
  memcpy(&bits, &v, sizeof(v));
  bits &= 0x7fffffff;
  memcpy(&v, &bits, sizeof(v));
  return v;
}

// The bfloat16 nearest to each value (ties to even), as a float32. NaN stays as it is.
MINDCV_INLINE Vec round_to_bf16(Vec v) {
  typedef uint32_t Bits __attribute__((vector_size(kWidth * 4)));
  Bits bits;
  memcpy(&bits, &v, sizeof(v));
  bits = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
  Vec nearest;
  memcpy(&nearest, &bits, sizeof(v));
  return v == v ? nearest : v;
}

constexpr int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
// a / b for numbers below 2^32. A 32-bit division takes a fraction of the time of a 64-bit one.
constexpr int64_t divide_32bit(int64_t a, int64_t b) { return static_cast<uint32_t>(a) / static_cast<uint32_t>(b); }

}  // namespace MINDCV_ISA
}  // namespace mindcv
