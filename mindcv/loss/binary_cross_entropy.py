"""Sigmoid cross-entropy, each class a yes-or-no question."""

from __future__ import annotations

from typing import Optional

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindcv.loss.base import ClassificationLoss, one_hot
from mindcv.utils.checks import check_number
from mindcv.utils.errors import UserError

__all__ = ["BinaryCrossEntropySmooth"]


class BinaryCrossEntropySmooth(ClassificationLoss):
    """`weight_k * (softplus(logit_k) - target_k * logit_k)` of each sample and class, (B, K); see `ClassificationLoss`.

    The mean is over samples and classes. Smoothing with eps gives a class that is absent eps / K and one that is
    present 1 - eps + eps / K, as timm does with class numbers; targets (B, K) are smoothed by the same formula, while
    timm leaves them as they come.

    Args:
        target_threshold: in [0, 1). What is above it, after smoothing, becomes 1, the rest 0: an image mixed of two
            counts as showing both. At least half of `smoothing`, or smoothing alone could make every class present.
            None keeps targets as they are.

    Raises:
        UserError: an option out of its range.
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
            # With eps for smoothing and at least two classes, one that is absent gets eps / 2 at most.
            low, high = self.smoothing / 2, 1.0 - self.smoothing
            if not low <= target_threshold <= high:
                raise UserError(
                    f"target_threshold must be from {low:g} to {high:g} with label_smoothing {smoothing:g}, got "
                    f"{target_threshold}: smoothing alone would carry targets across it"
                )
        self.harden = nn.Identity() if target_threshold is None else _Threshold(target_threshold)

    def loss_of(self, logits, labels):
        num_classes = logits.shape[1]
        logits = logits.astype(ms.float32)
        targets = self.harden(self.smoothed(one_hot(labels, logits), num_classes))  # (B, K)
        ones = ops.ones_like(logits)
        # The operator is exact at logits of 0 and of +-1e4; logsigmoid and relu + log1p are not, in value or gradient.
        # It does not take the mean: in PyNative its gradient divides by the size of an earlier call's batch.
        losses = ops.binary_cross_entropy_with_logits(logits, targets, ones * self.weight, ones, reduction="none")
        return self.reduced(losses)


class _Threshold(nn.Cell):
    """1 where a target is above `value`, else 0."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def construct(self, targets):
        return ops.greater(targets, self.value).astype(ms.float32)
