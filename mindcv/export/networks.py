"""Which networks can be exported, and what they return."""

from __future__ import annotations

from mindspore import nn

from mindcv.export.metadata import FEATURE_MAPS, FEATURES, LOGITS, PROBABILITIES
from mindcv.models import ConvNeXt, ConvNeXtFeatures
from mindcv.utils.checks import shown
from mindcv.utils.errors import UserError

__all__ = ["output_kind"]


def output_kind(network: nn.Cell, with_softmax: bool = False) -> str:
    """Return the kind of the outputs of a network.

    Raises:
        UserError: the network is not a ConvNeXt or a ConvNeXtFeatures in float32, or it has no logits for a softmax.
    """
    if type(network) not in (ConvNeXt, ConvNeXtFeatures):
        raise UserError(
            "network must be a ConvNeXt or a ConvNeXtFeatures, as create_model makes them, without apply_amp; got "
            f"{shown(network)}"
        )
    _check_formats(network)
    has_logits = type(network) is ConvNeXt and network.num_classes > 0
    if with_softmax and not has_logits:
        raise UserError("with_softmax needs a network with a classifier, and this network returns features")
    if has_logits:
        return PROBABILITIES if with_softmax else LOGITS
    return FEATURES if type(network) is ConvNeXt else FEATURE_MAPS


def _check_formats(network: nn.Cell) -> None:
    """Check that the network computes in float32 throughout.

    Raises:
        UserError: mixed precision has changed a number format.
    """
    for _, cell in network.cells_and_names():
        if getattr(cell, "input_type", None) is not None or getattr(cell, "compute_type", None) is not None:
            raise UserError(
                "this network has number formats of mixed precision: export it before apply_amp and to_float, and give "
                "half=True for a file that computes in float16"
            )
