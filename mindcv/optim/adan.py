"""Adan, which MindSpore lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

import mindspore as ms
from mindspore import Parameter, Tensor, ops

from mindcv.optim.base import MomentOptimizer
from mindcv.optim.lr_table import Rate

__all__ = ["Adan"]

_update = ops.MultitypeFuncGraph("adan_update")


@_update.register("Tuple", *["Tensor"] * 8)
def _update_one(constants, lr, decay, param, moment, change, second, last, gradient):  # noqa: ANN001, ANN202
    gain1, gain2, gain3, ahead, correct1, correct2, root, eps, is_first = constants
    gradient = ops.cast(gradient, param.dtype)
    # There is no gradient before the first: its difference is 0.
    difference = (gradient - last) * (1.0 - is_first)
    first = moment + gain1 * (gradient - moment)
    changed = change + gain2 * (difference - change)
    squared = second + gain3 * (ops.square(gradient + ahead * difference) - second)
    update = (first / correct1 + ahead * changed / correct2) / (ops.sqrt(squared) / root + eps)
    ops.assign(moment, first)
    ops.assign(change, changed)
    ops.assign(second, squared)
    ops.assign(last, gradient)
    ops.assign(param, (param - lr * update) / (1.0 + lr * decay))
    return True


class Adan(MomentOptimizer):
    """Adaptive Nesterov momentum ("Adan", arXiv 2208.06677, algorithm 1), as in its authors' code.

    With `d = g - g_last` (0 at the first step): `m`, `v` and `n` are moving averages of `g`, `d` and
    `(g + beta2 d)^2`, each divided by `1 - beta^t` where it is used, and
    `w = (w - lr (m + beta2 v) / (sqrt(n) + eps)) / (1 + lr weight_decay)`, the paper's proximal decay. The betas
    are decay rates, as for Adam and in the authors' code; the paper's are 1 less these.

    Args:
        params: parameters or groups, see `GroupOptimizer`.
        learning_rate: a rate, a table of one rate a step, or a schedule Cell.
        betas: of `m`, `v` and `n`, each in (0, 1).
        eps: added to the root of the corrected `n`, above 0.
        weight_decay: coefficient, at least 0; decoupled.
        loss_scale: the gradients arrive multiplied by this; above 0.

    Raises:
        UserError, ValueError: a value out of its range, see `GroupOptimizer`.
    """

    num_betas = 3

    def __init__(
        self,
        params: Union[Sequence[Parameter], Sequence[dict[str, Any]]],
        learning_rate: Rate = 1e-3,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        loss_scale: float = 1.0,
    ) -> None:
        super().__init__(params, learning_rate, betas, eps, weight_decay, loss_scale)
        self.moments = self._parameters.clone(prefix="adan_m", init="zeros")
        self.changes = self._parameters.clone(prefix="adan_v", init="zeros")
        self.squares = self._parameters.clone(prefix="adan_n", init="zeros")
        self.last = self._parameters.clone(prefix="adan_last", init="zeros")

    @ms.jit
    def construct(self, gradients: tuple[Tensor, ...]) -> Any:
        """Update the parameters; `gradients` holds one for each, in the order of `self.parameters`."""
        gradients = self.scale_grad(self.gradients_centralization(gradients))
        is_first = ops.reshape(ops.cast(ops.equal(self.global_step, 0), ms.float32), ())
        lr, powers = self.begin_step()
        corrections = (1.0 - powers[0], 1.0 - powers[1], ops.sqrt(1.0 - powers[2]))
        constants = self.gains + (self.betas[1],) + corrections + (self.eps, is_first)
        each = (self.decays, self._parameters, self.moments, self.changes, self.squares, self.last, gradients)
        if self.is_group_lr:
            return self.hyper_map(ops.partial(_update, constants), lr, *each)
        return self.hyper_map(ops.partial(_update, constants, lr), *each)
