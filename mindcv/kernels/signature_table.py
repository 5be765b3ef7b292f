"""The table of all kernels with their signatures.

A signature lists the inputs and outputs of a kernel in their order, with their shapes:

    x[N,H,W,I] weight[O,I,k,k] bias[O] -> out[N,H/k,W/k,O]

- The same letter stands for the same number in all arguments of a call.
- `4*C` is a product, and `H/k` is a quotient that is rounded down.
- `packed(k,n)` is the size of a packed weight [n, k]. `packed_patch(k,I,O)` is the length of the rows of a packed patch
  convolution.
- `...` stands for any dimensions. They are the same in all arguments of a call.
- `n*(a[C] b[C])` repeats its arguments n times. The dimensions of `...` may then differ between repetitions, but
  repetition i has the same ones in all groups.
- Every argument is float32. Every dimension is at least 1, except those of `...`.

The C++ files of the operators, `csrc/network/*.cc`, register the same names with the same signatures. Python compares
both tables when it loads the library and does not use a library that differs. See decision 0033.
"""

from __future__ import annotations

__all__ = ["SIGNATURES"]

_CONV = "dwconv.weight[C,1,7,7] dwconv.bias[C] norm.gamma[C] norm.beta[C]"
_V1 = f"{_CONV} pwconv1.weight[4*C,C] pwconv1.bias[4*C] pwconv2.weight[C,4*C] pwconv2.bias[C] gamma_[C]"
_V2 = (
    f"{_CONV} pwconv1.weight[4*C,C] pwconv1.bias[4*C] grn.gamma[1,1,1,4*C] grn.beta[1,1,1,4*C] "
    "pwconv2.weight[C,4*C] pwconv2.bias[C]"
)
_V1_PACKED = (
    f"{_CONV} pwconv1.weight[packed(C,4*C)] pwconv1.bias[4*C] pwconv2.weight[packed(4*C,C)] pwconv2.bias[C] gamma_[C]"
)
_V2_PACKED = (
    f"{_CONV} pwconv1.weight[packed(C,4*C)] pwconv1.bias[4*C] grn.gamma[1,1,1,4*C] grn.beta[1,1,1,4*C] "
    "pwconv2.weight[packed(4*C,C)] pwconv2.bias[C]"
)
_SAVED = "xhat[N,H,W,C] factor[N*H*W] z[N,H,W,4*C]"


def _gradients(parameters: str) -> str:
    return " ".join(f"grad.{argument}" for argument in parameters.split())


_BLOCK_V1 = f"x[N,H,W,C] {_V1} keep[N] -> out[N,H,W,C]"
_BLOCK_V2 = f"x[N,H,W,C] {_V2} keep[N] -> out[N,H,W,C]"
_BLOCK_V1_SAVING = f"{_BLOCK_V1} {_SAVED}"
_BLOCK_V2_SAVING = f"{_BLOCK_V2} {_SAVED} norms[N,4*C]"
_BLOCK_V1_GRAD = f"x[N,H,W,C] {_V1} keep[N] dout[N,H,W,C] {_SAVED} -> grad.x[N,H,W,C] {_gradients(_V1)}"
_BLOCK_V2_GRAD = f"x[N,H,W,C] {_V2} keep[N] dout[N,H,W,C] {_SAVED} norms[N,4*C] -> grad.x[N,H,W,C] {_gradients(_V2)}"
_STAGE_V1 = f"x[N,H,W,C] n*({_V1_PACKED}) -> out[N,H,W,C]"
_STAGE_V2 = f"x[N,H,W,C] n*({_V2_PACKED}) -> out[N,H,W,C]"
_PACK_WEIGHT = "weight[O,I] -> packed[packed(I,O)]"
_PACK_PATCH = "weight[O,I,k,k] -> packed[k,packed_patch(k,I,O)]"
_PATCH_PACKED = "x[N,H,W,I] weight[k,packed_patch(k,I,O)] bias[O] norm.gamma[I] norm.beta[I] -> out[N,H/k,W/k,O]"
_STEM_PACKED = "x[N,I,H,W] weight[k,packed_patch(k,I,O)] bias[O] norm.gamma[O] norm.beta[O] -> out[N,H/k,W/k,O]"
_PATCH = "x[N,H,W,I] weight[O,I,k,k] bias[O] -> out[N,H/k,W/k,O]"
_STEM = "x[N,I,H,W] weight[O,I,k,k] bias[O] -> out[N,H/k,W/k,O]"
_PATCH_INPUT_GRAD = "x[N,H,W,I] weight[O,I,k,k] dout[N,H/k,W/k,O] -> grad.x[N,H,W,I]"
_STEM_INPUT_GRAD = "x[N,I,H,W] weight[O,I,k,k] dout[N,H/k,W/k,O] -> grad.x[N,I,H,W]"
_PATCH_PARAMS_GRAD = "x[N,H,W,I] weight[O,I,k,k] dout[N,H/k,W/k,O] -> grad.weight[O,I,k,k] grad.bias[O]"
_STEM_PARAMS_GRAD = "x[N,I,H,W] weight[O,I,k,k] dout[N,H/k,W/k,O] -> grad.weight[O,I,k,k] grad.bias[O]"


