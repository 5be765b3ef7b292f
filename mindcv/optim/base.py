"""Base classes of the optimizers: parameter groups, a learning rate for each parameter, and moments."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Callable, Optional, Union

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.nn.learning_rate_schedule import LearningRateSchedule

from mindcv.optim.lr_table import Rate, as_rate
from mindcv.utils.checks import check_flags, check_not_negative, check_numbers, check_positive, shown
from mindcv.utils.errors import UserError

__all__ = ["GroupOptimizer", "MomentOptimizer", "as_list"]

_centralize = ops.MultitypeFuncGraph("centralize")
_grow = ops.MultitypeFuncGraph("grow")


@_centralize.register("Bool", "Tensor")
def _centralize_one(is_asked, gradient):  # noqa: ANN001, ANN202
    if is_asked and gradient.ndim > 1:
        return gradient - ops.mean(gradient, tuple(range(1, gradient.ndim)), True)
    return gradient


@_grow.register("Tensor", "Tensor")
def _grow_one(power, beta):  # noqa: ANN001, ANN202
    grown = power * beta
    return ops.depend(grown, ops.assign(power, grown))


def as_list(name: str, parameters: Any) -> list[Union[Parameter, dict[str, Any]]]:
    """Return parameters or parameter groups as a list.

    Args:
        name: name of the argument, for the message.
        parameters: the parameters or groups.

    Raises:
        UserError: `parameters` is neither a list of parameters nor a list of groups.
    """
    expected = f"{name} must be a list of parameters, or of groups such as {{'params': parameters, 'lr': 0.1}}"
    if not isinstance(parameters, Iterable) or isinstance(parameters, (str, dict, Tensor, nn.Cell)):
        raise UserError(f"{expected}, got {shown(parameters)}")
    items = list(parameters)
    for item in items:
        if not isinstance(item, (Parameter, dict)):
            raise UserError(f"{expected}, got {shown(item)} among them")
    if len({isinstance(item, dict) for item in items}) > 1:
        raise UserError(f"{expected}, got parameters and groups in one list")
    return items


class GroupOptimizer(nn.Optimizer):
    """Base class of all optimizers of this library. It changes `nn.Optimizer` in four ways.

    - A group can have an `lr_scale`, a constant factor of its learning rate. The rate is computed once per step and
      multiplied as one vector. If each group has its own schedule Cell, `nn.Optimizer` evaluates the Cell of a group
      once for each parameter.
    - All parameters that are not in groups are decayed. `nn.Optimizer` does not decay parameters whose name contains
      beta or gamma.
    - A table of learning rates keeps its last rate after its end, and it is not part of the state.
    - `grad_centralization` ("Gradient Centralization", arXiv 2004.01461) works on every device and for every parameter
      with more than one axis. MindSpore's operator has no CPU kernel, and it silently skips parameters whose second
      axis is not a multiple of 16 (decision 0059).

    Args:
        learning_rate: a learning rate, a table with one rate per step, or a schedule Cell.
        parameters: parameters, or groups. A group has the key `params` and optionally `lr`, `lr_scale`, `weight_decay`
            and `grad_centralization`. The last group can hold only `order_params`.
        weight_decay: coefficient, at least 0, for groups that do not have their own.
        loss_scale: factor, above 0, that the incoming gradients were multiplied by.

    Attributes:
        lr_scales: factor of the learning rate for each parameter.
        weight_decays: coefficient of the weight decay for each parameter.

    Raises:
        UserError: a value has the wrong type or is out of its range, such as a weight decay that changes over time.
        ValueError, TypeError, KeyError, RuntimeError: `nn.Optimizer` finds groups that are not well formed.
    """

    def __init__(
        self,
        learning_rate: Rate,
        parameters: Union[Sequence[Parameter], Sequence[dict[str, Any]]],
        weight_decay: float = 0.0,
        loss_scale: float = 1.0,
    ) -> None:
        check_not_negative(weight_decay=weight_decay)
        check_positive(loss_scale=loss_scale)
        groups, scales = _split_scales(parameters)
        super().__init__(as_rate(learning_rate), groups, float(weight_decay), float(loss_scale))
        # nn.Optimizer multiplies its weight decay by the loss scale, because it adds the decay to
        # scaled gradients.
        self.weight_decays = tuple(value / self.loss_scale for value in self.group_weight_decay)
        self.lr_scales = tuple(scales[id(parameter)] for parameter in self.parameters)
        self.has_centralization = any(self.grad_centralization_flags)
        if any(scale != 1.0 for scale in self.lr_scales) and not self.is_group_lr:
            self.is_group_lr = True
            self.learning_rate = self._container(self.group_lr)
        distinct = list({id(rate): rate for rate in self.group_lr}.values())
        index = {id(rate): i for i, rate in enumerate(distinct)}
        self.distinct_rates = self._container(distinct)
        self.rate_index = Tensor(np.array([index[id(rate)] for rate in self.group_lr], np.int32))
        self.scale_vector = Tensor(np.array(self.lr_scales, np.float32))

    def _container(self, rates: list[Union[Parameter, LearningRateSchedule]]) -> Union[nn.CellList, ParameterTuple]:
        return nn.CellList(rates, auto_prefix=False) if self.dynamic_lr else ParameterTuple(rates)

    def get_lr(self) -> Union[Tensor, tuple[Tensor, ...]]:
        """Return the learning rate of this step as a scalar, or one scalar per parameter if `is_group_lr` is true."""
        if not self.is_group_lr:
            return self.learning_rate(self.global_step).reshape(()) if self.dynamic_lr else self.learning_rate
        rates = ()
        for rate in self.distinct_rates:
            current = rate(self.global_step) if self.dynamic_lr else rate
            rates = rates + (ops.reshape(current, ()),)
        return ops.unstack(ops.gather(ops.stack(rates), self.rate_index, 0) * self.scale_vector)

    def rate_vector(self, lr: Union[Tensor, tuple[Tensor, ...]]) -> Tensor:
        """Return the result of `get_lr` as a vector with one learning rate per parameter, [P]."""
        return ops.stack(lr) if self.is_group_lr else ops.tile(ops.reshape(lr, (1,)), (len(self.parameters),))

    def gradients_centralization(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Subtract from each gradient its mean over all axes but the first, in groups with `grad_centralization`."""
        if self.has_centralization:
            gradients = self.hyper_map(_centralize, self.grad_centralization_flags, gradients)
        return gradients

    def update_each(
        self, update: Callable[..., Any], common: tuple[Tensor, ...], lr: Union[Tensor, tuple[Tensor, ...]], *each: Any
    ) -> Any:
        """Call `update(common, rate, *values)` for every parameter.

        Args:
            update: a MultitypeFuncGraph.
            common: arguments that are the same for all parameters.
            lr: the learning rate or rates, see `get_lr`.
            *each: tuples with one value per parameter.
        """
        # With a Python loop instead of a map, 200 parameters take 14 s to compile instead of 1 s. A
        # single rate is passed on its own, because a tuple of 200 copies takes 4 s more.
        if self.is_group_lr:
            return self.hyper_map(ops.partial(update, common), lr, *each)
        return self.hyper_map(ops.partial(update, common, lr), *each)


