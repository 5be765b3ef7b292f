"""Models by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from mindspore import nn

from mindcv.convert import load_weights
from mindcv.models.features import ConvNeXtFeatures
from mindcv.models.registry import model_entrypoint
from mindcv.utils.errors import UserError

__all__ = ["create_model"]


def create_model(
    model_name: str,
    num_classes: int = 1000,
    pretrained: bool = False,
    in_channels: int = 3,
    checkpoint_path: str = "",
    ema: bool = False,
    auto_mapping: bool = False,
    features_only: bool = False,
    out_indices: Optional[Sequence[int]] = None,
    **kwargs: object,
) -> nn.Cell:
    """Build a model and, when asked, fill it with weights.

    Args:
        model_name: one of `list_models()`.
        num_classes: width of the head; 0 for the pooled features.
        pretrained: load published weights.
        in_channels: channels of the images.
        checkpoint_path: a `.ckpt` file to load; every name and shape must match, but for a head of another width,
            which is left untrained and said in one line.
        ema: take the averaged weights of the checkpoint.
        auto_mapping: kept for MindCV's callers; the layout of a checkpoint's names is always detected.
        features_only: give the maps of stages instead of logits (see `ConvNeXtFeatures`).
        out_indices: with `features_only`, the stages wanted; None for all four.
        **kwargs: for the model: `drop_path_rate`, `drop_rate`, `head_init_scale`, `layer_scale_init_value`,
            `recompute_stages`, `seed` (see `ConvNeXt`); None leaves the model's default.

    Raises:
        UserError: an unknown model, weights that are not there, or a checkpoint that does not fit.
    """
    del auto_mapping
    if ema:
        raise UserError("ema=True: checkpoints with averaged weights come with a later version")
    if pretrained and checkpoint_path:
        raise UserError("pretrained=True and checkpoint_path are two sources of weights: give one")
    if out_indices is not None and not features_only:
        raise UserError("out_indices has a meaning only with features_only=True")
    if features_only:
        num_classes = 0
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    model = model_entrypoint(model_name)(
        pretrained=pretrained, num_classes=num_classes, in_channels=in_channels, **kwargs
    )
    if checkpoint_path:
        load_weights(model, checkpoint_path, replace_head=True)
    return ConvNeXtFeatures(model, out_indices) if features_only else model
