"""A checkpoint into a network."""

from __future__ import annotations

import os
from typing import Any, Union

import mindspore as ms
from mindspore import nn

from mindcv.convert.ckpt_file import read_ckpt
from mindcv.convert.layouts import compare, detect_layout, rename, weight_parameters
from mindcv.utils.errors import CheckpointError
from mindcv.utils.logger import logger

__all__ = ["load_weights"]


def load_weights(model: nn.Cell, path: Union[str, os.PathLike], replace_head: bool = False) -> dict[str, Any]:
    """Fill `model` from a checkpoint file and return the file's metadata.

    Args:
        model: network whose weights are set.
        path: a `.ckpt` file in any known layout of names.
        replace_head: when the checkpoint's head has another number of classes, or the model has no head, leave the
            model's as it is, and say so in one line.

    Raises:
        CheckpointError: the file cannot be read, or a name or shape does not match. The model is then unchanged.
    """
    state_dict, metadata = read_ckpt(path)
    try:
        layout = detect_layout(state_dict)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint '{path}': {error}") from None
    arrays = rename(state_dict, layout)
    parameters = weight_parameters(model)
    head = [name for name in arrays if name.startswith("classifier.")]
    if replace_head and head and any(_shape(parameters, name) != arrays[name].shape for name in head):
        classes = arrays[head[0]].shape[0]
        ours = f"; the model's, of {model.num_classes}, is untrained" if model.num_classes else ""
        logger.info("%s: the head of %d classes is left out%s", path, classes, ours)
        for name in head:
            arrays.pop(name)
            if name in parameters:
                arrays[name] = parameters[name].asnumpy()
    mismatch = compare(arrays, model)
    if mismatch:
        raise CheckpointError(f"checkpoint '{path}' (layout: {layout}) does not fit the model: {mismatch}")
    for name, parameter in parameters.items():
        parameter.set_data(ms.Tensor(arrays[name], parameter.dtype))
    return metadata


def _shape(parameters: dict[str, ms.Parameter], name: str) -> object:
    return tuple(parameters[name].shape) if name in parameters else None
