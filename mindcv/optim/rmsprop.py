"""RMSProp. MindSpore's operator is not used, because the size of the parameter changes where it adds eps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

import mindspore as ms
from mindspore import Parameter, Tensor, ops

from mindcv.optim.base import GroupOptimizer
from mindcv.optim.lr_table import Rate
from mindcv.utils.checks import check_flags, check_number, check_positive

__all__ = ["RMSProp"]

_update = ops.MultitypeFuncGraph("rmsprop_update")
_follow = ops.MultitypeFuncGraph("rmsprop_follow")


@_follow.register("Tensor", "Tensor", "Tensor")
def _follow_one(gain, mean, gradient):  # noqa: ANN001, ANN202
    followed = mean + gain * (gradient - mean)
    return ops.depend(followed, ops.assign(mean, followed))


@_update.register("Tuple", *["Tensor"] * 5)
def _update_one(common, lr, param, square, moment, gradient):  # noqa: ANN001, ANN202
    return _move(common, lr, 0.0, param, square, moment, gradient)


@_update.register("Tuple", *["Tensor"] * 6)
def _update_centered(common, lr, mean, param, square, moment, gradient):  # noqa: ANN001, ANN202
    return _move(common, lr, ops.square(mean), param, square, moment, gradient)


def _move(common, lr, removed, param, square, moment, gradient):  # noqa: ANN001, ANN202
    gain, momentum, eps = common
    gradient = ops.cast(gradient, param.dtype)
    squared = square + gain * (ops.square(gradient) - square)
    moved = momentum * moment + lr * gradient / ops.sqrt(squared - removed + eps)
    ops.assign(square, squared)
    ops.assign(moment, moved)
    ops.assign(param, param - moved)
    return True


class RMSProp(GroupOptimizer):
    """RMSProp: `s = decay s + (1 - decay) g^2`, `v = momentum v + lr g / sqrt(s + eps)`, `w -= v`; `s` starts at 1.

    MindSpore, MindCV and TensorFlow use this form. PyTorch's RMSProp differs: it starts `s` at 0, adds eps after the
    root, and multiplies `v` by the learning rate instead of each summand. The weight decay is added to the gradient.
    The operator of `nn.RMSProp` is not used: on CPU, if eps is not negligible, its result for an element depends on the
    position of the element.

    Args:
        params: parameters or groups, see `GroupOptimizer`.
        learning_rate: a learning rate, a table with one rate per step, or a schedule Cell.
        decay: decay rate of the mean square, in (0, 1).
        momentum: momentum in [0, 1).
        eps: small number above 0 that is added to the mean square.
        centered: subtract the square of the moving average of `g` from `s` under the root.
        weight_decay: coefficient, at least 0, for groups that do not have their own.
        loss_scale: factor, above 0, that the incoming gradients were multiplied by.

    Raises:
        UserError, ValueError: a value is out of its range, see `GroupOptimizer`.
    """

    def __init__(
        self,
        params: Union[Sequence[Parameter], Sequence[dict[str, Any]]],
        learning_rate: Rate = 0.1,
        decay: float = 0.9,
        momentum: float = 0.0,
        eps: float = 1e-10,
        centered: bool = False,
        weight_decay: float = 0.0,
        loss_scale: float = 1.0,
    ) -> None:
        check_number("decay", decay, above=0, below=1)
        check_number("momentum", momentum, low=0, below=1)
        check_positive(eps=eps)
        check_flags(centered=centered)
        super().__init__(learning_rate, params, weight_decay, loss_scale)
        self.gain = Tensor(1.0 - decay, ms.float32)
        self.momentum = Tensor(momentum, ms.float32)
        self.eps = Tensor(eps, ms.float32)
        self.squares = self._parameters.clone(prefix="mean_square", init="ones")
        self.moments = self._parameters.clone(prefix="moment", init="zeros")
        self.centered = centered
        self.means = self._parameters.clone(prefix="mean_grad", init="zeros") if centered else ()

    @ms.jit
    def construct(self, gradients: tuple[Tensor, ...]) -> Any:
        """Update the parameters. `gradients` holds one gradient per parameter, in the order of `self.parameters`."""
        gradients = self.scale_grad(self.gradients_centralization(self.decay_weight(gradients)))
        lr = self.get_lr()
        self.assignadd(self.global_step, self.global_step_increase_tensor)
        each = (self._parameters, self.squares, self.moments, gradients)
        if self.centered:
            each = (self.hyper_map(ops.partial(_follow, self.gain), self.means, gradients),) + each
        return self.update_each(_update, (self.gain, self.momentum, self.eps), lr, *each)
