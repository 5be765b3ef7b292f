"""The operator forms for CPU, and blocks without kernels, against formulas in NumPy."""

import math

import mindspore as ms
import numpy as np
import pytest
from formulas import convolve, fill, grn, norm, phi, random
from mindspore import Tensor, nn, ops

from mindcv.models.convnext import ConvNeXtBlock, ConvNeXtV2Block
from mindcv.models.layers import KeepPath, LayerNorm
from mindcv.models.layers.cpu.depthwise import FourierDepthwiseConv
from mindcv.models.layers.cpu.normal_cdf import NormalCdf
from mindcv.models.layers.depthwise import OperatorDepthwiseConv


@pytest.mark.parametrize("form", [FourierDepthwiseConv, OperatorDepthwiseConv])
@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 7), (9, 14), (1, 8)])
def test_depthwise_forms_agree_with_the_formula(form, size, rng):
    layer = form(6, 7)
    p = fill(rng, layer)
    x = random(rng, 2, *size, 6)
    expected = convolve(x, p["weight"], p["bias"], 1, 3, 6)
    np.testing.assert_allclose(layer(Tensor(x)).asnumpy(), expected, atol=2e-5)


def test_depthwise_forms_have_the_same_gradients(rng):
    fourier, operator = FourierDepthwiseConv(4, 7), OperatorDepthwiseConv(4, 7)
    fill(rng, fourier)
    for ours, theirs in zip(fourier.get_parameters(), operator.get_parameters()):
        theirs.set_data(Tensor(ours.asnumpy()))
    x, weight = Tensor(random(rng, 2, 9, 6, 4)), Tensor(random(rng, 2, 9, 6, 4))
    found = []
    for layer in (fourier, operator):

        def weighted(x, layer=layer):
            return ops.reduce_sum(layer(x) * weight)

        value = ms.value_and_grad(weighted, 0, layer.trainable_params())(x)[1]
        found.append([value[0].asnumpy(), *(gradient.asnumpy() for gradient in value[1])])
    for ours, theirs in zip(*found):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.fixture
def no_kernels(monkeypatch):
    monkeypatch.setenv("MINDCV_KERNELS", "off")


def test_normal_cdf_gives_gelu_and_its_slope():
    x = np.linspace(-15, 15, 6001).astype(np.float32)
    cdf = NormalCdf()
    found = cdf(Tensor(x))
    np.testing.assert_allclose(x * found.asnumpy(), x * phi(x), atol=7e-7, rtol=2e-7)
    density = np.exp(-(x.astype(np.float64) ** 2) / 2) / math.sqrt(2 * math.pi)
    np.testing.assert_allclose(cdf.gelu_slope(Tensor(x), found).asnumpy(), phi(x) + x * density, atol=3e-6)


def test_normal_cdf_is_exact_for_huge_infinite_and_nan_inputs():
    x = np.array([1e4, -1e4, 1e20, -1e20, np.inf, -np.inf, np.nan], np.float32)
    found = NormalCdf()(Tensor(x)).asnumpy()
    np.testing.assert_array_equal(found, np.array([1, 0, 1, 0, 1, 0, np.nan], np.float32))


