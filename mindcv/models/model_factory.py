"""The factory that creates models by name."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from inspect import signature
from typing import Optional

from mindspore import nn
from mindspore.nn.utils import no_init_parameters

from mindcv.convert import load_weights
from mindcv.models.features import ConvNeXtFeatures
from mindcv.models.pretrained import fetch_pretrained, pretrained_weights, split_tag
from mindcv.models.registry import model_entrypoint
from mindcv.utils.checks import check_flags, check_path
from mindcv.utils.errors import UnknownKeywordError, UserError

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
    """Create a model and load weights into it on request.

    Args:
        model_name: one of `list_models()`. With `pretrained`, a tag may follow, as in `convnextv2_tiny.fcmae`.
        num_classes: number of classes of the head. 0 gives a network without a head, which returns pooled features.
            It is never read from a checkpoint.
        pretrained: whether to load published weights. By default they are the first of
            `list_pretrained_tags(model_name)`. They are downloaded if no cache holds them.
        in_channels: number of channels of the images.
        checkpoint_path: checkpoint file to load, in any layout that `mindcv.convert` knows, or '' for none.
        ema: whether to load the averaged weights of the checkpoint. None loads the weights that training validated if
            the checkpoint records them, and the plain weights otherwise.
        auto_mapping: ignored, accepted because MindCV has it. The layout of a checkpoint is always detected.
        features_only: whether to return the feature maps of stages instead of logits (see `ConvNeXtFeatures`).
        out_indices: stages whose maps `features_only` returns. None returns all four.
        **kwargs: arguments of the model: `drop_path_rate`, `drop_rate`, `head_init_scale`, `layer_scale_init_value`,
            `recompute_stages`, `seed`, `global_pool`, `patch_size` (see `ConvNeXt`). None selects the model's default.
            timm's name `in_chans` may replace `in_channels`.

    Every name and shape of loaded weights must match, with the two exceptions below. The log reports each in one line.

    - A head of another number of classes is not loaded. The model's head then starts from random values and needs
      training. If the weights are an encoder without a last norm, that norm also keeps its initial values.
    - A stem for 3 channels is adapted to another number of channels (see `mindcv.convert.load.adapted_stem`).

    Raises:
        UserError: the model or a keyword is unknown, an argument has a wrong type or value, the weights are missing,
            or the checkpoint does not fit.
    """
    del auto_mapping
    check_flags(pretrained=pretrained, features_only=features_only, **({} if ema is None else {"ema": ema}))
    if checkpoint_path:
        check_path("checkpoint_path", checkpoint_path)
    plain_name, tag = split_tag(model_name)
    entrypoint = model_entrypoint(plain_name)
    if ema and not checkpoint_path:
        raise UserError("ema=True loads the averaged weights of a checkpoint: give a checkpoint_path")
    if pretrained and checkpoint_path:
        raise UserError("pretrained=True and checkpoint_path are two sources of weights: give only one of them")
    if tag and not pretrained:
        raise UserError(f"'{model_name}' names published weights: give pretrained=True, or '{plain_name}' alone")
    if out_indices is not None and not features_only:
        raise UserError("out_indices selects feature maps: give features_only=True as well")
    published = pretrained_weights(model_name) if pretrained else None
    is_filled = pretrained or checkpoint_path
    if features_only:
        num_classes = 0
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    in_chans = kwargs.pop("in_chans", in_channels)
    if in_channels not in (3, in_chans):
        raise UserError(
            f"in_channels={in_channels} and in_chans={in_chans} are two names of one argument: give only in_channels"
        )
    in_channels = in_chans
    # Do not draw initial values that a checkpoint replaces. See decision 0056.
    with no_init_parameters() if is_filled else nullcontext():
        try:
            model = entrypoint(num_classes=num_classes, in_channels=in_channels, **kwargs)
        except UnknownKeywordError as error:
            own = set(signature(create_model).parameters) - {"kwargs"}
            raise error.with_known("create_model", own) from None
    if is_filled:
        # The download comes after the checks of all arguments.
        path = fetch_pretrained(published) if published else checkpoint_path
        load_weights(model, path, replace_head=True, adapt_stem=True, ema=ema)
        for parameter in model.get_parameters():
            if parameter.has_init:  # The checkpoint did not set it, for example a new head.
                parameter.init_data()
    return ConvNeXtFeatures(model, out_indices) if features_only else model
