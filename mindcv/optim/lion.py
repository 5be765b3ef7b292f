"""Lion, which MindSpore does not have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional, Union

import mindspore as ms
from mindspore import Parameter, Tensor, ops

from mindcv.optim.base import MomentOptimizer
from mindcv.optim.lr_table import Rate

__all__ = ["Lion"]

_update = ops.MultitypeFuncGraph("lion_update")


@_update.register("Tuple", *["Tensor"] * 5)
def _update_one(gains, lr, decay, param, moment, gradient):  # noqa: ANN001, ANN202
    gradient = ops.cast(gradient, param.dtype)
    difference = gradient - moment
    direction = ops.sign(moment + gains[0] * difference)
    followed = moment + gains[1] * difference
    ops.assign(moment, followed)
    ops.assign(param, param - lr * (direction + decay * param))
    return True


class Lion(MomentOptimizer):
    """Lion, algorithm 2 of "Symbolic Discovery of Optimization Algorithms" (arXiv 2302.06675).

    The update is the sign of an interpolated momentum: `w -= lr (sign(beta1 m + (1 - beta1) g) + weight_decay w)`, then
    `m = beta2 m + (1 - beta2) g`. In the paper the learning rates are 3 to 10 times lower than for AdamW, and the
    weight decays are 3 to 10 times higher.

    `MomentOptimizer` describes the arguments, but Lion has no `eps`. `betas` is (0.9, 0.99) by default, for the
    interpolation and for the momentum.
    """

    moment_names = ("lion_m",)
    default_betas = (0.9, 0.99)

    def __init__(
        self,
        params: Union[Sequence[Parameter], Sequence[dict[str, Any]]],
        learning_rate: Rate = 1e-4,
        betas: Optional[Sequence[float]] = None,
        weight_decay: float = 0.0,
        loss_scale: float = 1.0,
    ) -> None:
        super().__init__(params, learning_rate, betas, weight_decay=weight_decay, loss_scale=loss_scale)
        # 1 - beta is computed in float64 and then rounded to float32. In float32, 1 - 0.999 would
        # have a relative error of 1e-5.
        self.gains = tuple(Tensor(1.0 - beta, ms.float32) for beta in betas or self.default_betas)

    @ms.jit
    def construct(self, gradients: tuple[Tensor, ...]) -> Any:
        """Update the parameters. `gradients` holds one gradient per parameter, in the order of `self.parameters`."""
        gradients = self.scale_grad(self.gradients_centralization(gradients))
        lr, _ = self.begin_step()
        return self.update_each(_update, self.gains, lr, self.decays, self._parameters, self.lion_m, gradients)
