"""AdamW as published, which MindSpore has no fast form of."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, ops

from mindcv.optim.base import MomentOptimizer

__all__ = ["AdamW"]

_step = ops.AdamWeightDecay()
_update = ops.MultitypeFuncGraph("adamw_update")


@_update.register("Tuple", *["Tensor"] * 6)
def _update_one(common, lr, decay, param, moment1, moment2, gradient):  # noqa: ANN001, ANN202
    beta1, beta2, eps, correction = common
    gradient = ops.cast(gradient, param.dtype)
    # The decay is part of the update that the operator multiplies by the corrected rate: take the correction out.
    _step(param, moment1, moment2, lr * correction, beta1, beta2, eps, decay / correction, gradient)
    return True


class AdamW(MomentOptimizer):
    """Decoupled weight decay with bias-corrected moments ("Decoupled Weight Decay Regularization", arXiv 1711.05101).

    Equal to PyTorch's AdamW. Of MindSpore's own, `nn.AdamWeightDecay` has no bias correction, `nn.Adam` couples the
    decay with the gradient, and `mint.optim.AdamW` has no CPU kernel. The corrections are scalars, so that one call of
    the fused `ops.AdamWeightDecay` a parameter suffices: with `c = sqrt(1 - beta2^t) / (1 - beta1^t)`, it gets the
    rate `lr * c`, `eps * sqrt(1 - beta2^t)` and the decay `weight_decay / c`.

    Arguments: those of `MomentOptimizer`, with `betas` (0.9, 0.999) for the two moments, and an `eps` of 1e-8 that is
    added to the root of the corrected second moment.
    """

    moment_names = ("adam_m", "adam_v")

    @ms.jit
    def construct(self, gradients: tuple[Tensor, ...]) -> Any:
        """Update the parameters; `gradients` holds one for each, in the order of `self.parameters`."""
        gradients = self.scale_grad(self.gradients_centralization(gradients))
        lr, powers = self.begin_step()
        root = ops.sqrt(1.0 - powers[1])
        common = (self.betas[0], self.betas[1], self.eps * root, root / (1.0 - powers[0]))
        each = (self.decays, self._parameters, self.adam_m, self.adam_v, gradients)
        return self.update_each(_update, common, lr, *each)
