// AVX-512 and AMX in plain C++, as far as the kernels use them: so that their code for processors that have these runs,
// slowly, on one that has not. Included before everything else (-include), with EMULATES_AVX512, EMULATES_AVX512_BF16
// or EMULATES_AMX defined for what is to believe that it is compiled for them. Operations as in Intel's Intrinsics
// Guide; tiles as in chapter "Intel AMX" of the Software Developer's Manual.
#pragma once
#include <cpuid.h>
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

// What chooses the instruction set finds a processor that has them all.
#define __builtin_cpu_supports(feature) 1
#define __get_cpuid_count(leaf, part, a, b, c, d) (*(a) = *(b) = *(c) = *(d) = ~0u, 1)
#define syscall(...) 0

#if defined(EMULATES_AVX512) || defined(EMULATES_AVX512_BF16) || defined(EMULATES_AMX)
// Of functions that are compiled for more than the rest: what they need is emulated too.
#define target(features)
#define __AVX512F__ 1
#define __AVX512BW__ 1

#if defined(EMULATES_AMX)
// The tile registers of a thread. They are outside of the unnamed namespace below, because all translation units of the
// AMX kernels share them: the linker keeps one copy of an inline function that two of them have.
struct EmulatedTiles {
  uint8_t config[64];  // all 0: not configured
  uint8_t data[8][16][64];
  int rows(int tile) const { return config[0] == 1 ? config[48 + tile] : 0; }
  int bytes(int tile) const { return config[0] == 1 ? config[16 + 2 * tile] + config[17 + 2 * tile] * 256 : 0; }
  // The processor would refuse the instruction.
  void need(int tile) const {
    if (rows(tile) == 0) abort();
  }
};
inline EmulatedTiles& emulated_tiles() {
  static thread_local EmulatedTiles of_this_thread;
  return of_this_thread;
}
#endif

namespace emulated {
namespace {

template <class T>
struct Lanes {
  static constexpr int kCount = 64 / sizeof(T);
  T v[kCount];

