"""Reads the backbone of a checkpoint, whatever network the checkpoint belongs to.

Three kinds of checkpoints hold a backbone: those of classifiers, those of FCMAE pre-training (`pretrain.py`, and the
official sparse code), and those that end before the head, such as the published encoders of FCMAE and DINOv3.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Optional, Union

from mindcv.convert.checkpoint_file import CheckpointContents, open_checkpoint
from mindcv.convert.layout_tables import own_names
from mindcv.convert.layouts import rename
from mindcv.utils.errors import CheckpointError
from mindcv.utils.logger import logger

__all__ = ["backbone_name", "is_pretraining_name", "open_backbone", "pretraining_name"]

# The name of a pre-training network is this prefix and the name of its encoder.
_PRETRAINING = "fcmae_"
_HEAD = own_names("head")


def is_pretraining_name(model_name: str) -> bool:
    """Return whether the name is that of a pre-training network."""
    return model_name.startswith(_PRETRAINING)


def backbone_name(model_name: str) -> str:
    """Return the name of a model's backbone: that of the encoder for a pre-training network, else the name itself."""
    return model_name[len(_PRETRAINING) :] if is_pretraining_name(model_name) else model_name


def pretraining_name(encoder_name: str) -> str:
    """Return the name of the pre-training network of an encoder."""
    return _PRETRAINING + encoder_name


def open_backbone(path: Union[str, os.PathLike], ema: Optional[bool] = None) -> CheckpointContents:
    """Read the backbone of a checkpoint: its weights without the decoder of a pre-training network and without a head.

    `fill_weights` with `replace_head` loads the result into a network with or without a head. An encoder of FCMAE has
    no last norm: the network's own keeps its values then.

    Args:
        path: checkpoint of any format and layout.
        ema: see `read_checkpoint`.

    Returns:
        The weights under the names of the file; and the metadata, in which the options name the backbone as the model
        and hold no number of classes.

    Raises:
        CheckpointError: the file cannot be read (see `open_checkpoint`), or its names have no known layout.
    """
    contents = open_checkpoint(path, ema=ema)
    try:
        renamed = rename(contents.arrays)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint '{path}': {error}") from None
    if renamed.left_out:
        logger.info("%s: the decoder is left out: %s", path, renamed.parts_left_out())
    head = {renamed.sources[name] for name in _HEAD if name in renamed.sources}
    left_out = head.union(renamed.prefix + name for name in renamed.left_out)
    arrays = {name: array for name, array in contents.arrays.items() if name not in left_out}
    return CheckpointContents(arrays, _backbone_metadata(contents.metadata))


def _backbone_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata without what describes a head."""
    kept = {name: value for name, value in metadata.items() if name != "class_to_idx"}
    options = kept.get("options")
    if isinstance(options, dict):
        options = {name: value for name, value in options.items() if name != "num_classes"}
        if isinstance(options.get("model"), str):
            options["model"] = backbone_name(options["model"])
        kept["options"] = options
    return kept
