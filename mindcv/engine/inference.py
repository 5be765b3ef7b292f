"""Classification of single images, and the picture that shows the predictions."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

import numpy as np
from mindspore import nn
from PIL import Image, ImageDraw

from mindcv.data import decode, imagenet_class_names, imagenet_wordnet_ids, match_classes
from mindcv.engine.contact_sheet import fit_square, join_tiles, short_paths
from mindcv.engine.evaluate import predict
from mindcv.engine.fonts import TextPainter, printable
from mindcv.utils.errors import DataError, NotFiniteError
from mindcv.utils.files import atomic_path
from mindcv.utils.logger import logger
from mindcv.utils.softmax import softmax

__all__ = [
    "MAX_DRAWN",
    "Prediction",
    "classes_of_folders",
    "classify",
    "draw_predictions",
    "read_image",
]


MAX_DRAWN = 24  # images of the picture


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, in descending order of probability."""

    path: str
    indices: tuple[int, ...]
    names: tuple[str, ...]
    probabilities: tuple[float, ...]


def classify(
    network: nn.Cell,
    paths: Sequence[str],
    transform: Callable[[bytes], np.ndarray],
    class_names: Sequence[str],
    top_k: int,
    batch_size: int,
    on_unreadable: Optional[Callable[[DataError], None]] = None,
) -> Iterator[Prediction]:
    """Return the `top_k` most probable classes of each image, in the order of `paths`.

    Args:
        network: images [B, C, H, W] to logits [B, K], in evaluation mode.
        paths: image files.
        transform: an image file's bytes to [C, H, W] float32.
        class_names: K names.
        top_k: how many classes; all K when there are fewer.
        batch_size: images at a time.
        on_unreadable: called with the error of each image that cannot be read, which is then left out. By default
            the error is raised.

    Raises:
        DataError: an image cannot be read. The message names the image.
        NotFiniteError: the logits are not finite.
    """
    batch_size = min(batch_size, len(paths))
    for first in range(0, len(paths), batch_size):
        images = {}
        for path in paths[first : first + batch_size]:
            try:
                images[path] = read_image(path, transform)
            except DataError as error:
                if on_unreadable is None:
                    raise
                on_unreadable(error)
        if images:
            logits = predict(network, np.stack(list(images.values())), batch_size).astype(np.float64)
            yield from _most_probable(logits, list(images), class_names, top_k)


def _most_probable(
    logits: np.ndarray, paths: Sequence[str], class_names: Sequence[str], top_k: int
) -> Iterator[Prediction]:
    if not np.isfinite(logits).all():
        raise NotFiniteError("the network's logits are not finite: its weights hold NaN or infinity")
    probabilities = softmax(logits)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]
    for path, row, indices in zip(paths, probabilities, order):
        names = tuple(class_names[i] for i in indices)
        yield Prediction(path, tuple(int(i) for i in indices), names, tuple(float(row[i]) for i in indices))


def read_image(path: str, transform: Callable[[bytes], np.ndarray]) -> np.ndarray:
    """Return `transform` of the bytes of an image file.

    Raises:
        DataError: the image cannot be read. The message names it.
    """
    try:
        return transform(Path(path).read_bytes())
    except DataError as error:
        raise DataError(f"image '{path}': {error}") from None
    except OSError as error:
        raise DataError(f"image '{path}': {error.strerror}") from None


def classes_of_folders(paths: Sequence[str], class_names: Sequence[str]) -> dict[str, int]:
    """Return the true class of each image whose folder has the name of a class.

    The folders looked at are the image's own and those above it, up to the one that all images have in common.

    Args:
        paths: image files.
        class_names: in the order of the labels.

    Returns:
        Path to label, for the images whose class is known.
    """
    class_names = list(class_names)
    names = imagenet_wordnet_ids() if class_names == imagenet_class_names() else class_names
    class_to_idx = {name: label for label, name in enumerate(names)}
    depth = len(Path(os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])).parts)
    label_of: dict[str, Optional[int]] = {}
    known = {}
    for path in paths:
        folders = Path(os.path.abspath(path)).parts[:-1]
        for folder in reversed(folders[min(depth, len(folders) - 1) :]):
            if folder not in label_of:
                label_of[folder] = _label_of(folder, class_to_idx)
            if label_of[folder] is not None:
                known[path] = label_of[folder]
                break
    return known


def _label_of(folder: str, class_to_idx: Mapping[str, int]) -> Optional[int]:
    try:
        return match_classes([folder], class_to_idx).get(folder)
    except DataError:  # one of several classes
        return None


def draw_predictions(
    predictions: Sequence[Prediction],
    path: Union[str, os.PathLike],
    num_images: Optional[int] = None,
    truth: Optional[Mapping[str, str]] = None,
) -> None:
    """Draw the first images with their classes and with bars of the probabilities below each image.

    Args:
        predictions: at least one; `MAX_DRAWN` of them are drawn.
        path: file of the picture.
        num_images: number of images that were classified. If it is larger than that of the drawn ones, the log says so.
            None means that `predictions` are all of them.
        truth: image file to the name of its true class, for the images whose class is known.
    """
    shown = predictions[:MAX_DRAWN]
    num_images = len(predictions) if num_images is None else num_images
    if len(shown) < num_images:
        logger.info("%d of %d images are drawn in '%s'", len(shown), num_images, os.fspath(path))
    columns = min(len(shown), max(1, math.ceil(math.sqrt(len(shown) * 1.5))))
    captions = short_paths([prediction.path for prediction in shown])
    tiles = [_tile(prediction, caption, truth or {}) for prediction, caption in zip(shown, captions)]
    with atomic_path(path) as side:
        join_tiles(tiles, columns).save(side)


_SIDE, _MARGIN, _LINE = 224, 12, 20
_GREY, _GREEN, _RED = "#666666", "#1a7f37", "#cf222e"


def _tile(prediction: Prediction, caption: str, truth: Mapping[str, str]) -> Image.Image:
    """Draw one image in a square, with caption and true class above it and predicted classes below it."""
    classes = list(zip(prediction.names, prediction.probabilities))[:5]
    width = _SIDE + 2 * _MARGIN
    header = _LINE * (2 if truth else 1) + _MARGIN // 2
    tile = Image.new("RGB", (width, header + _SIDE + _LINE * len(classes) + 2 * _MARGIN), "white")
    draw, painter = ImageDraw.Draw(tile), TextPainter(13)
    painter.draw(draw, (_MARGIN, _MARGIN // 2), painter.shortened(printable(caption), _SIDE, keep_end=True), _GREY)
    if prediction.path in truth:
        name = truth[prediction.path]
        text = painter.shortened(f"true: {printable(name)}", _SIDE)
        painter.draw(draw, (_MARGIN, _MARGIN // 2 + _LINE), text, _GREEN if name == prediction.names[0] else _RED)
    image = fit_square(decode(Path(prediction.path).read_bytes()), _SIDE)
    tile.paste(image, (_MARGIN + (_SIDE - image.width) // 2, header + (_SIDE - image.height) // 2))
    for rank, (name, probability) in enumerate(classes):
        y = header + _SIDE + _MARGIN // 2 + rank * _LINE
        draw.rectangle((_MARGIN, y, _MARGIN + round(_SIDE * probability), y + _LINE - 3), fill="#b7d4f0")
        share = f"{100 * probability:.1f}%"
        painter.draw(draw, (_MARGIN + _SIDE - 3 - painter.width(share), y), share, "black")
        painter.draw(draw, (_MARGIN + 3, y), painter.shortened(printable(name), _SIDE - 60), "black")
    return tile
