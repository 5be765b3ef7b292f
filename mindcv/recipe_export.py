"""Objects of an export, built from a configuration: the network, the file and its check."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Union

import numpy as np
from mindspore import nn

from mindcv.config import PREPROCESSING, ExportConfig
from mindcv.convert import fill_weights
from mindcv.data import Compose, UnreadableImages, create_transforms, decode
from mindcv.export import (
    ExportMetadata,
    check_air,
    open_exported,
    require_onnx,
    require_onnxruntime,
    write_mindir,
    write_onnx,
)
from mindcv.export.comparison import HALF_TOLERANCE, TOLERANCE, Comparison, expected_outputs
from mindcv.models import ConvNeXtFeatures
from mindcv.recipe_classes import names_of_classes
from mindcv.recipe_weights import build_model, open_backbone_weights, open_weights
from mindcv.utils.errors import DataError
from mindcv.utils.logger import logger

__all__ = ["build_export", "check_export", "check_export_format", "export_format", "image_readers", "write_export"]

# A function that returns the pixels of one image, uint8 [H, W, 3].
ImageReader = Callable[[], np.ndarray]

_AT_ONCE = 4  # images that the check compares in one batch
# Sizes, in pixels, that the check adds to an image's height and width to try another size of an ONNX file.
_OTHER_SIZE = (33, 66)


def export_format(config: ExportConfig) -> str:
    """Return the format of the file: the option `format`, or else the end of `dst`."""
    return config.format or Path(config.dst).suffix[1:].lower()


def check_export_format(config: ExportConfig) -> None:
    """Check that the format can be written and run here, before any work.

    Raises:
        UserError: a package is missing, or there is no Ascend for an AIR file.
    """
    if export_format(config) == "onnx":
        require_onnx()
        require_onnxruntime()
    elif export_format(config) == "air":
        check_air()


def build_export(config: ExportConfig) -> tuple[ExportConfig, nn.Cell, list[str]]:
    """Build the network with its weights.

    Returns:
        The configuration, completed from the checkpoint; the network; and the names of its classes, or [] without them.

    Raises:
        UserError: as `open_weights` and `names_of_classes`.
    """
    config, metadata, read_weights = (open_backbone_weights if config.features_only else open_weights)(config)
    if config.image_size:
        config = replace(config, image_resize=config.image_size)
    num_classes = 0 if config.features_only else config.num_classes or 1000
    class_names = []
    if num_classes:
        if config.class_names_file or "class_to_idx" in metadata or num_classes == 1000:
            class_names = names_of_classes(config, metadata, num_classes)
        else:
            logger.warning(
                "'%s' holds no class names, so the exported file has none: give them as --class_names_file",
                config.ckpt_path or config.model,
            )
    network = build_model(config, num_classes)
    fill_weights(network, read_weights(), config.ckpt_path or config.model, replace_head=config.features_only)
    if config.features_only:
        network = ConvNeXtFeatures(network, config.out_indices)
    return config, network.set_train(False), class_names


def write_export(
    config: ExportConfig, network: nn.Cell, class_names: Sequence[str], path: Union[str, os.PathLike]
) -> ExportMetadata:
    """Write the network to a file in the format of the configuration."""
    described: dict[str, Any] = {
        "model": config.model,
        "class_names": class_names,
        "preprocessing": config.subset(*PREPROCESSING),
        **config.subset("with_softmax", "half", "dynamic_batch"),
    }
    file_format = export_format(config)
    if file_format == "onnx":
        return write_onnx(network, path, with_preprocess=config.with_preprocess, **described)
    return write_mindir(network, path, config.image_resize, file_format=file_format, **described)


def check_export(
    config: ExportConfig,
    network: nn.Cell,
    path: Union[str, os.PathLike],
    readers: Sequence[ImageReader],
    unreadable: UnreadableImages,
) -> Comparison:
    """Run the file, and compare its outputs with those of the network.

    Args:
        config: of the export, completed.
        network: the network that was exported.
        path: the exported file.
        readers: images to compare. The image of a reader that raises a DataError is left out.
        unreadable: collects these errors.

    Raises:
        UserError: the outputs differ, or no image can be read.
    """
    exported = open_exported(path)
    kind = exported.metadata.output
    transform = Compose(create_transforms(**config.subset(*PREPROCESSING)))
    comparison = Comparison()
    for pixels in _in_parts(_readable(readers, unreadable), 1 if exported.metadata.takes_pixels else _AT_ONCE):
        images = np.stack([transform(image) for image in pixels])
        given = np.stack(pixels) if exported.metadata.takes_pixels else images
        comparison.add(expected_outputs(network, images, kind), exported(given), kind)
    if not comparison.num_images:
        unreadable.check()
    if Path(path).suffix == ".onnx" and not exported.metadata.takes_pixels:
        margins = [(0, 0), (0, 0), *((0, more) for more in _OTHER_SIZE)]
        images = np.pad(images, margins, mode="symmetric")
        other = Comparison(0, comparison.largest_difference)
        other.add(expected_outputs(network, images, kind), exported(images), kind)
        comparison.largest_difference = other.largest_difference
    comparison.check(HALF_TOLERANCE if config.half else TOLERANCE)
    return comparison


def _readable(readers: Sequence[ImageReader], unreadable: UnreadableImages) -> Iterator[np.ndarray]:
    for read in readers:
        try:
            yield read()
        except DataError as error:
            unreadable.add(error)


def _in_parts(items: Iterator[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    part = []
    for item in items:
        part.append(item)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def image_readers(paths: Sequence[str]) -> list[ImageReader]:
    """Return a reader for each image file, or readers of drawn images if there are no files."""
    return [partial(_read, path) for path in paths] or [partial(np.copy, image) for image in drawn_images()]


def _read(path: str) -> np.ndarray:
    try:
        return np.asarray(decode(Path(path).read_bytes()))
    except (DataError, OSError) as error:
        raise DataError(f"image '{path}': {error}") from None


def drawn_images() -> list[np.ndarray]:
    """Return four images with the spectrum of photographs, whose amplitudes fall as 1 / frequency. They have odd sizes.

    They are the same in each process.
    """
    rng = np.random.default_rng(0)
    images = []
    for height, width in ((375, 501), (501, 375), (240, 331), (129, 97)):
        spectrum = np.fft.rfft2(rng.standard_normal((height, width, 3)), axes=(0, 1))
        rows, columns = np.fft.fftfreq(height)[:, None, None], np.fft.rfftfreq(width)[:, None]
        waves = np.fft.irfft2(spectrum / (np.hypot(rows, columns) + 1 / height), (height, width), axes=(0, 1))
        low, high = waves.min(axis=(0, 1)), waves.max(axis=(0, 1))
        images.append(np.rint((waves - low) / (high - low) * 255).astype(np.uint8))
    return images
