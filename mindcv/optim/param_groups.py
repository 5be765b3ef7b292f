"""Parameter groups: which parameters are decayed, and the learning rate of each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Optional, Protocol

from mindspore import Parameter, nn

from mindcv.optim.base import GroupOptimizer, as_list
from mindcv.utils.checks import check_name, check_not_negative, check_number
from mindcv.utils.errors import UserError

__all__ = [
    "LAYER_DECAY_TYPES",
    "Role",
    "WEIGHT_DECAY_FILTERS",
    "describe_groups",
    "filter_groups",
    "is_decayed",
    "layer_decay_groups",
    "layer_ids",
    "roles_of",
    "weight_decay_groups",
]

# MindSpore's names of biases and of the scales and shifts of norms. In some layers these have
# several dimensions, so the number of dimensions is not enough to recognize them.
_UNDECAYED_NAMES = ("bias", "beta", "gamma")
WEIGHT_DECAY_FILTERS = ("disable", "auto", "norm_and_bias")
LAYER_DECAY_TYPES = ("single", "group")

_NUM_STAGES = 4


class Role(Protocol):
    """The place of a parameter in its network, and whether it is decayed.

    The method `parameter_roles()` of a network returns a dictionary from parameter name to role. `stage` is None for a
    parameter outside of the stages. `block` is None for a parameter outside of the blocks, as in the stem and in the
    downsampling layers.
    """

    @property
    def stage(self) -> Optional[int]:
        """Number of the stage, from 0; None outside of the stages."""

    @property
    def block(self) -> Optional[int]:
        """Number of the block in its stage, from 0; None outside of the blocks."""

    @property
    def is_decayed(self) -> bool:
        """Whether the parameter is decayed under a rule that excludes norms and biases."""


def roles_of(network: nn.Cell) -> dict[str, Role]:
    """Return the roles of parameters that `network` or the Cells inside of it declare. It is empty if none does."""
    roles: dict[str, Role] = {}
    for _, cell in network.cells_and_names():
        declare = getattr(cell, "parameter_roles", None)
        if declare is not None:
            roles = {**declare(), **roles}  # an outer Cell overrides the inner ones
    return roles


def is_decayed(param: Parameter) -> bool:
    """Return whether the rules `auto` and `norm_and_bias` decay a parameter that has no declared role.

    They do not decay parameters with one dimension, nor parameters that MindSpore's layers call `bias`, `beta` or
    `gamma`.
    """
    return param.ndim > 1 and param.name.split(".")[-1] not in _UNDECAYED_NAMES


def weight_decay_groups(
    params: Sequence[Parameter], weight_decay: float, rule: str, roles: Optional[Mapping[str, Role]] = None
) -> list[dict[str, Any]]:
    """Return groups for an optimizer: the decayed parameters, the parameters without decay, and the order of all.

    Every rule gives groups. Without groups, `nn.Optimizer` would decay biases but no parameter whose name contains
    `beta` or `gamma`.

    Args:
        params: the parameters, in the order that the optimizer keeps.
        weight_decay: coefficient of the decayed parameters, at least 0.
        rule: `disable` decays all parameters. `auto` and `norm_and_bias` both exclude all biases and norms; in MindCV
            each of these two rules misses some of them.
        roles: roles that the network declares for its parameters, by name. `is_decayed` decides for parameters without
            a role.

    Raises:
        UserError: the rule is unknown, or there are no parameters.
    """
    params = as_list("params", params)
    return _groups(params, _decays(params, weight_decay, rule, roles or {}), [None] * len(params))


def filter_groups(groups: Sequence[dict[str, Any]], weight_decay: float, rule: str) -> list[dict[str, Any]]:
    """Apply a weight-decay rule to the groups that do not have their own `weight_decay`.

    A rule other than `disable` splits each such group into its decayed and its other parameters.

    Args:
        groups: groups, see `GroupOptimizer`. The order of the parameters does not change.
        weight_decay: coefficient of the decayed parameters, at least 0.
        rule: see `weight_decay_groups`.

    Raises:
        UserError: the rule is unknown, or a group holds a value that is not a parameter.
    """
    groups = as_list("groups", groups)
    if check_name("weight_decay_filter", rule, WEIGHT_DECAY_FILTERS) == "disable":
        return groups
    filtered, order = [], []
    for group in groups:
        if "params" not in group:
            filtered.append(group)
            continue
        params = as_list("params of a group", group["params"])
        order += params
        parts = [{}] if "weight_decay" in group else weight_decay_groups(params, weight_decay, rule)[:-1]
        filtered += [{**group, "params": params, **part} for part in parts]
    return filtered if any("order_params" in group for group in groups) else [*filtered, {"order_params": order}]


def layer_decay_groups(
    params: Sequence[Parameter],
    weight_decay: float,
    rule: str,
    layer_decay: float,
    layer_decay_type: str = "single",
    roles: Optional[Mapping[str, Role]] = None,
) -> list[dict[str, Any]]:
    """Return groups like `weight_decay_groups`, with learning rates that decrease from the head to the stem.

    Each group has an `lr_scale`, by which the optimizers of this library multiply the learning rate. It is
    `layer_decay` to the power `last - layer`, where `layer_ids` gives the layer of the parameter and the last layer.

    Args:
        params: the parameters of a network. Frozen parameters are not in any group.
        weight_decay: coefficient of the decayed parameters, at least 0.
        rule: rule that selects the decayed parameters, see `weight_decay_groups`.
        layer_decay: factor in (0, 1]; 1 gives every layer the full learning rate.
        layer_decay_type: how parameters are divided into layers, see `layer_ids`.
        roles: roles that the network declares for all its parameters, by name. A parameter without a role gets the full
            learning rate.

    Raises:
        UserError: the rule or the type is unknown, `layer_decay` is out of its range, the roles do not belong to a
            complete ConvNeXt, or there are no parameters to train.
    """
    check_number("layer_decay", layer_decay, above=0, high=1)
    params = as_list("params", params)
    trainable = [p for p in params if p.requires_grad]
    decays = _decays(trainable, weight_decay, rule, roles or {})
    ids, last = layer_ids(roles or {}, layer_decay_type)
    return _groups(trainable, decays, [layer_decay ** (last - ids.get(p.name, last)) for p in trainable])


def layer_ids(roles: Mapping[str, Role], layer_decay_type: str = "single") -> tuple[dict[str, int], int]:
    """Return the layer number of each parameter of a ConvNeXt, and the number of the last layer, which is the head.

    - `single`: each block is a layer. If d is the number of blocks before stage S, block B of stage S is layer
      d + B + 1. The downsampling layer before stage S, or the stem if S is 0, is layer d + 1, like the first block of
      the stage. All other parameters belong to the last layer, which is the number of blocks plus 1.
    - `group`: the stem is layer 0, stage 0 is layer 1, stage 1 is layer 2, block B of stage 2 is layer 3 + B // 3,
      stage 3 is layer 12, and all other parameters belong to layer 13. The downsampling layers before stages 1, 2 and 3
      are layers 2, 3 and 12. These numbers do not depend on the depth of stage 2: if it has fewer than 27 blocks, some
      numbers are not used.

    Source: `optim_factory.py` of the official ConvNeXt and ConvNeXt V2 code.

    Args:
        roles: name -> role of the parameters of the network.
        layer_decay_type: `single` or `group`.

    Returns:
        name -> layer number, and the number of the last layer.

    Raises:
        UserError: the type is unknown, or the roles do not belong to four complete stages.
    """
    check_name("layer_decay_type", layer_decay_type, LAYER_DECAY_TYPES)
    depths = _depths(roles)
    number = _single_id if layer_decay_type == "single" else _group_id
    last = sum(depths) + 1 if layer_decay_type == "single" else 13
    ids = {name: last if role.stage is None else number(depths, role) for name, role in roles.items()}
    return ids, last


def describe_groups(optimizer: GroupOptimizer) -> str:
    """Return a readable table of the parameters that the optimizer trains.

    Each row holds the name, the shape, the factor of the learning rate, and the weight decay.
    """
    rows = [("parameter", "shape", "lr scale", "weight decay")]
    for param, scale, decay in zip(optimizer.parameters, optimizer.lr_scales, optimizer.weight_decays):
        shape = "x".join(str(size) for size in param.shape) or "scalar"
        rows.append((param.name, shape, f"{scale:.6g}", f"{decay:.6g}"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = []
    for name, shape, scale, decay in rows:
        lines.append(f"{name:<{widths[0]}}  {shape:>{widths[1]}}  {scale:>{widths[2]}}  {decay:>{widths[3]}}")
    return "\n".join(lines)


def _decays(params: list[Parameter], weight_decay: float, rule: str, roles: Mapping[str, Role]) -> list[float]:
    check_name("weight_decay_filter", rule, WEIGHT_DECAY_FILTERS)
    check_not_negative(weight_decay=weight_decay)
    if not params:
        raise UserError("the optimizer got no parameters to train")
    if rule == "disable":
        return [weight_decay] * len(params)
    chosen = [roles[p.name].is_decayed if p.name in roles else is_decayed(p) for p in params]
    return [weight_decay if is_chosen else 0.0 for is_chosen in chosen]


def _groups(params: list[Parameter], decays: list[float], scales: list[Optional[float]]) -> list[dict[str, Any]]:
    """Return one group per pair of weight decay and scale, larger decays first, and a last group with the order."""
    members: dict[tuple[float, Optional[float]], list[Parameter]] = {}
    for param, decay, scale in zip(params, decays, scales):
        members.setdefault((decay, scale), []).append(param)
    groups = []
    for decay, scale in sorted(members, key=lambda key: -key[0]):
        group = {"params": members[decay, scale], "weight_decay": decay}
        groups.append(group if scale is None else {**group, "lr_scale": scale})
    return [*groups, {"order_params": params}]


def _depths(roles: Mapping[str, Role]) -> list[int]:
    """Return the number of blocks in each stage."""
    if not roles:
        raise UserError(
            "layer_decay needs to know the layer of each parameter, and only a network with the method parameter_roles "
            "says so (each ConvNeXt has it): give create_optimizer the network itself instead of its parameters"
        )
    blocks = {(role.stage, role.block) for role in roles.values() if role.block is not None}
    stages = {role.stage for role in roles.values() if role.stage is not None}
    depths = [sum(stage == s for s, _ in blocks) for stage in range(_NUM_STAGES)]
    expected = {(stage, block) for stage, depth in enumerate(depths) for block in range(depth)}
    if not all(depths) or blocks != expected or max(stages) >= _NUM_STAGES:
        raise UserError(
            f"layer_decay needs a network with {_NUM_STAGES} stages, but these parameters are not those of a whole "
            f"ConvNeXt (blocks found in each stage: {depths})"
        )
    return depths


def _single_id(depths: list[int], role: Role) -> int:
    return sum(depths[: role.stage]) + (role.block or 0) + 1


def _group_id(depths: list[int], role: Role) -> int:
    if role.block is None:
        return (0, 2, 3, 12)[role.stage]
    return (1, 2, 3 + role.block // 3, 12)[role.stage]
