"""MindSpore's own optimizers with the parameter groups of this library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Union

from mindspore import Parameter, nn

from mindcv.optim.base import GroupOptimizer
from mindcv.optim.lr_table import Rate
from mindcv.utils.checks import check_flags, check_not_negative, check_number

__all__ = ["SGD", "Adagrad", "Momentum"]

_Params = Union[Sequence[Parameter], Sequence[dict[str, Any]]]


class SGD(nn.SGD, GroupOptimizer):
    """SGD with momentum: `v = momentum v + (1 - dampening) g`, `w -= lr v`; with Nesterov `w -= lr (g + momentum v)`.

    `v` starts as the first `g`. The formula equals PyTorch's SGD. The weight decay is added to the gradient. `nn.SGD`
    describes the arguments.
    """

    def __init__(
        self,
        params: _Params,
        learning_rate: Rate = 0.1,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        loss_scale: float = 1.0,
    ) -> None:
        check_number("momentum", momentum, low=0, below=1)
        check_not_negative(dampening=dampening)
        check_flags(nesterov=nesterov)
        super().__init__(
            params, learning_rate, float(momentum), float(dampening), weight_decay, bool(nesterov), loss_scale
        )


class Momentum(nn.Momentum, GroupOptimizer):
    """Momentum: `v = momentum v + g`, `w -= lr v`. It keeps one buffer for each parameter, while `SGD` keeps two.

    The weight decay is added to the gradient. For the Nesterov form use `SGD`, because `nn.Momentum` ignores
    `use_nesterov` on CPU. `nn.Momentum` describes the arguments.
    """

    def __init__(
        self,
        params: _Params,
        learning_rate: Rate,
        momentum: float,
        weight_decay: float = 0.0,
        loss_scale: float = 1.0,
        use_nesterov: bool = False,
    ) -> None:
        check_number("momentum", momentum, low=0, below=1)
        check_flags(use_nesterov=use_nesterov)
        super().__init__(params, learning_rate, float(momentum), weight_decay, loss_scale, bool(use_nesterov))


class Adagrad(nn.Adagrad, GroupOptimizer):
    """Adagrad: `s = s + g^2`, `w -= lr g / sqrt(s)` ("Adaptive Subgradient Methods", JMLR 12, 2011).

    `s` starts at `accum`, which keeps the root from being 0, so there is no eps. The weight decay is added to the
    gradient. `nn.Adagrad` describes the arguments.
    """

    def __init__(
        self,
        params: _Params,
        accum: float = 0.1,
        learning_rate: Rate = 0.001,
        update_slots: bool = True,
        loss_scale: float = 1.0,
        weight_decay: float = 0.0,
    ) -> None:
        check_not_negative(accum=accum)
        check_flags(update_slots=update_slots)
        super().__init__(params, float(accum), learning_rate, bool(update_slots), loss_scale, weight_decay)
