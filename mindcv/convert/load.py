"""Loads a checkpoint into a network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Optional, Union

import mindspore as ms
import numpy as np
from mindspore import nn

from mindcv.convert.checkpoint_file import CheckpointContents, open_checkpoint
from mindcv.convert.layout_tables import own_names
from mindcv.convert.layouts import Renamed, compare, compare_exactly, rename, weight_parameters
from mindcv.utils.errors import CheckpointError
from mindcv.utils.logger import logger

__all__ = ["adapted_stem", "as_float32", "fill_weights", "load_weights"]

_STEM = own_names("stem conv")[0]
_NORM = own_names("last norm")
_HEAD = own_names("head")

# The end of a log line about a head that a checkpoint does not fill.
_UNTRAINED = "starts from random values and needs training"


def load_weights(
    model: nn.Cell,
    path: Union[str, os.PathLike],
    replace_head: bool = False,
    adapt_stem: bool = False,
    ema: Optional[bool] = None,
) -> dict[str, Any]:
    """Fill `model` from a checkpoint file and return the file's metadata.

    By default every weight of the model is loaded exactly as the file holds it. Each argument allows one exception, and
    one line in the log reports it.

    Args:
        model: network whose weights are set.
        path: file in any known format and any known layout of names.
        replace_head: whether to keep the model's head if the checkpoint's head has another number of classes, or if
            one of the two has no head. An encoder after FCMAE has no last norm either; the model's is then kept too.
        adapt_stem: whether to adapt the stem's weights if the checkpoint has 3 input channels and the model another
            number (see `adapted_stem`).
        ema: whether to load the moving average of the weights. None loads the weights that training validated (see
            `read_checkpoint`).

    Returns:
        The metadata of the file.

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
    """Fill `model` from a checkpoint that has already been read. Use it if the model depends on the metadata.

    Args:
        model, replace_head, adapt_stem: see `load_weights`.
        contents: weights and metadata of the checkpoint. Its arrays are removed to free memory.
        path: name of the checkpoint in messages.

    Raises:
        CheckpointError: a name or shape does not match (see `load_weights`).
    """
    parameters = weight_parameters(model)
    if _STEM not in parameters:
        _fill_exactly(parameters, contents, path)
        return
    try:
        renamed = rename(contents.arrays)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint '{path}': {error}") from None
    contents.arrays.clear()
    messages = renamed.log_messages()
    untrained: list[str] = []
    if replace_head:
        untrained, sentence = _replace_head(renamed, parameters)
        messages += [sentence] if sentence else []
    if adapt_stem and _adapt_stem(renamed, parameters):
        messages.append(f"the stem's weights for 3 channels are adapted to {parameters[_STEM].shape[1]}")
    wanted = {name: parameter for name, parameter in parameters.items() if name not in untrained}
    mismatch = compare(renamed, wanted)
    if mismatch:
        raise CheckpointError(f"checkpoint '{path}' (layout: {renamed.layout.name}) does not fit the model: {mismatch}")
    _check_floats({renamed.sources[name]: renamed.arrays[name] for name in wanted}, path)
    for sentence in messages:
        logger.info("%s: %s", path, sentence)
    _set_parameters(wanted, renamed.arrays)


def _fill_exactly(
    parameters: Mapping[str, ms.Parameter], contents: CheckpointContents, path: Union[str, os.PathLike]
) -> None:
    """Fill a masked autoencoder. Its checkpoints come from this library alone, so they have the names of the model."""
    mismatch = compare_exactly(contents.arrays, parameters)
    if mismatch:
        raise CheckpointError(
            f"checkpoint '{path}' does not fit the masked autoencoder: {mismatch}; to start from the weights of an "
            "encoder, load them into the encoder and give it to mindcv.models.FCMAE"
        )
    _check_floats(contents.arrays, path)
    _set_parameters(parameters, contents.arrays)


def _check_floats(arrays: Mapping[str, np.ndarray], path: Union[str, os.PathLike]) -> None:
    not_float = [f"{name} is {array.dtype}" for name, array in arrays.items() if array.dtype.kind != "f"]
    if not_float:
        raise CheckpointError(f"checkpoint '{path}' has weights that are not floats: {', '.join(not_float[:8])}")


def _set_parameters(parameters: Mapping[str, ms.Parameter], arrays: dict[str, np.ndarray]) -> None:
    """Set the parameters, and remove each array from `arrays`, which frees its memory if it is no view of the file."""
    for name, parameter in parameters.items():
        parameter.set_data(ms.Tensor(as_float32(arrays.pop(name)), parameter.dtype))


def _replace_head(renamed: Renamed, parameters: Mapping[str, ms.Parameter]) -> tuple[list[str], str]:
    """Remove a head that does not fit from `renamed`.

    Returns:
        The names of the model's parameters that keep their values, and a sentence for the log about them, or ''.
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
        return ours, sentence + (f"; the model's head of {num_classes} classes {_UNTRAINED}" if ours else "")
    if not renamed.is_encoder:
        sentence = f"the checkpoint has no head; the model's head of {num_classes} classes {_UNTRAINED}"
        return ours, sentence if ours else ""
    if ours:
        return [*_NORM, *ours], (
            "the checkpoint has no last norm and no head; the model's last norm keeps its values, and its head of "
            f"{num_classes} classes {_UNTRAINED}"
        )
    return list(_NORM), (
        "the checkpoint ends before the last norm, as encoders do; the model's last norm keeps its values, which are 1 "
        "and 0 in a new model"
    )


def _adapt_stem(renamed: Renamed, parameters: Mapping[str, ms.Parameter]) -> bool:
    """Adapt a stem of 3 input channels to the model's number of channels. Return whether it was necessary."""
    weight = renamed.arrays.get(_STEM)
    in_channels = parameters[_STEM].shape[1]
    if weight is None or weight.ndim != 4 or weight.shape[1] != 3 or in_channels == 3:
        return False
    renamed.arrays[_STEM] = adapted_stem(weight, in_channels)
    return True


def adapted_stem(weight: np.ndarray, in_channels: int) -> np.ndarray:
    """Adapt the weights of a stem for RGB images to another number of input channels, as timm does.

    For one channel, the weights of the three channels are summed: a grey image then gives the same output as three
    equal channels gave. Otherwise the weights of red, green and blue are repeated in turn and scaled by
    3 / in_channels: equal channels then give the same output as before if `in_channels` is a multiple of 3.

    Args:
        weight: weights of the stem, [O, 3, k, k].
        in_channels: number of input channels of the result.

    Returns:
        Adapted weights, [O, in_channels, k, k], float32.
    """
    weight = np.asarray(weight, np.float32)
    if in_channels == 1:
        return weight.sum(axis=1, keepdims=True)
    return weight[:, np.arange(in_channels) % 3] * np.float32(3 / in_channels)


def as_float32(array: np.ndarray) -> np.ndarray:
    """Return the array as contiguous float32 in native byte order, which MindSpore's Tensor needs.

    The result shares memory with the array if the array is already so, and is a copy otherwise.
    """
    # The view drops an explicit byte order. MindSpore 2.7 refuses the type "<f", even where it
    # equals "f".
    return np.ascontiguousarray(array, np.float32).view(np.float32)
