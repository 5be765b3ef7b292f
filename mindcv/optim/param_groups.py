"""Which parameters weight decay applies to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mindspore import Parameter

from mindcv.utils.errors import UserError, unknown_name

__all__ = ["is_decayed", "weight_decay_groups"]

# Last part of the name of biases, of LayerNorm's and GRN's gain and shift, and of LayerScale's factor. GRN's are
# [1, 1, 1, C], so that counting dimensions alone would miss them.
_UNDECAYED_NAMES = ("bias", "beta", "gamma", "gamma_")
_RULES = ("disable", "auto", "norm_and_bias")


def is_decayed(param: Parameter) -> bool:
    """Whether the rules `auto` and `norm_and_bias` decay `param`: no for anything one-dimensional, any bias, and the
    scales and shifts of LayerNorm, GRN and LayerScale."""
    return param.ndim > 1 and param.name.split(".")[-1] not in _UNDECAYED_NAMES


def weight_decay_groups(params: Sequence[Parameter], weight_decay: float, rule: str) -> list[dict[str, Any]]:
    """Groups for `nn.Optimizer`: the decayed parameters, those that are not, and the order of all.

    Groups are made under every rule: given bare parameters, `nn.Optimizer` decays biases but nothing that has `beta`
    or `gamma` in its name.

    Args:
        params: the parameters, in the order the optimizer is to keep.
        weight_decay: coefficient of the decayed ones.
        rule: `disable` (decay everything), or `auto` or `norm_and_bias` (decay what `is_decayed` says; MindCV's two
            rules differ in what they miss, and are one here).

    Raises:
        UserError: an unknown rule, or no parameters.
    """
    if rule not in _RULES:
        raise UserError(unknown_name("weight_decay_filter", rule, _RULES))
    params = list(params)
    if not params:
        raise UserError("the optimizer got no parameters to train")
    decayed = [p for p in params if rule == "disable" or is_decayed(p)]
    kept = {id(p) for p in decayed}
    undecayed = [p for p in params if id(p) not in kept]
    groups: list[dict[str, Any]] = []
    # nn.Optimizer refuses an empty group.
    if decayed:
        groups.append({"params": decayed, "weight_decay": weight_decay})
    if undecayed:
        groups.append({"params": undecayed, "weight_decay": 0.0})
    return [*groups, {"order_params": params}]
