"""Sigmoid cross-entropy, each class a yes-or-no question."""

from __future__ import annotations

import mindspore as ms
from mindspore import ops

from mindcv.loss.base import ClassificationLoss, one_hot

__all__ = ["BinaryCrossEntropySmooth"]


class BinaryCrossEntropySmooth(ClassificationLoss):
    """`weight_k * (softplus(logit_k) - target_k * logit_k)` of each class and sample; see `ClassificationLoss`.

    The mean is over samples and classes.
    """

    def loss_of(self, logits, labels):
        num_classes = logits.shape[1]
        logits = logits.astype(ms.float32)
        targets = self.smoothed(one_hot(labels, num_classes), num_classes)  # (B, K)
        ones = ops.ones_like(logits)
        # The operator is exact at logits of 0 and of +-1e4; logsigmoid and relu + log1p are not, in value or gradient.
        # It does not take the mean: in PyNative its gradient divides by the size of an earlier call's batch.
        losses = ops.binary_cross_entropy_with_logits(logits, targets, ones * self.weight, ones, reduction="none")
        return losses.sum() if self.reduction == "sum" else losses.mean()
