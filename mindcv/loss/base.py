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
        labels: class numbers, integer (B,), or targets (B, K), each from 0 to 1.

    Raises:
        UserError: an option out of its range.
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


def one_hot(labels, num_classes):
    """Integer (B,) labels as float32 (B, K); targets (B, K) as float32."""
    if labels.ndim == 1:
        return ops.one_hot(labels, num_classes).astype(ms.float32)
    return labels.astype(ms.float32)
