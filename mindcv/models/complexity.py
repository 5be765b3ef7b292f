"""Counts the parameters and operations of a network."""

from __future__ import annotations

from mindspore import nn

from mindcv.models.layers import LayerNorm, ProductCell

__all__ = ["count_macs", "count_parameters"]

# timm counts with fvcore, which counts five operations for each value of a norm.
_MACS_PER_NORM_VALUE = 5


def count_parameters(network: nn.Cell) -> int:
    """Return the number of trainable values of `network`."""
    return sum(parameter.size for parameter in network.trainable_params())


def count_macs(network: nn.Cell, image_size: int = 224) -> int:
    """Return the number of multiply-accumulate operations for one image.

    A product uses each value of its weight once at each output position. A norm counts 5 operations for each value.
    Additions, GELU and GRN do not count. timm's published figures follow the same rules.

    Args:
        network: network with `parameter_roles` and `feature_info`. Its last norm and head see one position, because
            they follow the pooling.
        image_size: height and width of the image in pixels.
    """
    roles = network.parameter_roles()
    sides = [image_size // info["reduction"] for info in network.feature_info]
    total = 0
    for _, layer in network.cells_and_names():
        if isinstance(layer, ProductCell):
            role = roles[layer.weight.name]
            positions = 1 if role.stage is None else sides[role.stage] ** 2
            total += layer.weight.size * positions
        elif isinstance(layer, LayerNorm):
            role = roles[layer.gamma.name]
            # The norm of a downsampling layer runs on the map of the stage before it.
            stage = role.stage - 1 if role.part == "downsampling" else role.stage
            positions = 1 if stage is None else sides[stage] ** 2
            total += _MACS_PER_NORM_VALUE * layer.gamma.size * positions
    return total
