"""Adan, which MindSpore lacks."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, ops

from mindcv.optim.base import MomentOptimizer

__all__ = ["Adan"]

_step = ops.Adam()
_step_and_decay = ops.AdamWeightDecay()
_update = ops.MultitypeFuncGraph("adan_update")


@_update.register("Tuple", *["Tensor"] * 8)
def _update_one(common, lr, decay, param, moment, change, second, last, gradient):  # noqa: ANN001, ANN202
    zero, one, beta1, beta2, beta3, power2, power3, correction, ahead, eps = common
    gradient = ops.cast(gradient, param.dtype)
    difference = gradient - last
    rate = lr / (1.0 + lr * decay)
    # n, then m and its share of the update with the decay, then v and its share; see the base class for 0 and 1.
    _step(param, moment, second, zero, zero, zero, one, beta3, eps, gradient + ahead * difference)
    _step_and_decay(param, moment, second, rate * correction, beta1, one, eps, decay / correction, gradient)
    _step(param, change, second, power2, power3, rate * ahead, beta2, one, eps, difference)
    ops.assign(last, gradient)
    return True


class Adan(MomentOptimizer):
    """Adaptive Nesterov momentum ("Adan", arXiv 2208.06677, algorithm 1), as in its authors' code.

    With `d = g - g_last` (0 at the first step): `m`, `v` and `n` are moving averages of `g`, `d` and
    `(g + beta2 d)^2`, each divided by `1 - beta^t` where it is used, and
    `w = (w - lr (m + beta2 v) / (sqrt(n) + eps)) / (1 + lr weight_decay)`, the paper's proximal decay. The betas
    are decay rates, as for Adam and in the authors' code; the paper's are 1 less these.

    With `r = lr / (1 + lr weight_decay)` this is `w -= r m / (sqrt(n) + eps) + r weight_decay w`, then
    `w -= r beta2 v / (sqrt(n) + eps)`: steps of fused operators.

    Arguments: those of `MomentOptimizer`, with `betas` (0.98, 0.92, 0.99) of `m`, `v` and `n`, and an `eps` of 1e-8
    that is added to the root of the corrected `n`.
    """

    moment_names = ("adan_m", "adan_v", "adan_n", "adan_last")
    default_betas = (0.98, 0.92, 0.99)

    @ms.jit
    def construct(self, gradients: tuple[Tensor, ...]) -> Any:
        """Update the parameters; `gradients` holds one for each, in the order of `self.parameters`."""
        gradients = self.scale_grad(self.gradients_centralization(gradients))
        is_first = ops.reshape(ops.equal(self.global_step, 0), ())
        lr, powers = self.begin_step()
        beta1, beta2, beta3 = self.betas
        root = ops.sqrt(1.0 - powers[2])
        # There is no gradient before the first: its difference counts nowhere.
        ahead, beta2 = ops.select(is_first, self.zero, beta2), ops.select(is_first, self.one, beta2)
        betas = (self.zero, self.one, beta1, beta2, beta3)
        common = betas + (powers[1], powers[2], root / (1.0 - powers[0]), ahead, self.eps * root)
        each = (self.decays, self._parameters, self.adan_m, self.adan_v, self.adan_n, self.adan_last, gradients)
        return self.update_each(_update, common, lr, *each)
