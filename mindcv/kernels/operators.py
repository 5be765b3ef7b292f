"""The kernels as Cells with gradients. All inputs and outputs are float32.

Only `signature_table` defines the order of a kernel's arguments. Callers pass the parameters of a block by name.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Optional

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.ops import signature

from mindcv.kernels.library import library_path
from mindcv.kernels.signatures import signature_of

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


def make_operator(name: str, bprop: Optional[Callable] = None) -> ops.Custom:
    """Create the operator of the kernel `name`.

    MindSpore calls `infer_shape` and `infer_type` before the kernel runs, in graph mode and in PyNative mode.
    """
    expected = signature_of(name)
    num_outputs = len(expected.outputs)

    def infer_shape(*inputs):
        outputs = expected.output_shapes(tuple(map(tuple, inputs)))
        return tuple(map(list, outputs)) if num_outputs > 1 else list(outputs[0])

    def infer_type(*inputs):
        for index, dtype in enumerate(inputs):
            element = dtype.element_type() if hasattr(dtype, "element_type") else dtype
            if element != ms.float32:
                raise expected.wrong_type(index, str(element), len(inputs))
        return (ms.float32,) * num_outputs if num_outputs > 1 else ms.float32

    return _Operator(f"{library_path()}:{name}", infer_shape, infer_type, func_type="aot", bprop=bprop)


class _Operator(ops.Custom):
    """An operator of the library. Copies of a network share it, because it has no state."""

    def __deepcopy__(self, memo: dict) -> _Operator:
        return self


class _BlockNames(NamedTuple):
    """Names of the kernels of a block."""

    forward: str
    saving: str
    grad: str
    stage: str


class _PatchNames(NamedTuple):
    """Names of the kernels of a patch convolution."""

    forward: str
    input_grad: str
    params_grad: str
    pack: str
    packed: str


# The keys are `bf16`.
_BLOCK_V1 = {
    False: _BlockNames("BlockV1", "BlockV1Saving", "BlockV1Grad", "StageV1Packed"),
    True: _BlockNames("BlockV1Bf16", "BlockV1SavingBf16", "BlockV1GradBf16", "StageV1PackedBf16"),
}
_BLOCK_V2 = {
    False: _BlockNames("BlockV2", "BlockV2Saving", "BlockV2Grad", "StageV2Packed"),
    True: _BlockNames("BlockV2Bf16", "BlockV2SavingBf16", "BlockV2GradBf16", "StageV2PackedBf16"),
}
_PACK_WEIGHT = {False: "PackWeight", True: "PackWeightBf16"}
# The keys are `images` and `bf16`.
_PATCH = {
    (False, False): _PatchNames("Patch", "PatchInputGrad", "PatchParamsGrad", "PackPatch", "PatchPacked"),
    (False, True): _PatchNames(
        "PatchBf16", "PatchInputGradBf16", "PatchParamsGradBf16", "PackPatchBf16", "PatchPackedBf16"
    ),
    (True, False): _PatchNames("Stem", "StemInputGrad", "StemParamsGrad", "PackStem", "StemPacked"),
    (True, True): _PatchNames("StemBf16", "StemInputGradBf16", "StemParamsGradBf16", "PackStemBf16", "StemPackedBf16"),
}


def _block_gradients(names: _BlockNames, saves: bool) -> Callable:
    """Return a function that computes the gradients of a block's inputs.

    Its arguments are the inputs, the outputs of the forward kernel and their gradients. `saves` says whether the
    forward kernel was `names.saving`.
    """
    grad, saving = make_operator(names.grad), make_operator(names.saving)

    def gradients(inputs, out, dout):
        no_gradient = (ops.zeros_like(inputs[-1]),)  # The last input is `keep`, which needs no gradient.
        if saves:
            return grad(*inputs, dout[0], *out[1:]) + no_gradient
        # Run the forward pass again to get the values that the gradient needs.
        return grad(*inputs, dout, *saving(*inputs)[1:]) + no_gradient

    return gradients


def _block_v1_bprop(names: _BlockNames, saves: bool) -> Callable:
    """Return the gradient function of the kernel `names.forward` or, with `saves`, of `names.saving`."""
    gradients, order = _block_gradients(names, saves), signature_of(names.forward).input_names

    def bprop(
        x, dwconv_weight, dwconv_bias, norm_gamma, norm_beta,
        pwconv1_weight, pwconv1_bias, pwconv2_weight, pwconv2_bias, gamma_, keep, out, dout,
    ):  # fmt: skip
        given = {
            "x": x,
            "dwconv.weight": dwconv_weight,
            "dwconv.bias": dwconv_bias,
            "norm.gamma": norm_gamma,
            "norm.beta": norm_beta,
            "pwconv1.weight": pwconv1_weight,
            "pwconv1.bias": pwconv1_bias,
            "pwconv2.weight": pwconv2_weight,
            "pwconv2.bias": pwconv2_bias,
            "gamma_": gamma_,
            "keep": keep,
        }
        return gradients([given[name] for name in order], out, dout)

    return bprop


def _block_v2_bprop(names: _BlockNames, saves: bool) -> Callable:
    """Return the gradient function of the kernel `names.forward` or, with `saves`, of `names.saving`."""
    gradients, order = _block_gradients(names, saves), signature_of(names.forward).input_names

    def bprop(
        x, dwconv_weight, dwconv_bias, norm_gamma, norm_beta,
        pwconv1_weight, pwconv1_bias, grn_gamma, grn_beta, pwconv2_weight, pwconv2_bias, keep, out, dout,
    ):  # fmt: skip
        given = {
            "x": x,
            "dwconv.weight": dwconv_weight,
            "dwconv.bias": dwconv_bias,
            "norm.gamma": norm_gamma,
            "norm.beta": norm_beta,
            "pwconv1.weight": pwconv1_weight,
            "pwconv1.bias": pwconv1_bias,
            "grn.gamma": grn_gamma,
            "grn.beta": grn_beta,
            "pwconv2.weight": pwconv2_weight,
            "pwconv2.bias": pwconv2_bias,
            "keep": keep,
        }
        return gradients([given[name] for name in order], out, dout)

    return bprop


def _check_orders(names: _BlockNames, bprop: Callable) -> None:
    """Check that a block's kernels and its gradient function take their arguments in matching orders."""
    forward, saving, grad = (signature_of(name) for name in (names.forward, names.saving, names.grad))
    inputs, saved = forward.input_names, saving.output_names[1:]
    assert saving.input_names == inputs
    assert grad.input_names == (*inputs, "dout", *saved)
    assert grad.output_names == tuple(f"grad.{name}" for name in inputs if name != "keep")
    expected = [*(name.replace(".", "_") for name in inputs), "out", "dout"]
    assert list(inspect.signature(bprop).parameters) == expected, f"the gradient of {names.forward} takes {expected}"


