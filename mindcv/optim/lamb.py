"""LAMB as in its paper. MindSpore's `nn.Lamb` has no CPU kernel."""

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
    # With a rate of 0 the operator does not change the weight.
    _adam(param, moment1, moment2, zero, zero, zero, beta1, beta2, eps, gradient)
    update = moment1 / (ops.sqrt(moment2) + eps) + decay / correction * param
    return ops.reduce_sum(ops.square(param)) / ops.reduce_sum(ops.square(update))


@_update.register("Tuple", *["Tensor"] * 6)
def _update_one(common, lr, decay, param, moment1, moment2, gradient):  # noqa: ANN001, ANN202
    one, eps, correction = common
    gradient = ops.cast(gradient, param.dtype)
    # With betas of 1 the operator does not change the moments.
    _adam_and_decay(param, moment1, moment2, lr, one, one, eps, decay / correction, gradient)
    return True


class Lamb(MomentOptimizer):
    """Layer-wise adaptive moments, algorithm 2 of "Large Batch Optimization for Deep Learning" (arXiv 1904.00962).

    LAMB computes Adam's update with bias correction and decoupled weight decay, and scales the update of each parameter
    to the norm of the parameter. The function `phi` of the paper is the identity, and the factor is 1 if one of the
    norms is 0. Every parameter is scaled, as in the paper; timm does not scale parameters without weight decay.

    Let `c = sqrt(1 - beta2^t) / (1 - beta1^t)` and `e = eps sqrt(1 - beta2^t)`. The update before scaling is `c u` with
    `u = m / (sqrt(v) + e) + weight_decay / c * w`. In the scaled update `lr |w| / |c u| * c u`, `c` cancels out.

    `MomentOptimizer` describes the arguments. `betas` is (0.9, 0.999) by default, for the first and the second moment.
    `eps` is 1e-6 by default and is added to the root of the corrected second moment. The update includes the weight
    decay before it is scaled.
    """

    moment_names = ("lamb_m", "lamb_v")
    default_eps = 1e-6

    @ms.jit
    def construct(self, gradients: tuple[Tensor, ...]) -> Any:
        """Update the parameters. `gradients` holds one gradient per parameter, in the order of `self.parameters`."""
        gradients = self.scale_grad(self.gradients_centralization(gradients))
        lr, powers = self.begin_step()
        root = ops.sqrt(1.0 - powers[1])
        eps, correction = self.eps * root, root / (1.0 - powers[0])
        each = (self.decays, self._parameters, self.lamb_m, self.lamb_v, gradients)
        ratios = self.hyper_map(ops.partial(_measure, (self.zero,) + self.betas + (eps, correction)), *each)
        rates = ops.unstack(self.trusted(lr, ops.stack(ratios), correction))
        return self.hyper_map(ops.partial(_update, (self.one, eps, correction)), rates, *each)

    def trusted(self, lr: Union[Tensor, tuple[Tensor, ...]], ratios: Tensor, correction: Tensor) -> Tensor:
        """Return the learning rate of each parameter, [P].

        Args:
            lr: the learning rate or rates, see `get_lr`.
            ratios: squared norm of each parameter divided by the squared norm of its update, [P].
            correction: the factor `c` of the class docstring.
        """
        # With the ratio 0, a weight of 0 would never change. x / 0 is infinity, and 0 / 0 is NaN,
        # for which every comparison is false. In these cases the factor of the paper is 1, and only
        # the correction remains.
        is_usable = ops.logical_and(ratios > 0.0, ratios < _INFINITY)
        trust = ops.select(is_usable, ops.sqrt(ratios), ops.ones_like(ratios) * correction)
        return trust * (ops.stack(lr) if self.is_group_lr else lr)