# FCMAE. A mask [N, S, T] removes patches of P x P cells, and a compact map [N*S*T, P, P, C] holds the visible patches,
# as csrc/runtime/visible_cells.h describes. `grn_scope` is 0 for norms of each image and 1 for norms of the batch.
_VISIBLE_SAVED = "xhat[N*S*T,P,P,C] factor[N*S*T*P*P] z[N*S*T,P,P,4*C] norms[N,4*C]"
_VISIBLE_BLOCK_V2 = f"x[N*S*T,P,P,C] mask[N,S,T] grn_scope[1] {_V2} -> out[N*S*T,P,P,C]"
_VISIBLE_BLOCK_V2_SAVING = f"{_VISIBLE_BLOCK_V2} {_VISIBLE_SAVED}"
_VISIBLE_BLOCK_V2_GRAD = (
    f"x[N*S*T,P,P,C] mask[N,S,T] grn_scope[1] {_V2} dout[N*S*T,P,P,C] {_VISIBLE_SAVED} -> grad.x[N*S*T,P,P,C] "
    f"{_gradients(_V2)}"
)
_VISIBLE_PATCH = "x[N*S*T,P,P,I] mask[N,S,T] weight[O,I,k,k] bias[O] -> out[N*S*T,P/k,P/k,O]"
_VISIBLE_STEM = "x[N,I,H,W] mask[N,S,T] weight[O,I,k,k] bias[O] -> out[N*S*T,H/S/k,W/T/k,O]"
_VISIBLE_PATCH_DOUT = "x[N*S*T,P,P,I] mask[N,S,T] weight[O,I,k,k] dout[N*S*T,P/k,P/k,O]"
_VISIBLE_STEM_DOUT = "x[N,I,H,W] mask[N,S,T] weight[O,I,k,k] dout[N*S*T,H/S/k,W/T/k,O]"
_VISIBLE_PATCH_INPUT_GRAD = f"{_VISIBLE_PATCH_DOUT} -> grad.x[N*S*T,P,P,I]"
_VISIBLE_STEM_INPUT_GRAD = f"{_VISIBLE_STEM_DOUT} -> grad.x[N,I,H,W]"
_VISIBLE_PATCH_PARAMS_GRAD = f"{_VISIBLE_PATCH_DOUT} -> grad.weight[O,I,k,k] grad.bias[O]"
_VISIBLE_STEM_PARAMS_GRAD = f"{_VISIBLE_STEM_DOUT} -> grad.weight[O,I,k,k] grad.bias[O]"

