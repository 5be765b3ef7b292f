"""Layers are called at random through MindSpore. With kernels, a call agrees with plain operators or raises an error.

The inputs are views into larger or transposed tensors, and so are the gradients of the layer's output.
"""

from contextlib import suppress

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops
from mindspore.nn.cell import _pynative_executor

from mindcv.engine import apply_amp
from mindcv.models import pack_for_inference
from mindcv.models.convnext import ConvNeXtBlock, ConvNeXtV2Block
from mindcv.models.layers import KeepPath, LayerNorm, PatchConv, Section, StemConv


def random(rng, *shape, scale=1.0):
    return (rng.standard_normal(shape) * scale).astype(np.float32)


# Functions and not lambdas: MindSpore's parser for graph mode wants a lambda alone on its line.
def whole(x):
    return x


def turned(x):
    """Return the tensor with all axes in the reverse order."""
    return ops.transpose(x, tuple(range(x.ndim))[::-1])


def part_of_batch(x):
    return x[1:-1]


def part_of_rows(x):
    return x[:, 2:-1]


def part_of_last_axis(x):
    return x[..., 1:-2]


def one_of_three(x):
    return x[:, 1]


def repeated(x):
    return ops.broadcast_to(x, (3, *x.shape[1:]))


def computed(x):
    return turned(turned(x) * 2.0)


# A view, and the shape of the tensor that it is a view into, from the shape that a layer takes.
VIEWS = {
    whole: lambda s: s,
    turned: lambda s: s[::-1],
    part_of_batch: lambda s: (s[0] + 2, *s[1:]),
    part_of_rows: lambda s: (s[0], s[1] + 3, *s[2:]),
    part_of_last_axis: lambda s: (*s[:-1], s[-1] + 3),
    one_of_three: lambda s: (s[0], 3, *s[1:]),
    repeated: lambda s: (1, *s[1:]),
    computed: lambda s: s,
}


# Losses of the output y and of weights w of its shape.
def weighted(y, w):
    return (y * w).sum()


def plain_sum(y, w):
    return y.sum()


def weighted_turned(y, w):
    return (turned(y) * turned(w)).sum()


def weighted_part_of_batch(y, w):
    return (y[1:] * w[1:]).sum()


def weighted_part_of_last_axis(y, w):
    return (y[..., 1:] * w[..., 1:]).sum()


LOSSES = [weighted, plain_sum, weighted_turned, weighted_part_of_batch, weighted_part_of_last_axis]
LAYERS = {
    "stem": lambda c, k: StemConv(c, 20, k),
    "patch": lambda c, k: PatchConv(c, 20, k),
    "norm": lambda c, k: LayerNorm(c),
    "V1": lambda c, k: ConvNeXtBlock(c, KeepPath(), 0.5),
    "V2": lambda c, k: ConvNeXtV2Block(c, KeepPath()),
}
PACKED = {
    "packed stem": lambda c, k: Section(StemConv(c, 20, k), LayerNorm(20)),
    "packed patch": lambda c, k: Section(LayerNorm(c), PatchConv(c, 20, k)),
    "packed V1": lambda c, k: Section(*(LAYERS["V1"](c, k) for _ in range(2))),
    "packed V2": lambda c, k: Section(*(LAYERS["V2"](c, k) for _ in range(2))),
}


class Loss(nn.Cell):
    """A loss of a layer's output for a view, and the output itself."""

    def __init__(self, layer, view, loss):
        super().__init__()
        self.layer, self.view, self.loss = layer, view, loss

    def construct(self, x, w):
        y = self.layer(self.view(x))
        return self.loss(y, w), y


def pair_of(rng, make, is_training, monkeypatch):
    """Return two layers with the same weights, one with kernels and one of plain operators."""
    monkeypatch.setenv("MINDCV_KERNELS", "off")
    plain = make()
    monkeypatch.setenv("MINDCV_KERNELS", "on")
    layer = make()
    for parameter in layer.get_parameters():
        parameter.set_data(Tensor(random(rng, *parameter.shape, scale=0.3)))
    ms.load_param_into_net(plain, {p.name: p for p in layer.get_parameters()})
    return layer.set_train(is_training), plain.set_train(is_training)


def results(layer, view, loss, x, w, has_gradients):
    """Return the output and the gradients of the parameters and of the tensor behind the view, or the error."""
    cell = Loss(layer, view, loss).set_train(layer.training)
    try:
        if not has_gradients:
            return [cell(x, w)[1].asnumpy()]
        (_, y), (dx, grads) = ms.value_and_grad(cell, 0, layer.trainable_params(), has_aux=True)(x, w)
        return [y.asnumpy(), dx.asnumpy(), *(grad.asnumpy() for grad in grads)]
    except Exception as error:  # MindSpore raises errors of many classes
        drain_errors()
        return error


