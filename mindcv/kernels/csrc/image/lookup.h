// Bytes to other bytes, by tables of 256.
#pragma once
#include "image/images.h"
#include "simd/simd.h"

namespace mindcv {
namespace MINDCV_ISA {

#if defined(__AVX512BW__)
#define MINDCV_VBMI __attribute__((target("avx512vbmi")))  // Cannon Lake's; Skylake has AVX-512 without it

struct Table {
  __m512i quarters[4];
};

MINDCV_VBMI inline __m512i through(const Table& table, __m512i values) {
  const __m512i low = _mm512_permutex2var_epi8(table.quarters[0], values, table.quarters[1]);
  const __m512i high = _mm512_permutex2var_epi8(table.quarters[2], values, table.quarters[3]);
  return _mm512_mask_blend_epi8(_mm512_movepi8_mask(values), low, high);
}

MINDCV_VBMI inline void look_up_wide(const uint8_t* source, int64_t bytes, int channels, const uint8_t* tables,
                                     uint8_t* out) {
  Table table[3];
  for (int c = 0; c < (channels == 1 ? 1 : 3); ++c) memcpy(table[c].quarters, tables + 256 * c, 256);
  for (int64_t i = 0; i < bytes; i += 64) {
    const __mmask64 there = bytes - i < 64 ? (uint64_t{1} << (bytes - i)) - 1 : ~uint64_t{0};
    const __m512i values = _mm512_maskz_loadu_epi8(there, source + i);
    __m512i found = through(table[0], values);
    if (channels == 4) {
      found = _mm512_mask_mov_epi8(found, 0x2222222222222222, through(table[1], values));
      found = _mm512_mask_mov_epi8(found, 0x4444444444444444, through(table[2], values));
    }
    _mm512_mask_storeu_epi8(out + i, there, found);
  }
}
#endif

// Pixels of four bytes, the first three by a table each, or pixels of one byte by one table.
inline void look_up(const uint8_t* source, int64_t pixels, int channels, const uint8_t* tables, uint8_t* out) {
#if defined(__AVX512BW__)
  if (__builtin_cpu_supports("avx512vbmi")) return look_up_wide(source, pixels * channels, channels, tables, out);
#endif
  if (channels == 1) {
    for (int64_t i = 0; i < pixels; ++i) out[i] = tables[source[i]];
    return;
  }
  uint32_t words[3][256];  // each value in its place in a pixel
  for (int c = 0; c < 3; ++c) {
    for (int v = 0; v < 256; ++v) {
      uint8_t bytes[4] = {};
      bytes[c] = tables[256 * c + v];
      memcpy(&words[c][v], bytes, 4);
    }
  }
  for (int64_t i = 0; i < pixels; ++i, source += 4, out += 4) {
    uint32_t pixel = words[0][source[0]] | words[1][source[1]] | words[2][source[2]];
    asm("" : "+r"(pixel));  // else GCC makes gathers of it, which take twice as long
    memcpy(out, &pixel, 4);
  }
}

}  // namespace MINDCV_ISA
}  // namespace mindcv
