"""The role of each parameter in a network. Optimizers group parameters by it."""

from __future__ import annotations

from typing import NamedTuple, Optional

from mindspore import nn

from mindcv.models.layers import GRN

__all__ = ["ParameterRole", "feature_roles", "roles_in"]


class ParameterRole(NamedTuple):
    """The role of one parameter in a network.

    Attributes:
        part: `stem`, `downsampling`, `block`, `last norm`, FCMAE's `decoder`, or `head`. The part `state` holds values
            that no optimizer trains.
        stage: number of the stage, from 0. The stem and a downsampling layer belong to the stage that follows them.
            None for the other parts.
        block: number of the block in its stage, from 0. None outside of blocks.
        is_decayed: whether weight decay applies to the parameter if the recipe exempts norms and biases.
    """

    part: str
    stage: Optional[int] = None
    block: Optional[int] = None
    is_decayed: bool = False


def feature_roles(feature: nn.Cell) -> dict[str, ParameterRole]:
    """Return the roles of the parameters of a network's stages, by name.

    Args:
        feature: the stem and stage 0, then a downsampling layer and a stage for each further stage.
    """
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
    """Return the roles of all parameters of `cell`, by name.

    Weight decay exempts one-dimensional parameters, biases, and GRN's `gamma` and `beta` of shape [1, 1, 1, C].

    Args:
        cell: one part of a network.
        part, stage, block: place of `cell` in the network (see `ParameterRole`).
    """
    grn = {id(p) for _, layer in cell.cells_and_names() if isinstance(layer, GRN) for p in layer.get_parameters()}
    roles = {}
    for parameter in cell.get_parameters():
        is_vector = parameter.ndim < 2 or id(parameter) in grn or parameter.name.split(".")[-1] == "bias"
        roles[parameter.name] = ParameterRole(part, stage, block, is_decayed=not is_vector)
    return roles
