// The forward pass of one block, and of the blocks of a stage one after the other.
#include "network/block_forward.h"

#include "gemm/arithmetic.h"

namespace mindcv {
namespace MINDCV_ISA {
namespace {

template <class G>
void block_forward(const Arguments& arguments, Session& memory, const BlockMap& map) {
  BlockSaved<float> saved{};
  saved.xhat = arguments.optional_output("xhat");
  saved.factor = arguments.optional_output("factor");
  saved.z = arguments.optional_output("z");
  saved.norms = arguments.optional_output("norms");
  BlockForward<G>(memory, map, block_params(arguments), saved, arguments.input("x"), arguments.output("out")).run();
}

template <class G>
void dense_forward(const Arguments& arguments) {
  Session memory;
  block_forward<G>(arguments, memory, dense_map(arguments));
}

template <class G>
void visible_forward(const Arguments& arguments) {
  Session memory;
  const VisibleCells cells = visible_cells(memory, arguments);
  block_forward<G>(arguments, memory, visible_map(cells, arguments));
}

// The blocks of a stage, with packed weights and without stochastic depth. Each block but the first works in place.
template <class G>
void stage_packed(const Arguments& arguments) {
  const float* x = arguments.input("x");
  float* out = arguments.output("out");
  for (int64_t i = 0; i < arguments.repetitions(); ++i, x = out) {
    Session memory;
    BlockParams params = block_params(arguments, i);
    params.packed1 = params.weight1;
    params.packed2 = params.weight2;
    params.weight1 = params.weight2 = nullptr;
    BlockForward<G>(memory, dense_map(arguments), params, {}, x, out).run();
  }
}

}  // namespace
}  // namespace MINDCV_ISA
}  // namespace mindcv

#define BLOCK_V1 "x[N,H,W,C] " MINDCV_BLOCK_V1 "keep[N] -> out[N,H,W,C]"
#define BLOCK_V2 "x[N,H,W,C] " MINDCV_BLOCK_V2 "keep[N] -> out[N,H,W,C]"
MINDCV_OPERATOR(BlockV1, BLOCK_V1, dense_forward<Float32>)
MINDCV_BF16_OPERATOR(BlockV1Bf16, BLOCK_V1, dense_forward<Bfloat16>)
MINDCV_OPERATOR(BlockV2, BLOCK_V2, dense_forward<Float32>)
MINDCV_BF16_OPERATOR(BlockV2Bf16, BLOCK_V2, dense_forward<Bfloat16>)

// With outputs that the backward pass needs.
#define BLOCK_V1_SAVING BLOCK_V1 " " MINDCV_BLOCK_SAVED
#define BLOCK_V2_SAVING BLOCK_V2 " " MINDCV_BLOCK_SAVED " norms[N,4*C]"
MINDCV_OPERATOR(BlockV1Saving, BLOCK_V1_SAVING, dense_forward<Float32>)
MINDCV_BF16_OPERATOR(BlockV1SavingBf16, BLOCK_V1_SAVING, dense_forward<Bfloat16>)
MINDCV_OPERATOR(BlockV2Saving, BLOCK_V2_SAVING, dense_forward<Float32>)
MINDCV_BF16_OPERATOR(BlockV2SavingBf16, BLOCK_V2_SAVING, dense_forward<Bfloat16>)

#define STAGE_V1                                                                                   \
  "x[N,H,W,C] n*(" MINDCV_BLOCK_CONV                                                               \
  "pwconv1.weight[packed(C,4*C)] pwconv1.bias[4*C] pwconv2.weight[packed(4*C,C)] pwconv2.bias[C] " \
  "gamma_[C]) -> out[N,H,W,C]"
#define STAGE_V2                                                                              \
  "x[N,H,W,C] n*(" MINDCV_BLOCK_CONV                                                          \
  "pwconv1.weight[packed(C,4*C)] pwconv1.bias[4*C] grn.gamma[1,1,1,4*C] grn.beta[1,1,1,4*C] " \
  "pwconv2.weight[packed(4*C,C)] pwconv2.bias[C]) -> out[N,H,W,C]"
MINDCV_OPERATOR(StageV1Packed, STAGE_V1, stage_packed<Float32>, packed_floats<Float32>)
MINDCV_BF16_OPERATOR(StageV1PackedBf16, STAGE_V1, stage_packed<Bfloat16>, packed_floats<Bfloat16>)
MINDCV_OPERATOR(StageV2Packed, STAGE_V2, stage_packed<Float32>, packed_floats<Float32>)
MINDCV_BF16_OPERATOR(StageV2PackedBf16, STAGE_V2, stage_packed<Bfloat16>, packed_floats<Bfloat16>)

#define VISIBLE_BLOCK_V2 "x[N*S*T,P,P,C] mask[N,S,T] grn_scope[1] " MINDCV_BLOCK_V2 "-> out[N*S*T,P,P,C]"
#define VISIBLE_BLOCK_V2_SAVING VISIBLE_BLOCK_V2 " " MINDCV_VISIBLE_BLOCK_SAVED
MINDCV_OPERATOR(VisibleBlockV2, VISIBLE_BLOCK_V2, visible_forward<Float32>)
MINDCV_BF16_OPERATOR(VisibleBlockV2Bf16, VISIBLE_BLOCK_V2, visible_forward<Bfloat16>)
MINDCV_OPERATOR(VisibleBlockV2Saving, VISIBLE_BLOCK_V2_SAVING, visible_forward<Float32>)
MINDCV_BF16_OPERATOR(VisibleBlockV2SavingBf16, VISIBLE_BLOCK_V2_SAVING, visible_forward<Bfloat16>)