  Lanes() = default;
  template <class V>
  Lanes(const V& vector) {
    static_assert(sizeof(V) == 64, "");
    memcpy(v, &vector, 64);
  }
  template <class V>
  V to() const {
    V vector;
    memcpy(&vector, v, 64);
    return vector;
  }
};
using F32 = Lanes<float>;
using F64 = Lanes<double>;
using U8 = Lanes<uint8_t>;
using U16 = Lanes<uint16_t>;
using U32 = Lanes<uint32_t>;
using U64 = Lanes<uint64_t>;

// Lane i is make(i).
template <class V, class T, class F>
inline V lanes(F&& make) {
  Lanes<T> result;
  for (int i = 0; i < Lanes<T>::kCount; ++i) result.v[i] = make(i);
  return result.template to<V>();
}
template <class F>
inline __m512 floats(F&& make) {
  return lanes<__m512, float>(make);
}
template <class T, class F>
inline __m512i words(F&& make) {
  return lanes<__m512i, T>(make);
}

inline __m512 set1_ps(float a) {
  return floats([&](int) { return a; });
}
inline __m512 setzero_ps() { return set1_ps(0.0f); }
inline __m512d set1_pd(double a) {
  return lanes<__m512d, double>([&](int) { return a; });
}
inline __m512i set1_epi16(short a) {
  return words<uint16_t>([&](int) { return a; });
}
inline __m512i set1_epi32(int a) {
  return words<uint32_t>([&](int) { return a; });
}
template <class... Values>
inline __m512i setr_epi32(Values... values) {
  const int all[] = {values...};
  return words<uint32_t>([&](int i) { return all[i]; });
}

inline __m512i loadu_si512(const void* p) {
  return Lanes<uint8_t>(*static_cast<const uint8_t (*)[64]>(p)).to<__m512i>();
}
inline void storeu_si512(void* p, __m512i a) { memcpy(p, &a, 64); }
inline void storeu_ps(void* p, __m512 a) { memcpy(p, &a, 64); }
// Of what the mask leaves out nothing is read or written.
inline __m512 maskz_loadu_ps(__mmask16 k, const float* p) {
  return floats([&](int i) { return k >> i & 1 ? p[i] : 0.0f; });
}
inline void mask_storeu_ps(float* p, __mmask16 k, __m512 a) {
  for (int i = 0; i < 16; ++i) {
    if (k >> i & 1) p[i] = F32(a).v[i];
  }
}
inline __m512i maskz_loadu_epi8(__mmask64 k, const void* p) {
  return words<uint8_t>([&](int i) { return k >> i & 1 ? static_cast<const uint8_t*>(p)[i] : 0; });
}
inline void mask_storeu_epi8(void* p, __mmask64 k, __m512i a) {
  for (int i = 0; i < 64; ++i) {
    if (k >> i & 1) static_cast<uint8_t*>(p)[i] = U8(a).v[i];
  }
}

inline __m512 sub_ps(__m512 a, __m512 b) { return a - b; }
inline __m512 fmadd_ps(__m512 a, __m512 b, __m512 c) {
  return floats([&](int i) { return fmaf(F32(a).v[i], F32(b).v[i], F32(c).v[i]); });
}
inline __m512 fnmadd_ps(__m512 a, __m512 b, __m512 c) { return fmadd_ps(-a, b, c); }
// The second operand where either is NaN, and of two zeros.
inline __m512 max_ps(__m512 a, __m512 b) {
  return floats([&](int i) { return F32(a).v[i] > F32(b).v[i] ? F32(a).v[i] : F32(b).v[i]; });
}
inline __m512 min_ps(__m512 a, __m512 b) {
  return floats([&](int i) { return F32(a).v[i] < F32(b).v[i] ? F32(a).v[i] : F32(b).v[i]; });
}
inline __m512 sqrt_ps(__m512 a) {
  return floats([&](int i) { return sqrtf(F32(a).v[i]); });
}
// No more exact than it has to be: 14 bits.
inline __m512 rcp14_ps(__m512 a) {
  return floats([&](int i) {
    int exponent;
    const double fraction = frexp(1.0 / F32(a).v[i], &exponent);
    return static_cast<float>(ldexp(rint(ldexp(fraction, 14)), exponent - 14));
  });
}
inline __m512 maskz_scalef_ps(__mmask16 k, __m512 a, __m512 b) {
  return floats([&](int i) { return k >> i & 1 ? static_cast<float>(F32(a).v[i] * exp2(floor(F32(b).v[i]))) : 0.0f; });
}
// Halves are added, again and again.
inline float reduce_add_ps(__m512 a) {
  F32 part(a);
  for (int half = 8; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) part.v[i] += part.v[i + half];
  }
  return part.v[0];
}

inline __mmask16 cmp_ps_mask(__m512 a, __m512 b, int predicate) {
  if (predicate != _CMP_NLT_UQ) abort();
  int mask = 0;
  for (int i = 0; i < 16; ++i) mask |= !(F32(a).v[i] < F32(b).v[i]) << i;
  return static_cast<__mmask16>(mask);
}
inline __mmask32 cmpeq_epi16_mask(__m512i a, __m512i b) {
  uint32_t mask = 0;
  for (int i = 0; i < 32; ++i) mask |= static_cast<uint32_t>(U16(a).v[i] == U16(b).v[i]) << i;
  return mask;
}
inline __mmask64 movepi8_mask(__m512i a) {
  uint64_t mask = 0;
  for (int i = 0; i < 64; ++i) mask |= static_cast<uint64_t>(U8(a).v[i] >> 7) << i;
  return mask;
}
inline __m512i mask_mov_epi8(__m512i a, __mmask64 k, __m512i b) {
  return words<uint8_t>([&](int i) { return k >> i & 1 ? U8(b).v[i] : U8(a).v[i]; });
}
inline __m512i mask_blend_epi8(__mmask64 k, __m512i a, __m512i b) { return mask_mov_epi8(a, k, b); }
inline __m512d mask_mov_pd(__m512d a, __mmask8 k, __m512d b) {
  return lanes<__m512d, double>([&](int i) { return k >> i & 1 ? F64(b).v[i] : F64(a).v[i]; });
}

inline __m512i add_epi16(__m512i a, __m512i b) {
  return words<uint16_t>([&](int i) { return U16(a).v[i] + U16(b).v[i]; });
}
inline __m512i add_epi32(__m512i a, __m512i b) {
  return words<uint32_t>([&](int i) { return U32(a).v[i] + U32(b).v[i]; });
}
inline __m512i and_si512(__m512i a, __m512i b) { return a & b; }
inline __m512i or_si512(__m512i a, __m512i b) { return a | b; }
inline __m512i slli_epi32(__m512i a, unsigned bits) {
  return words<uint32_t>([&](int i) { return bits < 32 ? U32(a).v[i] << bits : 0; });
}
inline __m512i madd_epi16(__m512i a, __m512i b) {
  const Lanes<int16_t> x(a), y(b);
  return words<uint32_t>([&](int i) {
    return static_cast<uint32_t>(x.v[2 * i] * y.v[2 * i]) + static_cast<uint32_t>(x.v[2 * i + 1] * y.v[2 * i + 1]);
  });
}

inline __m512i cvtepu16_epi32(__m256i a) {
  uint16_t halves[16];
  memcpy(halves, &a, 32);
  return words<uint32_t>([&](int i) { return halves[i]; });
}
inline __m512i cvtepu8_epi32(__m128i a) {
  uint8_t bytes[16];
  memcpy(bytes, &a, 16);
  return words<uint32_t>([&](int i) { return bytes[i]; });
}
inline __m512d cvtepi32_pd(__m256i a) {
  int32_t values[8];
  memcpy(values, &a, 32);
  return lanes<__m512d, double>([&](int i) { return values[i]; });
}
inline __m256i cvttpd_epi32(__m512d a) {
  int32_t values[8];
  for (int i = 0; i < 8; ++i) {
    const double x = F64(a).v[i];
    values[i] = x > -2147483649.0 && x < 2147483648.0 ? static_cast<int32_t>(x) : INT32_MIN;
  }
  __m256i result;
  memcpy(&result, values, 32);
  return result;
}
// Of 16 words, or of 8 and then zeros.
template <class V>
inline __m128i cvtusepi32_epi8(V a) {
  uint32_t from[16] = {};
  uint8_t bytes[16];
  memcpy(from, &a, sizeof(a));
  for (int i = 0; i < 16; ++i) bytes[i] = from[i] < 255 ? static_cast<uint8_t>(from[i]) : 255;
  __m128i result;
  memcpy(&result, bytes, 16);
  return result;
}
inline __m512 castsi512_ps(__m512i a) { return (__m512)a; }
inline __m512i castsi256_si512(__m256i a) {
  __m512i result{};  // the upper half is undefined
  memcpy(&result, &a, 32);
  return result;
}
inline __m256i extracti64x4_epi64(__m512i a, int half) {
  __m256i result;
  memcpy(&result, U8(a).v + 32 * half, 32);
  return result;
}
inline __m256i castsi512_si256(__m512i a) { return extracti64x4_epi64(a, 0); }
inline __m512i inserti64x4(__m512i a, __m256i b, int half) {
  U8 result(a);
  memcpy(result.v + 32 * half, &b, 32);
  return result.to<__m512i>();
}
inline __m512i broadcast_i32x4(__m128i a) {
  uint32_t four[4];
  memcpy(four, &a, 16);
  return words<uint32_t>([&](int i) { return four[i % 4]; });
}

// Within 16 bytes; 0 where the highest bit of the order is set.
inline __m512i shuffle_epi8(__m512i a, __m512i order) {
  return words<uint8_t>([&](int i) {
    const int from = U8(order).v[i];
    return from & 0x80 ? 0 : U8(a).v[i / 16 * 16 + (from & 15)];
  });
}
inline __m512i shuffle_i32x4(__m512i a, __m512i b, int order) {
  return words<uint32_t>([&](int i) {
    const int from = (order >> i / 4 * 2 & 3) * 4 + i % 4;
    return i < 8 ? U32(a).v[from] : U32(b).v[from];
  });
}
template <class T>
inline __m512i unpack(__m512i a, __m512i b, int high) {
  constexpr int kInLane = 16 / sizeof(T);
  const Lanes<T> x(a), y(b);
  return words<T>([&](int i) {
    const int from = i / kInLane * kInLane + high * kInLane / 2 + i % kInLane / 2;
    return i % 2 ? y.v[from] : x.v[from];
  });
}
inline __m512i unpacklo_epi32(__m512i a, __m512i b) { return unpack<uint32_t>(a, b, 0); }
inline __m512i unpackhi_epi32(__m512i a, __m512i b) { return unpack<uint32_t>(a, b, 1); }
inline __m512i unpacklo_epi64(__m512i a, __m512i b) { return unpack<uint64_t>(a, b, 0); }
inline __m512i unpackhi_epi64(__m512i a, __m512i b) { return unpack<uint64_t>(a, b, 1); }
inline __m512i permutex2var_epi8(__m512i a, __m512i order, __m512i b) {
  return words<uint8_t>([&](int i) {
    const int from = U8(order).v[i];
    return from & 64 ? U8(b).v[from & 63] : U8(a).v[from & 63];
  });
}
inline __m512i permutex2var_epi16(__m512i a, __m512i order, __m512i b) {
  return words<uint16_t>([&](int i) {
    const int from = U16(order).v[i];
    return from & 32 ? U16(b).v[from & 31] : U16(a).v[from & 31];
  });
}

inline float from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
inline uint32_t to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return bits;
}
// Numbers below the normal ones count as 0, of either sign, for what is made for bfloat16.
inline float without_denormal(float value) { return fabsf(value) < 0x1p-126f ? copysignf(0.0f, value) : value; }

