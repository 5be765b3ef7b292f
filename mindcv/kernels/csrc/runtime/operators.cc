// The functions that MindSpore's custom operators call.
//
// Each function has the C signature that MindSpore asks for: the arrays of inputs and outputs in one list, with their
// shapes and types. A function checks these against the table below before it touches memory, and throws what is wrong
// as a C++ exception: MindSpore puts the text of the exception into the error that the user sees, while a status would
// reach the user as a number. Callers that cannot take an exception call through `mindcv_try`.
#include <string.h>

#include "runtime/kernels.h"
#include "runtime/last_error.h"
#include "runtime/signature.h"
#include "runtime/thread_pool.h"

namespace {

using mindcv::kernels;

int64_t rows_of(int dims, const int64_t* shape) {
  int64_t rows = 1;
  for (int i = 0; i + 1 < dims; ++i) rows *= shape[i];
  return rows;
}

// What the operators take and give; mindcv/kernels/signatures.py holds the same texts and explains them.
#define CONV "dwconv.weight[C,1,7,7] dwconv.bias[C] norm.gamma[C] norm.beta[C] "
#define V1 CONV "pwconv1.weight[4*C,C] pwconv1.bias[4*C] pwconv2.weight[C,4*C] pwconv2.bias[C] gamma_[C]"
#define V2                                                                                                       \
  CONV "pwconv1.weight[4*C,C] pwconv1.bias[4*C] grn.gamma[1,1,1,4*C] grn.beta[1,1,1,4*C] pwconv2.weight[C,4*C] " \
       "pwconv2.bias[C]"
#define SAVED "xhat[N,H,W,C] factor[N*H*W] z[N,H,W,4*C]"
#define CONV_GRADIENTS                                                                                    \
  "grad.x[N,H,W,C] grad.dwconv.weight[C,1,7,7] grad.dwconv.bias[C] grad.norm.gamma[C] grad.norm.beta[C] " \
  "grad.pwconv1.weight[4*C,C] grad.pwconv1.bias[4*C] "

constexpr char kBlockV1[] = "x[N,H,W,C] " V1 " keep[N] -> out[N,H,W,C]";
constexpr char kBlockV2[] = "x[N,H,W,C] " V2 " keep[N] -> out[N,H,W,C]";
constexpr char kBlockV1Saving[] = "x[N,H,W,C] " V1 " keep[N] -> out[N,H,W,C] " SAVED;
constexpr char kBlockV2Saving[] = "x[N,H,W,C] " V2 " keep[N] -> out[N,H,W,C] " SAVED " norms[N,4*C]";
constexpr char kBlockV1Grad[] = "x[N,H,W,C] " V1 " keep[N] dout[N,H,W,C] " SAVED " -> " CONV_GRADIENTS
                                "grad.pwconv2.weight[C,4*C] grad.pwconv2.bias[C] grad.gamma_[C]";
constexpr char kBlockV2Grad[] = "x[N,H,W,C] " V2 " keep[N] dout[N,H,W,C] " SAVED " norms[N,4*C] -> " CONV_GRADIENTS
                                "grad.grn.gamma[1,1,1,4*C] grad.grn.beta[1,1,1,4*C] "
                                "grad.pwconv2.weight[C,4*C] grad.pwconv2.bias[C]";
constexpr char kStageV1Packed[] = "x[N,H,W,C] n*(" CONV
                                  "pwconv1.weight[packed(C,4*C)] pwconv1.bias[4*C] "
                                  "pwconv2.weight[packed(4*C,C)] pwconv2.bias[C] gamma_[C]) -> out[N,H,W,C]";
constexpr char kStageV2Packed[] =
    "x[N,H,W,C] n*(" CONV
    "pwconv1.weight[packed(C,4*C)] pwconv1.bias[4*C] grn.gamma[1,1,1,4*C] grn.beta[1,1,1,4*C] "
    "pwconv2.weight[packed(4*C,C)] pwconv2.bias[C]) -> out[N,H,W,C]";
constexpr char kPackWeight[] = "weight[O,I] -> packed[packed(I,O)]";
constexpr char kPackPatch[] = "weight[O,I,k,k] -> packed[k,packed_patch(k,I,O)]";
constexpr char kPatchPacked[] =
    "x[N,H,W,I] weight[k,packed_patch(k,I,O)] bias[O] norm.gamma[I] norm.beta[I] -> out[N,H/k,W/k,O]";
constexpr char kStemPacked[] =
    "x[N,I,H,W] weight[k,packed_patch(k,I,O)] bias[O] norm.gamma[O] norm.beta[O] -> out[N,H/k,W/k,O]";
constexpr char kPatch[] = "x[N,H,W,I] weight[O,I,k,k] bias[O] -> out[N,H/k,W/k,O]";
constexpr char kStem[] = "x[N,I,H,W] weight[O,I,k,k] bias[O] -> out[N,H/k,W/k,O]";
constexpr char kPatchInputGrad[] = "x[N,H,W,I] weight[O,I,k,k] dout[N,H/k,W/k,O] -> grad.x[N,H,W,I]";
constexpr char kStemInputGrad[] = "x[N,I,H,W] weight[O,I,k,k] dout[N,H/k,W/k,O] -> grad.x[N,I,H,W]";
constexpr char kPatchParamsGrad[] = "x[N,H,W,I] weight[O,I,k,k] dout[N,H/k,W/k,O] -> grad.weight[O,I,k,k] grad.bias[O]";
constexpr char kStemParamsGrad[] = "x[N,I,H,W] weight[O,I,k,k] dout[N,H/k,W/k,O] -> grad.weight[O,I,k,k] grad.bias[O]";
constexpr char kNorm[] = "x[...,C] gamma[C] beta[C] -> out[...,C] xhat[...,C] factor[...]";
constexpr char kNormGrad[] = "xhat[...,C] factor[...] gamma[C] dout[...,C] -> grad.x[...,C] grad.gamma[C] grad.beta[C]";
constexpr char kAdamW[] =
    "n*(weight[...]) n*(moment1[...]) n*(moment2[...]) n*(gradient[...]) rates[n] decays[n] constants[4] -> unused[1]";

// Each operator's name, signature, whether its products take numbers rounded to bfloat16, and what it runs.
#define MINDCV_OPERATORS(X)                                                                               \
  X(BlockV1, kBlockV1, false, block_forward(false, false, false, args, shapes))                           \
  X(BlockV2, kBlockV2, false, block_forward(false, true, false, args, shapes))                            \
  X(BlockV1Saving, kBlockV1Saving, false, block_forward(false, false, true, args, shapes))                \
  X(BlockV2Saving, kBlockV2Saving, false, block_forward(false, true, true, args, shapes))                 \
  X(BlockV1Grad, kBlockV1Grad, false, block_backward(false, false, args, shapes))                         \
  X(BlockV2Grad, kBlockV2Grad, false, block_backward(false, true, args, shapes))                          \
  X(StageV1Packed, kStageV1Packed, false, stage_packed(false, false, count, args, shapes))                \
  X(StageV2Packed, kStageV2Packed, false, stage_packed(false, true, count, args, shapes))                 \
  X(PackWeight, kPackWeight, false, pack_weight(false, args, shapes))                                     \
  X(PackPatch, kPackPatch, false, pack_patch(false, false, args, shapes))                                 \
  X(PackStem, kPackPatch, false, pack_patch(false, true, args, shapes))                                   \
  X(PatchPacked, kPatchPacked, false, patch_packed(false, false, args, shapes))                           \
  X(StemPacked, kStemPacked, false, patch_packed(false, true, args, shapes))                              \
  X(Patch, kPatch, false, patch_forward(false, false, args, shapes))                                      \
  X(Stem, kStem, false, patch_forward(false, true, args, shapes))                                         \
  X(PatchInputGrad, kPatchInputGrad, false, patch_backward_input(false, false, args, shapes))             \
  X(StemInputGrad, kStemInputGrad, false, patch_backward_input(false, true, args, shapes))                \
  X(PatchParamsGrad, kPatchParamsGrad, false, patch_backward_params(false, false, args, shapes))          \
  X(StemParamsGrad, kStemParamsGrad, false, patch_backward_params(false, true, args, shapes))             \
  X(BlockV1Bf16, kBlockV1, true, block_forward(true, false, false, args, shapes))                         \
  X(BlockV2Bf16, kBlockV2, true, block_forward(true, true, false, args, shapes))                          \
  X(BlockV1SavingBf16, kBlockV1Saving, true, block_forward(true, false, true, args, shapes))              \
  X(BlockV2SavingBf16, kBlockV2Saving, true, block_forward(true, true, true, args, shapes))               \
  X(BlockV1GradBf16, kBlockV1Grad, true, block_backward(true, false, args, shapes))                       \
  X(BlockV2GradBf16, kBlockV2Grad, true, block_backward(true, true, args, shapes))                        \
  X(StageV1PackedBf16, kStageV1Packed, true, stage_packed(true, false, count, args, shapes))              \
  X(StageV2PackedBf16, kStageV2Packed, true, stage_packed(true, true, count, args, shapes))               \
  X(PackWeightBf16, kPackWeight, true, pack_weight(true, args, shapes))                                   \
  X(PackPatchBf16, kPackPatch, true, pack_patch(true, false, args, shapes))                               \
  X(PackStemBf16, kPackPatch, true, pack_patch(true, true, args, shapes))                                 \
  X(PatchPackedBf16, kPatchPacked, true, patch_packed(true, false, args, shapes))                         \
  X(StemPackedBf16, kStemPacked, true, patch_packed(true, true, args, shapes))                            \
  X(PatchBf16, kPatch, true, patch_forward(true, false, args, shapes))                                    \
  X(StemBf16, kStem, true, patch_forward(true, true, args, shapes))                                       \
  X(PatchInputGradBf16, kPatchInputGrad, true, patch_backward_input(true, false, args, shapes))           \
  X(StemInputGradBf16, kStemInputGrad, true, patch_backward_input(true, true, args, shapes))              \
  X(PatchParamsGradBf16, kPatchParamsGrad, true, patch_backward_params(true, false, args, shapes))        \
  X(StemParamsGradBf16, kStemParamsGrad, true, patch_backward_params(true, true, args, shapes))           \
  X(Norm, kNorm, false, norm_forward(args, rows_of(dims[0], shapes[0]), shapes[0][dims[0] - 1]))          \
  X(NormGrad, kNormGrad, false, norm_backward(args, rows_of(dims[0], shapes[0]), shapes[0][dims[0] - 1])) \
  X(AdamW, kAdamW, false, adamw(count, args, dims, shapes))

using Operator = int (*)(int count, void** args, int* dims, int64_t** shapes, const char** types, void* stream,
                         void* extra);

}  // namespace

