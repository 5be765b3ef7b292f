"""Layers are compared with formulas in NumPy."""

import math

import mindspore as ms
import numpy as np
import pytest
from formulas import convolve, fill, grn, random
from mindspore import Tensor, ops

from mindcv.models.layers import GELU, GRN, Dense, LayerNorm, PatchConv


@pytest.mark.parametrize(("height", "width", "kernel"), [(8, 8, 4), (11, 6, 4), (9, 7, 2), (5, 4, 2), (1, 1, 1)])
def test_patch_conv_agrees_with_its_formula(height, width, kernel, rng):
    layer = PatchConv(3, 5, kernel)
    p = fill(rng, layer)
    x = random(rng, 2, height, width, 3)
    expected = convolve(x, p["weight"], p["bias"], kernel, 0, 1)
    np.testing.assert_allclose(layer(Tensor(x)).asnumpy(), expected, atol=1e-5)


def test_dense_agrees_with_its_formula(rng):
    layer = Dense(5, 7)
    p = fill(rng, layer)
    x = random(rng, 2, 3, 4, 5)
    np.testing.assert_allclose(layer(Tensor(x)).asnumpy(), x @ p["weight"].T + p["bias"], atol=1e-5)


def test_dense_computes_in_the_input_type_and_keeps_float32_weights(rng):
    layer = Dense(5, 7)
    p = fill(rng, layer)
    x = random(rng, 4, 5).astype(np.float16)
    y = layer(Tensor(x))
    assert y.dtype == ms.float16
    assert layer.weight.dtype == ms.float32
    np.testing.assert_allclose(y.asnumpy(), x.astype(np.float64) @ p["weight"].T + p["bias"], atol=2e-2)


def test_layer_norm_agrees_with_its_formula(rng):
    layer = LayerNorm(6)
    p = fill(rng, layer)
    x = 3 + 2 * random(rng, 2, 3, 4, 6)
    mean = x.mean(-1, keepdims=True, dtype=np.float64)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    expected = (x - mean) / np.sqrt(variance + 1e-6) * p["gamma"] + p["beta"]
    np.testing.assert_allclose(layer(Tensor(x)).asnumpy(), expected, atol=1e-5)


def test_gelu_is_the_exact_form():
    x = np.linspace(-6, 6, 481).astype(np.float32)
    expected = [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.astype(np.float64)]
    np.testing.assert_allclose(GELU()(Tensor(x)).asnumpy(), expected, atol=2e-6)


def test_grn_agrees_with_its_formula(rng):
    layer = GRN(5)
    p = fill(rng, layer)
    x = random(rng, 3, 4, 6, 5)
    np.testing.assert_allclose(layer(Tensor(x)).asnumpy(), grn(x, p["gamma"], p["beta"]), atol=1e-5)


def test_grn_starts_as_the_identity(rng):
    x = random(rng, 2, 3, 3, 4)
    np.testing.assert_array_equal(GRN(4)(Tensor(x)).asnumpy(), x)


def test_grn_gradients_are_finite_when_a_channel_is_zero(rng):
    layer = GRN(3)
    fill(rng, layer)
    x = random(rng, 2, 4, 4, 3)
    x[..., 1] = 0

    def total(x):
        return ops.reduce_sum(layer(x) * layer(x))

    _, (of_x, of_parameters) = ms.value_and_grad(total, 0, layer.trainable_params())(Tensor(x))
    for gradient in (of_x, *of_parameters):
        assert np.isfinite(gradient.asnumpy()).all()


def test_grn_in_float16_does_not_overflow(rng):
    layer = GRN(2)
    p = fill(rng, layer)
    x = np.full((1, 56, 56, 2), 12.0, np.float16)  # the sum of squares is 451,584, beyond float16
    found = layer(Tensor(x)).asnumpy()
    np.testing.assert_allclose(found, grn(x, p["gamma"], p["beta"]), rtol=2e-3)
