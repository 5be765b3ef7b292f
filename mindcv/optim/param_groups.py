"""Which parameters weight decay applies to, and how fast each layer learns."""

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

# MindSpore's names of biases and of the scales and shifts of norms. Some layers give these several dimensions, and
# counting dimensions alone would miss them.
_UNDECAYED_NAMES = ("bias", "beta", "gamma")
WEIGHT_DECAY_FILTERS = ("disable", "auto", "norm_and_bias")
LAYER_DECAY_TYPES = ("single", "group")

_NUM_STAGES = 4


class Role(Protocol):
    """What a network says of one of its parameters in `parameter_roles()`, a dictionary from name to role.

    `stage` is None outside of the stages, and `block` is None outside of the blocks (the stem and the downsamplings).
    """

    @property
    def stage(self) -> Optional[int]:
        """The stage, from 0."""

    @property
    def block(self) -> Optional[int]:
        """The block in its stage, from 0."""

    @property
    def is_decayed(self) -> bool:
        """Whether weight decay applies to it when norms and biases are left out."""


def roles_of(network: nn.Cell) -> dict[str, Role]:
    """The roles of parameters that `network`, or the Cells inside of it, declare; empty where none does."""
    roles: dict[str, Role] = {}
    for _, cell in network.cells_and_names():
        declare = getattr(cell, "parameter_roles", None)
        if declare is not None:
            roles = {**declare(), **roles}  # the outer Cell decides
    return roles


def is_decayed(param: Parameter) -> bool:
    """Whether the rules `auto` and `norm_and_bias` decay a parameter of which no network declares a role.

    They leave out anything one-dimensional, and what MindSpore's layers call `bias`, `beta` or `gamma`.
    """
    return param.ndim > 1 and param.name.split(".")[-1] not in _UNDECAYED_NAMES


def weight_decay_groups(
    params: Sequence[Parameter], weight_decay: float, rule: str, roles: Optional[Mapping[str, Role]] = None
) -> list[dict[str, Any]]:
    """Groups for an optimizer: the decayed parameters, those that are not, and the order of all.

    Groups are made under every rule: given bare parameters, `nn.Optimizer` decays biases but nothing that has `beta`
    or `gamma` in its name.

    Args:
        params: the parameters, in the order the optimizer is to keep.
        weight_decay: coefficient of the decayed ones.
        rule: `disable` (decay everything), or `auto` or `norm_and_bias` (leave out biases and norms; MindCV's two rules
            differ in what they miss, and are one here).
        roles: what the network declares of its parameters. `is_decayed` decides for the others.

    Raises:
        UserError: an unknown rule, or no parameters.
    """
    params = as_list("params", params)
    return _groups(params, _decays(params, weight_decay, rule, roles or {}), [None] * len(params))


def filter_groups(groups: Sequence[dict[str, Any]], weight_decay: float, rule: str) -> list[dict[str, Any]]:
    """Groups whose weight decay is the rule's where they state none: each such group becomes two.

    Args:
        groups: as `GroupOptimizer` takes them. The order of the parameters stays.
        weight_decay: coefficient of what is decayed.
        rule: see `weight_decay_groups`.

    Raises:
        UserError: an unknown rule, or something in a group that is no parameter.
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
    """`weight_decay_groups`, with rates that fall from the head to the stem.

    The groups have an `lr_scale`, which the optimizers of this library multiply their rate by: `layer_decay` to the
    power of the number of layers between the parameter's and the last (`layer_ids`).

    Args:
        params: the parameters of a network. Frozen ones are in no group.
        weight_decay: coefficient of the decayed ones.
        rule: what is decayed, see `weight_decay_groups`.
        layer_decay: in (0, 1]; 1 gives every layer the full rate.
        layer_decay_type: see `layer_ids`.
        roles: what the network declares of all its parameters. A parameter without a role gets the full rate.

    Raises:
        UserError: an unknown rule or type, a `layer_decay` out of its range, roles that are not those of a whole
            ConvNeXt, or nothing to train.
    """
    check_number("layer_decay", layer_decay, above=0, high=1)
    params = as_list("params", params)
    trainable = [p for p in params if p.requires_grad]
    decays = _decays(trainable, weight_decay, rule, roles or {})
    ids, last = layer_ids(roles or {}, layer_decay_type)
    return _groups(trainable, decays, [layer_decay ** (last - ids.get(p.name, last)) for p in trainable])


def layer_ids(roles: Mapping[str, Role], layer_decay_type: str = "single") -> tuple[dict[str, int], int]:
    """The layer that each parameter of a ConvNeXt belongs to, and the number of the last: that of the head.

    Source: `optim_factory.py` of the official ConvNeXt and ConvNeXt V2 code. With `d` the number of blocks before
    stage S:

    - `single`: every block is a layer. Block B of stage S is d + B + 1, the downsampling before stage S (and the stem,
      for S = 0) d + 1 like the first block of the stage, and the rest one more than there are blocks.
    - `group`: stem 0, stage 0 is 1, stage 1 is 2, stage 2 is 3 + B // 3, stage 3 is 12, the rest 13; the downsamplings
      before stages 1, 2 and 3 are 2, 3 and 12. So for every depth of stage 2, as in that code: with fewer than 27
      blocks there some numbers are not used, and the gap before stage 3 stays as wide.

    Args:
        roles: name -> role of the network's parameters.
        layer_decay_type: `single` or `group`.

    Raises:
        UserError: an unknown type, or roles that are not those of four stages with every block.
    """
    check_name("layer_decay_type", layer_decay_type, LAYER_DECAY_TYPES)
    depths = _depths(roles)
    number = _single_id if layer_decay_type == "single" else _group_id
    last = sum(depths) + 1 if layer_decay_type == "single" else 13
    ids = {name: last if role.stage is None else number(depths, role) for name, role in roles.items()}
    return ids, last


def describe_groups(optimizer: GroupOptimizer) -> str:
    """A table, for people: name, shape, factor of the rate and weight decay of each parameter the optimizer trains."""
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
    """One group for each pair of weight decay and scale, those with the larger decay first, and the order of all."""
    members: dict[tuple[float, Optional[float]], list[Parameter]] = {}
    for param, decay, scale in zip(params, decays, scales):
        members.setdefault((decay, scale), []).append(param)
    groups = []
    for decay, scale in sorted(members, key=lambda key: -key[0]):
        group = {"params": members[decay, scale], "weight_decay": decay}
        groups.append(group if scale is None else {**group, "lr_scale": scale})
    return [*groups, {"order_params": params}]


def _depths(roles: Mapping[str, Role]) -> list[int]:
    """Blocks of each stage."""
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
            f"layer_decay is made for networks of {_NUM_STAGES} stages, and these parameters are not those of a whole "
            f"ConvNeXt (blocks found in each stage: {depths})"
        )
    return depths


def _single_id(depths: list[int], role: Role) -> int:
    return sum(depths[: role.stage]) + (role.block or 0) + 1


def _group_id(depths: list[int], role: Role) -> int:
    if role.block is None:
        return (0, 2, 3, 12)[role.stage]
    return (1, 2, 3 + role.block // 3, 12)[role.stage]
