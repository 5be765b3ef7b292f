"""The optimizers that are MindSpore's own, with the groups of this library."""

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
    """`v = momentum v + (1 - dampening) g`, `w -= lr v`, or with Nesterov `w -= lr (g + momentum v)`.

    `v` starts as the first `g`. The formula is PyTorch's. The weight decay is added to the gradient. Arguments:
    `nn.SGD`'s.
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
    """`v = momentum v + g`, `w -= lr v`, with one buffer a parameter where `SGD` keeps two.

    The weight decay is added to the gradient. Not for Nesterov: `nn.Momentum` ignores it on CPU, and `SGD` does not.
    Arguments: `nn.Momentum`'s.
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
    """`s = s + g^2`, `w -= lr g / sqrt(s)`; `s` starts at `accum` ("Adaptive Subgradient Methods", JMLR 12, 2011).

    There is no eps: `accum` keeps the root from 0. The weight decay is added to the gradient. Arguments:
    `nn.Adagrad`'s.
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
