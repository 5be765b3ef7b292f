"""Softmax cross-entropy with label smoothing."""

from __future__ import annotations

import mindspore as ms
from mindspore import ops

from mindcv.loss.base import ClassificationLoss, one_hot

__all__ = ["CrossEntropySmooth"]


class CrossEntropySmooth(ClassificationLoss):
    """Softmax cross-entropy with label smoothing; see `ClassificationLoss`. Unreduced losses are (B,).

    The loss of a sample is `-sum_k weight_k * target_k * log_softmax(logits)_k`. The mean is over samples. If there are
    class weights and the labels are class numbers, it is the weighted mean: the sum of the losses divided by the sum
    of the weights of the samples' classes. Both equal PyTorch's cross_entropy.
    """

    def loss_of(self, logits, labels):
        num_classes = logits.shape[1]
        logits = logits.astype(ms.float32)
        targets = one_hot(labels, logits)  # (B, K)
        losses = -(self.weight * self.smoothed(targets, num_classes) * ops.log_softmax(logits, 1)).sum(1)  # (B,)
        if self.reduction == "mean" and labels.ndim == 1:
            return losses.sum() / (self.weight * targets).sum()
        return self.reduced(losses)
