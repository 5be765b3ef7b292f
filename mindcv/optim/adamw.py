"""AdamW as published, which MindSpore has no fast form of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops
from mindspore.nn.learning_rate_schedule import LearningRateSchedule

from mindcv.utils.errors import UserError

__all__ = ["AdamW"]

# Mapped over the parameters: as a Python loop, 200 of them take 14 s to compile, not 1 s.
_update = ops.MultitypeFuncGraph("adamw_update")


@_update.register("Function", *["Tensor"] * 10)
def _update_one(adam, beta1, beta2, eps, correction, lr, decay, param, moment1, moment2, gradient):  # noqa: ANN001, ANN202
    # The decay is part of the update that the operator multiplies by the corrected rate: take the correction out.
    gradient = ops.cast(gradient, param.dtype)
    adam(param, moment1, moment2, lr * correction, beta1, beta2, eps, decay / correction, gradient)
    return True


class AdamW(nn.Optimizer):
    """Decoupled weight decay with bias-corrected moments ("Decoupled Weight Decay Regularization", arXiv 1711.05101).

    Equal to PyTorch's AdamW. Of MindSpore's own, `nn.AdamWeightDecay` has no bias correction, `nn.Adam` couples the
    decay with the gradient, and `mint.optim.AdamW` has no CPU kernel. The corrections are scalars, so that one call of
    the fused `ops.AdamWeightDecay` a parameter suffices: with `c = sqrt(1 - beta2^t) / (1 - beta1^t)`, it gets the
    rate `lr * c`, `eps * sqrt(1 - beta2^t)` and the decay `weight_decay / c`.

    Every bare parameter is decayed, whatever its name, unlike with MindSpore's optimizers: use groups
    (`weight_decay_groups`) to leave some out.

    Args:
        params: parameters, or groups with `params` and, if they are to differ, `lr` and `weight_decay`.
        learning_rate: a rate (number or 0-D Tensor), a table of rates, or a schedule Cell. A bare table must not be
            read past its end; `create_optimizer` wraps tables in `LearningRateTable`.
        betas: decay rates of the two moments, each in (0, 1).
        eps: added to the root of the corrected second moment, above 0.
        weight_decay: coefficient, at least 0, of groups that have none of their own.
        loss_scale: the gradients arrive multiplied by this; above 0.

    Raises:
        UserError: betas or eps out of range, or a weight decay that changes over time.
        ValueError: another value out of its range (from `nn.Optimizer`).
    """

    def __init__(
        self,
        params: Union[Sequence[Parameter], Sequence[dict[str, Any]]],
        learning_rate: Union[float, Sequence[float], Tensor, LearningRateSchedule] = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        loss_scale: float = 1.0,
    ) -> None:
        if len(betas) != 2 or not all(0.0 < beta < 1.0 for beta in betas):
            raise UserError(f"betas must be two numbers between 0 and 1, got {betas}")
        if eps <= 0:
            raise UserError(f"eps must be above 0, got {eps}")
        super().__init__(learning_rate, params, weight_decay, loss_scale)
        if self.dynamic_weight_decay:
            raise UserError("weight_decay must be a number, not a schedule")
        self.beta1 = Tensor(betas[0], ms.float32)
        self.beta2 = Tensor(betas[1], ms.float32)
        self.eps = Tensor(eps, ms.float32)
        # Running products, as in nn.Adam: pow() is inexact on some devices, where 1 - beta2^t would lose its digits.
        self.beta1_power = Parameter(Tensor(1.0, ms.float32), name="beta1_power")
        self.beta2_power = Parameter(Tensor(1.0, ms.float32), name="beta2_power")
        self.moments1 = self._parameters.clone(prefix="adam_m", init="zeros")
        self.moments2 = self._parameters.clone(prefix="adam_v", init="zeros")
        # nn.Optimizer multiplies its weight decay by the loss scale, meaning to add it to gradients that are scaled.
        scaled = self.group_weight_decay if self.is_group else [float(self.weight_decay)] * self.param_length
        tensors = {value: Tensor(value / self.loss_scale, ms.float32) for value in scaled}
        self.decays = tuple(tensors[value] for value in scaled)
        self.adam = ops.AdamWeightDecay()

    @ms.jit
    def construct(self, gradients: tuple[Tensor, ...]) -> Any:
        """Update the parameters; `gradients` holds one for each, in the order of `self.parameters`."""
        gradients = self.scale_grad(self.gradients_centralization(gradients))
        lr = self.get_lr()
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        power1 = self.beta1_power * self.beta1
        power2 = self.beta2_power * self.beta2
        self.beta1_power = power1
        self.beta2_power = power2
        root = ops.sqrt(1.0 - power2)
        beta1, beta2, eps, correction = self.beta1, self.beta2, self.eps * root, root / (1.0 - power1)
        each = (self.decays, self._parameters, self.moments1, self.moments2, gradients)
        if self.is_group_lr:
            return self.hyper_map(ops.partial(_update, self.adam, beta1, beta2, eps, correction), lr, *each)
        # Not a tuple of the one rate: 200 copies of it take 4 s more to compile.
        return self.hyper_map(ops.partial(_update, self.adam, beta1, beta2, eps, correction, lr), *each)
