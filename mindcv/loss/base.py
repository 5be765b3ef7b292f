"""Base class of the losses: it makes targets from labels, adds auxiliary heads and checks options and inputs."""

from __future__ import annotations

from typing import Any, Optional

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from mindspore.ops import constexpr

from mindcv.utils.checks import check_kind, check_name, check_number
from mindcv.utils.errors import UserError

__all__ = ["REDUCTIONS", "SCALAR_REDUCTIONS", "ClassificationLoss"]

# Training needs a scalar loss for each batch.
SCALAR_REDUCTIONS = ("mean", "sum")
REDUCTIONS = (*SCALAR_REDUCTIONS, "none")

_INTEGERS = (ms.int8, ms.int16, ms.int32, ms.int64, ms.uint8, ms.uint16, ms.uint32, ms.uint64)
_FLOATS = (ms.float16, ms.bfloat16, ms.float32, ms.float64)


class ClassificationLoss(nn.Cell):
    """Loss of the main logits plus `aux_factor` times the loss of the logits of each auxiliary head.

    A subclass defines `loss_of(logits, labels)`. All losses are computed in float32, whatever the dtype of the logits.

    Args:
        smoothing: label smoothing eps in [0, 1). The target becomes `(1 - eps) * target + eps / K` for K classes.
        aux_factor: weight of the loss of each auxiliary head, at least 0.
        reduction: `"mean"`, `"sum"`, or `"none"` for the unreduced losses. Each subclass states their shape.
        weight: one factor for each class, shape (K,), each at least 0; None means equal weights.

    Inputs of the call:
        logits: tensor (B, K), or a tuple of such tensors, where the first one belongs to the main head.
        labels: class numbers (B,) of any integer type, or targets (B, K), each from 0 to 1. MindSpore does not check
            class numbers: a number outside 0..K-1 gives a target of zeros. `create_loader` rejects such labels.

    Raises:
        UserError: an option has the wrong type or is out of its range; at the call, logits or labels have the wrong
            type.
        ValueError: at the call, the shapes of logits and labels do not fit together.
    """

    def __init__(
        self,
        smoothing: float = 0.0,
        aux_factor: float = 0.0,
        reduction: str = "mean",
        weight: Optional[Tensor] = None,
    ) -> None:
        super().__init__()
        self.smoothing = float(check_number("label_smoothing", smoothing, low=0, below=1))
        self.aux_factor = float(check_number("aux_factor", aux_factor, low=0))
        self.reduction = check_name("reduction", reduction, REDUCTIONS)
        # The scalar 1 means equal weights: it broadcasts in the same places as (K,).
        self.weight = Tensor(1.0, ms.float32) if weight is None else _checked_weight(weight)
        self.num_weights = 0 if weight is None else weight.shape[0]

    def __call__(self, *inputs: Any, **keywords: Any) -> Tensor:
        """Check that the inputs are tensors, then call the Cell.

        The check names the wrong input, which MindSpore's own error does not.
        """
        for name, value in (*zip(("logits", "labels"), inputs), *keywords.items()):
            is_heads = name == "logits" and isinstance(value, (tuple, list)) and len(value) > 0
            for tensor in value if is_heads else (value,):
                check_kind(name, tensor, Tensor, "a MindSpore tensor (convert an array with ms.Tensor(array))")
        return super().__call__(*inputs, **keywords)

    def construct(self, logits, labels):
        """Return the loss in float32: a scalar, or the unreduced losses if the reduction is `"none"`."""
        if isinstance(logits, (tuple, list)):
            loss = self.checked_loss_of(logits[0], labels)
            for aux_logits in logits[1:]:
                loss = loss + self.aux_factor * self.checked_loss_of(aux_logits, labels)
            return loss
        return self.checked_loss_of(logits, labels)

    def checked_loss_of(self, logits, labels):
        """Check types and ranks, then return `loss_of`. In graph mode the check runs during compilation."""
        _check_inputs(logits.shape, logits.dtype, labels.shape, labels.dtype, self.num_weights)
        return self.loss_of(logits, labels)

    def loss_of(self, logits, labels):
        """Return the loss of one head; each subclass overrides this method.

        Args:
            logits: (B, K).
            labels: (B,) or (B, K), see the class.
        """
        raise NotImplementedError

    def reduced(self, losses):
        """Apply `reduction` to unreduced losses of any shape."""
        if self.reduction == "none":
            return losses
        return losses.sum() if self.reduction == "sum" else losses.mean()

    def smoothed(self, targets, num_classes):
        """Return the targets, (B, K), with label smoothing for `num_classes` classes."""
        return (1.0 - self.smoothing) * targets + self.smoothing / num_classes


def one_hot(labels, logits):
    """Return the targets, float32 (B, K), of labels that are class numbers (B,) or already targets (B, K).

    Raises:
        ValueError: the shape of the labels does not fit logits (B, K). Labels (B, 1) would broadcast over all classes.
    """
    if labels.shape != logits.shape and labels.shape != logits.shape[:1]:
        raise ValueError(f"labels of shape {labels.shape} do not fit logits of shape {logits.shape}")
    if labels.ndim == 1:
        if labels.dtype != ms.int32 and labels.dtype != ms.int64:  # OneHot accepts these types on every device
            labels = labels.astype(ms.int32)
        return ops.one_hot(labels, logits.shape[1]).astype(ms.float32)
    return labels.astype(ms.float32)


def _checked_weight(weight: Tensor) -> Tensor:
    """Return the factors of the classes in float32, or raise UserError if they are not valid."""
    expected = "a MindSpore tensor with one factor for each class, such as ms.Tensor([1.0, 2.0])"
    check_kind("weight", weight, Tensor, expected)
    if weight.ndim != 1 or not weight.shape[0]:
        raise UserError(f"weight must hold one factor for each class, got shape {weight.shape}")
    factors = weight.astype(ms.float32)
    values = factors.asnumpy()
    wrong = values[~(np.isfinite(values) & (values >= 0))]
    if wrong.size:
        raise UserError(f"weight must hold finite numbers of at least 0, got {wrong[0]:g} among them")
    if not values.any():
        raise UserError("weight must hold a number above 0, got zeros only: the loss would be 0 divided by 0")
    return factors


@constexpr
def _check_inputs(
    logits_shape: tuple, logits_dtype: ms.Type, labels_shape: tuple, labels_dtype: ms.Type, num_weights: int
) -> None:
    """Check types and ranks. In a graph that is compiled for any size, an unknown dimension is None or negative."""
    if logits_dtype not in _FLOATS:
        raise UserError(f"logits must be of a floating-point type, got {str(logits_dtype).lower()}")
    if _has_known_rank(logits_shape):
        if len(logits_shape) != 2:
            raise UserError(f"logits must have the shape (images, classes), got {logits_shape}")
        if num_weights and logits_shape[1] not in (None, -1, num_weights):
            raise UserError(f"weight has {num_weights} factors, but the logits have {logits_shape[1]} classes")
    if not _has_known_rank(labels_shape):
        return
    if len(labels_shape) not in (1, 2):
        raise ValueError(f"labels of shape {labels_shape} do not fit logits of shape {logits_shape}")
    if len(labels_shape) == 1 and labels_dtype not in _INTEGERS:
        raise UserError(
            f"labels of shape (images,) are class numbers and must be of an integer type, got "
            f"{str(labels_dtype).lower()}: convert them with labels.astype(ms.int32), or give targets of shape "
            "(images, classes)"
        )


def _has_known_rank(shape: Optional[tuple]) -> bool:
    return shape is not None and -2 not in shape
