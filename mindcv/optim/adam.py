"""Adam and NAdam as in their papers. The weight decay is added to the gradient."""

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
    """Adam, algorithm 1 of arXiv 1412.6980. It equals PyTorch's Adam.

    `nn.Adam` adds eps to the root of the second moment before the bias correction. Here the fused operator gets
    `eps * sqrt(1 - beta2^t)`, which equals the paper's eps after the correction. The weight decay is added to the
    gradient.

    `MomentOptimizer` describes the arguments that are not listed here.

    Args:
        betas: decay rates of the first and the second moment; None for (0.9, 0.999).
        eps: number that is added to the root of the corrected second moment; None for 1e-8.
        use_nesterov: use MindSpore's Nesterov form, which replaces `m` with `beta1 m + (1 - beta1) g` in the update.
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
        """Update the parameters. `gradients` holds one gradient per parameter, in the order of `self.parameters`."""
        gradients = self.scale_grad(self.gradients_centralization(self.decay_weight(gradients)))
        lr, powers = self.begin_step()
        common = (self.adam,) + powers + self.betas + (self.eps * ops.sqrt(1.0 - powers[1]),)
        return self.update_each(_adam_update, common, lr, self._parameters, self.adam_m, self.adam_v, gradients)


class NAdam(MomentOptimizer):
    """Adam with Nesterov's momentum and a momentum schedule (Dozat, "Incorporating Nesterov Momentum into Adam", 2016).

    It equals PyTorch's NAdam. Let `mu_t = beta1 (1 - 0.5 * 0.96^(t schedule_decay))`, and let `M_t` be the product of
    `mu_1` to `mu_t`. The update is `w -= lr (now g + ahead m) / (sqrt(v / (1 - beta2^t)) + eps)`, where
    `now = (1 - mu_t) / (1 - M_t)` and `ahead = mu_{t+1} / (1 - M_{t+1})`. The weight decay is added to the gradient.

    The implementation calls the fused `ops.Adam` twice for each parameter. The first call has the beta1
    `blend = beta1 ahead / (now + ahead)`. It changes m to `(now g + ahead m_t) / (now + ahead)`, which the update of
    the weight needs. The second call changes only m: with the beta1 `beta1 / blend`, which is above 1, m becomes `m_t`.

    `MomentOptimizer` describes the arguments that are not listed here.

    Args:
        betas: decay rates of the first and the second moment; None for (0.9, 0.999).
        eps: number that is added to the root of the corrected second moment; None for 1e-8.
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
        """Return `mu` of a step, float32 and 0-D. Steps count from 1."""
        return self.betas[0] * (1.0 - 0.5 * ops.exp(step * self.log_speed))

    @ms.jit
    def construct(self, gradients: tuple[Tensor, ...]) -> Any:
        """Update the parameters. `gradients` holds one gradient per parameter, in the order of `self.parameters`."""
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
