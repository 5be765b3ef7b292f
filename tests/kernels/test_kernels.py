"""The C++ kernels are compared with NumPy in float64, with the layers that they replace, and with themselves."""

import math
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import mindspore as ms
import numpy as np
import plain_operators
import pytest
from library_process import process_of
from mindspore import Tensor, ops
from scipy import special
from sized import Sized

from mindcv.engine import apply_amp
from mindcv.kernels import operators, status
from mindcv.kernels.library import library_path
from mindcv.models import create_model, pack_for_inference
from mindcv.models.convnext import ConvNeXt, ConvNeXtBlock, ConvNeXtV2Block
from mindcv.models.layers import DropPath, KeepPath, LayerNorm, PatchConv, SampleCounter, StemConv

FOLDER = Path(__file__).parent
# The shapes have channels that are no multiple of a vector or tile, odd sizes, single pixels, many images, and more
# pixels than one part.
MAPS = [(2, 9, 11, 40), (1, 1, 1, 8), (5, 2, 3, 3), (1, 5, 20, 33), (70, 7, 7, 24), (2, 14, 14, 96), (2, 21, 20, 20)]


def random(rng, *shape, scale=1.0):
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def block_inputs(rng, n, h, w, c, is_v2):
    """Return x, the parameters in the order of the forward pass, and keep, which drops one image in three."""
    inputs = [random(rng, n, h, w, c), random(rng, c, 1, 7, 7, scale=0.1), random(rng, c, scale=0.1)]
    inputs += [1 + random(rng, c, scale=0.1), random(rng, c, scale=0.1), random(rng, 4 * c, c, scale=c**-0.5)]
    inputs += [random(rng, 4 * c, scale=0.1)]
    if is_v2:
        inputs += [random(rng, 1, 1, 1, 4 * c, scale=0.5), random(rng, 1, 1, 1, 4 * c, scale=0.1)]
    inputs += [random(rng, c, 4 * c, scale=(4 * c) ** -0.5), random(rng, c, scale=0.1)]
    if not is_v2:
        inputs += [random(rng, c)]
    keep = np.where(np.arange(n) % 3 == 1, 0, 1.25).astype(np.float32)
    return [*inputs, keep]


def block_in_numpy(inputs, is_v2):
    return plain_operators.block([a.astype(np.float64) for a in inputs], is_v2)


def run_library(calls, library, threads=2):
    """Return the outputs of `calls`, which are tuples (name, inputs, shapes of outputs), with kernels of `library`."""
    return [outputs for outputs, _ in process_of(*library).run(calls, threads)]


# The forward pass, the forward pass that saves, and the gradient, of V1 and of V2 (`is_v2`).
BLOCK_KERNELS = {False: ("BlockV1", "BlockV1Saving", "BlockV1Grad"), True: ("BlockV2", "BlockV2Saving", "BlockV2Grad")}


def block_calls(inputs, is_v2):
    """Return calls of the forward pass alone and of the one that saves arrays for the gradient."""
    n, h, w, c = inputs[0].shape
    saved = [(n, h, w, c), (n * h * w,), (n, h, w, 4 * c)] + ([(n, 4 * c)] if is_v2 else [])
    forward, saving, _ = BLOCK_KERNELS[is_v2]
    return [(forward, inputs, [(n, h, w, c)]), (saving, inputs, [(n, h, w, c), *saved])]


def block_and_gradients(inputs, is_v2, dout, library, threads=2):
    found = run_library(block_calls(inputs, is_v2), library, threads)
    (out,), (again, *saved) = found
    np.testing.assert_array_equal(out, again)
    grads = [a.shape for a in inputs[:-1]]
    return out, run_library([(BLOCK_KERNELS[is_v2][2], [*inputs, dout, *saved], grads)], library, threads)[0]


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("is_v2", [False, True], ids=["v1", "v2"])
def test_block_kernel_and_its_gradients_agree_with_their_formulas(library, is_v2, rng):
    for shape in MAPS:
        inputs, dout = block_inputs(rng, *shape, is_v2), random(rng, *shape)
        out, grads = block_and_gradients(inputs, is_v2, dout, library)
        assert relative(out, block_in_numpy(inputs, is_v2)) < 3e-6
        expected = plain_operators.block_grad([Sized(a) for a in inputs], Sized(dout), is_v2)
        for i, (grad, wanted) in enumerate(zip(grads, expected)):
            assert wanted.error_of(grad) < 64, f"{shape}: input {i}"


