"""AdamW as published, which MindSpore has no fast form of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

import mindspore as ms
from mindspore import Parameter, Tensor, ops

from mindcv.optim.base import MomentOptimizer
from mindcv.optim.lr_table import Rate

__all__ = ["AdamW"]

# Mapped over the parameters: as a Python loop, 200 of them take 14 s to compile, not 1 s.
_update = ops.MultitypeFuncGraph("adamw_update")


@_update.register("Function", *["Tensor"] * 10)
def _update_one(adam, beta1, beta2, eps, correction, lr, decay, param, moment1, moment2, gradient):  # noqa: ANN001, ANN202
    # The decay is part of the update that the operator multiplies by the corrected rate: take the correction out.
    gradient = ops.cast(gradient, param.dtype)
    adam(param, moment1, moment2, lr * correction, beta1, beta2, eps, decay / correction, gradient)
    return True


class AdamW(MomentOptimizer):
    """Decoupled weight decay with bias-corrected moments ("Decoupled Weight Decay Regularization", arXiv 1711.05101).

    Equal to PyTorch's AdamW. Of MindSpore's own, `nn.AdamWeightDecay` has no bias correction, `nn.Adam` couples the
    decay with the gradient, and `mint.optim.AdamW` has no CPU kernel. The corrections are scalars, so that one call of
    the fused `ops.AdamWeightDecay` a parameter suffices: with `c = sqrt(1 - beta2^t) / (1 - beta1^t)`, it gets the
    rate `lr * c`, `eps * sqrt(1 - beta2^t)` and the decay `weight_decay / c`.

    Args:
        params: parameters or groups, see `GroupOptimizer`.
        learning_rate: a rate, a table of one rate a step, or a schedule Cell.
        betas: decay rates of the two moments, each in (0, 1).
        eps: added to the root of the corrected second moment, above 0.
        weight_decay: coefficient, at least 0, of groups that have none of their own.
        loss_scale: the gradients arrive multiplied by this; above 0.

    Raises:
        UserError, ValueError: a value out of its range, see `GroupOptimizer`.
    """

    def __init__(
        self,
        params: Union[Sequence[Parameter], Sequence[dict[str, Any]]],
        learning_rate: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        loss_scale: float = 1.0,
    ) -> None:
        super().__init__(params, learning_rate, betas, eps, weight_decay, loss_scale)
        self.moments1 = self._parameters.clone(prefix="adam_m", init="zeros")
        self.moments2 = self._parameters.clone(prefix="adam_v", init="zeros")
        self.adam = ops.AdamWeightDecay()

    @ms.jit
    def construct(self, gradients: tuple[Tensor, ...]) -> Any:
        """Update the parameters; `gradients` holds one for each, in the order of `self.parameters`."""
        gradients = self.scale_grad(self.gradients_centralization(gradients))
        lr, powers = self.begin_step()
        root = ops.sqrt(1.0 - powers[1])
        beta1, beta2, eps, correction = self.betas[0], self.betas[1], self.eps * root, root / (1.0 - powers[0])
        each = (self.decays, self._parameters, self.moments1, self.moments2, gradients)
        if self.is_group_lr:
            return self.hyper_map(ops.partial(_update, self.adam, beta1, beta2, eps, correction), lr, *each)
        # Not a tuple of the one rate: 200 copies of it take 4 s more to compile.
        return self.hyper_map(ops.partial(_update, self.adam, beta1, beta2, eps, correction, lr), *each)
