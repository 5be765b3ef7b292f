"""What the losses share: targets from labels, auxiliary heads, and the checks of their options."""

from __future__ import annotations

from typing import Optional

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindcv.utils.errors import UserError, unknown_name

__all__ = ["REDUCTIONS", "ClassificationLoss"]

REDUCTIONS = ("mean", "sum", "none")


class ClassificationLoss(nn.Cell):
    """Loss of the main logits, plus `aux_factor` times that of each auxiliary head's.

    A subclass gives `loss_of(logits, labels)`. Everything is computed in float32 whatever the logits' dtype.

    Args:
        smoothing: label smoothing eps in [0, 1): the target becomes `(1 - eps) * target + eps / K`, K classes.
        aux_factor: weight of each auxiliary head's loss, at least 0.
        reduction: `"mean"`, `"sum"`, or `"none"` for the single losses, whose shape each subclass names.
        weight: a factor for each class, shape (K,), or None.

    Inputs of the call:
        logits: (B, K), or a tuple of such, the main head's first.
        labels: class numbers, integer (B,), or targets (B, K), each from 0 to 1. MindSpore does not check the numbers:
            one outside 0..K-1 gives a target of zeros. `create_loader` refuses such labels.

    Raises:
        UserError: an option out of its range.
        ValueError: the shapes of logits and labels do not fit together.
    """

    def __init__(
        self,
        smoothing: float = 0.0,
        aux_factor: float = 0.0,
        reduction: str = "mean",
        weight: Optional[Tensor] = None,
    ) -> None:
        super().__init__()
        if not 0.0 <= smoothing < 1.0:
            raise UserError(f"label_smoothing must be in [0, 1), got {smoothing}")
        if aux_factor < 0.0:
            raise UserError(f"aux_factor must be at least 0, got {aux_factor}")
        if reduction not in REDUCTIONS:
            raise UserError(unknown_name("reduction", reduction, REDUCTIONS))
        if weight is not None and weight.ndim != 1:
            raise UserError(f"weight must hold one factor for each class, got shape {weight.shape}")
        self.smoothing = float(smoothing)
        self.aux_factor = float(aux_factor)
        self.reduction = reduction
        # A scalar 1 stands for no weights: it broadcasts where (K,) would.
        self.weight = Tensor(1.0, ms.float32) if weight is None else weight.astype(ms.float32)

    def construct(self, logits, labels):
        """The loss, float32: a scalar, or the single losses with reduction `"none"`."""
        if isinstance(logits, (tuple, list)):
            loss = self.loss_of(logits[0], labels)
            for aux_logits in logits[1:]:
                loss = loss + self.aux_factor * self.loss_of(aux_logits, labels)
            return loss
        return self.loss_of(logits, labels)

    def loss_of(self, logits, labels):
        """The loss of one head."""
        raise NotImplementedError

    def reduced(self, losses):
        """Single losses of any shape to what `reduction` asks for."""
        if self.reduction == "none":
            return losses
        return losses.sum() if self.reduction == "sum" else losses.mean()

    def smoothed(self, targets, num_classes):
        """(B, K) targets with label smoothing."""
        return (1.0 - self.smoothing) * targets + self.smoothing / num_classes


def one_hot(labels, logits):
    """Targets, float32 (B, K), from labels for logits (B, K): integer (B,), or targets already.

    Raises:
        ValueError: the labels have another shape. Labels (B, 1) would broadcast over all classes.
    """
    if labels.shape != logits.shape and labels.shape != logits.shape[:1]:
        raise ValueError(f"labels of shape {labels.shape} do not fit logits of shape {logits.shape}")
    if labels.ndim == 1:
        return ops.one_hot(labels, logits.shape[1]).astype(ms.float32)
    return labels.astype(ms.float32)
