"""A checkpoint into a network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Optional, Union

import mindspore as ms
import numpy as np
from mindspore import nn

from mindcv.convert.checkpoint_file import CheckpointContents, open_checkpoint
from mindcv.convert.layout_tables import own_names
from mindcv.convert.layouts import Renamed, compare, rename, weight_parameters
from mindcv.utils.errors import CheckpointError
from mindcv.utils.logger import logger

__all__ = ["adapted_stem", "as_float32", "fill_weights", "load_weights"]

_STEM = own_names("stem conv")[0]
_NORM = own_names("last norm")
_HEAD = own_names("head")


def load_weights(
    model: nn.Cell,
    path: Union[str, os.PathLike],
    replace_head: bool = False,
    adapt_stem: bool = False,
    ema: Optional[bool] = None,
) -> dict[str, Any]:
    """Fill `model` from a checkpoint file and return the file's metadata.

    What is not loaded as it stands in the file is asked for by an argument, and told in one line of the log each.

    Args:
        model: network whose weights are set.
        path: a file in any known format, and in any known layout of names.
        replace_head: when the checkpoint's head has another number of classes, or it has none (an encoder after FCMAE
            has no last norm either), or the model has none, leave the model's as it is.
        adapt_stem: when the checkpoint is of 3 channels and the model of another number, make the stem's weights fit
            (see `adapted_stem`).
        ema: whether to take the file's averaged weights; None takes what training validated, see `read_checkpoint`.

    Raises:
        CheckpointError: the file cannot be read, or a name or shape does not match. The model is then unchanged.
    """
    contents = open_checkpoint(path, ema=ema)
    fill_weights(model, contents, path, replace_head, adapt_stem)
    return contents.metadata


def fill_weights(
    model: nn.Cell,
    contents: CheckpointContents,
    path: Union[str, os.PathLike],
    replace_head: bool = False,
    adapt_stem: bool = False,
) -> None:
    """`load_weights` of a checkpoint that has been read, for callers whose model depends on its metadata.

    Args:
        model, replace_head, adapt_stem: see `load_weights`.
        contents: what was read; its arrays are let go.
        path: what messages call it.

    Raises:
        CheckpointError: see `load_weights`.
    """
    try:
        renamed = rename(contents.arrays)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint '{path}': {error}") from None
    contents.arrays.clear()
    parameters = weight_parameters(model)
    told = renamed.told()
    untrained: list[str] = []
    if replace_head:
        untrained, sentence = _replace_head(renamed, parameters)
        told += [sentence] if sentence else []
    if adapt_stem and _adapt_stem(renamed, parameters):
        told.append(f"the stem's weights for 3 channels are made to fit {parameters[_STEM].shape[1]}")
    wanted = {name: parameter for name, parameter in parameters.items() if name not in untrained}
    mismatch = compare(renamed, wanted)
    if mismatch:
        raise CheckpointError(f"checkpoint '{path}' (layout: {renamed.layout.name}) does not fit the model: {mismatch}")
    types = {renamed.sources[name]: renamed.arrays[name].dtype for name in wanted}
    strange = [f"{name} is {dtype}" for name, dtype in types.items() if dtype.kind != "f"]
    if strange:
        raise CheckpointError(f"checkpoint '{path}' has weights that are no floats: {', '.join(strange[:8])}")
    for sentence in told:
        logger.info("%s: %s", path, sentence)
    # Each array is let go once it is copied: with it the memory of what was not a view of the file.
    for name, parameter in wanted.items():
        parameter.set_data(ms.Tensor(as_float32(renamed.arrays.pop(name)), parameter.dtype))


def _replace_head(renamed: Renamed, parameters: Mapping[str, ms.Parameter]) -> tuple[list[str], str]:
    """Take a head that does not fit out of `renamed`.

    Returns:
        The names of the model's parameters that are then left as they are, and a sentence about them, if any.
    """
    arrays = renamed.arrays
    ours = [name for name in _HEAD if name in parameters]
    theirs = [name for name in _HEAD if name in arrays]
    num_classes = parameters[_HEAD[0]].shape[0] if ours else 0
    if theirs:
        if ours and all(arrays[name].shape == tuple(parameters[name].shape) for name in theirs):
            return [], ""
        sentence = f"the head of {renamed.num_classes} classes is left out"
        for name in theirs:
            del arrays[name]
        return ours, sentence + (f"; the model's, of {num_classes}, is untrained" if ours else "")
    if not renamed.is_encoder:
        return ours, f"there is no head in it; the model's, of {num_classes} classes, is untrained" if ours else ""
    if ours:
        return [*_NORM, *ours], (
            f"there is no head and no last norm in it; the model's, of {num_classes} classes, are untrained"
        )
    return list(_NORM), "there is no last norm in it; the model's is untrained"


def _adapt_stem(renamed: Renamed, parameters: Mapping[str, ms.Parameter]) -> bool:
    """Make a stem of 3 channels fit the model's number, if that is another; whether anything was done."""
    weight = renamed.arrays.get(_STEM)
    in_channels = parameters[_STEM].shape[1]
    if weight is None or weight.ndim != 4 or weight.shape[1] != 3 or in_channels == 3:
        return False
    renamed.arrays[_STEM] = adapted_stem(weight, in_channels)
    return True


def adapted_stem(weight: np.ndarray, in_channels: int) -> np.ndarray:
    """Weights of a stem for RGB images made to fit another number of channels, as timm does.

    One channel gets the sum of the three, so that a grey image gives what it gave as three equal channels. Otherwise
    red, green and blue are repeated in turn and scaled by 3 / in_channels, so that equal channels give what they gave.

    Args:
        weight: [O, 3, k, k].
        in_channels: the number wanted.

    Returns:
        [O, in_channels, k, k], float32.
    """
    weight = np.asarray(weight, np.float32)
    if in_channels == 1:
        return weight.sum(axis=1, keepdims=True)
    return weight[:, np.arange(in_channels) % 3] * np.float32(3 / in_channels)


def as_float32(array: np.ndarray) -> np.ndarray:
    """The array as MindSpore's Tensor takes it: itself where it is native, contiguous float32, else a copy."""
    # The view drops a byte order that is spelled out: MindSpore 2.7 refuses "<f" on machines where "f" is the same.
    return np.ascontiguousarray(array, np.float32).view(np.float32)
