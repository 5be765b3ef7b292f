// The arithmetic of the products on the instruction set that this file is compiled for.
#pragma once

#if defined(__AMX_BF16__)
#include "gemm/amx.h"
#else
#include "gemm/fma.h"
#endif

namespace mindcv {
namespace MINDCV_ISA {

#if defined(__AMX_BF16__)
using Float32 = Amx<3>;
using Bfloat16 = Amx<1>;
#else
using Float32 = Fma<Float32Factors>;
#if MINDCV_HAS_BF16_PAIRS
using Bfloat16 = Fma<PairedFactors>;
#elif MINDCV_HAS_BF16_BLOCKS
using Bfloat16 = Fma<BlockFactors>;
#else
using Bfloat16 = Fma<RoundedFactors>;
#endif
#endif

// The number of floats of a packed weight [n, k].
template <class G>
int64_t packed_floats(int64_t k, int64_t n) {
  return static_cast<int64_t>(G::b_bytes(k, n) / 4);
}

}  // namespace MINDCV_ISA
}  // namespace mindcv
