"""Small networks for the tests of the export, and the same networks as formulas in NumPy."""

import mindspore as ms
import numpy as np
from formulas import convolve, grn, norm, phi

from mindcv.models.convnext import ConvNeXt

__all__ = ["build", "run_formulas", "run_network"]

DEPTHS, DIMS = (1, 1, 2, 1), (8, 16, 24, 32)


def build(use_grn=False, in_channels=3, num_classes=5, **keywords):
    """Build a small network whose weights, all of them random, are large enough for every layer to matter."""
    network = ConvNeXt(in_channels, num_classes, DEPTHS, DIMS, use_grn, layer_scale_init_value=0.5, **keywords)
    rng = np.random.default_rng(7)
    for parameter in network.get_parameters():
        centre = 1.0 if parameter.name.endswith("gamma") else 0.0
        parameter.set_data(ms.Tensor((centre + 0.3 * rng.standard_normal(parameter.shape)).astype(np.float32)))
    return network.set_train(False)


def run_network(network, images):
    """Return the outputs of a network as a list of arrays."""
    outputs = network(ms.Tensor(images))
    return [output.asnumpy() for output in (outputs if isinstance(outputs, (list, tuple)) else [outputs])]


def run_formulas(network, images):
    """Return the logits of a network of `build`, by the formulas of its layers in float64."""
    weights = {name: p.asnumpy().astype(np.float64) for name, p in network.parameters_dict().items()}

    def layer(name):
        return weights[f"{name}.weight"], weights[f"{name}.bias"]

    def normed(x, name):
        return norm(x, weights[f"{name}.gamma"], weights[f"{name}.beta"])

    def dense(x, name):
        weight, bias = layer(name)
        return x @ weight.T + bias

    def block(x, name):
        y = convolve(x, *layer(f"{name}.dwconv"), 1, 3, x.shape[-1])
        y = dense(normed(y, f"{name}.norm"), f"{name}.pwconv1")
        y = y * phi(y)
        if f"{name}.grn.gamma" in weights:
            y = grn(y, weights[f"{name}.grn.gamma"], weights[f"{name}.grn.beta"])
        y = dense(y, f"{name}.pwconv2")
        return x + y * weights.get(f"{name}.gamma_", 1.0)

    x = images.astype(np.float64).transpose(0, 2, 3, 1)
    x = normed(convolve(x, *layer("feature.0.0"), 4, 0, 1), "feature.0.1")
    for stage, depth in enumerate(DEPTHS):
        if stage:
            x = convolve(normed(x, f"feature.{2 * stage}.0"), *layer(f"feature.{2 * stage}.1"), 2, 0, 1)
        for number in range(depth):
            x = block(x, f"feature.{2 * stage + 1}.{number}")
    return dense(normed(x.mean((1, 2)), "norm"), "classifier")