#define MINDCV_OPERATOR(name, signature, bf16, run)                                                          \
  extern "C" int name([[maybe_unused]] int count, void** args, [[maybe_unused]] int* dims, int64_t** shapes, \
                      const char** types, void*, void*) {                                                    \
    static const mindcv::Signature expected(signature);                                                      \
    expected.check(#name, bf16, kernels().packed_floats, {count, args, dims, shapes, types});                \
    kernels().run;                                                                                           \
    return 0;                                                                                                \
  }
MINDCV_OPERATORS(MINDCV_OPERATOR)

// Calls an operator for a caller that cannot take C++ exceptions. 0, or else `mindcv_last_error` has the reason.
extern "C" int mindcv_try(Operator run, int count, void** args, int* dims, int64_t** shapes, const char** types) {
  return mindcv::with_last_error([&] { run(count, args, dims, shapes, types, nullptr, nullptr); });
}

// The signature of an operator, or null where there is none of that name.
extern "C" const char* mindcv_signature(const char* name) {
#define MINDCV_SIGNATURE(operator_name, signature, bf16, run) \
  if (strcmp(name, #operator_name) == 0) return signature;
  MINDCV_OPERATORS(MINDCV_SIGNATURE)
  return nullptr;
}

extern "C" const char* mindcv_last_error() { return mindcv::last_error().c_str(); }
extern "C" int64_t mindcv_packed_floats(int bf16, int64_t k, int64_t n) {
  return kernels().packed_floats(bf16 != 0, k, n);
}
extern "C" int mindcv_kernels_threads(int wanted) {
  mindcv::set_pool_threads(wanted);
  return mindcv::pool_threads();
}
