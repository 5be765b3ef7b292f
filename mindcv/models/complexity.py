"""The size of a network in parameters and operations."""

from __future__ import annotations

from mindspore import nn

from mindcv.models.layers import LayerNorm, ProductCell

__all__ = ["count_macs", "count_parameters"]

# fvcore, with which timm counts, takes a norm for five operations per value.
_MACS_OF_A_NORM = 5


def count_parameters(network: nn.Cell) -> int:
    """Number of trained values of `network`."""
    return sum(parameter.size for parameter in network.trainable_params())


def count_macs(network: nn.Cell, image_size: int = 224) -> int:
    """Number of multiply-accumulate operations for one image of `image_size` x `image_size` pixels.

    A product uses each value of its weight once at each of its output positions. A norm counts 5 for each value, as in
    timm's published figures. Additions, GELU and GRN do not count there.

    Args:
        network: a network with `parameter_roles` and `feature_info`. The map of a stage has the image's side divided
            by the stage's `reduction`. Outside of the stages there is one position, since the map is pooled.
        image_size: height and width of the image.
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
            # A downsampling normalises the map of the stage before it.
            stage = role.stage - 1 if role.part == "downsampling" else role.stage
            positions = 1 if stage is None else sides[stage] ** 2
            total += _MACS_OF_A_NORM * layer.gamma.size * positions
    return total
