"""Asymmetric losses: what is easily told absent counts little."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindcv.loss.base import ClassificationLoss, one_hot
from mindcv.utils.checks import check_not_negative, check_number

__all__ = ["AsymmetricLossMultilabel", "AsymmetricLossSingleLabel"]

# The least base of a power: at 0, or the -2e-6 that 1 - p of a softmax can be, the derivative is then 0, where it would
# be infinity times 0, or NaN.
_FLOOR = 1e-30


class _Asymmetric(ClassificationLoss):
    """What both forms share: the exponents, and the weight of each class."""

    def __init__(self, *, gamma_pos: float = 1.0, gamma_neg: float = 4.0, **common: Any) -> None:
        super().__init__(**common)
        check_not_negative(gamma_pos=gamma_pos, gamma_neg=gamma_neg)
        self.gamma_pos = float(gamma_pos)
        self.gamma_neg = float(gamma_neg)
        # A Tensor: graph mode takes Python numbers within 2e-16 of each other for one, and may make this 0.0.
        self.floor = Tensor(_FLOOR, ms.float32)

    def focus(self, targets, if_present, if_absent):
        """(B, K) factors: how wrong the answer is, to the power gamma; in between for targets in between."""
        wrong = targets * if_present + (1.0 - targets) * if_absent
        gamma = targets * self.gamma_pos + (1.0 - targets) * self.gamma_neg
        return ops.pow(ops.maximum(wrong, self.floor), gamma)


class AsymmetricLossMultilabel(_Asymmetric):
    """Sigmoid form, each class a yes-or-no question; single losses (B, K).

    With p = sigmoid(logit) and p_m = max(p - clip, 0), a class that is present costs `-(1 - p)^gamma_pos * log(p)` and
    one that is absent `-p_m^gamma_neg * log(1 - p_m)`, times `weight_k`. Targets between 0 and 1 mix the logarithms,
    the bases and the exponents each by themselves, as timm's code does. Logarithms are exact, where timm stops p at
    1e-8: a class that is missed by far keeps its gradient. With both gammas and `clip` 0 it is sigmoid cross-entropy.

    By default the loss is the sum over samples and classes, as in the authors' code, in timm and in MindCV. With
    `reduction="mean"` it is the mean over samples and classes. Smoothing with eps, 0 by default, moves each target
    towards 1/2: `(1 - eps) * target + eps / 2`.

    Args:
        gamma_pos: exponent for the classes that are present, at least 0.
        gamma_neg: exponent for the classes that are absent, at least 0.
        clip: probability, in [0, 1), below which an absent class costs nothing.
        reduction: `"sum"`, `"mean"` or `"none"`.
        **options: see `ClassificationLoss`.

    Source: "Asymmetric Loss For Multi-Label Classification", arXiv 2009.14119, section 2.

    Raises:
        UserError: an option out of its range.
    """

    def __init__(self, *, clip: float = 0.05, reduction: str = "sum", **options: Any) -> None:
        super().__init__(reduction=reduction, **options)
        self.clip = float(check_number("clip", clip, low=0, below=1))
        self.absent = _ShiftedLog(self.clip) if clip > 0 else _Softplus()

    def loss_of(self, logits, labels):
        logits = logits.astype(ms.float32)
        targets = self.smoothed(one_hot(labels, logits), 2)  # (B, K); two answers to each question
        costs = targets * ops.softplus(-logits) + (1.0 - targets) * self.absent(logits)
        clipped = ops.relu(ops.sigmoid(logits) - self.clip)
        return self.reduced(self.weight * self.focus(targets, ops.sigmoid(-logits), clipped) * costs)


class AsymmetricLossSingleLabel(_Asymmetric):
    """Softmax form, one class a sample; single losses (B,).

    `-sum_k weight_k * smoothed_k * focus_k * log(p_k)`, p = softmax(logits), where focus is `(1 - p_k)^gamma_pos` for
    the class that is present and `p_k^gamma_neg` for the others. Only smoothing makes the others count, so `gamma_neg`
    does nothing without it. The authors' code and timm smooth by 0.1 unless told otherwise, MindCV by what
    `create_loss` is given, as here. The mean is over samples, with class weights too.

    Args:
        gamma_pos: exponent for the class that is present, at least 0. The default is timm's and MindCV's; the authors'
            code has 0.
        gamma_neg: exponent for the other classes, at least 0.
        **common: see `ClassificationLoss`.

    Source: arXiv 2009.14119, and timm's single-label form of it.

    Raises:
        UserError: an option out of its range.
    """

    def loss_of(self, logits, labels):
        num_classes = logits.shape[1]
        logs = ops.log_softmax(logits.astype(ms.float32), 1)  # (B, K)
        shares = ops.exp(logs)
        targets = one_hot(labels, logits)
        factors = self.smoothed(targets, num_classes) * self.focus(targets, 1.0 - shares, shares)
        return self.reduced(-(self.weight * factors * logs).sum(1))


class _Softplus(nn.Cell):
    """`-log(1 - p)` of the logit of p."""

    def construct(self, logits):
        return ops.softplus(logits)


class _ShiftedLog(nn.Cell):
    """`-log(1 - max(p - clip, 0))` of the logit of p; finite, since the logarithm's argument is at least `clip`."""

    def __init__(self, clip: float) -> None:
        super().__init__()
        self.clip = clip

    def construct(self, logits):
        return -ops.log(ops.minimum(ops.sigmoid(-logits) + self.clip, 1.0))
