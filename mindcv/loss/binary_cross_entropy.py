"""Sigmoid cross-entropy, where each class is a separate binary decision."""

from __future__ import annotations

from typing import Optional

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindcv.loss.base import ClassificationLoss, one_hot
from mindcv.utils.checks import check_number
from mindcv.utils.errors import UserError

__all__ = ["BinaryCrossEntropySmooth"]


class BinaryCrossEntropySmooth(ClassificationLoss):
    """Sigmoid cross-entropy with label smoothing; see `ClassificationLoss`. Unreduced losses are (B, K).

    The loss of a sample and a class is `weight_k * (softplus(logit_k) - target_k * logit_k)`. The mean is over samples
    and classes. Smoothing with eps sets the target of an absent class to eps / K and the target of a present class to
    1 - eps + eps / K, as timm does for class numbers. The same formula smooths targets (B, K), which timm does not
    change.

    Args:
        target_threshold: threshold in [0, 1), or None. A target above it, after smoothing, becomes 1, and every other
            target becomes 0, so a mix of two images can count as showing both classes. It must be from
            `smoothing / 2` to `1 - smoothing`, because otherwise smoothing alone could move a target across it. None
            does not change the targets.

    Raises:
        UserError: an option is out of its range.
    """

    def __init__(
        self,
        smoothing: float = 0.0,
        aux_factor: float = 0.0,
        reduction: str = "mean",
        weight: Optional[Tensor] = None,
        *,
        target_threshold: Optional[float] = None,
    ) -> None:
        super().__init__(smoothing, aux_factor, reduction, weight)
        if target_threshold is not None:
            check_number("target_threshold", target_threshold, low=0, below=1)
            # With at least two classes, smoothing gives an absent class at most eps / 2.
            low, high = self.smoothing / 2, 1.0 - self.smoothing
            if not low <= target_threshold <= high:
                raise UserError(
                    f"target_threshold must be from {low:g} to {high:g} with label_smoothing {smoothing:g}, got "
                    f"{target_threshold}: smoothing alone would move targets across it"
                )
        self.harden = nn.Identity() if target_threshold is None else _Threshold(target_threshold)

    def loss_of(self, logits, labels):
        num_classes = logits.shape[1]
        logits = logits.astype(ms.float32)
        targets = self.harden(self.smoothed(one_hot(labels, logits), num_classes))  # (B, K)
        ones = ops.ones_like(logits)
        # The value and the gradient of this operator are exact at logits of 0 and of +-1e4; those
        # of logsigmoid and of relu + log1p are not. The operator does not compute the mean here,
        # because in PyNative its gradient divides by the batch size of an earlier call.
        losses = ops.binary_cross_entropy_with_logits(logits, targets, ones * self.weight, ones, reduction="none")
        return self.reduced(losses)


class _Threshold(nn.Cell):
    """Returns 1 where a target is above `value`, and 0 elsewhere."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def construct(self, targets):
        return ops.greater(targets, self.value).astype(ms.float32)
