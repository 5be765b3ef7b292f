"""Names of losses to losses."""

from __future__ import annotations

from typing import Optional

from mindspore import Tensor

from mindcv.loss.base import ClassificationLoss
from mindcv.loss.binary_cross_entropy import BinaryCrossEntropySmooth
from mindcv.loss.cross_entropy import CrossEntropySmooth
from mindcv.utils.errors import UserError, unknown_name

__all__ = ["create_loss"]

_LOSSES = {"CE": CrossEntropySmooth, "BCE": BinaryCrossEntropySmooth}


def create_loss(
    name: str = "CE",
    weight: Optional[Tensor] = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    aux_factor: float = 0.0,
) -> ClassificationLoss:
    """A loss by name, upper or lower case.

    Args:
        name: `CE` (softmax cross-entropy) or `BCE` (sigmoid cross-entropy with logits).
        weight: a factor for each class, shape (K,).
        reduction: `mean` or `sum`.
        label_smoothing: eps in [0, 1): targets become `(1 - eps) * target + eps / K`.
        aux_factor: weight of each auxiliary head's loss, when the network returns a tuple of logits.

    Returns:
        A Cell `(logits, labels) -> float32 scalar`; see `ClassificationLoss` for the shapes.

    Raises:
        UserError: an unknown name or an option out of its range.
    """
    if name.upper() not in _LOSSES:
        raise UserError(unknown_name("loss", name, _LOSSES))
    return _LOSSES[name.upper()](smoothing=label_smoothing, aux_factor=aux_factor, reduction=reduction, weight=weight)
