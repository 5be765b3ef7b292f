"""The kernels as Cells, with their gradients.

All take and give float32. The arguments of the blocks are those of the layers they replace, in the order of the forward
pass; `keep` [N] is what each image's branch is multiplied by before it is added to x (stochastic depth), 1 for none.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Optional

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.ops import signature

from mindcv.kernels.library import library_path, packed_size

__all__ = [
    "AdamWKernel",
    "BlockV1Kernel",
    "BlockV2Kernel",
    "LayerNormKernel",
    "PackedPatchKernel",
    "PackedStageKernel",
    "PatchConvKernel",
]


_numbers = itertools.count()


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

    return _Operator(f"{library_path()}:{name}", infer_shape, infer_type, func_type="aot", bprop=bprop)


class _Operator(ops.Custom):
    """A function of the library. Copies of a network share it: it holds nothing that changes."""

    def __deepcopy__(self, memo: dict) -> _Operator:
        return self


def _suffix(bf16: bool) -> str:
    return "Bf16" if bf16 else ""


def _saved_shapes(x: list[int]) -> tuple:
    """Of what a block keeps for its gradient: its normalised map, the factors of that, the wide map."""
    n, h, w, c = x
    return x, [n * h * w], [n, h, w, 4 * c]


class BlockV1Kernel(nn.Cell):
    """A whole block of ConvNeXt on x [N, H, W, C]; with `bf16` the products take numbers rounded to bfloat16."""

    def __init__(self, bf16: bool = False):
        super().__init__()
        suffix = _suffix(bf16)
        grad = _operator(f"BlockV1Grad{suffix}", 10, lambda *inputs: inputs[:10])

        def saving_operator(bprop: Optional[Callable] = None) -> ops.Custom:
            return _operator(f"BlockV1Saving{suffix}", 4, lambda x, *_: (x, *_saved_shapes(x)), bprop)

        saving = saving_operator()

        def bprop(x, dw, dw_bias, norm, norm_bias, w1, b1, w2, b2, scale, keep, out, dout):
            _, xhat, factor, z = saving(x, dw, dw_bias, norm, norm_bias, w1, b1, w2, b2, scale, keep)
            inputs = (x, dw, dw_bias, norm, norm_bias, w1, b1, w2, b2, scale, keep)
            return grad(*inputs, dout, xhat, factor, z) + (ops.zeros_like(keep),)

        def bprop_saved(x, dw, dw_bias, norm, norm_bias, w1, b1, w2, b2, scale, keep, out, dout):
            inputs = (x, dw, dw_bias, norm, norm_bias, w1, b1, w2, b2, scale, keep)
            return grad(*inputs, dout[0], out[1], out[2], out[3]) + (ops.zeros_like(keep),)

        self.plain = _operator(f"BlockV1{suffix}", 1, lambda x, *_: (x,), bprop)
        self.saving = saving_operator(bprop_saved)

    def construct(self, x, dw, dw_bias, norm, norm_bias, w1, b1, w2, b2, scale, keep):
        if self.training:
            return self.saving(x, dw, dw_bias, norm, norm_bias, w1, b1, w2, b2, scale, keep)[0]
        # With a gradient all the same, the forward pass is done again for what it needs.
        return self.plain(x, dw, dw_bias, norm, norm_bias, w1, b1, w2, b2, scale, keep)


class BlockV2Kernel(nn.Cell):
    """A whole block of ConvNeXt V2 on x [N, H, W, C]; with `bf16` the products take numbers rounded to bfloat16."""

    def __init__(self, bf16: bool = False):
        super().__init__()
        suffix = _suffix(bf16)
        grad = _operator(f"BlockV2Grad{suffix}", 11, lambda *inputs: inputs[:11])

        def saving_operator(bprop: Optional[Callable] = None) -> ops.Custom:
            shapes = lambda x, *_: (x, *_saved_shapes(x), [x[0], 4 * x[3]])  # noqa: E731
            return _operator(f"BlockV2Saving{suffix}", 5, shapes, bprop)

        saving = saving_operator()

        def bprop(x, dw, dw_bias, norm, norm_bias, w1, b1, grn, grn_bias, w2, b2, keep, out, dout):
            _, xhat, factor, z, norms = saving(x, dw, dw_bias, norm, norm_bias, w1, b1, grn, grn_bias, w2, b2, keep)
            inputs = (x, dw, dw_bias, norm, norm_bias, w1, b1, grn, grn_bias, w2, b2, keep)
            return grad(*inputs, dout, xhat, factor, z, norms) + (ops.zeros_like(keep),)

        def bprop_saved(x, dw, dw_bias, norm, norm_bias, w1, b1, grn, grn_bias, w2, b2, keep, out, dout):
            inputs = (x, dw, dw_bias, norm, norm_bias, w1, b1, grn, grn_bias, w2, b2, keep)
            return grad(*inputs, dout[0], out[1], out[2], out[3], out[4]) + (ops.zeros_like(keep),)

        self.plain = _operator(f"BlockV2{suffix}", 1, lambda x, *_: (x,), bprop)
        self.saving = saving_operator(bprop_saved)

    def construct(self, x, dw, dw_bias, norm, norm_bias, w1, b1, grn, grn_bias, w2, b2, keep):
        if self.training:
            return self.saving(x, dw, dw_bias, norm, norm_bias, w1, b1, grn, grn_bias, w2, b2, keep)[0]
        # With a gradient all the same, the forward pass is done again for what it needs.
        return self.plain(x, dw, dw_bias, norm, norm_bias, w1, b1, grn, grn_bias, w2, b2, keep)


class PackedStageKernel(nn.Cell):
    """The forward pass of blocks one after the other, whose weights are packed once, for many calls.

    Args:
        blocks: of each block the weights, those of `BlockV1Kernel` (9) or `BlockV2Kernel` (10) between x and keep.
        bf16: products take numbers rounded to bfloat16.
    """

    def __init__(self, blocks: Sequence[tuple[Tensor, ...]], bf16: bool = False):
        super().__init__()
        is_v2 = len(blocks[0]) == 10
        inputs = []
        for weights in blocks:
            packed = {i: _packed(weights[i], bf16) for i in (4, 8 if is_v2 else 6)}  # of pwconv1 and pwconv2
            inputs += [packed.get(i, weight) for i, weight in enumerate(weights)]
        self.inputs = _fixed(inputs)
        self.operator = _operator(f"Stage{'V2' if is_v2 else 'V1'}Packed{_suffix(bf16)}", 1, lambda x, *_: (x,))

    def construct(self, x):
        return self.operator(x, *self.inputs)


class PackedPatchKernel(nn.Cell):
    """The forward pass of `PatchConvKernel` with its weight packed once, and the layer normalisation beside it.

    Args:
        weight: [O, I, k, k].
        bias: [O].
        gamma, beta: of the normalisation: of x before [I]; or, with `images`, of what goes out [O].
        bf16, images: as in `PatchConvKernel`.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, bf16: bool = False, images: bool = False
    ):
        super().__init__()
        out_channels, in_channels, size, _ = weight.shape
        name, suffix = _patch_name(images), _suffix(bf16)
        # The kernel's size is told by the first axis of the packed weight.
        count = -(-packed_size(size * size * in_channels, out_channels, bf16) // size)
        packed = _operator(f"Pack{name}{suffix}", 1, lambda w: ([size, count],))(weight)
        self.inputs = _fixed((packed, bias, gamma, beta))
        shapes = _patch_shapes(images, size, out_channels)
        self.operator = _operator(f"{name}Packed{suffix}", 1, lambda x, *_: shapes(x))

    def construct(self, x):
        return self.operator(x, *self.inputs)


def _fixed(values: Sequence[Tensor]) -> ParameterTuple:
    """Inputs of a graph. Not its constants, which are copied and hashed when it is compiled."""
    number = next(_numbers)  # all parameters of a graph need names of their own
    named = [(f"packed{number}.input{i}", value) for i, value in enumerate(values)]
    return ParameterTuple([Parameter(Tensor(value), name=name, requires_grad=False) for name, value in named])


def _packed(weight: Tensor, bf16: bool) -> Tensor:
    """A weight [O, I] in the form that products take: float32 [count], its bits of meaning to the kernels alone."""
    count = packed_size(weight.shape[1], weight.shape[0], bf16)
    return _operator(f"PackWeight{_suffix(bf16)}", 1, lambda w: ([count],))(weight)


def _patch_name(images: bool) -> str:
    return "Stem" if images else "Patch"


def _patch_shapes(images: bool, size: int, out_channels: int) -> Callable:
    """What comes out of a patch convolution, from the shape of what goes in."""

    def shapes(x):
        height, width = (x[2], x[3]) if images else (x[1], x[2])
        return ([x[0], height // size, width // size, out_channels],)

    return shapes


class PatchConvKernel(nn.Cell):
    """Convolution of x [N, H, W, I] with weight [O, I, k, k] at stride k: [N, H // k, W // k, O].

    With `images` x is [N, I, H, W]; with `bf16` the products take numbers rounded to bfloat16.
    """

    def __init__(self, bf16: bool = False, images: bool = False):
        super().__init__()
        name, suffix = _patch_name(images), _suffix(bf16)
        # Two operators, so that the graph drops the gradient of images that nobody asks for.
        input_grad = _operator(f"{name}InputGrad{suffix}", 1, lambda x, *_: (x,))
        params_grad = _operator(f"{name}ParamsGrad{suffix}", 2, lambda x, weight, dout: (weight, weight[:1]))

        def bprop(x, weight, bias, out, dout):
            return (input_grad(x, weight, dout), *params_grad(x, weight, dout))

        def shapes(x, weight, bias):
            return _patch_shapes(images, weight[2], weight[0])(x)

        self.forward = _operator(f"{name}{suffix}", 1, shapes, bprop)

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


class AdamWKernel(nn.Cell):
    """A step of AdamW on all of a network's parameters, in place, in one pass over their memory.

    Args:
        count: of parameters, n.

    Inputs:
        weights, moments1, moments2: n parameters each.
        gradients: n tensors.
        rates, decays: [n].
        constants: [4]: both betas; eps times the root, and the quotient, of the corrections, see `mindcv.optim.AdamW`.

    Returns:
        A tensor [1] of no meaning.
    """

    def __init__(self, count: int):
        super().__init__(auto_prefix=False)
        self.operator = _operator("AdamW", 1, lambda *_: ([1],))
        # Without these MindSpore gives the operator copies, and may drop it, as nothing uses what it returns.
        self.operator.add_prim_attr("side_effect_mem", True)
        written = [signature.make_sig(f"written{i}", signature.sig_rw.RW_WRITE) for i in range(3 * count)]
        self.operator.set_signatures((*written, *(signature.make_sig(f"read{i}") for i in range(count + 3))))

    def construct(self, weights, moments1, moments2, gradients, rates, decays, constants):
        return self.operator(*weights, *moments1, *moments2, *gradients, rates, decays, constants)
