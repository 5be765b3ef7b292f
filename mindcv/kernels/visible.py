"""The kernels of FCMAE as Cells, with their gradients: they compute the visible patches of an image only.

A compact map [N * S * T, P, P, C] holds the visible patches of N images with S x T patches one after the other. The
rest of it is undefined. A mask [N, S, T] says which patches are visible: 0 for a visible patch, 1 for a removed one.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindcv.kernels.operators import make_operator
from mindcv.kernels.signatures import signature_of

__all__ = ["SpreadVisibleKernel", "VisibleBlockKernel", "VisibleNormKernel", "VisiblePatchKernel"]

_BLOCK = {
    False: ("VisibleBlockV2", "VisibleBlockV2Saving", "VisibleBlockV2Grad"),
    True: ("VisibleBlockV2Bf16", "VisibleBlockV2SavingBf16", "VisibleBlockV2GradBf16"),
}
# By `images` and `bf16`.
_PATCH = {
    (False, False): ("VisiblePatch", "VisiblePatchInputGrad", "VisiblePatchParamsGrad"),
    (False, True): ("VisiblePatchBf16", "VisiblePatchInputGradBf16", "VisiblePatchParamsGradBf16"),
    (True, False): ("VisibleStem", "VisibleStemInputGrad", "VisibleStemParamsGrad"),
    (True, True): ("VisibleStemBf16", "VisibleStemInputGradBf16", "VisibleStemParamsGradBf16"),
}


class VisibleBlockKernel(nn.Cell):
    """A block of ConvNeXt V2 on a compact map. A removed cell is 0 to its neighbours.

    Args:
        bf16: whether the products round their factors to bfloat16.
        is_over_batch: whether GRN takes the norms over the batch instead of over each image.
        saves: whether the forward pass in training saves what the gradient needs, instead of computing it again.

    Inputs:
        x: compact map [N * S * T, P, P, C].
        mask: [N, S, T].
        weights: the parameters of the block by their names in the kernel's signature.
    """

    def __init__(self, bf16: bool = False, is_over_batch: bool = False, saves: bool = True):
        super().__init__()
        forward, saving, grad = _BLOCK[bf16]
        inputs, saved = signature_of(forward).input_names, signature_of(saving).output_names[1:]
        assert signature_of(saving).input_names == inputs
        assert signature_of(grad).input_names == (*inputs, "dout", *saved)
        self.weight_names = inputs[3:]
        self.scope = Tensor([float(is_over_batch)], ms.float32)
        self.saves = saves
        self.plain = make_operator(forward, _block_bprop(forward, saving, grad, saves=False))
        self.saving = make_operator(saving, _block_bprop(forward, saving, grad, saves=True))

    def construct(self, x, mask, weights: Mapping[str, Tensor]):
        inputs = (x, mask, self.scope, *[weights[name] for name in self.weight_names])
        if self.training and self.saves:
            return self.saving(*inputs)[0]
        return self.plain(*inputs)


def _block_bprop(forward: str, saving: str, grad: str, saves: bool) -> Callable:
    """The gradient of the operator `forward` or, with `saves`, of `saving`."""
    gradient, again = make_operator(grad), make_operator(saving)
    order = signature_of(forward).input_names

    def bprop(
        x, mask, grn_scope, dwconv_weight, dwconv_bias, norm_gamma, norm_beta,
        pwconv1_weight, pwconv1_bias, grn_gamma, grn_beta, pwconv2_weight, pwconv2_bias, out, dout,
    ):  # fmt: skip
        inputs = (
            x, mask, grn_scope, dwconv_weight, dwconv_bias, norm_gamma, norm_beta,
            pwconv1_weight, pwconv1_bias, grn_gamma, grn_beta, pwconv2_weight, pwconv2_bias,
        )  # fmt: skip
        if saves:
            gradients = gradient(*inputs, dout[0], *out[1:])
        else:  # The forward pass is done again for what the gradient needs.
            gradients = gradient(*inputs, dout, *again(*inputs)[1:])
        return (gradients[0], ops.zeros_like(mask), ops.zeros_like(grn_scope), *gradients[1:])

    expected = [*(name.replace(".", "_") for name in order), "out", "dout"]
    assert list(inspect.signature(bprop).parameters) == expected, f"the gradient of {forward} takes {expected}"
    return bprop


class VisiblePatchKernel(nn.Cell):
    """Convolution whose stride is its kernel size k, of a compact map.

    Args:
        bf16: whether the products round their factors to bfloat16.
        images: whether x are images [N, I, H, W], of which the visible patches are taken.

    Inputs:
        x: compact map [N * S * T, P, P, I], or images.
        mask: [N, S, T].
        weight: [O, I, k, k].
        bias: [O].

    Returns:
        Compact map [N * S * T, P / k, P / k, O]; with images, P is the side of a patch in pixels.
    """

    def __init__(self, bf16: bool = False, images: bool = False):
        super().__init__()
        forward, input_grad, params_grad = _PATCH[images, bf16]
        # Two operators, so that the graph drops the gradient of images that nobody asks for.
        of_input, of_params = make_operator(input_grad), make_operator(params_grad)

        def bprop(x, mask, weight, bias, out, dout):
            dx = of_input(x, mask, weight, dout)
            return (dx, ops.zeros_like(mask), *of_params(x, mask, weight, dout))

        self.forward = make_operator(forward, bprop)

    def construct(self, x, mask, weight, bias):
        return self.forward(x, mask, weight, bias)


class VisibleNormKernel(nn.Cell):
    """Layer normalisation of a compact map x [N * S * T, P, P, C] over C, eps 1e-6; gamma and beta [C]."""

    def __init__(self):
        super().__init__()
        grad = make_operator("VisibleNormGrad")

        def bprop(x, mask, gamma, beta, out, dout):
            dx, dgamma, dbeta = grad(mask, out[1], out[2], gamma, dout[0])
            return dx, ops.zeros_like(mask), dgamma, dbeta

        self.forward = make_operator("VisibleNorm", bprop)

    def construct(self, x, mask, gamma, beta):
        return self.forward(x, mask, gamma, beta)[0]


class SpreadVisibleKernel(nn.Cell):
    """Compact map [N * S * T, P, P, C] to the map of all cells [N, S * P, T * P, C], with 0 in the removed ones."""

    def __init__(self):
        super().__init__()
        grad = make_operator("SpreadVisibleGrad")

        def bprop(x, mask, out, dout):
            return grad(x, mask, dout), ops.zeros_like(mask)

        self.forward = make_operator("SpreadVisible", bprop)

    def construct(self, x, mask):
        return self.forward(x, mask)
