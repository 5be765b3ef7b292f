"""LAMB as published; MindSpore's has no CPU kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

import mindspore as ms
from mindspore import Parameter, Tensor, ops

from mindcv.optim.base import MomentOptimizer
from mindcv.optim.lr_table import Rate

__all__ = ["Lamb"]

_update = ops.MultitypeFuncGraph("lamb_update")


@_update.register(*["Tensor"] * 11)
def _update_one(gain1, gain2, correct1, root, eps, lr, decay, param, moment1, moment2, gradient):  # noqa: ANN001, ANN202
    gradient = ops.cast(gradient, param.dtype)
    first = moment1 + gain1 * (gradient - moment1)
    second = moment2 + gain2 * (ops.square(gradient) - moment2)
    update = first / correct1 / (ops.sqrt(second) / root + eps) + decay * param
    norm = ops.sqrt(ops.reduce_sum(ops.square(param)))
    update_norm = ops.sqrt(ops.reduce_sum(ops.square(update)))
    # A weight that starts at 0 would never leave it, and 0 / 0 is no rate.
    is_usable = ops.logical_and(norm > 0.0, update_norm > 0.0)
    trust = ops.select(is_usable, norm / update_norm, ops.ones_like(norm))
    ops.assign(moment1, first)
    ops.assign(moment2, second)
    ops.assign(param, param - lr * trust * update)
    return True


class Lamb(MomentOptimizer):
    """Layer-wise adaptive moments, algorithm 2 of "Large Batch Optimization for Deep Learning" (arXiv 1904.00962).

    Adam's corrected update with the decoupled weight decay, rescaled parameter by parameter to the norm of the
    parameter: `phi` of the paper is the identity, and the factor is 1 where either norm is 0. It is applied to every
    parameter, as in the paper; timm leaves out those without weight decay. `nn.Lamb` has no CPU kernel.

    Args:
        params: parameters or groups, see `GroupOptimizer`.
        learning_rate: a rate, a table of one rate a step, or a schedule Cell.
        betas: decay rates of the two moments, each in (0, 1).
        eps: added to the root of the corrected second moment, above 0.
        weight_decay: coefficient, at least 0; decoupled, within the rescaled update.
        loss_scale: the gradients arrive multiplied by this; above 0.

    Raises:
        UserError, ValueError: a value out of its range, see `GroupOptimizer`.
    """

    def __init__(
        self,
        params: Union[Sequence[Parameter], Sequence[dict[str, Any]]],
        learning_rate: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        loss_scale: float = 1.0,
    ) -> None:
        super().__init__(params, learning_rate, betas, eps, weight_decay, loss_scale)
        self.moments1 = self._parameters.clone(prefix="lamb_m", init="zeros")
        self.moments2 = self._parameters.clone(prefix="lamb_v", init="zeros")

    @ms.jit
    def construct(self, gradients: tuple[Tensor, ...]) -> Any:
        """Update the parameters; `gradients` holds one for each, in the order of `self.parameters`."""
        gradients = self.scale_grad(self.gradients_centralization(gradients))
        lr, powers = self.begin_step()
        gain1, gain2, correct1, root = self.gains[0], self.gains[1], 1.0 - powers[0], ops.sqrt(1.0 - powers[1])
        each = (self.decays, self._parameters, self.moments1, self.moments2, gradients)
        if self.is_group_lr:
            return self.hyper_map(ops.partial(_update, gain1, gain2, correct1, root, self.eps), lr, *each)
        return self.hyper_map(ops.partial(_update, gain1, gain2, correct1, root, self.eps, lr), *each)
