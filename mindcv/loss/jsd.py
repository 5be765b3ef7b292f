"""Cross-entropy, and agreement among differently augmented copies of each image."""

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
    """Cross-entropy of the first split plus `alpha` times the splits' Jensen-Shannon divergence; single losses (B,).

    Of S copies of B images the logits are (S * B, K): all images' first copies, the clean ones, then all second ones
    and so on. With p_s = softmax(logits of copy s) and m their mean, the divergence of an image is
    `sum_s KL(p_s || m) / S`. Its mean is over images. The logarithm of m is exact, where timm stops m at 1e-7, a
    difference of less than 4e-8 for each class.

    Labels are those of the first copies, (B,) or (B, K); of more only the first B are read.

    Args:
        num_splits: S, at least 2.
        alpha: weight of the divergence, at least 0.
        smoothing: of the cross-entropy's targets.
        weight: a factor for each class in the cross-entropy.
        reduction: see `ClassificationLoss`.
        **common: see `ClassificationLoss`.

    Source: "AugMix: A Simple Data Processing Method to Improve Robustness and Uncertainty", arXiv 1912.02781,
    section 3.

    Raises:
        UserError: an option out of its range.
        ValueError: at the call, when the logits cannot be split evenly.
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
            raise ValueError(f"JSD: {rows} rows of logits cannot be split into {self.num_splits}")
        size = rows // self.num_splits  # B
        logs = ops.log_softmax(logits.astype(ms.float32), 1)
        logs = ops.reshape(logs, (self.num_splits, size, num_classes))  # (S, B, K)
        log_mean = _log_sum_exp(logs) - self.log_num_splits  # (B, K)
        divergences = (ops.exp(logs) * (logs - log_mean)).sum(2).mean(0)  # (B,)
        return self.cross_entropy(logits[:size], labels[:size]) + self.alpha * self.reduced(divergences)


def _log_sum_exp(logs):
    """The logarithm of the sum of exponentials over the first axis.

    By log1p, since MindSpore's Log (and with it `ops.logsumexp`), Pow and Softplus on CPU try ways to split their work
    over threads in their first calls, and the last bit of a value depends on the split: a resumed run would differ
    (decision 0071).
    """
    top = ops.stop_gradient(ops.amax(logs, 0))
    return top + ops.log1p(ops.exp(logs - top).sum(0) - 1.0)