def drain_errors():
    """Wait for queued operators, because MindSpore would raise their errors in a later call."""
    with suppress(Exception):
        _pynative_executor.sync()


def wrong_shape(rng, shape):
    """Return a shape with one axis more or less, or with an axis that is empty or too long."""
    axis, kind = int(rng.integers(4)), rng.integers(3)
    if kind == 0:
        return shape[1:]
    if kind == 1:
        return (2, *shape)
    return (*shape[:axis], int(rng.choice([0, shape[axis] + 1])), *shape[axis + 1 :])


def check_call(rng, monkeypatch, kind):
    """Make one random call of a kind of layer and return 'right' or the first line of the error."""
    view, loss = list(VIEWS)[rng.integers(len(VIEWS))], LOSSES[rng.integers(len(LOSSES))]
    channels, kernel = int(rng.choice([8, 17, 33])), int(rng.integers(1, 5))
    height, width = (int(size) for size in rng.integers(4, 9, 2))
    is_patch, is_bf16 = "stem" in kind or "patch" in kind, "norm" not in kind and rng.random() < 0.2
    shape = (3, channels, height, width) if "stem" in kind else (3, height, width, channels)
    out = (3, height // kernel, width // kernel, 20) if is_patch else shape
    layer, plain = pair_of(
        rng, lambda: {**LAYERS, **PACKED}[kind](channels, kernel), kind in LAYERS and rng.random() < 0.5, monkeypatch
    )
    if is_bf16:
        apply_amp(layer, "O1", dtype="bfloat16")
    if kind in PACKED:
        pack_for_inference(layer)
        assert layer.packed is not None
    dtype = ms.float32 if rng.random() < 0.85 else [ms.float16, ms.float64, ms.int32][rng.integers(3)]
    is_wrong = rng.random() < 0.15
    x = random(rng, *VIEWS[view](wrong_shape(rng, shape) if is_wrong else shape))
    x, w = Tensor(x).astype(dtype), Tensor(random(rng, *out))
    # An error inside a gradient would stay in MindSpore's record of it, so that wrong calls have none.
    has_gradients = kind in LAYERS and not is_wrong and dtype != ms.int32
    found, expected = (results(each, view, loss, x, w, has_gradients) for each in (layer, plain))
    call = f"{kind} of {view.__name__} {x.shape} {dtype} k={kernel} bf16={is_bf16}, {loss.__name__}"
    if isinstance(found, Exception):
        is_right = not is_wrong and dtype == ms.float32
        assert not is_right or isinstance(expected, Exception), f"{call}: {found}"
        return str(found).split("\n")[0]
    assert not isinstance(expected, Exception), f"{call}: the kernels took it, the operators say {expected}"
    assert len(found) == len(expected), call
    tolerance = 0.06 if is_bf16 else 2e-4 if dtype != ms.float16 else 0.02
    for place, (ours, theirs) in enumerate(zip(found, expected)):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype, call
        error, scale = np.abs(ours - theirs).max(initial=0), np.abs(theirs).max(initial=1e-3)
        assert error <= tolerance * scale, f"{call}: result {place} differs by {error} of {scale}"
    return "right"


def check_calls(rng, monkeypatch, kernel_calls, rounds):
    """Call each kind of layer once in each round."""
    kinds = [*LAYERS, *PACKED]
    outcomes = [(kind, check_call(rng, monkeypatch, kind)) for _ in range(rounds) for kind in kinds]
    assert sum(outcome == "right" for _, outcome in outcomes) > len(outcomes) / 2, outcomes
    assert len(kernel_calls) > len(kinds) / 2, kernel_calls


def test_random_layer_calls_agree_with_plain_operators_or_raise(rng, monkeypatch, kernel_calls):
    check_calls(rng, monkeypatch, kernel_calls, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "rounds"), [(ms.PYNATIVE_MODE, 20), (ms.GRAPH_MODE, 3)], ids=["pynative", "graph"])
def test_more_random_layer_calls_agree_with_plain_operators_or_raise(
    mode, rounds, rng, monkeypatch, kernel_calls, tmp_path
):
    monkeypatch.chdir(tmp_path)  # MindSpore leaves a folder where a graph cannot be compiled
    ms.set_context(mode=mode)
    check_calls(rng, monkeypatch, kernel_calls, rounds)