#if defined(EMULATES_AVX512_BF16) || defined(EMULATES_AMX)
#define __AVX512BF16__ 1

// The nearest bfloat16, the even one of two.
inline uint16_t rounded_to_bf16(float value) {
  const uint32_t bits = to_bits(without_denormal(value));
  if (value != value) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
// The upper half of the result is of a.
inline __m512i cvtne2ps_pbh(__m512 a, __m512 b) {
  return words<uint16_t>([&](int i) { return rounded_to_bf16(i < 16 ? F32(b).v[i] : F32(a).v[i - 16]); });
}
inline __m256i cvtneps_pbh(__m512 a) { return castsi512_si256(cvtne2ps_pbh(a, a)); }
inline __m256i maskz_loadu_epi16(__mmask16 k, const void* p) {
  uint16_t halves[16] = {};
  for (int i = 0; i < 16; ++i) {
    if (k >> i & 1) memcpy(&halves[i], static_cast<const char*>(p) + 2 * i, 2);
  }
  __m256i result;
  memcpy(&result, halves, 32);
  return result;
}
inline void mask_storeu_epi16(void* p, __mmask16 k, __m256i a) {
  uint16_t halves[16];
  memcpy(halves, &a, 32);
  for (int i = 0; i < 16; ++i) {
    if (k >> i & 1) memcpy(static_cast<char*>(p) + 2 * i, &halves[i], 2);
  }
}
inline __m512i permutexvar_epi16(__m512i order, __m512i a) {
  return words<uint16_t>([&](int i) { return U16(a).v[U16(order).v[i] & 31]; });
}
// Each lane adds the product of the odd values first.
template <class Pairs>
inline __m512 dpbf16_ps(__m512 sums, Pairs a, Pairs b) {
  const U16 x(a), y(b);
  return floats([&](int i) {
    float sum = without_denormal(F32(sums).v[i]);
    for (int odd = 1; odd >= 0; --odd) {
      const float left = without_denormal(from_bits(static_cast<uint32_t>(x.v[2 * i + odd]) << 16));
      const float right = without_denormal(from_bits(static_cast<uint32_t>(y.v[2 * i + odd]) << 16));
      sum = without_denormal(fmaf(left, right, sum));
    }
    return sum;
  });
}
#endif

#if defined(EMULATES_AMX)
#define __AMX_BF16__ 1

using Tiles = EmulatedTiles;
inline Tiles& tiles() { return emulated_tiles(); }

inline void tile_loadconfig(const void* config) {
  memcpy(tiles().config, config, 64);
  if (tiles().config[0] != 1) abort();
  for (int tile = 0; tile < 8; ++tile) {
    if (tiles().rows(tile) > 16 || tiles().bytes(tile) > 64) abort();
  }
  memset(tiles().data, 0, sizeof(tiles().data));
}
inline void tile_zero(int tile) {
  tiles().need(tile);
  memset(tiles().data[tile], 0, sizeof(tiles().data[tile]));
}
inline void tile_loadd(int tile, const void* from, int64_t step) {
  tile_zero(tile);
  for (int i = 0; i < tiles().rows(tile); ++i) {
    memcpy(tiles().data[tile][i], static_cast<const char*>(from) + i * step, tiles().bytes(tile));
  }
}
inline void tile_stored(int tile, void* to, int64_t step) {
  tiles().need(tile);
  for (int i = 0; i < tiles().rows(tile); ++i) {
    memcpy(static_cast<char*>(to) + i * step, tiles().data[tile][i], tiles().bytes(tile));
  }
}
// The products of the even values of the pairs and those of the odd ones are summed apart.
inline void tile_dpbf16ps(int out, int a, int b) {
  Tiles& all = tiles();
  all.need(out), all.need(a), all.need(b);
  if (all.rows(out) != all.rows(a) || all.bytes(out) != all.bytes(b) || all.bytes(a) != 4 * all.rows(b)) abort();
  const int cols = all.bytes(out) / 4;
  for (int m = 0; m < all.rows(out); ++m) {
    float sums[2][16] = {};
    for (int k = 0; k < all.rows(b); ++k) {
      uint32_t pair, pairs[16];
      memcpy(&pair, all.data[a][m] + 4 * k, 4);
      memcpy(pairs, all.data[b][k], 64);
      const float even = without_denormal(from_bits(pair << 16)), odd = without_denormal(from_bits(pair & 0xffff0000));
      for (int n = 0; n < cols; ++n) {
        sums[0][n] = without_denormal(sums[0][n] + even * without_denormal(from_bits(pairs[n] << 16)));
        sums[1][n] = without_denormal(sums[1][n] + odd * without_denormal(from_bits(pairs[n] & 0xffff0000)));
      }
    }
    float total[16];
    memcpy(total, all.data[out][m], 64);
    for (int n = 0; n < cols; ++n) {
      total[n] = without_denormal(without_denormal(total[n]) + without_denormal(sums[0][n] + sums[1][n]));
    }
    memcpy(all.data[out][m], total, 64);
  }
}
#endif

}  // namespace
}  // namespace emulated

