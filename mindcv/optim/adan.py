"""Adan, which MindSpore does not have."""

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
    # The first call updates n. The second updates m and applies its part of the update, with the
    # decay. The third updates v and applies its part. The base class explains the 0 and the 1.
    _step(param, moment, second, zero, zero, zero, one, beta3, eps, gradient + ahead * difference)
    _step_and_decay(param, moment, second, rate * correction, beta1, one, eps, decay / correction, gradient)
    _step(param, change, second, power2, power3, rate * ahead, beta2, one, eps, difference)
    ops.assign(last, gradient)
    return True


class Adan(MomentOptimizer):
    """Adaptive Nesterov momentum (Adan, arXiv 2208.06677, algorithm 1), as in its authors' code.

    Let `d = g - g_last`, which is 0 at the first step. `m`, `v` and `n` are moving averages of `g`, `d` and
    `(g + beta2 d)^2`. Each is divided by `1 - beta^t` in the update, which is
    `w = (w - lr (m + beta2 v) / (sqrt(n) + eps)) / (1 + lr weight_decay)`, with the proximal decay of the paper. The
    betas are decay rates, as in Adam and in the authors' code; a beta of the paper is 1 minus this beta.

    The implementation uses two fused operators. With `r = lr / (1 + lr weight_decay)`, the update equals
    `w -= r m / (sqrt(n) + eps) + r weight_decay w` and then `w -= r beta2 v / (sqrt(n) + eps)`.

    `MomentOptimizer` describes the arguments. `betas` is (0.98, 0.92, 0.99) by default, for `m`, `v` and `n`. `eps` is
    1e-8 by default and is added to the root of the corrected `n`.
    """

    moment_names = ("adan_m", "adan_v", "adan_n", "adan_last")
    default_betas = (0.98, 0.92, 0.99)

    @ms.jit
    def construct(self, gradients: tuple[Tensor, ...]) -> Any:
        """Update the parameters. `gradients` holds one gradient per parameter, in the order of `self.parameters`."""
        gradients = self.scale_grad(self.gradients_centralization(gradients))
        is_first = ops.reshape(ops.equal(self.global_step, 0), ())
        lr, powers = self.begin_step()
        beta1, beta2, beta3 = self.betas
        root = ops.sqrt(1.0 - powers[2])
        # The first gradient has no previous one, so its difference must have no effect.
        ahead, beta2 = ops.select(is_first, self.zero, beta2), ops.select(is_first, self.one, beta2)
        betas = (self.zero, self.one, beta1, beta2, beta3)
        common = betas + (powers[1], powers[2], root / (1.0 - powers[0]), ahead, self.eps * root)
        each = (self.decays, self._parameters, self.adan_m, self.adan_v, self.adan_n, self.adan_last, gradients)
        return self.update_each(_update, common, lr, *each)