@pytest.mark.parametrize("is_v2", [False, True], ids=["v1", "v2"])
def test_block_gradient_formula_is_the_slope_of_the_block_formula(is_v2, rng):
    """Every part of the gradient is compared along a random direction."""
    shape = (3, 4, 5, 6)
    inputs, dout = [a.astype(np.float64) for a in block_inputs(rng, *shape, is_v2)], random(rng, *shape)
    grads = plain_operators.block_grad([Sized(a) for a in inputs], Sized(dout), is_v2)
    assert len(grads) == len(inputs) - 1
    for i, grad in enumerate(grads):
        direction = rng.standard_normal(inputs[i].shape)
        sides = []
        for step in (1e-5, -1e-5):
            moved = [*inputs[:i], inputs[i] + step * direction, *inputs[i + 1 :]]
            sides.append((plain_operators.block(moved, is_v2) * dout).sum())
        slope = (sides[0] - sides[1]) / 2e-5
        size = np.linalg.norm(grad.value) * np.linalg.norm(direction)
        assert abs((grad.value * direction).sum() - slope) < 1e-8 * size, f"input {i}"


def test_block_kernel_gives_gelu_over_its_range(library, tmp_path):
    # The weights are zeros, and ones that select the first quarter of the wide map, so the output is GELU(first bias).
    c = 512
    z = np.concatenate([np.linspace(-9, 9, c - 6), [-1e30, -1e3, -13, 13, 1e3, 1e30]]).astype(np.float32)
    zeros = [np.zeros(shape, np.float32) for shape in [(1, 1, 1, c), (c, 1, 7, 7), c, c, c, (4 * c, c)]]
    ones = [np.ones(shape, np.float32) for shape in [c, 1]]
    bias = np.concatenate([z, np.zeros(3 * c, np.float32)])
    inputs = [*zeros, bias, np.eye(c, 4 * c, dtype=np.float32), np.zeros(c, np.float32), *ones]
    found = run_library([("BlockV1", inputs, [(1, 1, 1, c)])], library)
    exact = z.astype(np.float64)
    exact = 0.5 * exact * special.erfc(-exact / np.sqrt(2))
    assert (np.abs(found[0][0].ravel() - exact) <= 2.5e-7 * np.abs(z) + 1e-9).all()


@pytest.mark.parametrize("is_v2", [False, True], ids=["v1", "v2"])
def test_block_kernel_gives_the_same_bits_with_any_number_of_threads(library, is_v2, rng):
    """With few threads, each computes its own rows of the products. With 400 channels it computes them in parts."""
    for shape in ((5, 14, 14, 72), (2, 12, 12, 400), (2, 21, 20, 20)):
        inputs, dout = block_inputs(rng, *shape, is_v2), random(rng, *shape)
        runs = [block_and_gradients(inputs, is_v2, dout, library, threads) for threads in (1, 2, 3)]
        for out, grads in runs[1:]:
            np.testing.assert_array_equal(out, runs[0][0])
            for grad, first in zip(grads, runs[0][1]):
                np.testing.assert_array_equal(grad, first)


def test_block_kernel_gives_the_same_bits_with_any_number_of_threads_beside_nan(library, rng):
    inputs = block_inputs(rng, 2, 12, 12, 400, False)
    inputs[0][0, 5, 5, 7], inputs[7][3, 900] = np.nan, np.inf
    calls = block_calls(inputs, False)[:1]
    runs = [run_library(calls, library, threads) for threads in (1, 2, 3)]
    ((first,),) = runs[0]
    assert 0 < np.isnan(first).sum() < first.size / 2
    for ((out,),) in runs[1:]:
        np.testing.assert_array_equal(out, first)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3.4e38])