# The kernels whose names end in Bf16 round the factors of their products to bfloat16. See decision 0032.
SIGNATURES = {
    "BlockV1": _BLOCK_V1,
    "BlockV1Bf16": _BLOCK_V1,
    "BlockV2": _BLOCK_V2,
    "BlockV2Bf16": _BLOCK_V2,
    "BlockV1Saving": _BLOCK_V1_SAVING,
    "BlockV1SavingBf16": _BLOCK_V1_SAVING,
    "BlockV2Saving": _BLOCK_V2_SAVING,
    "BlockV2SavingBf16": _BLOCK_V2_SAVING,
    "BlockV1Grad": _BLOCK_V1_GRAD,
    "BlockV1GradBf16": _BLOCK_V1_GRAD,
    "BlockV2Grad": _BLOCK_V2_GRAD,
    "BlockV2GradBf16": _BLOCK_V2_GRAD,
    "StageV1Packed": _STAGE_V1,
    "StageV1PackedBf16": _STAGE_V1,
    "StageV2Packed": _STAGE_V2,
    "StageV2PackedBf16": _STAGE_V2,
    "PackWeight": _PACK_WEIGHT,
    "PackWeightBf16": _PACK_WEIGHT,
    "PackPatch": _PACK_PATCH,
    "PackPatchBf16": _PACK_PATCH,
    "PackStem": _PACK_PATCH,
    "PackStemBf16": _PACK_PATCH,
    "PatchPacked": _PATCH_PACKED,
    "PatchPackedBf16": _PATCH_PACKED,
    "StemPacked": _STEM_PACKED,
    "StemPackedBf16": _STEM_PACKED,
    "Patch": _PATCH,
    "PatchBf16": _PATCH,
    "Stem": _STEM,
    "StemBf16": _STEM,
    "PatchInputGrad": _PATCH_INPUT_GRAD,
    "PatchInputGradBf16": _PATCH_INPUT_GRAD,
    "StemInputGrad": _STEM_INPUT_GRAD,
    "StemInputGradBf16": _STEM_INPUT_GRAD,
    "PatchParamsGrad": _PATCH_PARAMS_GRAD,
    "PatchParamsGradBf16": _PATCH_PARAMS_GRAD,
    "StemParamsGrad": _STEM_PARAMS_GRAD,
    "StemParamsGradBf16": _STEM_PARAMS_GRAD,
    "VisibleBlockV2": _VISIBLE_BLOCK_V2,
    "VisibleBlockV2Bf16": _VISIBLE_BLOCK_V2,
    "VisibleBlockV2Saving": _VISIBLE_BLOCK_V2_SAVING,
    "VisibleBlockV2SavingBf16": _VISIBLE_BLOCK_V2_SAVING,
    "VisibleBlockV2Grad": _VISIBLE_BLOCK_V2_GRAD,
    "VisibleBlockV2GradBf16": _VISIBLE_BLOCK_V2_GRAD,
    "VisiblePatch": _VISIBLE_PATCH,
    "VisiblePatchBf16": _VISIBLE_PATCH,
    "VisibleStem": _VISIBLE_STEM,
    "VisibleStemBf16": _VISIBLE_STEM,
    "VisiblePatchInputGrad": _VISIBLE_PATCH_INPUT_GRAD,
    "VisiblePatchInputGradBf16": _VISIBLE_PATCH_INPUT_GRAD,
    "VisibleStemInputGrad": _VISIBLE_STEM_INPUT_GRAD,
    "VisibleStemInputGradBf16": _VISIBLE_STEM_INPUT_GRAD,
    "VisiblePatchParamsGrad": _VISIBLE_PATCH_PARAMS_GRAD,
    "VisiblePatchParamsGradBf16": _VISIBLE_PATCH_PARAMS_GRAD,
    "VisibleStemParamsGrad": _VISIBLE_STEM_PARAMS_GRAD,
    "VisibleStemParamsGradBf16": _VISIBLE_STEM_PARAMS_GRAD,
    "VisibleNorm": (
        "x[N*S*T,P,P,C] mask[N,S,T] gamma[C] beta[C] -> out[N*S*T,P,P,C] xhat[N*S*T,P,P,C] factor[N*S*T*P*P]"
    ),
    "VisibleNormGrad": (
        "mask[N,S,T] xhat[N*S*T,P,P,C] factor[N*S*T*P*P] gamma[C] dout[N*S*T,P,P,C] -> grad.x[N*S*T,P,P,C] "
        "grad.gamma[C] grad.beta[C]"
    ),
    "SpreadVisible": "x[N*S*T,P,P,C] mask[N,S,T] -> out[N,S*P,T*P,C]",
    "SpreadVisibleGrad": "x[N*S*T,P,P,C] mask[N,S,T] dout[N,S*P,T*P,C] -> grad.x[N*S*T,P,P,C]",
    "Norm": "x[...,C] gamma[C] beta[C] -> out[...,C] xhat[...,C] factor[...]",
    "NormGrad": "xhat[...,C] factor[...] gamma[C] dout[...,C] -> grad.x[...,C] grad.gamma[C] grad.beta[C]",
    "AdamW": (
        "n*(weight[...]) n*(moment1[...]) n*(moment2[...]) n*(gradient[...]) rates[n] decays[n] constants[4] "
        "-> unused[1]"
    ),
}
