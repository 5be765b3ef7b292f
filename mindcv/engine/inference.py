"""Classes of single images, and the picture that shows them."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Union

import numpy as np
from mindspore import nn
from PIL import Image, ImageDraw, ImageFont

from mindcv.data import decode
from mindcv.engine.evaluate import predict
from mindcv.utils.errors import DataError, UserError
from mindcv.utils.files import atomic_path, atomic_write_text

__all__ = ["Prediction", "classify", "draw_predictions", "write_predictions"]


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image, the likeliest first."""

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
    """The `top_k` classes of each image, in the order of `paths`.

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
        UserError: the logits are not finite.
    """
    batch_size = min(batch_size, len(paths))
    for first in range(0, len(paths), batch_size):
        images = {}
        for path in paths[first : first + batch_size]:
            try:
                images[path] = _read(path, transform)
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
        raise UserError("the network's logits are not finite: its weights hold NaN or infinity")
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]
    for path, row, indices in zip(paths, probabilities, order):
        names = tuple(class_names[i] for i in indices)
        yield Prediction(path, tuple(int(i) for i in indices), names, tuple(float(row[i]) for i in indices))


def _read(path: str, transform: Callable[[bytes], np.ndarray]) -> np.ndarray:
    try:
        return transform(Path(path).read_bytes())
    except DataError as error:
        raise DataError(f"image '{path}': {error}") from None
    except OSError as error:
        raise DataError(f"image '{path}': {error.strerror}") from None


def write_predictions(predictions: Sequence[Prediction], path: Union[str, os.PathLike]) -> None:
    """A row an image and rank as `.csv`, or a list of objects as `.json`, by the suffix.

    Raises:
        UserError: another suffix.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".json":
        entries = [
            {
                "image": p.path,
                "predictions": [
                    {"class": i, "name": n, "probability": q} for i, n, q in zip(p.indices, p.names, p.probabilities)
                ],
            }
            for p in predictions
        ]
        atomic_write_text(path, json.dumps(entries, indent=2, ensure_ascii=False) + "\n")
    elif suffix == ".csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("image", "rank", "class", "name", "probability"))
        for p in predictions:
            for rank, row in enumerate(zip(p.indices, p.names, p.probabilities), start=1):
                writer.writerow((p.path, rank, *row))
        atomic_write_text(path, text.getvalue())
    else:
        raise UserError(f"predictions are written as .csv or .json, not '{path}'")


def draw_predictions(predictions: Sequence[Prediction], path: Union[str, os.PathLike], max_images: int = 24) -> None:
    """A sheet of the first `max_images` images, each with its classes and bars of their probabilities below."""
    shown = predictions[:max_images]
    columns = min(len(shown), max(1, math.ceil(math.sqrt(len(shown) * 1.5))))
    rows = math.ceil(len(shown) / columns)
    tiles = [_tile(prediction) for prediction in shown]
    width, height = tiles[0].size
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % columns * width, number // columns * height))
    with atomic_path(path) as side:
        sheet.save(side)


_SIDE, _MARGIN, _LINE = 224, 12, 20


def _tile(prediction: Prediction) -> Image.Image:
    """One image, fitted into a square, its file name above and its classes below."""
    classes = list(zip(prediction.names, prediction.probabilities))[:5]
    width = _SIDE + 2 * _MARGIN
    tile = Image.new("RGB", (width, _SIDE + _LINE * (len(classes) + 1) + 3 * _MARGIN), "white")
    draw = ImageDraw.Draw(tile)
    font = ImageFont.load_default(size=13)
    _text(draw, (_MARGIN, _MARGIN // 2), Path(prediction.path).name, _SIDE, font, "#666666")
    image = decode(Path(prediction.path).read_bytes())
    scale = _SIDE / max(image.size)
    # A tiny image is shown in its own pixels; others are reduced smoothly.
    resampling = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BICUBIC
    image = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), resampling)
    top = _LINE + _MARGIN // 2
    tile.paste(image, (_MARGIN + (_SIDE - image.width) // 2, top + (_SIDE - image.height) // 2))
    for rank, (name, probability) in enumerate(classes):
        y = top + _SIDE + _MARGIN // 2 + rank * _LINE
        draw.rectangle((_MARGIN, y, _MARGIN + round(_SIDE * probability), y + _LINE - 3), fill="#b7d4f0")
        draw.text((_MARGIN + _SIDE - 3, y), f"{100 * probability:.1f}%", font=font, fill="black", anchor="ra")
        _text(draw, (_MARGIN + 3, y), name, _SIDE - 60, font, "black")
    return tile


def _text(
    draw: ImageDraw.ImageDraw, place: tuple, text: str, width: int, font: ImageFont.FreeTypeFont, fill: str
) -> None:
    """`text` on one line, cut with an ellipsis where it would pass `width` pixels."""
    if draw.textlength(text, font=font) > width:
        while text and draw.textlength(text + "...", font=font) > width:
            text = text[:-1]
        text += "..."
    draw.text(place, text, font=font, fill=fill)