#define _mm512_add_epi16 emulated::add_epi16
#define _mm512_add_epi32 emulated::add_epi32
#define _mm512_and_si512 emulated::and_si512
#define _mm512_broadcast_i32x4 emulated::broadcast_i32x4
#define _mm512_castsi256_si512 emulated::castsi256_si512
#define _mm512_castsi512_ps emulated::castsi512_ps
#define _mm512_castsi512_si256 emulated::castsi512_si256
#undef _mm512_cmp_ps_mask
#define _mm512_cmp_ps_mask emulated::cmp_ps_mask
#define _mm512_cmpeq_epi16_mask emulated::cmpeq_epi16_mask
#define _mm512_cvtepi32_pd emulated::cvtepi32_pd
#define _mm512_cvtepu16_epi32 emulated::cvtepu16_epi32
#define _mm512_cvtepu8_epi32 emulated::cvtepu8_epi32
#define _mm512_cvtne2ps_pbh emulated::cvtne2ps_pbh
#define _mm512_cvtneps_pbh emulated::cvtneps_pbh
#define _mm512_cvttpd_epi32 emulated::cvttpd_epi32
#define _mm256_cvtusepi32_epi8 emulated::cvtusepi32_epi8
#define _mm512_cvtusepi32_epi8 emulated::cvtusepi32_epi8
#define _mm512_dpbf16_ps emulated::dpbf16_ps
#undef _mm512_extracti64x4_epi64
#define _mm512_extracti64x4_epi64 emulated::extracti64x4_epi64
#define _mm512_fmadd_ps emulated::fmadd_ps
#define _mm512_fnmadd_ps emulated::fnmadd_ps
#undef _mm512_inserti64x4
#define _mm512_inserti64x4 emulated::inserti64x4
#define _mm512_loadu_si512 emulated::loadu_si512
#define _mm512_madd_epi16 emulated::madd_epi16
#define _mm512_mask_blend_epi8 emulated::mask_blend_epi8
#define _mm512_mask_mov_epi8 emulated::mask_mov_epi8
#define _mm512_mask_mov_pd emulated::mask_mov_pd
#define _mm256_mask_storeu_epi16 emulated::mask_storeu_epi16
#define _mm512_mask_storeu_epi8 emulated::mask_storeu_epi8
#define _mm512_mask_storeu_ps emulated::mask_storeu_ps
#define _mm256_maskz_loadu_epi16 emulated::maskz_loadu_epi16
#define _mm512_maskz_loadu_epi8 emulated::maskz_loadu_epi8
#define _mm512_maskz_loadu_ps emulated::maskz_loadu_ps
#undef _mm512_maskz_scalef_ps
#define _mm512_maskz_scalef_ps emulated::maskz_scalef_ps
#define _mm512_max_ps emulated::max_ps
#define _mm512_min_ps emulated::min_ps
#define _mm512_movepi8_mask emulated::movepi8_mask
#define _mm512_or_si512 emulated::or_si512
#define _mm512_permutexvar_epi16 emulated::permutexvar_epi16
#define _mm512_permutex2var_epi16 emulated::permutex2var_epi16
#define _mm512_permutex2var_epi8 emulated::permutex2var_epi8
#define _mm512_rcp14_ps emulated::rcp14_ps
#define _mm512_reduce_add_ps emulated::reduce_add_ps
#define _mm512_set1_epi16 emulated::set1_epi16
#define _mm512_set1_epi32 emulated::set1_epi32
#define _mm512_set1_pd emulated::set1_pd
#define _mm512_set1_ps emulated::set1_ps
#undef _mm512_setr_epi32
#define _mm512_setr_epi32 emulated::setr_epi32
#define _mm512_setzero_ps emulated::setzero_ps
#define _mm512_shuffle_epi8 emulated::shuffle_epi8
#undef _mm512_shuffle_i32x4
#define _mm512_shuffle_i32x4 emulated::shuffle_i32x4
#define _mm512_slli_epi32 emulated::slli_epi32
#define _mm512_sqrt_ps emulated::sqrt_ps
#define _mm512_storeu_ps emulated::storeu_ps
#define _mm512_storeu_si512 emulated::storeu_si512
#define _mm512_sub_ps emulated::sub_ps
#define _mm512_unpackhi_epi32 emulated::unpackhi_epi32
#define _mm512_unpackhi_epi64 emulated::unpackhi_epi64
#define _mm512_unpacklo_epi32 emulated::unpacklo_epi32
#define _mm512_unpacklo_epi64 emulated::unpacklo_epi64
#undef _tile_loadconfig
#define _tile_loadconfig emulated::tile_loadconfig
#undef _tile_loadd
#define _tile_loadd emulated::tile_loadd
#undef _tile_stored
#define _tile_stored emulated::tile_stored
#undef _tile_zero
#define _tile_zero emulated::tile_zero
#undef _tile_dpbf16ps
#define _tile_dpbf16ps emulated::tile_dpbf16ps
#endif
