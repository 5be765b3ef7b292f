"""Models by name."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Optional

from mindspore import nn
from mindspore.nn.utils import no_init_parameters

from mindcv.convert import load_weights
from mindcv.models.features import ConvNeXtFeatures
from mindcv.models.pretrained import fetch_pretrained, pretrained_weights, split_tag
from mindcv.models.registry import model_entrypoint
from mindcv.utils.checks import check_flags, check_path
from mindcv.utils.errors import UserError

__all__ = ["create_model"]


def create_model(
    model_name: str,
    num_classes: int = 1000,
    pretrained: bool = False,
    in_channels: int = 3,
    checkpoint_path: str = "",
    ema: Optional[bool] = None,
    auto_mapping: bool = False,
    features_only: bool = False,
    out_indices: Optional[Sequence[int]] = None,
    **kwargs: object,
) -> nn.Cell:
    """Build a model and, when asked, fill it with weights.

    Args:
        model_name: one of `list_models()`; with `pretrained`, a tag may follow (`convnextv2_tiny.fcmae`).
        num_classes: width of the head; 0 for the pooled features.
        pretrained: load published weights, by default the first of `list_pretrained_tags(model_name)`. They are
            downloaded where no cache has them; what is said of heads and stems below holds for them as well.
        in_channels: channels of the images.
        checkpoint_path: a file to load, of any layout of names that `mindcv.convert` knows. Every name and shape must
            match, but for what the log then says in one line each: a head of another width, or none, is left untrained
            (with the last norm, where the file is of an encoder alone); weights for 3 channels are made to fit others.
        ema: whether to take the averaged weights of the checkpoint. None takes those that training validated, where
            the checkpoint says so, and else the weights themselves.
        auto_mapping: kept for MindCV's callers; the layout of a checkpoint's names is always detected.
        features_only: give the maps of stages instead of logits (see `ConvNeXtFeatures`).
        out_indices: with `features_only`, the stages wanted; None for all four.
        **kwargs: for the model: `drop_path_rate`, `drop_rate`, `head_init_scale`, `layer_scale_init_value`,
            `recompute_stages`, `seed`, `global_pool` (see `ConvNeXt`); None leaves the model's default. timm's name
            `in_chans` stands for `in_channels`.

    Raises:
        UserError: an unknown model, an argument of another type or out of its range, weights that are not there, or a
            checkpoint that does not fit.
    """
    del auto_mapping
    check_flags(pretrained=pretrained, features_only=features_only, **({} if ema is None else {"ema": ema}))
    if checkpoint_path:
        check_path("checkpoint_path", checkpoint_path)
    plain_name, tag = split_tag(model_name)
    entrypoint = model_entrypoint(plain_name)
    if ema and not checkpoint_path:
        raise UserError("ema=True takes the averaged weights of a checkpoint: give a checkpoint_path")
    if pretrained and checkpoint_path:
        raise UserError("pretrained=True and checkpoint_path are two sources of weights: give one")
    if tag and not pretrained:
        raise UserError(f"'{model_name}' names published weights: give pretrained=True, or '{plain_name}' alone")
    if out_indices is not None and not features_only:
        raise UserError("out_indices has a meaning only with features_only=True")
    if pretrained:
        checkpoint_path = str(fetch_pretrained(pretrained_weights(model_name)))
    if features_only:
        num_classes = 0
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    in_chans = kwargs.pop("in_chans", in_channels)
    if in_channels not in (3, in_chans):
        raise UserError(f"in_channels={in_channels} and in_chans={in_chans} are one option: give in_channels alone")
    in_channels = in_chans
    # Values that a file replaces are not drawn first: for the largest network, some 20 s and 2.6 GB.
    with no_init_parameters() if checkpoint_path else nullcontext():
        model = entrypoint(num_classes=num_classes, in_channels=in_channels, **kwargs)
    if checkpoint_path:
        load_weights(model, checkpoint_path, replace_head=True, adapt_stem=True, ema=ema)
        for parameter in model.get_parameters():
            if parameter.has_init:  # a new head
                parameter.init_data()
    return ConvNeXtFeatures(model, out_indices) if features_only else model
