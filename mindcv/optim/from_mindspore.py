"""The optimizers that are MindSpore's own, with the groups of this library."""

from __future__ import annotations

from mindspore import nn

from mindcv.optim.base import GroupOptimizer

__all__ = ["SGD", "Adagrad", "Momentum"]


class SGD(nn.SGD, GroupOptimizer):
    """`v = momentum v + (1 - dampening) g`, `w -= lr v`, or with Nesterov `w -= lr (g + momentum v)`.

    `v` starts as the first `g`. The formula is PyTorch's. The weight decay is added to the gradient. Arguments:
    `nn.SGD`'s.
    """


class Momentum(nn.Momentum, GroupOptimizer):
    """`v = momentum v + g`, `w -= lr v`, with one buffer a parameter where `SGD` keeps two.

    The weight decay is added to the gradient. Not for Nesterov: `nn.Momentum` ignores it on CPU, and `SGD` does not.
    Arguments: `nn.Momentum`'s.
    """


class Adagrad(nn.Adagrad, GroupOptimizer):
    """`s = s + g^2`, `w -= lr g / sqrt(s)`; `s` starts at `accum` ("Adaptive Subgradient Methods", JMLR 12, 2011).

    There is no eps: `accum` keeps the root from 0. The weight decay is added to the gradient. Arguments:
    `nn.Adagrad`'s.
    """
