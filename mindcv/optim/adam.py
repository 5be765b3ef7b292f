"""Adam and NAdam as published, with the weight decay added to the gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Union

import mindspore as ms
from mindspore import Parameter, Tensor, ops

from mindcv.optim.base import MomentOptimizer, check_number
from mindcv.optim.lr_table import Rate

__all__ = ["Adam", "NAdam"]

_adam_update = ops.MultitypeFuncGraph("adam_update")
_nadam_update = ops.MultitypeFuncGraph("nadam_update")


@_adam_update.register("Function", *["Tensor"] * 10)
def _adam_one(adam, power1, power2, beta1, beta2, eps, lr, param, moment1, moment2, gradient):  # noqa: ANN001, ANN202
    gradient = ops.cast(gradient, param.dtype)
    adam(param, moment1, moment2, power1, power2, lr, beta1, beta2, eps, gradient)
    return True


@_nadam_update.register(*["Tensor"] * 11)
def _nadam_one(gain1, gain2, root, eps, now, ahead, lr, param, moment1, moment2, gradient):  # noqa: ANN001, ANN202
    gradient = ops.cast(gradient, param.dtype)
    first = moment1 + gain1 * (gradient - moment1)
    second = moment2 + gain2 * (ops.square(gradient) - moment2)
    update = (now * gradient + ahead * first) / (ops.sqrt(second) / root + eps)
    ops.assign(moment1, first)
    ops.assign(moment2, second)
    ops.assign(param, param - lr * update)
    return True


class Adam(MomentOptimizer):
    """Adam, algorithm 1 of arXiv 1412.6980; equal to PyTorch's.

    `nn.Adam` adds eps to the root of the uncorrected second moment; here the fused operator gets `eps * sqrt(1 -
    beta2^t)`, which comes to the paper's eps after the correction.

    Args:
        params: parameters or groups, see `GroupOptimizer`.
        learning_rate: a rate, a table of one rate a step, or a schedule Cell.
        betas: decay rates of the two moments, each in (0, 1).
        eps: added to the root of the corrected second moment, above 0.
        weight_decay: coefficient, at least 0; added to the gradient.
        loss_scale: the gradients arrive multiplied by this; above 0.
        use_nesterov: MindSpore's look-ahead form: `beta1 m + (1 - beta1) g` in place of `m` in the update.

    Raises:
        UserError, ValueError: a value out of its range, see `GroupOptimizer`.
    """

    def __init__(
        self,
        params: Union[Sequence[Parameter], Sequence[dict[str, Any]]],
        learning_rate: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        loss_scale: float = 1.0,
        use_nesterov: bool = False,
    ) -> None:
        super().__init__(params, learning_rate, betas, eps, weight_decay, loss_scale)
        self.moments1 = self._parameters.clone(prefix="adam_m", init="zeros")
        self.moments2 = self._parameters.clone(prefix="adam_v", init="zeros")
        self.adam = ops.Adam(use_nesterov=use_nesterov)

    @ms.jit
    def construct(self, gradients: tuple[Tensor, ...]) -> Any:
        """Update the parameters; `gradients` holds one for each, in the order of `self.parameters`."""
        gradients = self.scale_grad(self.gradients_centralization(self.decay_weight(gradients)))
        lr, powers = self.begin_step()
        power1, power2, beta1, beta2 = powers[0], powers[1], self.betas[0], self.betas[1]
        eps = self.eps * ops.sqrt(1.0 - power2)
        each = (self._parameters, self.moments1, self.moments2, gradients)
        if self.is_group_lr:
            return self.hyper_map(ops.partial(_adam_update, self.adam, power1, power2, beta1, beta2, eps), lr, *each)
        return self.hyper_map(ops.partial(_adam_update, self.adam, power1, power2, beta1, beta2, eps, lr), *each)


class NAdam(MomentOptimizer):
    """Adam with Nesterov's momentum and a momentum schedule (Dozat, "Incorporating Nesterov Momentum into Adam", 2016).

    Equal to PyTorch's NAdam: with `mu_t = beta1 (1 - 0.5 * 0.96^(t schedule_decay))` and their product `M_t`,
    `w -= lr ((1 - mu_t) g / (1 - M_t) + mu_{t+1} m / (1 - M_{t+1})) / (sqrt(v / (1 - beta2^t)) + eps)`.

    Args:
        params: see `Adam`, as is all that is not named here.
        learning_rate: as above.
        betas: as above.
        eps: as above.
        weight_decay: as above.
        loss_scale: as above.
        schedule_decay: speed of the momentum schedule, at least 0.

    Raises:
        UserError, ValueError: a value out of its range, see `GroupOptimizer`.
    """

    def __init__(
        self,
        params: Union[Sequence[Parameter], Sequence[dict[str, Any]]],
        learning_rate: Rate = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        loss_scale: float = 1.0,
        schedule_decay: float = 4e-3,
    ) -> None:
        check_number(schedule_decay=schedule_decay)
        super().__init__(params, learning_rate, betas, eps, weight_decay, loss_scale)
        self.moments1 = self._parameters.clone(prefix="nadam_m", init="zeros")
        self.moments2 = self._parameters.clone(prefix="nadam_v", init="zeros")
        self.log_speed = schedule_decay * math.log(0.96)
        self.momentum_product = Parameter(Tensor(1.0, ms.float32), name="momentum_product")

    def momentum_at(self, step: Tensor) -> Tensor:
        """`mu` of a step, from 1 (float32, 0-D)."""
        return self.betas[0] * (1.0 - 0.5 * ops.exp(step * self.log_speed))

    @ms.jit
    def construct(self, gradients: tuple[Tensor, ...]) -> Any:
        """Update the parameters; `gradients` holds one for each, in the order of `self.parameters`."""
        gradients = self.scale_grad(self.gradients_centralization(self.decay_weight(gradients)))
        step = ops.reshape(ops.cast(self.global_step, ms.float32), ()) + 1.0
        lr, powers = self.begin_step()
        momentum, following = self.momentum_at(step), self.momentum_at(step + 1.0)
        product = self.momentum_product * momentum
        ops.assign(self.momentum_product, product)
        now, ahead = (1.0 - momentum) / (1.0 - product), following / (1.0 - product * following)
        gain1, gain2, root, eps = self.gains[0], self.gains[1], ops.sqrt(1.0 - powers[1]), self.eps
        each = (self._parameters, self.moments1, self.moments2, gradients)
        if self.is_group_lr:
            return self.hyper_map(ops.partial(_nadam_update, gain1, gain2, root, eps, now, ahead), lr, *each)
        return self.hyper_map(ops.partial(_nadam_update, gain1, gain2, root, eps, now, ahead, lr), *each)
