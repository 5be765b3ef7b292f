"""Creates a loss from its name."""

from __future__ import annotations

from typing import Any, Optional

from mindspore import Tensor

from mindcv.loss.asymmetric import AsymmetricLossMultilabel, AsymmetricLossSingleLabel
from mindcv.loss.base import ClassificationLoss
from mindcv.loss.binary_cross_entropy import BinaryCrossEntropySmooth
from mindcv.loss.cross_entropy import CrossEntropySmooth
from mindcv.loss.jsd import JSDCrossEntropy
from mindcv.utils.checks import check_name
from mindcv.utils.errors import UserError, nearest
from mindcv.utils.logger import logger

__all__ = ["LOSS_NAMES", "create_loss"]

# name -> (class, keyword arguments that only this loss has)
_LOSSES: dict[str, tuple[type[ClassificationLoss], tuple[str, ...]]] = {
    "CE": (CrossEntropySmooth, ()),
    "BCE": (BinaryCrossEntropySmooth, ("target_threshold",)),
    "asl_single_label": (AsymmetricLossSingleLabel, ("gamma_pos", "gamma_neg")),
    "asl_multi_label": (AsymmetricLossMultilabel, ("gamma_pos", "gamma_neg", "clip")),
    "JSD": (JSDCrossEntropy, ("num_splits", "alpha")),
}
LOSS_NAMES = tuple(_LOSSES)


def create_loss(
    name: str = "CE",
    weight: Optional[Tensor] = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    aux_factor: float = 0.0,
    **kwargs: Any,
) -> ClassificationLoss:
    """Create a loss from its name.

    Args:
        name: `CE` (softmax cross-entropy), `BCE` (sigmoid cross-entropy with logits), `asl_single_label` (asymmetric
            loss with a softmax), `asl_multi_label` (asymmetric loss with a sigmoid), or `JSD` (cross-entropy plus the
            divergence between augmented copies). Upper and lower case mean the same.
        weight: one factor for each class, shape (K,).
        reduction: `mean`, `sum` or `none`. `asl_multi_label` replaces `mean` with `sum`, see below.
        label_smoothing: eps in [0, 1). Targets become `(1 - eps) * target + eps / K`. `asl_multi_label` ignores it.
        aux_factor: weight of the loss of each auxiliary head, used if the network returns a tuple of logits.
        **kwargs: options that only some losses have, with their defaults: `target_threshold` (None) for `BCE`;
            `gamma_pos` (1) and `gamma_neg` (4) for both asymmetric losses; `clip` (0.05) for `asl_multi_label`;
            `num_splits` (3) and `alpha` (12) for `JSD`. The classes describe them.

    `asl_multi_label` is the sum over samples and classes without label smoothing, as in MindCV. MindCV's `create_loss`
    ignores both options for this loss, because its callers pass values that are meant for other losses. If options are
    ignored, the log says so. To use the mean or label smoothing, create
    `AsymmetricLossMultilabel(reduction="mean", smoothing=0.1)` yourself.

    Returns:
        A Cell `(logits, labels) -> float32 scalar`, or unreduced losses if `reduction` is `none`. `ClassificationLoss`
        describes the shapes.

    Raises:
        UserError: the name or a keyword is unknown, or an option is out of its range.
    """
    name = check_name("loss", name, _LOSSES, ignore_case=True)
    loss, own_keywords = _LOSSES[name]
    for key in kwargs:
        if key not in own_keywords:
            allowed = ", ".join(own_keywords) or "none"
            raise UserError(f"loss '{name}' has no keyword '{key}'{nearest(key, own_keywords)} (it has: {allowed})")
    if loss is AsymmetricLossMultilabel and (reduction == "mean" or label_smoothing):
        _say_sum(reduction, label_smoothing)
        reduction, label_smoothing = "sum" if reduction == "mean" else reduction, 0.0
    return loss(smoothing=label_smoothing, aux_factor=aux_factor, reduction=reduction, weight=weight, **kwargs)


def _say_sum(reduction: str, label_smoothing: float) -> None:
    logger.info(
        "asl_multi_label sums over samples and classes and does not smooth the targets, as in MindCV: reduction=%s and "
        "label_smoothing=%g are not used; build mindcv.loss.AsymmetricLossMultilabel to choose them",
        reduction,
        label_smoothing,
    )
