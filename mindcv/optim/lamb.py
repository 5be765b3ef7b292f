"""LAMB as published; MindSpore's has no CPU kernel."""

from __future__ import annotations

from typing import Any, Union

import mindspore as ms
from mindspore import Tensor, ops

from mindcv.optim.base import MomentOptimizer

__all__ = ["Lamb"]

_adam = ops.Adam()
_adam_and_decay = ops.AdamWeightDecay()
_INFINITY = float("inf")
_measure = ops.MultitypeFuncGraph("lamb_measure")
_update = ops.MultitypeFuncGraph("lamb_update")


@_measure.register("Tuple", *["Tensor"] * 5)
def _measure_one(common, decay, param, moment1, moment2, gradient):  # noqa: ANN001, ANN202
    zero, beta1, beta2, eps, correction = common
    gradient = ops.cast(gradient, param.dtype)
    # At a rate of 0 the weight stays.
    _adam(param, moment1, moment2, zero, zero, zero, beta1, beta2, eps, gradient)
    update = moment1 / (ops.sqrt(moment2) + eps) + decay / correction * param
    return ops.reduce_sum(ops.square(param)) / ops.reduce_sum(ops.square(update))


@_update.register("Tuple", *["Tensor"] * 6)
def _update_one(common, lr, decay, param, moment1, moment2, gradient):  # noqa: ANN001, ANN202
    one, eps, correction = common
    gradient = ops.cast(gradient, param.dtype)
    # With betas of 1 the moments stay.
    _adam_and_decay(param, moment1, moment2, lr, one, one, eps, decay / correction, gradient)
    return True


class Lamb(MomentOptimizer):
    """Layer-wise adaptive moments, algorithm 2 of "Large Batch Optimization for Deep Learning" (arXiv 1904.00962).

    Adam's corrected update with the decoupled weight decay, rescaled parameter by parameter to the norm of the
    parameter: `phi` of the paper is the identity, and the factor is 1 where either norm is 0. It is applied to every
    parameter, as in the paper; timm leaves out those without weight decay. `nn.Lamb` has no CPU kernel.

    With `c = sqrt(1 - beta2^t) / (1 - beta1^t)` and `e = eps sqrt(1 - beta2^t)` the update is `c u`, of
    `u = m / (sqrt(v) + e) + weight_decay / c * w`; `c` cancels out of `lr |w| / |c u| * c u`.

    Arguments: those of `MomentOptimizer`, with `betas` (0.9, 0.999) for the two moments, and an `eps` of 1e-6 that is
    added to the root of the corrected second moment. The weight decay is within the rescaled update.
    """

    moment_names = ("lamb_m", "lamb_v")
    default_eps = 1e-6

    @ms.jit
    def construct(self, gradients: tuple[Tensor, ...]) -> Any:
        """Update the parameters; `gradients` holds one for each, in the order of `self.parameters`."""
        gradients = self.scale_grad(self.gradients_centralization(gradients))
        lr, powers = self.begin_step()
        root = ops.sqrt(1.0 - powers[1])
        eps, correction = self.eps * root, root / (1.0 - powers[0])
        each = (self.decays, self._parameters, self.lamb_m, self.lamb_v, gradients)
        ratios = self.hyper_map(ops.partial(_measure, (self.zero,) + self.betas + (eps, correction)), *each)
        rates = ops.unstack(self.trusted(lr, ops.stack(ratios), correction))
        return self.hyper_map(ops.partial(_update, (self.one, eps, correction)), rates, *each)

    def trusted(self, lr: Union[Tensor, tuple[Tensor, ...]], ratios: Tensor, correction: Tensor) -> Tensor:
        """The rate of each parameter, from its squared norm over that of its update."""
        # A weight of 0 would never leave it, and x / 0 is no rate, nor is 0 / 0: NaN, of which no comparison holds.
        is_usable = ops.logical_and(ratios > 0.0, ratios < _INFINITY)
        trust = ops.select(is_usable, ops.sqrt(ratios), ops.ones_like(ratios) * correction)
        return trust * (ops.stack(lr) if self.is_group_lr else lr)