def convolve_with_zeros(x, weight, bias):
    return convolve(x, weight, bias, 1, weight.shape[-1] // 2, x.shape[-1])


def block_in_numpy(version, x, p):
    """A block by the papers' formulas, in float64."""
    x = x.astype(np.float64)
    y = norm(convolve_with_zeros(x, p["dwconv.weight"], p["dwconv.bias"]), p["norm.gamma"], p["norm.beta"])
    y = y @ p["pwconv1.weight"].T + p["pwconv1.bias"]
    y = y * phi(y)
    if version == 2:
        y = grn(y, p["grn.gamma"], p["grn.beta"])
    y = y @ p["pwconv2.weight"].T + p["pwconv2.bias"]
    return x + (y if version == 2 else y * p["gamma_"])


def make_block(rng, version, channels):
    """Return a block with random parameters, and its parameters in float64."""
    block = (ConvNeXtBlock if version == 1 else ConvNeXtV2Block)(channels, KeepPath())
    for parameter in block.get_parameters():
        parameter.set_data(Tensor(0.5 * random(rng, *parameter.shape)))
    return block, {name: value.asnumpy().astype(np.float64) for name, value in block.parameters_dict().items()}


# One pixel, one image, odd sizes, more pixels than channels (GRN in the weight) and fewer (in the map).
SHAPES = [(3, 1, 1, 5), (1, 2, 3, 8), (2, 9, 6, 4), (2, 3, 4, 12)]


@pytest.mark.usefixtures("no_kernels", "both_modes")
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_block_without_kernels_agrees_with_the_formula(version, shape, rng):
    block, p = make_block(rng, version, shape[-1])
    x = random(rng, *shape)
    expected = block_in_numpy(version, x, p)
    found = block(Tensor(x)).asnumpy()
    np.testing.assert_allclose(found, expected, atol=3e-6 * np.abs(expected).max())


class Gradients(nn.Cell):
    """Compute the gradients of sum(cell(x) * weight) with respect to x and to the parameters."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell
        self.gradient = ms.grad(self.weighted, 0, cell.trainable_params())

    def weighted(self, x, weight):
        return ops.ReduceSum()(self.cell(x) * weight)

    def construct(self, x, weight):
        return self.gradient(x, weight)


@pytest.mark.usefixtures("no_kernels", "both_modes")
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_block_without_kernels_has_the_gradients_of_the_formula(version, shape, rng):
    """The gradients are compared along one random direction for each parameter, with central differences in float64."""
    block, p = make_block(rng, version, shape[-1])
    x, weight = random(rng, *shape), random(rng, *shape)
    of_x, of_parameters = Gradients(block)(Tensor(x), Tensor(weight))
    found = {name: value.asnumpy() for name, value in zip(p, of_parameters)} | {"x": of_x.asnumpy()}
    values = p | {"x": x.astype(np.float64)}

    def total(name, moved):
        now = values | {name: moved}
        return (block_in_numpy(version, now["x"], now) * weight).sum()

    for name, value in values.items():
        step = 1e-5 * random(rng, *value.shape).astype(np.float64)
        expected = (total(name, value + step) - total(name, value - step)) / 2e-5
        norm_of_gradient = np.linalg.norm(found[name]) + 1e-6
        assert abs((found[name] * step).sum() * 1e5 - expected) < 2e-5 * max(norm_of_gradient, 1), name


@pytest.mark.usefixtures("no_kernels")
@pytest.mark.parametrize("version", [1, 2])
def test_block_has_the_gradients_of_pynative_mode_in_graph_mode(version, rng):
    shape = SHAPES[-1]
    block, _ = make_block(rng, version, shape[-1])
    gradients, arguments = Gradients(block), [Tensor(random(rng, *shape)) for _ in range(2)]
    expected = gradients(*arguments)
    ms.set_context(mode=ms.GRAPH_MODE)
    found = gradients(*arguments)
    for ours, theirs in zip((found[0], *found[1]), (expected[0], *expected[1])):
        np.testing.assert_allclose(ours.asnumpy(), theirs.asnumpy(), atol=1e-5 * max(np.abs(theirs.asnumpy()).max(), 1))


@pytest.mark.usefixtures("no_kernels")
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_block_without_kernels_propagates_nan_and_infinity(version, value, rng):
    """Only the image that holds the value has NaN in its output. The other image stays finite."""
    block, _ = make_block(rng, version, 6)
    x = random(rng, 2, 5, 4, 6)
    x[0, 2, 1, 3] = value
    found = block(Tensor(x)).asnumpy()
    assert np.isnan(found[0, 2, 1]).all()
    assert np.isfinite(found[1]).all()


@pytest.mark.usefixtures("no_kernels", "both_modes")
def test_block_without_kernels_has_finite_gradients_when_channels_are_zero(rng):
    block, _ = make_block(rng, 2, 4)
    block.pwconv1.weight.set_data(Tensor(np.zeros((16, 4), np.float32)))
    block.pwconv1.bias.set_data(Tensor(np.zeros(16, np.float32)))
    of_x, of_parameters = Gradients(block)(Tensor(random(rng, 2, 3, 3, 4)), Tensor(random(rng, 2, 3, 3, 4)))
    for gradient in (of_x, *of_parameters):
        assert np.isfinite(gradient.asnumpy()).all()


@pytest.mark.usefixtures("no_kernels")
def test_layer_norm_without_kernels_is_exact_far_from_zero(rng):
    """The mean is a thousand standard deviations, so the variance must be computed after its subtraction."""
    layer = LayerNorm(6)
    p = fill(rng, layer)
    x = 1000 + random(rng, 7, 6)
    expected = norm(x.astype(np.float64), p["gamma"], p["beta"])
    np.testing.assert_allclose(layer(Tensor(x)).asnumpy(), expected, atol=2e-3)


@pytest.mark.usefixtures("no_kernels", "both_modes")
def test_block_without_kernels_has_the_same_gradients_when_recomputed(rng):
    block, _ = make_block(rng, 2, 6)
    x, weight = Tensor(random(rng, 2, 4, 5, 6)), Tensor(random(rng, 2, 4, 5, 6))
    kept = Gradients(block)(x, weight)
    block.recompute()
    again = Gradients(block)(x, weight)
    np.testing.assert_array_equal(kept[0].asnumpy(), again[0].asnumpy())
    for ours, theirs in zip(kept[1], again[1]):
        np.testing.assert_array_equal(ours.asnumpy(), theirs.asnumpy())