class MomentOptimizer(GroupOptimizer):
    """Base class of optimizers that keep moving averages (moments). A subclass names them and defines the update.

    For each name in `moment_names` there is an attribute with this name. It is a tuple with one tensor per parameter,
    called `<name>.<parameter>`. All moments start at 0.

    Args:
        params: parameters or groups, see `GroupOptimizer`.
        learning_rate: a learning rate, a table with one rate per step, or a schedule Cell.
        betas: decay rates of the moments, each in (0, 1), as many as in `default_betas`; None for `default_betas`.
        eps: small number above 0 that keeps a divisor from 0, see the subclass; None for `default_eps`.
        weight_decay: coefficient, at least 0, for groups that do not have their own.
        loss_scale: factor, above 0, that the incoming gradients were multiplied by.

    Raises:
        UserError, ValueError: a value is out of its range, see `GroupOptimizer`.
    """

    moment_names: tuple[str, ...] = ()
    default_betas: tuple[float, ...] = (0.9, 0.999)
    default_eps = 1e-8

    def __init__(
        self,
        params: Union[Sequence[Parameter], Sequence[dict[str, Any]]],
        learning_rate: Rate = 1e-3,
        betas: Optional[Sequence[float]] = None,
        eps: Optional[float] = None,
        weight_decay: float = 0.0,
        loss_scale: float = 1.0,
    ) -> None:
        betas = self.default_betas if betas is None else betas
        eps = self.default_eps if eps is None else eps
        check_numbers("betas", betas, len(self.default_betas), above=0, below=1)
        check_positive(eps=eps)
        super().__init__(learning_rate, params, weight_decay, loss_scale)
        for name in self.moment_names:
            setattr(self, name, self._parameters.clone(prefix=name, init="zeros"))
        self.betas = tuple(Tensor(beta, ms.float32) for beta in betas)
        self.eps = Tensor(eps, ms.float32)
        # Arguments of the fused operators: with a beta of 1 they do not change a bit of the moment,
        # with a rate of 0 not a bit of the parameter.
        self.zero, self.one = Tensor(0.0, ms.float32), Tensor(1.0, ms.float32)
        # The powers are running products, as in nn.Adam: pow() is inexact on some devices, and
        # 1 - beta^t would lose its digits there.
        self.beta_powers = ParameterTuple(
            [Parameter(Tensor(1.0, ms.float32), name=f"beta{i}_power") for i in range(1, len(betas) + 1)]
        )
        decays = {value: Tensor(value, ms.float32) for value in self.weight_decays}
        self.decays = tuple(decays[value] for value in self.weight_decays)

    def begin_step(self) -> tuple[Union[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]:
        """Start step t, from 1: return its learning rate or rates (see `get_lr`) and each beta to the power t."""
        lr = self.get_lr()
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        return lr, self.hyper_map(_grow, self.beta_powers, self.betas)


def _split_scales(
    parameters: Union[Sequence[Parameter], Sequence[dict[str, Any]]],
) -> tuple[list[Any], dict[int, float]]:
    """Return groups that `nn.Optimizer` accepts, and the factor of the learning rate by the id of each parameter."""
    items = as_list("params", parameters)
    if not items:
        raise UserError("the optimizer got no parameters to train")
    if isinstance(items[0], Parameter):
        items = [{"params": items}]
    groups: list[Any] = []
    scales: dict[int, float] = {}
    for item in items:
        if "params" not in item:
            groups.append(item)
            continue
        group = dict(item)
        scale = group.pop("lr_scale", 1.0)
        check_not_negative(lr_scale=scale)
        group["params"] = as_list("params of a group", group["params"])
        scales.update((id(parameter), float(scale)) for parameter in group["params"])
        if "weight_decay" in group:
            check_not_negative(weight_decay=group["weight_decay"])
            group["weight_decay"] = float(group["weight_decay"])
        check_flags(grad_centralization=group.get("grad_centralization", False))
        if "lr" in group:
            group["lr"] = as_rate(group["lr"])
        groups.append(group)
    return groups, scales
