// The gradients of one block.
#include "network/block_backward.h"

#include "gemm/arithmetic.h"

namespace mindcv {
namespace MINDCV_ISA {
namespace {

BlockGrads block_grads(const Arguments& arguments) {
  BlockGrads d{};
  d.dx = arguments.output("grad.x");
  d.dw_weight = arguments.output("grad.dwconv.weight");
  d.dw_bias = arguments.output("grad.dwconv.bias");
  d.norm_gamma = arguments.output("grad.norm.gamma");
  d.norm_beta = arguments.output("grad.norm.beta");
  d.weight1 = arguments.output("grad.pwconv1.weight");
  d.bias1 = arguments.output("grad.pwconv1.bias");
  d.grn_gamma = arguments.optional_output("grad.grn.gamma");
  d.grn_beta = arguments.optional_output("grad.grn.beta");
  d.weight2 = arguments.output("grad.pwconv2.weight");
  d.bias2 = arguments.output("grad.pwconv2.bias");
  d.scale = arguments.optional_output("grad.gamma_");
  return d;
}

template <class G>
void block_backward(const Arguments& arguments, Session& memory, const BlockMap& map) {
  BlockSaved<const float> saved{};
  saved.xhat = arguments.input("xhat");
  saved.factor = arguments.input("factor");
  saved.z = arguments.input("z");
  saved.norms = arguments.optional_input("norms");
  BlockBackward<G>(memory, map, block_params(arguments), saved, arguments.input("x"), arguments.input("dout"),
                   block_grads(arguments))
      .run();
}

template <class G>
void dense_backward(const Arguments& arguments) {
  Session memory;
  block_backward<G>(arguments, memory, dense_map(arguments));
}

template <class G>
void visible_backward(const Arguments& arguments) {
  Session memory;
  const VisibleCells cells = visible_cells(memory, arguments);
  block_backward<G>(arguments, memory, visible_map(cells, arguments));
}

}  // namespace
}  // namespace MINDCV_ISA
}  // namespace mindcv

#define WEIGHT_GRADS                                                                      \
  "grad.dwconv.weight[C,1,7,7] grad.dwconv.bias[C] grad.norm.gamma[C] grad.norm.beta[C] " \
  "grad.pwconv1.weight[4*C,C] grad.pwconv1.bias[4*C] "
#define BLOCK_V1_GRAD                                                                                           \
  "x[N,H,W,C] " MINDCV_BLOCK_V1 "keep[N] dout[N,H,W,C] " MINDCV_BLOCK_SAVED " -> grad.x[N,H,W,C] " WEIGHT_GRADS \
  "grad.pwconv2.weight[C,4*C] grad.pwconv2.bias[C] grad.gamma_[C]"
#define BLOCK_V2_GRAD                                                       \
  "x[N,H,W,C] " MINDCV_BLOCK_V2 "keep[N] dout[N,H,W,C] " MINDCV_BLOCK_SAVED \
  " norms[N,4*C] -> grad.x[N,H,W,C] " WEIGHT_GRADS                          \
  "grad.grn.gamma[1,1,1,4*C] grad.grn.beta[1,1,1,4*C] grad.pwconv2.weight[C,4*C] grad.pwconv2.bias[C]"
MINDCV_OPERATOR(BlockV1Grad, BLOCK_V1_GRAD, dense_backward<Float32>)
MINDCV_BF16_OPERATOR(BlockV1GradBf16, BLOCK_V1_GRAD, dense_backward<Bfloat16>)
MINDCV_OPERATOR(BlockV2Grad, BLOCK_V2_GRAD, dense_backward<Float32>)
MINDCV_BF16_OPERATOR(BlockV2GradBf16, BLOCK_V2_GRAD, dense_backward<Bfloat16>)

#define VISIBLE_BLOCK_V2_GRAD                                                                                \
  "x[N*S*T,P,P,C] mask[N,S,T] grn_scope[1] " MINDCV_BLOCK_V2 "dout[N*S*T,P,P,C] " MINDCV_VISIBLE_BLOCK_SAVED \
  " -> "                                                                                                     \
  "grad.x[N*S*T,P,P,C] " WEIGHT_GRADS                                                                        \
  "grad.grn.gamma[1,1,1,4*C] grad.grn.beta[1,1,1,4*C] grad.pwconv2.weight[C,4*C] "                           \
  "grad.pwconv2.bias[C]"
MINDCV_OPERATOR(VisibleBlockV2Grad, VISIBLE_BLOCK_V2_GRAD, visible_backward<Float32>)
MINDCV_BF16_OPERATOR(VisibleBlockV2GradBf16, VISIBLE_BLOCK_V2_GRAD, visible_backward<Bfloat16>)
