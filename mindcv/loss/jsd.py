"""Cross-entropy plus the Jensen-Shannon divergence between differently augmented copies of each image."""

from __future__ import annotations

import math
from typing import Any, Optional

import mindspore as ms
from mindspore import Tensor, ops

from mindcv.loss.base import ClassificationLoss
from mindcv.loss.cross_entropy import CrossEntropySmooth
from mindcv.utils.checks import check_int, check_number

__all__ = ["JSDCrossEntropy"]


class JSDCrossEntropy(ClassificationLoss):
    """Cross-entropy of the first split plus `alpha` times the Jensen-Shannon divergence of all splits.

    The logits of S copies of B images are (S * B, K): first the first copy of every image, which is not augmented, then
    the second copy of every image, and so on. Let p_s = softmax(logits of copy s), and let m be the mean of all p_s.
    The divergence of an image is `sum_s KL(p_s || m) / S`, and its mean is over images. Unreduced losses are (B,). The
    logarithm of m is exact; timm limits m to at least 1e-7, which makes a difference of less than 4e-8 for each class.

    The labels belong to the first copies and are (B,) or (B, K). If there are more labels, only the first B are used.

    Args:
        num_splits: number of copies S of each image, at least 2.
        alpha: weight of the divergence, at least 0.
        smoothing: label smoothing of the cross-entropy, in [0, 1).
        weight: one factor for each class in the cross-entropy, shape (K,).
        reduction: see `ClassificationLoss`.
        **common: see `ClassificationLoss`.

    Source: "AugMix: A Simple Data Processing Method to Improve Robustness and Uncertainty", arXiv 1912.02781,
    section 3.

    Raises:
        UserError: an option is out of its range.
        ValueError: at the call, the number of rows of the logits is not a multiple of `num_splits`.
    """

    def __init__(
        self,
        *,
        num_splits: int = 3,
        alpha: float = 12.0,
        smoothing: float = 0.0,
        weight: Optional[Tensor] = None,
        reduction: str = "mean",
        **common: Any,
    ) -> None:
        super().__init__(smoothing=smoothing, weight=weight, reduction=reduction, **common)
        self.num_splits = check_int("num_splits", num_splits, 2)
        self.alpha = float(check_number("alpha", alpha, low=0))
        self.log_num_splits = math.log(num_splits)
        self.cross_entropy = CrossEntropySmooth(smoothing=smoothing, weight=weight, reduction=reduction)

    def loss_of(self, logits, labels):
        rows, num_classes = logits.shape
        if rows % self.num_splits:
            raise ValueError(f"JSD: {rows} rows of logits cannot be split into {self.num_splits} equal parts")
        size = rows // self.num_splits  # B
        logs = ops.log_softmax(logits.astype(ms.float32), 1)
        logs = ops.reshape(logs, (self.num_splits, size, num_classes))  # (S, B, K)
        log_mean = _log_sum_exp(logs) - self.log_num_splits  # (B, K)
        divergences = (ops.exp(logs) * (logs - log_mean)).sum(2).mean(0)  # (B,)
        return self.cross_entropy(logits[:size], labels[:size]) + self.alpha * self.reduced(divergences)


def _log_sum_exp(logs):
    """Return the logarithm of the sum of exponentials over the first axis.

    It uses log1p. In their first calls on CPU, MindSpore's Log (which `ops.logsumexp` uses), Pow and Softplus try
    several ways to split their work over threads, and the last bit of a value depends on the split. With them, a
    resumed run would not be bit-identical (decision 0071).
    """
    top = ops.stop_gradient(ops.amax(logs, 0))
    return top + ops.log1p(ops.exp(logs - top).sum(0) - 1.0)
