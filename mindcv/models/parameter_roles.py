"""What each parameter of a network is, as the network tells optimizers."""

from __future__ import annotations

from typing import NamedTuple, Optional

from mindspore import nn

from mindcv.models.layers import GRN

__all__ = ["ParameterRole", "feature_roles", "roles_in"]


class ParameterRole(NamedTuple):
    """What one parameter of a network is.

    Attributes:
        part: `stem`, `downsampling`, `block`, `last norm` or `head`; `state` for a value that no optimizer trains.
        stage: the stage, from 0. The stem and a downsampling belong to the stage that follows them. None elsewhere.
        block: the block in its stage, from 0. None outside of blocks.
        is_decayed: whether weight decay applies to it when the recipe leaves norms and biases out.
    """

    part: str
    stage: Optional[int] = None
    block: Optional[int] = None
    is_decayed: bool = False


def feature_roles(feature: nn.Cell) -> dict[str, ParameterRole]:
    """Name -> role of the parameters of `feature`: the stem and stage 0, then a downsampling and a stage each."""
    roles = {}
    for index, section in enumerate(feature):
        stage, is_stage = divmod(index, 2)
        if is_stage:
            for number, block in enumerate(section):
                roles.update(roles_in(block, "block", stage, number))
        else:
            roles.update(roles_in(section, "downsampling" if stage else "stem", stage))
    return roles


def roles_in(
    cell: nn.Cell, part: str, stage: Optional[int] = None, block: Optional[int] = None
) -> dict[str, ParameterRole]:
    """Name -> role of all parameters of `cell`, which is one part of a network.

    Weight decay leaves out what is one-dimensional, each bias, and the scales and shifts of GRN ([1, 1, 1, C]).
    """
    grn = {id(p) for _, layer in cell.cells_and_names() if isinstance(layer, GRN) for p in layer.get_parameters()}
    roles = {}
    for parameter in cell.get_parameters():
        is_vector = parameter.ndim < 2 or id(parameter) in grn or parameter.name.split(".")[-1] == "bias"
        roles[parameter.name] = ParameterRole(part, stage, block, is_decayed=not is_vector)
    return roles
