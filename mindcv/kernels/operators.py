"""The kernels as Cells, with their gradients.

All take and give float32. The arguments of the blocks are those of the layers they replace, in the order of the forward
pass; `keep` [N] is what each image's branch is multiplied by before it is added to x (stochastic depth), 1 for none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Optional

import mindspore as ms
from mindspore import nn, ops

from mindcv.kernels.library import library_path

__all__ = ["BlockV1Kernel", "BlockV2Kernel", "LayerNormKernel", "PatchConvKernel"]


def _operator(name: str, num_outputs: int, shapes: Callable, bprop: Optional[Callable] = None) -> ops.Custom:
    """The library's function `name`; `shapes` maps the shapes of its inputs to a tuple of those of its outputs."""

    def infer_shape(*inputs):
        outputs = shapes(*inputs)
        return outputs if num_outputs > 1 else outputs[0]

    def infer_type(*inputs):
        for dtype in inputs:
            element = dtype.element_type() if hasattr(dtype, "element_type") else dtype
            if element != ms.float32:
                raise TypeError(f"the kernel {name} computes in float32, and got {dtype}")
        return (ms.float32,) * num_outputs if num_outputs > 1 else ms.float32

    return ops.Custom(f"{library_path()}:{name}", infer_shape, infer_type, func_type="aot", bprop=bprop)


def _saved_shapes(x: list[int]) -> tuple:
    """Of what a block keeps for its gradient: its normalised map, the factors of that, the wide map."""
    n, h, w, c = x
    return x, [n * h * w], [n, h, w, 4 * c]


class BlockV1Kernel(nn.Cell):
    """A whole block of ConvNeXt on x [N, H, W, C]."""

    def __init__(self):
        super().__init__()
        grad = _operator("BlockV1Grad", 10, lambda *inputs: inputs[:10])
        saving = _operator("BlockV1Saving", 4, lambda x, *_: (x, *_saved_shapes(x)))

        def bprop(x, dw, dw_bias, norm, norm_bias, w1, b1, w2, b2, scale, keep, out, dout):
            _, xhat, factor, z = saving(x, dw, dw_bias, norm, norm_bias, w1, b1, w2, b2, scale, keep)
            inputs = (x, dw, dw_bias, norm, norm_bias, w1, b1, w2, b2, scale, keep)
            return grad(*inputs, dout, xhat, factor, z) + (ops.zeros_like(keep),)

        def bprop_saved(x, dw, dw_bias, norm, norm_bias, w1, b1, w2, b2, scale, keep, out, dout):
            inputs = (x, dw, dw_bias, norm, norm_bias, w1, b1, w2, b2, scale, keep)
            return grad(*inputs, dout[0], out[1], out[2], out[3]) + (ops.zeros_like(keep),)

        self.plain = _operator("BlockV1", 1, lambda x, *_: (x,), bprop)
        self.saving = _operator("BlockV1Saving", 4, lambda x, *_: (x, *_saved_shapes(x)), bprop_saved)

    def construct(self, x, dw, dw_bias, norm, norm_bias, w1, b1, w2, b2, scale, keep):
        if self.training:
            return self.saving(x, dw, dw_bias, norm, norm_bias, w1, b1, w2, b2, scale, keep)[0]
        # With a gradient all the same, the forward pass is done again for what it needs.
        return self.plain(x, dw, dw_bias, norm, norm_bias, w1, b1, w2, b2, scale, keep)


class BlockV2Kernel(nn.Cell):
    """A whole block of ConvNeXt V2 on x [N, H, W, C]."""

    def __init__(self):
        super().__init__()
        grad = _operator("BlockV2Grad", 11, lambda *inputs: inputs[:11])
        saving = _operator("BlockV2Saving", 5, lambda x, *_: (x, *_saved_shapes(x), [x[0], 4 * x[3]]))

        def bprop(x, dw, dw_bias, norm, norm_bias, w1, b1, grn, grn_bias, w2, b2, keep, out, dout):
            _, xhat, factor, z, norms = saving(x, dw, dw_bias, norm, norm_bias, w1, b1, grn, grn_bias, w2, b2, keep)
            inputs = (x, dw, dw_bias, norm, norm_bias, w1, b1, grn, grn_bias, w2, b2, keep)
            return grad(*inputs, dout, xhat, factor, z, norms) + (ops.zeros_like(keep),)

        def bprop_saved(x, dw, dw_bias, norm, norm_bias, w1, b1, grn, grn_bias, w2, b2, keep, out, dout):
            inputs = (x, dw, dw_bias, norm, norm_bias, w1, b1, grn, grn_bias, w2, b2, keep)
            return grad(*inputs, dout[0], out[1], out[2], out[3], out[4]) + (ops.zeros_like(keep),)

        self.plain = _operator("BlockV2", 1, lambda x, *_: (x,), bprop)
        self.saving = _operator("BlockV2Saving", 5, lambda x, *_: (x, *_saved_shapes(x), [x[0], 4 * x[3]]), bprop_saved)

    def construct(self, x, dw, dw_bias, norm, norm_bias, w1, b1, grn, grn_bias, w2, b2, keep):
        if self.training:
            return self.saving(x, dw, dw_bias, norm, norm_bias, w1, b1, grn, grn_bias, w2, b2, keep)[0]
        # With a gradient all the same, the forward pass is done again for what it needs.
        return self.plain(x, dw, dw_bias, norm, norm_bias, w1, b1, grn, grn_bias, w2, b2, keep)


class PatchConvKernel(nn.Cell):
    """Convolution of x [N, H, W, I] with weight [O, I, k, k] at stride k: [N, H // k, W // k, O]."""

    def __init__(self):
        super().__init__()
        # Two operators, so that the graph drops the gradient of images that nobody asks for.
        input_grad = _operator("PatchInputGrad", 1, lambda x, *_: (x,))
        params_grad = _operator("PatchParamsGrad", 2, lambda x, weight, dout: (weight, weight[:1]))

        def bprop(x, weight, bias, out, dout):
            return (input_grad(x, weight, dout), *params_grad(x, weight, dout))

        def shapes(x, weight, bias):
            k = weight[2]
            return ([x[0], x[1] // k, x[2] // k, weight[0]],)

        self.forward = _operator("Patch", 1, shapes, bprop)

    def construct(self, x, weight, bias):
        return self.forward(x, weight, bias)


class LayerNormKernel(nn.Cell):
    """Layer normalisation of the last axis of x [..., C], eps 1e-6."""

    def __init__(self):
        super().__init__()
        grad = _operator("NormGrad", 3, lambda xhat, factor, gamma, dy: (xhat, gamma, gamma))

        def bprop(x, gamma, beta, out, dout):
            return grad(out[1], out[2], gamma, dout[0])

        self.forward = _operator("Norm", 3, lambda x, *_: (x, x, x[:-1]), bprop)

    def construct(self, x, gamma, beta):
        return self.forward(x, gamma, beta)[0]
