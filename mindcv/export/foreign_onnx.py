"""Describes ONNX files that other software has written, as far as their graphs tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

import numpy as np

from mindcv.export.metadata import LOGITS, PROBABILITIES, ExportMetadata
from mindcv.utils.errors import UserError

__all__ = ["foreign_input", "has_own_metadata", "output_kind_of"]


def has_own_metadata(texts: dict[str, str]) -> bool:
    """Return whether the metadata of an ONNX file has a field that this library writes."""
    return "takes_pixels" in texts


def foreign_input(session: Any, path: Path) -> tuple[ExportMetadata, Optional[int]]:
    """Return what the input of a classifier's graph tells, and how many images it takes at once.

    The metadata has no class names. Its preprocessing has the number of channels and the size of the images, if they
    are fixed. The number of images is None if the file takes any number.

    Raises:
        UserError: the graph does not take prepared images, float32 [N, C, H, W], or does not return [N, classes].
    """
    inputs, output = session.get_inputs(), session.get_outputs()[0]
    found = ", ".join(f"{each.type} {each.shape}" for each in inputs) or "no input"
    is_image = len(inputs) == 1 and inputs[0].type == "tensor(float)" and len(inputs[0].shape) == 4
    batch, channels, height, width = inputs[0].shape if is_image else (None,) * 4
    is_square = height == width or not (isinstance(height, int) and isinstance(width, int))
    if not is_image or not is_square or (isinstance(channels, int) and channels not in (1, 3)):
        raise UserError(
            f"'{path}' comes from other software and takes {found}; only a classifier that takes one array of square "
            "images, float32 [N, 3, H, W] or [N, 1, H, W], can be used here"
        )
    if len(output.shape) != 2:
        raise UserError(
            f"'{path}' comes from other software and returns an array {output.shape}; only a classifier that returns "
            "logits or probabilities, [N, classes], can be used here"
        )
    sizes = {"in_channels": channels, "image_resize": height if isinstance(height, int) else width}
    preprocessing = {name: size for name, size in sizes.items() if isinstance(size, int)}
    batch_size = batch if isinstance(batch, int) and batch > 0 else None
    return ExportMetadata(preprocessing=preprocessing, dynamic_batch=batch_size is None), batch_size


def output_kind_of(outputs: np.ndarray) -> str:
    """Return the kind of the outputs [N, classes]: probabilities if each row has their range and their sum."""
    are_probabilities = (outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1, atol=1e-3)
    return PROBABILITIES if are_probabilities else LOGITS