def test_block_kernel_propagates_nan_infinity_and_overflow(library, value, rng):
    """The kernel gives finite numbers, infinities and NaN in the same places as the formula."""
    # The places are x, the weights of pwconv1 and pwconv2, and the bias of pwconv2. Elsewhere the largest number
    # overflows float32 but not float64.
    for place in (0, 5, 7, 8) if not np.isfinite(value) else (5,):
        inputs = block_inputs(rng, 2, 3, 5, 24, False)
        inputs[3], inputs[4] = inputs[3] / 100, inputs[4] / 100
        inputs[place].flat[13] = value
        found = run_library(block_calls(inputs, False)[:1], library)
        out = found[0][0]
        with np.errstate(all="ignore"):
            expected = block_in_numpy(inputs, False).astype(np.float32)
        np.testing.assert_array_equal(np.isnan(out), np.isnan(expected))
        np.testing.assert_array_equal(np.isposinf(out), np.isposinf(expected))
        np.testing.assert_array_equal(np.isneginf(out), np.isneginf(expected))
        # The largest number is multiplied by a normalised value, whose own terms cancel, so that a result can be far
        # smaller than its terms. The largest of these results shows how large the terms are.
        with np.errstate(invalid="ignore"):
            sizes = np.abs(np.where(np.isfinite(expected), expected, 0)).max(-1, keepdims=True)
            errors = np.where(np.isfinite(expected), np.abs(out.astype(np.float64) - expected), 0)
        sizes = np.where(sizes > 1e30, sizes.max(), np.maximum(sizes, 1))
        assert (errors < 3e-6 * sizes).all()


def make_block(rng, is_v2, drop_path):
    block = ConvNeXtV2Block(24, drop_path) if is_v2 else ConvNeXtBlock(24, drop_path)
    for parameter in block.get_parameters():
        if parameter.requires_grad:
            parameter.set_data(Tensor(random(rng, *parameter.shape, scale=0.3)))
    return block


@pytest.mark.parametrize("is_v2", [False, True], ids=["v1", "v2"])
@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, ms.GRAPH_MODE], ids=["pynative", "graph"])
@pytest.mark.parametrize("is_training", [False, True])
def test_block_kernel_agrees_with_layers(is_v2, mode, is_training, rng, kernel_calls, monkeypatch):
    """A block gives the same values and gradients with its kernel and with its layers, also when paths are dropped."""
    ms.set_context(mode=mode)
    block = make_block(rng, is_v2, DropPath(0.5, 0, 0, SampleCounter().count))
    block.set_train(is_training)
    x = Tensor(random(rng, 6, 5, 7, 24))
    differentiate = ms.value_and_grad(block, 0, block.trainable_params())
    out, (dx, grads) = differentiate(x)
    forward, saving, gradient = BLOCK_KERNELS[is_v2]
    assert kernel_calls == {saving, gradient} | (set() if is_training else {forward})
    kernel_calls.clear()
    monkeypatch.setenv("MINDCV_KERNELS", "off")
    plain_block = make_block(rng, is_v2, DropPath(0.5, 0, 0, SampleCounter().count))
    plain_block.set_train(is_training)
    ms.load_param_into_net(plain_block, block.parameters_dict())
    plain, (plain_dx, plain_grads) = ms.value_and_grad(plain_block, 0, plain_block.trainable_params())(x)
    assert not kernel_calls
    pairs = [(out, plain), (dx, plain_dx), *zip(grads, plain_grads)]
    assert len(pairs) == 2 + (11 if is_v2 else 10) - 1
    for found, expected in pairs:
        assert relative(found.asnumpy(), expected.asnumpy()) < 1e-5


def test_kernels_take_only_float32(rng):
    """A block computes half precision with its layers, and its kernel refuses it."""
    block = make_block(rng, True, KeepPath())
    x = random(rng, 2, 5, 7, 24)
    expected = block(Tensor(x)).asnumpy()
    half = block(Tensor(x.astype(np.float16)))
    assert half.dtype == ms.float16
    np.testing.assert_allclose(half.asnumpy(), expected, atol=0.05)
    with pytest.raises(TypeError, match="float32"):
        block.float32_form(Tensor(x.astype(np.float16)), block.named_weights(), block.drop_path.scale(2))


