"""Names of optimizers to optimizers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Callable, Optional, Union

import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.nn.learning_rate_schedule import LearningRateSchedule

from mindcv.optim.adamw import AdamW
from mindcv.optim.lr_table import LearningRateTable
from mindcv.optim.param_groups import weight_decay_groups
from mindcv.utils.errors import UserError, nearest, unknown_name

__all__ = ["create_optimizer"]

_Rate = Union[float, Sequence[float], np.ndarray, Tensor, LearningRateSchedule]


def _sgd(groups: list, momentum: float, nesterov: bool, dampening: float = 0.0, **common: Any) -> nn.Optimizer:
    return nn.SGD(groups, momentum=momentum, nesterov=nesterov, dampening=dampening, **_without_eps(common))


def _momentum(groups: list, momentum: float, nesterov: bool, **common: Any) -> nn.Optimizer:
    if nesterov:
        # nn.Momentum ignores use_nesterov on CPU, without a word; nn.SGD is the same formula and does not.
        return _sgd(groups, momentum, nesterov, **common)
    return nn.Momentum(groups, momentum=momentum, **_without_eps(common))


def _adam(
    groups: list, momentum: float, nesterov: bool, betas: tuple[float, float] = (0.9, 0.999), **common: Any
) -> nn.Optimizer:
    return nn.Adam(groups, beta1=betas[0], beta2=betas[1], use_nesterov=nesterov, **common)


def _adamw(
    groups: list, momentum: float, nesterov: bool, betas: tuple[float, float] = (0.9, 0.999), **common: Any
) -> nn.Optimizer:
    if nesterov:
        raise UserError("opt 'adamw' has no Nesterov form: set use_nesterov (nesterov) to False")
    return AdamW(groups, betas=betas, **common)


def _without_eps(common: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in common.items() if name != "eps"}


# name -> (builder, keywords of its own)
_OPTIMIZERS: dict[str, tuple[Callable[..., nn.Optimizer], tuple[str, ...]]] = {
    "sgd": (_sgd, ("dampening",)),
    "momentum": (_momentum, ()),
    "adam": (_adam, ("betas",)),
    "adamw": (_adamw, ("betas",)),
}
_LATER = ("adagrad", "adan", "lamb", "lion", "nadam", "rmsprop")


def create_optimizer(
    model_or_params: Union[nn.Cell, Sequence[Parameter], Sequence[dict[str, Any]]],
    opt: str = "adam",
    lr: Optional[_Rate] = 1e-3,
    weight_decay: float = 0,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay_filter: str = "disable",
    layer_decay: Optional[float] = None,
    loss_scale: float = 1.0,
    schedule_decay: float = 4e-3,
    checkpoint_path: str = "",
    eps: float = 1e-10,
    **kwargs: Any,
) -> nn.Optimizer:
    """An optimizer by name.

    Args:
        model_or_params: a network (its trainable parameters), parameters, or groups as `nn.Optimizer` takes them.
        opt: `sgd` (`momentum` 0 is plain SGD), `momentum`, `adam` (`nn.Adam`: the decay is added to the gradient, and
            eps to the uncorrected second moment) or `adamw`.
        lr: a rate, a table of one rate a step (its last one holds past the end), or a schedule Cell; a group's own
            `lr` likewise.
        weight_decay: coefficient, at least 0.
        momentum: of `sgd` and `momentum`, at least 0.
        nesterov: Nesterov's form, of `sgd`, `momentum` and `adam`.
        weight_decay_filter: what is decayed, see `weight_decay_groups`. Groups say so themselves, and need `disable`.
        layer_decay: comes with a later version.
        loss_scale: the gradients arrive multiplied by this; above 0.
        schedule_decay: of `nadam`, which comes with a later version.
        checkpoint_path: comes with a later version.
        eps: of `adam` and `adamw`, above 0.
        **kwargs: `betas` (a pair) of `adam` and `adamw`, `dampening` of `sgd`.

    Raises:
        UserError: an unknown optimizer, rule or keyword, a value out of its range, or what a later version brings.
    """
    name = opt.lower()
    if name in _LATER:
        raise UserError(f"opt '{opt}' comes with a later version (there are: {', '.join(_OPTIMIZERS)})")
    if name not in _OPTIMIZERS:
        raise UserError(unknown_name("opt", opt, _OPTIMIZERS))
    if layer_decay is not None or checkpoint_path:
        raise UserError("layer_decay and checkpoint_path of the optimizer come with a later version")
    _check_range(weight_decay=weight_decay, momentum=momentum)
    _check_range(above_zero=True, loss_scale=loss_scale, eps=eps)
    build, own_keywords = _OPTIMIZERS[name]
    for key in kwargs:
        if key not in own_keywords:
            allowed = ", ".join(own_keywords) or "none"
            raise UserError(f"opt '{name}' has no keyword '{key}'{nearest(key, own_keywords)} (it has: {allowed})")
    return build(
        _groups(model_or_params, weight_decay, weight_decay_filter),
        momentum=float(momentum),
        nesterov=nesterov,
        learning_rate=_rate(lr),
        weight_decay=float(weight_decay),
        loss_scale=float(loss_scale),
        eps=eps,
        **kwargs,
    )


def _groups(
    model_or_params: Union[nn.Cell, Sequence[Parameter], Sequence[dict[str, Any]]], weight_decay: float, rule: str
) -> list[dict[str, Any]]:
    if isinstance(model_or_params, nn.Cell):
        return weight_decay_groups(model_or_params.trainable_params(), weight_decay, rule)
    items = list(model_or_params)
    if not any(isinstance(item, dict) for item in items):
        return weight_decay_groups(items, weight_decay, rule)
    if rule != "disable":
        raise UserError(f"weight_decay_filter '{rule}' is for parameters; groups state their own weight_decay")
    return [{**item, "lr": _rate(item["lr"])} if "lr" in item else item for item in items]


def _rate(lr: Optional[_Rate]) -> Union[float, Tensor, LearningRateSchedule]:
    """What `nn.Optimizer` takes, with every table made safe to read past its end."""
    if lr is None:
        raise UserError("lr is required")
    if isinstance(lr, LearningRateSchedule):
        return lr
    if isinstance(lr, (int, float)) or (isinstance(lr, (Tensor, np.ndarray)) and lr.ndim == 0):
        _check_range(lr=float(lr))
        return float(lr)
    return LearningRateTable(lr)


def _check_range(above_zero: bool = False, **values: float) -> None:
    for name, value in values.items():
        if not math.isfinite(value) or value < 0 or (above_zero and value == 0):
            raise UserError(f"{name} must be {'above' if above_zero else 'at least'} 0, got {value}")
