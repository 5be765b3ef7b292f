"""Adam and NAdam as published, with the weight decay added to the gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Optional, Union

import mindspore as ms
from mindspore import Parameter, Tensor, ops

from mindcv.optim.base import MomentOptimizer
from mindcv.optim.lr_table import Rate
from mindcv.utils.checks import check_flags, check_not_negative

__all__ = ["Adam", "NAdam"]

_step = ops.Adam()
_adam_update = ops.MultitypeFuncGraph("adam_update")
_nadam_update = ops.MultitypeFuncGraph("nadam_update")


@_adam_update.register("Tuple", *["Tensor"] * 5)
def _adam_one(common, lr, param, moment1, moment2, gradient):  # noqa: ANN001, ANN202
    adam, power1, power2, beta1, beta2, eps = common
    gradient = ops.cast(gradient, param.dtype)
    adam(param, moment1, moment2, power1, power2, lr, beta1, beta2, eps, gradient)
    return True


@_nadam_update.register("Tuple", *["Tensor"] * 5)
def _nadam_one(common, lr, param, moment1, moment2, gradient):  # noqa: ANN001, ANN202
    zero, one, power2, blend, undo, beta2, eps, share = common
    gradient = ops.cast(gradient, param.dtype)
    _step(param, moment1, moment2, zero, power2, lr * share, blend, beta2, eps, gradient)
    _step(param, moment1, moment2, zero, zero, zero, undo, one, eps, gradient)
    return True


class Adam(MomentOptimizer):
    """Adam, algorithm 1 of arXiv 1412.6980; equal to PyTorch's.

    `nn.Adam` adds eps to the root of the uncorrected second moment; here the fused operator gets `eps * sqrt(1 -
    beta2^t)`, which comes to the paper's eps after the correction. The weight decay is added to the gradient.

    Arguments: those of `MomentOptimizer`, with `betas` (0.9, 0.999) for the two moments, and an `eps` of 1e-8 that is
    added to the root of the corrected second moment. And:

    Args:
        use_nesterov: MindSpore's look-ahead form: `beta1 m + (1 - beta1) g` in place of `m` in the update.
    """

    moment_names = ("adam_m", "adam_v")

    def __init__(
        self,
        params: Union[Sequence[Parameter], Sequence[dict[str, Any]]],
        learning_rate: Rate = 1e-3,
        betas: Optional[Sequence[float]] = None,
        eps: Optional[float] = None,
        weight_decay: float = 0.0,
        loss_scale: float = 1.0,
        use_nesterov: bool = False,
    ) -> None:
        check_flags(use_nesterov=use_nesterov)
        super().__init__(params, learning_rate, betas, eps, weight_decay, loss_scale)
        self.adam = ops.Adam(use_nesterov=use_nesterov)

    @ms.jit
    def construct(self, gradients: tuple[Tensor, ...]) -> Any:
        """Update the parameters; `gradients` holds one for each, in the order of `self.parameters`."""
        gradients = self.scale_grad(self.gradients_centralization(self.decay_weight(gradients)))
        lr, powers = self.begin_step()
        common = (self.adam,) + powers + self.betas + (self.eps * ops.sqrt(1.0 - powers[1]),)
        return self.update_each(_adam_update, common, lr, self._parameters, self.adam_m, self.adam_v, gradients)


class NAdam(MomentOptimizer):
    """Adam with Nesterov's momentum and a momentum schedule (Dozat, "Incorporating Nesterov Momentum into Adam", 2016).

    Equal to PyTorch's NAdam: with `mu_t = beta1 (1 - 0.5 * 0.96^(t schedule_decay))` and their product `M_t`,
    `w -= lr (now g + ahead m) / (sqrt(v / (1 - beta2^t)) + eps)`, where `now = (1 - mu_t) / (1 - M_t)` and
    `ahead = mu_{t+1} / (1 - M_{t+1})`. The weight decay is added to the gradient.

    Two calls of the fused `ops.Adam` a parameter. The first one's beta1 is `blend = beta1 ahead / (now + ahead)`, which
    makes of m `(now g + ahead m_t) / (now + ahead)`, what the weight needs; the second moves nothing but m, and with
    the beta1 of `beta1 / blend`, which is above 1, makes `m_t` of it.

    Arguments: those of `MomentOptimizer`, with `betas` (0.9, 0.999) for the two moments, and an `eps` of 1e-8. And:

    Args:
        schedule_decay: speed of the momentum schedule, at least 0.
    """

    moment_names = ("nadam_m", "nadam_v")

    def __init__(
        self,
        params: Union[Sequence[Parameter], Sequence[dict[str, Any]]],
        learning_rate: Rate = 2e-3,
        betas: Optional[Sequence[float]] = None,
        eps: Optional[float] = None,
        weight_decay: float = 0.0,
        loss_scale: float = 1.0,
        schedule_decay: float = 4e-3,
    ) -> None:
        check_not_negative(schedule_decay=schedule_decay)
        super().__init__(params, learning_rate, betas, eps, weight_decay, loss_scale)
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
        share = now + ahead
        blend, undo = self.betas[0] * ahead / share, share / ahead
        eps = self.eps * ops.sqrt(1.0 - powers[1])
        common = (self.zero, self.one, powers[1], blend, undo, self.betas[1], eps, share)
        return self.update_each(_nadam_update, common, lr, self._parameters, self.nadam_m, self.nadam_v, gradients)