def test_block_kernel_reads_transposed_and_sliced_views(rng):
    block = make_block(rng, False, KeepPath())
    x = random(rng, 2, 24, 5, 7)
    view = ops.transpose(Tensor(x), (0, 2, 3, 1))
    packed = Tensor(np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
    np.testing.assert_array_equal(block(view).asnumpy(), block(packed).asnumpy())
    np.testing.assert_array_equal(block(packed[1:]).asnumpy(), block(packed).asnumpy()[1:])


def output_and_gradients(layer, x, dout):
    """Return the output of a layer, and the gradients of sum(output * dout) with respect to x and to the parameters."""
    _, (dx, grads) = ms.value_and_grad(lambda x: (layer(x) * dout).sum(), 0, layer.trainable_params())(x)
    return [layer(x).asnumpy(), dx.asnumpy(), *(gradient.asnumpy() for gradient in grads)]


@pytest.mark.parametrize(("height", "width", "channels", "kernel"), [(9, 11, 3, 4), (7, 6, 20, 2), (4, 4, 5, 4)])
def test_patch_conv_kernel_agrees_with_operators(height, width, channels, kernel, rng, kernel_calls, monkeypatch):
    x = Tensor(random(rng, 3, height, width, channels))
    dout = Tensor(random(rng, 3, height // kernel, width // kernel, 24))
    layer = PatchConv(channels, 24, kernel)
    layer.bias.set_data(Tensor(random(rng, 24)))
    found = output_and_gradients(layer, x, dout)
    assert kernel_calls == {"Patch", "PatchInputGrad", "PatchParamsGrad"}
    kernel_calls.clear()
    monkeypatch.setenv("MINDCV_KERNELS", "off")
    plain = PatchConv(channels, 24, kernel)
    ms.load_param_into_net(plain, layer.parameters_dict())
    expected = output_and_gradients(plain, x, dout)
    assert not kernel_calls
    for ours, theirs in zip(found, expected):
        assert relative(ours, theirs) < 2e-6


@pytest.mark.parametrize(("height", "width", "channels", "kernel"), [(9, 11, 3, 4), (7, 6, 20, 2), (4, 4, 1, 4)])
def test_stem_kernel_agrees_with_operators_on_transposed_images(
    height, width, channels, kernel, rng, kernel_calls, monkeypatch
):
    """The stem kernel gives the result of a patch convolution, without kernels, of the transposed images."""
    x = random(rng, 3, channels, height, width)
    dout = Tensor(random(rng, 3, height // kernel, width // kernel, 24))
    stem = StemConv(channels, 24, kernel)
    stem.bias.set_data(Tensor(random(rng, 24)))
    found = output_and_gradients(stem, Tensor(x), dout)
    assert kernel_calls == {"Stem", "StemInputGrad", "StemParamsGrad"}
    kernel_calls.clear()
    monkeypatch.setenv("MINDCV_KERNELS", "off")
    layer = PatchConv(channels, 24, kernel)
    ms.load_param_into_net(layer, stem.parameters_dict())
    expected = output_and_gradients(layer, Tensor(np.ascontiguousarray(x.transpose(0, 2, 3, 1))), dout)
    assert not kernel_calls
    expected[1] = expected[1].transpose(0, 3, 1, 2)
    for ours, theirs in zip(found, expected):
        assert relative(ours, theirs) < 2e-6


def test_kernel_library_works_in_a_forked_process():
    """Data-loader workers are forked, and a forked process has no threads of the pool of its parent."""
    code = f"""
import os, sys, numpy as np
sys.path.insert(0, {str(FOLDER)!r})
import c_boundary
library = c_boundary.Library({str(library_path())!r})
library.use_threads(2)
def norm(x):
    inputs = [x, np.ones(40, np.float32), np.zeros(40, np.float32)]
    outputs = [np.empty(shape, np.float32) for shape in (x.shape, x.shape, 64)]
    assert library.call("Norm", [*inputs, *outputs]) is None
    return outputs[0]
x = np.arange(64 * 40, dtype=np.float32).reshape(64, 40) % 7
expected = norm(x)
child = os.fork()
found = norm(x)
same = np.array_equal(found, expected)
if child == 0:
    os._exit(0 if same else 1)
status = os.waitpid(child, 0)[1]
sys.exit(0 if same and status == 0 else 1)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("shape", [(3, 40), (2, 3, 5, 17), (1, 1)])
def test_layer_norm_kernel_agrees_with_its_formula(shape, rng, kernel_calls):
    """Values and gradients are compared with float64. tests/models compares them with MindSpore's operator."""
    layer = LayerNorm(shape[-1])
    layer.gamma.set_data(Tensor(random(rng, shape[-1])))
    layer.beta.set_data(Tensor(random(rng, shape[-1])))
    x, dout = random(rng, *shape, scale=3.0) + 5, random(rng, *shape)
    found = output_and_gradients(layer, Tensor(x), Tensor(dout))
    assert kernel_calls == {"Norm", "NormGrad"}
    gamma, beta = layer.gamma.asnumpy().astype(np.float64), layer.beta.asnumpy().astype(np.float64)
    out, xhat, factor = plain_operators.norm(x.astype(np.float64), gamma, beta)
    expected = [out, *plain_operators.norm_grad(xhat, factor, gamma, dout.astype(np.float64))]
    for ours, theirs in zip(found, expected):
        np.testing.assert_allclose(ours, theirs, rtol=2e-5, atol=2e-5)


def as_bf16(a):
    """Round to the nearest bfloat16, ties to even, and return it as float32."""
    bits = np.ascontiguousarray(a, np.float32).view(np.uint32).astype(np.uint64)
    return (((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).astype(np.uint32)).view(np.float32)


def test_patch_conv_kernel_in_bfloat16_agrees_with_products_of_rounded_numbers(library, rng):
    """A patch convolution is one matrix product, here of rounded numbers that are accumulated in float32."""
    x, weight, bias = random(rng, 2, 12, 8, 5), random(rng, 40, 5, 4, 4), random(rng, 40)
    found = run_library([("PatchBf16", [x, weight, bias], [(2, 3, 2, 40)])], library)
    rounded = [as_bf16(a).astype(np.float64) for a in (x, weight)]
    expected = plain_operators.patch(*rounded, bias, is_stem=False)
    np.testing.assert_allclose(found[0][0], expected, rtol=1e-5, atol=1e-5)
    assert relative(found[0][0], expected) < 1e-6


def block_with_rounded_factors(inputs, is_v2, keeps_bf16):
    """Compute a block as the kernels in bfloat16 do, from float64: only the factors of its two products are rounded.

    With `keeps_bf16`, GELU's result of V2 is rounded as well, since it is kept in bfloat16 until GRN's norms are known.
    """
    inputs = [a.astype(np.float64) for a in inputs]
    x, weights, keep = inputs[0], (inputs[5], inputs[9 if is_v2 else 7]), inputs[-1]
    c, (weight1, weight2) = x.shape[-1], (as_bf16(weight) for weight in weights)
    y = as_bf16(plain_operators.block_steps(inputs, is_v2).y).astype(np.float64)
    g = plain_operators.gelu(plain_operators.Sized(y.reshape(-1, c) @ weight1.T + inputs[6])).value
    q = g = g.reshape(*x.shape[:3], 4 * c)
    if is_v2:
        norms = np.sqrt(np.square(g).sum((1, 2), keepdims=True))
        response = norms / (norms.mean(-1, keepdims=True) + 1e-6)
        kept = as_bf16(g) if keeps_bf16 else g
        q = kept * (inputs[7] * response + 1) + inputs[8]
    r = (as_bf16(q).reshape(-1, 4 * c).astype(np.float64) @ weight2.T).reshape(x.shape) + inputs[10 if is_v2 else 8]
    return x + (r if is_v2 else r * inputs[9]) * keep.reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("is_v2", [False, True], ids=["v1", "v2"])
def test_block_kernel_in_bfloat16_rounds_only_the_factors_of_products(library, is_v2, rng):
    for shape in [(2, 9, 11, 40), (1, 5, 20, 33), (70, 7, 7, 24), (2, 14, 14, 96)]:
        inputs = block_inputs(rng, *shape, is_v2)
        ((found,),) = run_library([(f"{BLOCK_KERNELS[is_v2][0]}Bf16", inputs, [shape])], library)
        expected = block_with_rounded_factors(inputs, is_v2, library.isa in ("avx512_bf16", "neon_bf16"))
        rounding = np.square(expected - block_in_numpy(inputs, is_v2)).mean()
        # A factor close to the middle of two bfloat16 is rounded either way.
        assert np.square(found - expected).mean() < 0.01 * rounding, shape


@pytest.mark.parametrize("is_v2", [False, True], ids=["v1", "v2"])
def test_block_kernel_in_bfloat16_gives_the_same_bits_with_any_number_of_threads(library, is_v2, rng):
    forward, saving, gradient = (f"{name}Bf16" for name in BLOCK_KERNELS[is_v2])
    for shape in ((5, 14, 14, 72), (2, 12, 12, 400)):
        inputs, dout = block_inputs(rng, *shape, is_v2), random(rng, *shape)
        shapes = [saved for _, _, saved in block_calls(inputs, is_v2)]
        runs = []
        for threads in (1, 2, 3):
            calls = [(forward, inputs, shapes[0]), (saving, inputs, shapes[1])]
            (out,), (again, *saved) = run_library(calls, library, threads)
            np.testing.assert_array_equal(out, again)
            grads = [a.shape for a in inputs[:-1]]
            runs.append([out, *run_library([(gradient, [*inputs, dout, *saved], grads)], library, threads)[0]])
        for arrays in runs[1:]:
            for found, first in zip(arrays, runs[0]):
                np.testing.assert_array_equal(found, first)


# A scalar, no elements, a part of one vector, and more elements than one task of a thread.
ADAMW_SHAPES = [(), (0,), (7,), (3, 11_111), (40, 1, 7, 7)]
ADAMW_BETAS, ADAMW_EPS = (0.9, 0.999), 1e-3
ADAMW_RATES, ADAMW_DECAYS = [0.1, 0.0, 0.02, 0.03, 0.0], [0.0, 0.3, 0.3, 0.5, 0.1]


def adamw_step(state, library, threads=2):
    """Return the lists of weights, first and second moments after the first step."""
    beta1, beta2 = (float(np.float32(beta)) for beta in ADAMW_BETAS)
    root = math.sqrt(1 - beta2)
    constants = np.array([beta1, beta2, ADAMW_EPS * root, root / (1 - beta1)], np.float32)
    count = len(ADAMW_SHAPES)
    flat = [a for arrays in state for a in arrays]
    arguments = [*flat, np.array(ADAMW_RATES, np.float32), np.array(ADAMW_DECAYS, np.float32), constants]
    ((_, left),) = process_of(*library).run([("AdamW", arguments, [(1,)])], threads)
    for found, given in zip(left[3 * count :], arguments[3 * count :]):
        np.testing.assert_array_equal(found, given)
    return [left[part * count : (part + 1) * count] for part in range(3)]


def adamw_state(rng):
    weights, moments1, gradients = ([np.asarray(random(rng, *shape)) for shape in ADAMW_SHAPES] for _ in range(3))
    moments2 = [np.asarray(random(rng, *shape) ** 2, np.float32) for shape in ADAMW_SHAPES]
    return weights, moments1, moments2, gradients


def test_adamw_kernel_agrees_with_its_formula(library, rng):
    state = adamw_state(rng)
    found = adamw_step(state, library)
    beta1, beta2 = (float(np.float32(beta)) for beta in ADAMW_BETAS)
    for i, (w, m, v, g) in enumerate(zip(*state)):
        w, m, v, g = (a.astype(np.float64) for a in (w, m, v, g))
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        w = w * (1 - ADAMW_RATES[i] * ADAMW_DECAYS[i])
        w = w - ADAMW_RATES[i] * (m / (1 - beta1)) / (np.sqrt(v / (1 - beta2)) + ADAMW_EPS)
        for part, expected in enumerate((w, m, v)):
            assert found[part][i].shape == expected.shape
            np.testing.assert_allclose(found[part][i], expected, rtol=2e-6, atol=2e-6)


def test_adamw_kernel_gives_the_same_bits_with_any_number_of_threads_and_beside_nan(library, rng):
    """The bits are the same with any number of threads, and NaN stays in its element."""
    state = adamw_state(rng)
    runs = [adamw_step(state, library, threads) for threads in (1, 2, 3)]
    state[3][3][1, 500] = np.nan
    with_nan = adamw_step(state, library)
    for part in range(3):
        for i, expected in enumerate(runs[0][part]):
            assert expected.tobytes() == runs[1][part][i].tobytes() == runs[2][part][i].tobytes()
            expected = expected.copy()
            if i == 3:
                expected[1, 500] = np.nan
            np.testing.assert_array_equal(with_nan[part][i], expected)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", ["convnext_atto", "convnextv2_atto"])
def test_packed_network_gives_the_same_bits_without_its_weights(name, bf16, rng, kernel_calls):
    """Two sizes are compared, because few rows and many take different paths. No weights are left to train."""
    network = create_model(name, num_classes=3).set_train(False)
    for parameter in network.get_parameters():
        parameter.set_data(Tensor(parameter.asnumpy() + random(rng, *parameter.shape, scale=0.05)))
    network = apply_amp(network, "O1", dtype="bfloat16") if bf16 else network
    images = [Tensor(random(rng, 1, 3, 64, 64)), Tensor(random(rng, 3, 3, 96, 128))]
    expected = [network(x).asnumpy() for x in images]
    assert not any("Packed" in name for name in kernel_calls)
    packed = pack_for_inference(network, keep_weights=False)
    kernel_calls.clear()
    for x, logits in zip(images, expected):
        np.testing.assert_array_equal(packed(x).asnumpy(), logits)
    suffix, version = "Bf16" if bf16 else "", 2 if "v2" in name else 1
    assert {f"StageV{version}Packed{suffix}", f"StemPacked{suffix}", f"PatchPacked{suffix}"} <= kernel_calls
    assert not any("pwconv" in parameter.name for parameter in packed.get_parameters())
    assert not any(parameter.requires_grad for parameter in packed.feature[1].get_parameters())


def kernel_classes(cell):
    return {type(part).__name__ for _, part in cell.cells_and_names() if type(part).__module__ == operators.__name__}


@pytest.mark.parametrize("version", [1, 2])
def test_network_has_no_kernel_when_kernels_are_off(version, monkeypatch, rng, kernel_calls):
    """The test looks at classes of cells and at calls. With kernels, the network has and calls all kinds."""
    build = partial(ConvNeXt, depths=(1, 1, 1, 1), dims=(8, 16, 24, 32), use_grn=version == 2)
    x = Tensor(random(rng, 1, 3, 32, 32))
    network = build()
    assert kernel_classes(network) == {f"BlockV{version}Kernel", "LayerNormKernel", "PatchConvKernel"}
    network(x)
    assert {f"BlockV{version}", "Norm", "Patch", "Stem"} <= kernel_calls
    kernel_calls.clear()
    monkeypatch.setenv("MINDCV_KERNELS", "off")
    network = build()
    assert not kernel_classes(network)
    network(x)
    assert not kernel_calls


def tell(**environment):
    command = [sys.executable, "-m", "mindcv.kernels"]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})


def test_kernels_command_reports_the_settings_in_use():
    told = tell(OMP_NUM_THREADS="", MINDCV_KERNELS_THREADS="3", MINDCV_KERNELS_ISA="generic")
    assert told.returncode == 0
    assert "in use: yes" in told.stdout and "set: generic" in told.stdout and "threads: 3" in told.stdout
    assert f"sets built: {', '.join(status().stamp.built)}\n" in told.stdout
    assert f"compiler did not support: {', '.join(status().stamp.unknown) or 'none'}\n" in told.stdout
    assert "in use: no (MINDCV_KERNELS=off)" in tell(MINDCV_KERNELS="off").stdout
    wrong = tell(MINDCV_KERNELS="maybe")
    assert wrong.returncode == 1 and wrong.stderr.endswith("error: MINDCV_KERNELS must be 'on' or 'off', not 'maybe'\n")
    assert "MINDCV_KERNELS_THREADS must be a positive" in tell(MINDCV_KERNELS_THREADS="0").stderr