class _BlockKernel(nn.Cell):
    """Computes a whole block. See decision 0019.

    In training, the forward kernel also saves the values that the gradient needs.

    Args:
        names: names of the block's kernels.
        make_bprop: function that creates the gradient function.

    Inputs:
        x: feature map [N, H, W, C].
        weights: parameters of the block by their names in the kernel's signature.
        keep: factor [N] on the branch of each image before it is added to x (stochastic depth). 1 has no effect.

    Outputs:
        Feature map [N, H, W, C].
    """

    def __init__(self, names: _BlockNames, make_bprop: Callable[[_BlockNames, bool], Callable]):
        super().__init__()
        bprop = make_bprop(names, False)
        _check_orders(names, bprop)
        self.weight_names = signature_of(names.forward).input_names[1:-1]
        self.plain = make_operator(names.forward, bprop)
        self.saving = make_operator(names.saving, make_bprop(names, True))

    def construct(self, x, weights, keep):
        inputs = (x, *[weights[name] for name in self.weight_names], keep)
        if self.training:
            return self.saving(*inputs)[0]
        return self.plain(*inputs)


class BlockV1Kernel(_BlockKernel):
    """Computes a whole block of ConvNeXt. With `bf16`, it rounds the factors of matrix products to bfloat16."""

    def __init__(self, bf16: bool = False):
        super().__init__(_BLOCK_V1[bf16], _block_v1_bprop)


class BlockV2Kernel(_BlockKernel):
    """Computes a whole block of ConvNeXt V2. With `bf16`, it rounds the factors of matrix products to bfloat16."""

    def __init__(self, bf16: bool = False):
        super().__init__(_BLOCK_V2[bf16], _block_v2_bprop)


class PackedStageKernel(nn.Cell):
    """Computes the forward pass of consecutive blocks from x [N, H, W, C]. Their weights are packed once.

    Args:
        blocks: weights of each block, as `BlockV1Kernel` or `BlockV2Kernel` takes them. All blocks have one version.
        bf16: whether to round the factors of matrix products to bfloat16.
    """

    def __init__(self, blocks: Sequence[Mapping[str, Tensor]], bf16: bool = False):
        super().__init__()
        kernel = (_BLOCK_V2 if "grn.gamma" in blocks[0] else _BLOCK_V1)[bf16].stage
        inputs = []
        for weights in blocks:
            for name in signature_of(kernel).repeated_names:
                is_product = name in ("pwconv1.weight", "pwconv2.weight")
                inputs.append(_packed(weights[name], bf16) if is_product else weights[name])
        self.inputs = _as_parameters(inputs)
        self.operator = make_operator(kernel)

    def construct(self, x):
        return self.operator(x, *self.inputs)


