"""Layers against formulas in NumPy."""

import math

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from mindcv.models.layers import GELU, GRN, Dense, LayerNorm, PatchConv
from mindcv.models.layers.depthwise import BandedDepthwiseConv, OperatorDepthwiseConv

RNG = np.random.default_rng(5)


def random(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def fill(cell):
    """Random parameters; returns them as float64 arrays by name."""
    for parameter in cell.get_parameters():
        parameter.set_data(Tensor(random(*parameter.shape)))
    return {
        parameter.name.split(".")[-1]: parameter.asnumpy().astype(np.float64) for parameter in cell.get_parameters()
    }


def convolve(x, weight, bias, stride, pad, groups):
    """A convolution of [N, H, W, C] by its definition."""
    x = np.pad(x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    out, inner, k, _ = weight.shape
    n, h, w, c = x.shape
    rows, cols = (h - k) // stride + 1, (w - k) // stride + 1
    y = np.zeros((n, rows, cols, out))
    for i in range(rows):
        for j in range(cols):
            patch = x[:, i * stride : i * stride + k, j * stride : j * stride + k]
            if groups == 1:
                y[:, i, j] = np.einsum("nabc,ocab->no", patch, weight)
            else:
                y[:, i, j] = np.einsum("nabc,cab->nc", patch, weight[:, 0])
    return y + bias


@pytest.mark.parametrize(("height", "width", "kernel"), [(8, 8, 4), (11, 6, 4), (9, 7, 2), (5, 4, 2), (1, 1, 1)])
def test_patch_conv(height, width, kernel):
    layer = PatchConv(3, 5, kernel)
    p = fill(layer)
    x = random(2, height, width, 3)
    expected = convolve(x, p["weight"], p["bias"], kernel, 0, 1)
    np.testing.assert_allclose(layer(Tensor(x)).asnumpy(), expected, atol=1e-5)


@pytest.mark.parametrize("form", [BandedDepthwiseConv, OperatorDepthwiseConv])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 7), (9, 14), (1, 8)])
def test_depthwise_conv(form, size):
    layer = form(6, 7)
    p = fill(layer)
    x = random(2, *size, 6)
    expected = convolve(x, p["weight"], p["bias"], 1, 3, 6)
    np.testing.assert_allclose(layer(Tensor(x)).asnumpy(), expected, atol=2e-5)


def test_depthwise_forms_have_the_same_gradients():
    banded, operator = BandedDepthwiseConv(4, 7), OperatorDepthwiseConv(4, 7)
    fill(banded)
    for ours, theirs in zip(banded.get_parameters(), operator.get_parameters()):
        theirs.set_data(Tensor(ours.asnumpy()))
    x, weight = Tensor(random(2, 9, 6, 4)), Tensor(random(2, 9, 6, 4))
    found = []
    for layer in (banded, operator):

        def weighted(x, layer=layer):
            return ops.reduce_sum(layer(x) * weight)

        value = ms.value_and_grad(weighted, 0, layer.trainable_params())(x)[1]
        found.append([value[0].asnumpy(), *(gradient.asnumpy() for gradient in value[1])])
    for ours, theirs in zip(*found):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_dense():
    layer = Dense(5, 7)
    p = fill(layer)
    x = random(2, 3, 4, 5)
    np.testing.assert_allclose(layer(Tensor(x)).asnumpy(), x @ p["weight"].T + p["bias"], atol=1e-5)


def test_products_follow_the_input_type_and_keep_float32_weights():
    layer = Dense(5, 7)
    p = fill(layer)
    x = random(4, 5).astype(np.float16)
    y = layer(Tensor(x))
    assert y.dtype == ms.float16
    assert layer.weight.dtype == ms.float32
    np.testing.assert_allclose(y.asnumpy(), x.astype(np.float64) @ p["weight"].T + p["bias"], atol=2e-2)


def test_layer_norm():
    layer = LayerNorm(6)
    p = fill(layer)
    x = 3 + 2 * random(2, 3, 4, 6)
    mean = x.mean(-1, keepdims=True, dtype=np.float64)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    expected = (x - mean) / np.sqrt(variance + 1e-6) * p["gamma"] + p["beta"]
    np.testing.assert_allclose(layer(Tensor(x)).asnumpy(), expected, atol=1e-5)


def test_gelu_is_the_exact_form():
    x = np.linspace(-6, 6, 481).astype(np.float32)
    expected = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.astype(np.float64)]
    np.testing.assert_allclose(GELU()(Tensor(x)).asnumpy(), expected, atol=2e-6)


def grn(x, gamma, beta):
    x = x.astype(np.float64)
    g = np.sqrt((x**2).sum((1, 2), keepdims=True))
    n = g / (g.mean(-1, keepdims=True) + 1e-6)
    return gamma * (x * n) + beta + x


def test_grn():
    layer = GRN(5)
    p = fill(layer)
    x = random(3, 4, 6, 5)
    np.testing.assert_allclose(layer(Tensor(x)).asnumpy(), grn(x, p["gamma"], p["beta"]), atol=1e-5)


def test_grn_starts_as_the_identity():
    x = random(2, 3, 3, 4)
    np.testing.assert_array_equal(GRN(4)(Tensor(x)).asnumpy(), x)


def test_grn_of_a_dead_channel_has_finite_gradients():
    layer = GRN(3)
    fill(layer)
    x = random(2, 4, 4, 3)
    x[..., 1] = 0

    def total(x):
        return ops.reduce_sum(layer(x) * layer(x))

    _, (of_x, of_parameters) = ms.value_and_grad(total, 0, layer.trainable_params())(Tensor(x))
    for gradient in (of_x, *of_parameters):
        assert np.isfinite(gradient.asnumpy()).all()


def test_grn_in_float16_does_not_overflow():
    layer = GRN(2)
    p = fill(layer)
    x = np.full((1, 56, 56, 2), 12.0, np.float16)  # the sum of squares is 451,584, beyond float16
    found = layer(Tensor(x)).asnumpy()
    np.testing.assert_allclose(found, grn(x, p["gamma"], p["beta"]), rtol=2e-3)
