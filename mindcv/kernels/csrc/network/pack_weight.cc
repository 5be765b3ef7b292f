// Packs the weight of a product once, for many calls of operators that take packed weights.
#include "gemm/arithmetic.h"
#include "gemm/gemm.h"
#include "runtime/operator.h"

namespace mindcv {
namespace MINDCV_ISA {
namespace {

template <class G>
void pack_weight(const Arguments& arguments) {
  const int64_t n = arguments.size('O'), k = arguments.size('I');
  Session memory;
  typename G::B packed = G::b_in_memory(arguments.output("packed"), k, n);
  pack_matrix_b<G>({arguments.input("weight"), k, n, true}, packed);
}

}  // namespace
}  // namespace MINDCV_ISA
}  // namespace mindcv

#define SIGNATURE "weight[O,I] -> packed[packed(I,O)]"
MINDCV_OPERATOR(PackWeight, SIGNATURE, pack_weight<Float32>, packed_floats<Float32>)
MINDCV_BF16_OPERATOR(PackWeightBf16, SIGNATURE, pack_weight<Bfloat16>, packed_floats<Bfloat16>)