class PackedPatchKernel(nn.Cell):
    """Computes the forward pass of a patch convolution and its layer normalisation. The weight is packed once.

    Args:
        weight: weight of the convolution, [O, I, k, k].
        bias: bias of the convolution, [O].
        gamma, beta: parameters of the normalisation. It precedes the convolution, [I]. With `images` it follows the
            convolution, [O].
        bf16, images: see `PatchConvKernel`.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, gamma: Tensor, beta: Tensor, bf16: bool = False, images: bool = False
    ):
        super().__init__()
        names = _PATCH[images, bf16]
        packed = make_operator(names.pack)(weight)
        self.inputs = _as_parameters((packed, bias, gamma, beta))
        self.operator = make_operator(names.packed)

    def construct(self, x):
        return self.operator(x, *self.inputs)


def _as_parameters(values: Sequence[Tensor]) -> ParameterTuple:
    """Return the values as parameters. MindSpore copies and hashes constants of a graph, but not its parameters."""
    number = next(_numbers)  # Every parameter of a graph needs a unique name.
    named = [(f"packed{number}.input{i}", value) for i, value in enumerate(values)]
    return ParameterTuple([Parameter(Tensor(value), name=name, requires_grad=False) for name, value in named])


def _packed(weight: Tensor, bf16: bool) -> Tensor:
    """Return a weight [O, I] in packed form, float32 [count]. Only the kernels can interpret its bits."""
    return make_operator(_PACK_WEIGHT[bf16])(weight)


class PatchConvKernel(nn.Cell):
    """Computes a convolution with stride k, [N, H // k, W // k, O], of x [N, H, W, I] with a weight [O, I, k, k].

    Args:
        bf16: whether to round the factors of matrix products to bfloat16.
        images: whether x is channels-first, [N, I, H, W].
    """

    def __init__(self, bf16: bool = False, images: bool = False):
        super().__init__()
        names = _PATCH[images, bf16]
        # The gradient has two operators, so that the graph can drop the unused gradient of the images.
        input_grad = make_operator(names.input_grad)
        params_grad = make_operator(names.params_grad)

        def bprop(x, weight, bias, out, dout):
            return (input_grad(x, weight, dout), *params_grad(x, weight, dout))

        self.forward = make_operator(names.forward, bprop)

    def construct(self, x, weight, bias):
        return self.forward(x, weight, bias)


class LayerNormKernel(nn.Cell):
    """Computes layer normalisation of the last axis of x [..., C] with eps 1e-6."""

    def __init__(self):
        super().__init__()
        grad = make_operator("NormGrad")

        def bprop(x, gamma, beta, out, dout):
            return grad(out[1], out[2], gamma, dout[0])

        self.forward = make_operator("Norm", bprop)

    def construct(self, x, gamma, beta):
        return self.forward(x, gamma, beta)[0]


class AdamWKernel(nn.Cell):
    """Updates all parameters with one step of AdamW, in place and in one pass over their memory. See decision 0058.

    Args:
        count: number n of parameters.

    Inputs:
        weights, moments1, moments2: n parameters each.
        gradients: n tensors.
        rates, decays: learning rates and weight decays, [n] each.
        constants: four numbers [4]: beta1, beta2, eps * sqrt(1 - beta2^t), and the bias correction
            sqrt(1 - beta2^t) / (1 - beta1^t) (see `mindcv.optim.AdamW`).

    Outputs:
        A tensor [1] without meaning.
    """

    def __init__(self, count: int):
        super().__init__(auto_prefix=False)
        self.operator = make_operator("AdamW")
        # Without these two settings, MindSpore passes copies to the operator. It may also drop the operator, because
        # its output is not used. See decision 0058.
        self.operator.add_prim_attr("side_effect_mem", True)
        written = [signature.make_sig(f"written{i}", signature.sig_rw.RW_WRITE) for i in range(3 * count)]
        self.operator.set_signatures((*written, *(signature.make_sig(f"read{i}") for i in range(count + 3))))

    def construct(self, weights, moments1, moments2, gradients, rates, decays, constants):
        return self.operator(*weights, *moments1, *moments2, *gradients, rates, decays, constants)
