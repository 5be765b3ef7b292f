"""Lion, which MindSpore lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

import mindspore as ms
from mindspore import Parameter, Tensor, ops

from mindcv.optim.base import MomentOptimizer
from mindcv.optim.lr_table import Rate

__all__ = ["Lion"]

_update = ops.MultitypeFuncGraph("lion_update")


@_update.register(*["Tensor"] * 7)
def _update_one(gain1, gain2, lr, decay, param, moment, gradient):  # noqa: ANN001, ANN202
    gradient = ops.cast(gradient, param.dtype)
    difference = gradient - moment
    direction = ops.sign(moment + gain1 * difference)
    followed = moment + gain2 * difference
    ops.assign(moment, followed)
    ops.assign(param, param - lr * (direction + decay * param))
    return True


class Lion(MomentOptimizer):
    """Signs of an interpolated momentum ("Symbolic Discovery of Optimization Algorithms", arXiv 2302.06675).

    Its algorithm 2: `w -= lr (sign(beta1 m + (1 - beta1) g) + weight_decay w)`, then `m = beta2 m + (1 - beta2) g`. The
    paper takes rates 3 to 10 times below AdamW's, and weight decays as much above.

    Args:
        params: parameters or groups, see `GroupOptimizer`.
        learning_rate: a rate, a table of one rate a step, or a schedule Cell.
        betas: of the interpolation and of the momentum, each in (0, 1).
        weight_decay: coefficient, at least 0; decoupled.
        loss_scale: the gradients arrive multiplied by this; above 0.

    Raises:
        UserError, ValueError: a value out of its range, see `GroupOptimizer`.
    """

    def __init__(
        self,
        params: Union[Sequence[Parameter], Sequence[dict[str, Any]]],
        learning_rate: Rate = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        loss_scale: float = 1.0,
    ) -> None:
        super().__init__(params, learning_rate, betas, 1.0, weight_decay, loss_scale)
        self.moments = self._parameters.clone(prefix="lion_m", init="zeros")

    @ms.jit
    def construct(self, gradients: tuple[Tensor, ...]) -> Any:
        """Update the parameters; `gradients` holds one for each, in the order of `self.parameters`."""
        gradients = self.scale_grad(self.gradients_centralization(gradients))
        lr, _ = self.begin_step()
        each = (self.decays, self._parameters, self.moments, gradients)
        if self.is_group_lr:
            return self.hyper_map(ops.partial(_update, self.gains[0], self.gains[1]), lr, *each)
        return self.hyper_map(ops.partial(_update, self.gains[0], self.gains[1], lr), *each)
