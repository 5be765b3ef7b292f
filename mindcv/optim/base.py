"""What the optimizers of this library share: groups, rates of their own for each parameter, moments."""

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
    """The parameters, or groups, as a list.

    Raises:
        UserError: they are neither.
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
    """`nn.Optimizer` with the traps taken out and one key of a group more.

    - Groups may have `lr_scale`, a constant that their rate is multiplied by. The rate is computed once a step and
      multiplied as one vector: of a schedule Cell a group `nn.Optimizer` compiles one evaluation a parameter.
    - Bare parameters are all decayed; `nn.Optimizer` leaves out whatever has beta or gamma in its name.
    - Tables of rates hold their last rate past the end, and are not part of the state.
    - `grad_centralization` works on every device, and on every parameter of more than one axis ("Gradient
      Centralization", arXiv 2004.01461); MindSpore's operator has no CPU kernel, and skips in silence what has a
      second axis that 16 does not divide (decision 0059).

    Args:
        learning_rate: a rate, a table of one rate a step, or a schedule Cell.
        parameters: parameters, or groups with `params` and, if they are to differ, `lr`, `lr_scale`, `weight_decay` and
            `grad_centralization`; a last group may hold `order_params` alone.
        weight_decay: coefficient, at least 0, of groups that have none of their own.
        loss_scale: the gradients arrive multiplied by this; above 0.

    Attributes:
        lr_scales: what each parameter's rate is multiplied by.
        weight_decays: the coefficient of each parameter.

    Raises:
        UserError: a value of another type or out of its range, such as a weight decay that changes over time.
        ValueError, TypeError, KeyError, RuntimeError: groups that are not well formed (from `nn.Optimizer`).
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
        # nn.Optimizer multiplies its weight decay by the loss scale, meaning to add it to gradients that are scaled.
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
        """The rate of this step, or one for each parameter when `is_group_lr`; scalars."""
        if not self.is_group_lr:
            return self.learning_rate(self.global_step).reshape(()) if self.dynamic_lr else self.learning_rate
        rates = ()
        for rate in self.distinct_rates:
            current = rate(self.global_step) if self.dynamic_lr else rate
            rates = rates + (ops.reshape(current, ()),)
        return ops.unstack(ops.gather(ops.stack(rates), self.rate_index, 0) * self.scale_vector)

    def rate_vector(self, lr: Union[Tensor, tuple[Tensor, ...]]) -> Tensor:
        """What `get_lr` gives as one rate for each parameter, [P]."""
        return ops.stack(lr) if self.is_group_lr else ops.tile(ops.reshape(lr, (1,)), (len(self.parameters),))

    def gradients_centralization(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The gradients; those of groups that ask for it less their mean over all axes but the first."""
        if self.has_centralization:
            gradients = self.hyper_map(_centralize, self.grad_centralization_flags, gradients)
        return gradients

    def update_each(
        self, update: Callable[..., Any], common: tuple[Tensor, ...], lr: Union[Tensor, tuple[Tensor, ...]], *each: Any
    ) -> Any:
        """`update(common, rate, *parts)` of every parameter.

        Args:
            update: a MultitypeFuncGraph.
            common: what is the same for all parameters.
            lr: the rate or rates, see `get_lr`.
            *each: tuples with a part for each parameter.
        """
        # Mapped: as a Python loop, 200 parameters take 14 s to compile, not 1 s. And not over a tuple of the one rate:
        # 200 copies of it take 4 s more.
        if self.is_group_lr:
            return self.hyper_map(ops.partial(update, common), lr, *each)
        return self.hyper_map(ops.partial(update, common, lr), *each)


class MomentOptimizer(GroupOptimizer):
    """An optimizer with moving averages of the gradients. A subclass names them, and gives the formula.

    An average is a tuple with a tensor for each parameter, in the attribute of its name; those tensors are called
    `<name>.<parameter>` and start at 0.

    Args:
        params: parameters or groups, see `GroupOptimizer`.
        learning_rate: a rate, a table of one rate a step, or a schedule Cell.
        betas: decay rates of the averages, each in (0, 1), as many as `default_betas` has; None for those.
        eps: above 0; None for `default_eps`. The subclass says what it is added to.
        weight_decay: coefficient, at least 0, of groups that have none of their own.
        loss_scale: the gradients arrive multiplied by this; above 0.

    Raises:
        UserError, ValueError: a value out of its range, see `GroupOptimizer`.
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
        # For the fused operators: with a beta of 1 they leave a moment as it is, with a rate of 0 the parameter, bit
        # for bit.
        self.zero, self.one = Tensor(0.0, ms.float32), Tensor(1.0, ms.float32)
        # Running products, as in nn.Adam: pow() is inexact on some devices, where 1 - beta^t would lose its digits.
        self.beta_powers = ParameterTuple(
            [Parameter(Tensor(1.0, ms.float32), name=f"beta{i}_power") for i in range(1, len(betas) + 1)]
        )
        decays = {value: Tensor(value, ms.float32) for value in self.weight_decays}
        self.decays = tuple(decays[value] for value in self.weight_decays)

    def begin_step(self) -> tuple[Union[Tensor, tuple[Tensor, ...]], tuple[Tensor, ...]]:
        """Move on a step: its rate (or rates, see `get_lr`), and each beta to the power of the step, from 1."""
        lr = self.get_lr()
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        return lr, self.hyper_map(_grow, self.beta_powers, self.betas)


def _split_scales(
    parameters: Union[Sequence[Parameter], Sequence[dict[str, Any]]],
) -> tuple[list[Any], dict[int, float]]:
    """Groups as `nn.Optimizer` takes them, and the rate's factor of each parameter by its id."""
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
