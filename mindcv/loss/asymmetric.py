"""Asymmetric losses, which give little weight to classes that are absent and easy to recognize as absent."""

from __future__ import annotations

from typing import Any

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindcv.loss.base import ClassificationLoss, one_hot
from mindcv.utils.checks import check_not_negative, check_number

__all__ = ["AsymmetricLossMultilabel", "AsymmetricLossSingleLabel"]

# Smallest base of a power. A base can be 0, and 1 - p of a softmax can be rounded to -2e-6. There
# the derivative would be infinity times 0, or NaN; with this limit it is 0.
_FLOOR = 1e-30


class _Asymmetric(ClassificationLoss):
    """Base class of both forms: it holds the exponents and computes the focusing factors."""

    def __init__(self, *, gamma_pos: float = 1.0, gamma_neg: float = 4.0, **common: Any) -> None:
        super().__init__(**common)
        check_not_negative(gamma_pos=gamma_pos, gamma_neg=gamma_neg)
        self.gamma_pos = float(gamma_pos)
        self.gamma_neg = float(gamma_neg)
        # This is a Tensor because graph mode treats Python numbers within 2e-16 of each other as
        # equal, so it could replace the number with 0.0.
        self.floor = Tensor(_FLOOR, ms.float32)

    def focus(self, targets, if_present, if_absent):
        """Return the focusing factors, (B, K): the error of each probability to the power gamma.

        A target between 0 and 1 interpolates both the error and gamma.
        """
        wrong = targets * if_present + (1.0 - targets) * if_absent
        gamma = targets * self.gamma_pos + (1.0 - targets) * self.gamma_neg
        return ops.pow(ops.maximum(wrong, self.floor), gamma)


class AsymmetricLossMultilabel(_Asymmetric):
    """Asymmetric loss with a sigmoid: each class is a separate binary decision. Unreduced losses are (B, K).

    Let p = sigmoid(logit) and p_m = max(p - clip, 0). The loss of a present class is `-(1 - p)^gamma_pos * log(p)`. The
    loss of an absent class is `-p_m^gamma_neg * log(1 - p_m)`. Both are multiplied by `weight_k`. For a target between
    0 and 1, the logarithms, the bases and the exponents are interpolated separately, as in timm's code. The logarithms
    are exact, so a present class with a very low probability keeps its gradient; timm limits p to at least 1e-8. If
    both gammas and `clip` are 0, the loss equals sigmoid cross-entropy.

    By default the loss is the sum over samples and classes, as in the authors' code, in timm and in MindCV. With
    `reduction="mean"` it is the mean over samples and classes. Label smoothing with eps (default 0) moves each target
    towards 1/2: `(1 - eps) * target + eps / 2`.

    Args:
        gamma_pos: exponent for present classes, at least 0.
        gamma_neg: exponent for absent classes, at least 0.
        clip: probability in [0, 1); an absent class with a lower probability has loss 0.
        reduction: `"sum"`, `"mean"` or `"none"`.
        **options: see `ClassificationLoss`.

    Source: "Asymmetric Loss For Multi-Label Classification", arXiv 2009.14119, section 2.

    Raises:
        UserError: an option is out of its range.
    """

    def __init__(self, *, clip: float = 0.05, reduction: str = "sum", **options: Any) -> None:
        super().__init__(reduction=reduction, **options)
        self.clip = float(check_number("clip", clip, low=0, below=1))
        self.absent = _ShiftedLog(self.clip) if clip > 0 else _Softplus()

    def loss_of(self, logits, labels):
        logits = logits.astype(ms.float32)
        targets = self.smoothed(one_hot(labels, logits), 2)  # (B, K); each class has two outcomes
        costs = targets * ops.softplus(-logits) + (1.0 - targets) * self.absent(logits)
        clipped = ops.relu(ops.sigmoid(logits) - self.clip)
        return self.reduced(self.weight * self.focus(targets, ops.sigmoid(-logits), clipped) * costs)


class AsymmetricLossSingleLabel(_Asymmetric):
    """Asymmetric loss with a softmax: each sample has one class. Unreduced losses are (B,).

    The loss of a sample is `-sum_k weight_k * smoothed_k * focus_k * log(p_k)` with p = softmax(logits). The factor
    `focus_k` is `(1 - p_k)^gamma_pos` for the present class and `p_k^gamma_neg` for the others. The others contribute
    only with label smoothing, so `gamma_neg` has no effect without it. By default, the authors' code and
    timm smooth by 0.1, while this class and MindCV do not smooth. The mean is over samples, also with class weights.

    Args:
        gamma_pos: exponent for the present class, at least 0. The default is the same as in timm and MindCV; the
            authors' code has 0.
        gamma_neg: exponent for the other classes, at least 0.
        **common: see `ClassificationLoss`.

    Source: arXiv 2009.14119, in timm's form for a single label.

    Raises:
        UserError: an option is out of its range.
    """

    def loss_of(self, logits, labels):
        num_classes = logits.shape[1]
        logs = ops.log_softmax(logits.astype(ms.float32), 1)  # (B, K)
        shares = ops.exp(logs)
        targets = one_hot(labels, logits)
        factors = self.smoothed(targets, num_classes) * self.focus(targets, 1.0 - shares, shares)
        return self.reduced(-(self.weight * factors * logs).sum(1))


class _Softplus(nn.Cell):
    """Computes `-log(1 - p)` from the logit of p."""

    def construct(self, logits):
        return ops.softplus(logits)


class _ShiftedLog(nn.Cell):
    """Computes `-log(1 - max(p - clip, 0))` from the logit of p.

    The result is finite because the argument of the logarithm is at least `clip`.
    """

    def __init__(self, clip: float) -> None:
        super().__init__()
        self.clip = clip

    def construct(self, logits):
        return -ops.log(ops.minimum(ops.sigmoid(-logits) + self.clip, 1.0))
