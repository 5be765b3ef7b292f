"""AdamW as in its paper. MindSpore has no fast implementation of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional, Union

import mindspore as ms
from mindspore import Parameter, Tensor, ops

from mindcv.kernels import AdamWKernel
from mindcv.kernels.form import uses_kernels
from mindcv.optim.base import MomentOptimizer
from mindcv.optim.lr_table import Rate

__all__ = ["AdamW"]

_step = ops.AdamWeightDecay()
_update = ops.MultitypeFuncGraph("adamw_update")
_as_type = ops.MultitypeFuncGraph("as_type")


@_update.register("Tuple", *["Tensor"] * 6)
def _update_one(common, lr, decay, param, moment1, moment2, gradient):  # noqa: ANN001, ANN202
    beta1, beta2, eps, correction = common
    gradient = ops.cast(gradient, param.dtype)
    # The operator multiplies the decay by the corrected rate too, so divide it by the correction.
    _step(param, moment1, moment2, lr * correction, beta1, beta2, eps, decay / correction, gradient)
    return True


@_as_type.register("Tensor", "Tensor")
def _as_type_one(param, gradient):  # noqa: ANN001, ANN202
    return ops.cast(gradient, param.dtype)


class AdamW(MomentOptimizer):
    """Decoupled weight decay with bias-corrected moments ("Decoupled Weight Decay Regularization", arXiv 1711.05101).

    It equals PyTorch's AdamW. MindSpore's own optimizers differ: `nn.AdamWeightDecay` has no bias correction, `nn.Adam`
    adds the decay to the gradient, and `mint.optim.AdamW` has no CPU kernel. The bias corrections are scalars: with
    `c = sqrt(1 - beta2^t) / (1 - beta1^t)`, the update is `lr (c m / (sqrt(v) + eps sqrt(1 - beta2^t)) + decay w)`.

    On CPU, one kernel updates all parameters. Elsewhere, the fused `ops.AdamWeightDecay` is called once per parameter
    with the rate `lr c` and the decay `weight_decay / c`. Decision 0058 compares the times of both.

    `MomentOptimizer` describes the arguments. `betas` is (0.9, 0.999) by default, for the first and the second moment.
    `eps` is 1e-8 by default and is added to the root of the corrected second moment.
    """

    moment_names = ("adam_m", "adam_v")

    def __init__(
        self,
        params: Union[Sequence[Parameter], Sequence[dict[str, Any]]],
        learning_rate: Rate = 1e-3,
        betas: Optional[Sequence[float]] = None,
        eps: Optional[float] = None,
        weight_decay: float = 0.0,
        loss_scale: float = 1.0,
    ) -> None:
        super().__init__(params, learning_rate, betas, eps, weight_decay, loss_scale)
        is_float32 = all(parameter.dtype == ms.float32 for parameter in self.parameters)
        self.kernel = AdamWKernel(len(self.parameters)) if uses_kernels() and is_float32 else None
        self.decay_vector = Tensor(self.weight_decays, ms.float32)

    @ms.jit
    def construct(self, gradients: tuple[Tensor, ...]) -> Any:
        """Update the parameters. `gradients` holds one gradient per parameter, in the order of `self.parameters`."""
        gradients = self.scale_grad(self.gradients_centralization(gradients))
        lr, powers = self.begin_step()
        root = ops.sqrt(1.0 - powers[1])
        common = (self.betas[0], self.betas[1], self.eps * root, root / (1.0 - powers[0]))
        if self.kernel is None:
            each = (self.decays, self._parameters, self.adam_m, self.adam_v, gradients)
            return self.update_each(_update, common, lr, *each)
        gradients = self.hyper_map(_as_type, self._parameters, gradients)
        constants = ops.stack(common)
        return self.kernel(
            self._parameters, self.adam_m, self.adam_v, gradients, self.rate_vector(lr), self.decay_vector, constants
        )
