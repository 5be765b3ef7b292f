"""The pairs of classes that a classifier confuses most often, as a picture with images of each pair."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple, Union

import numpy as np
from PIL import Image, ImageDraw

from mindcv.engine.contact_sheet import fit_square
from mindcv.engine.fonts import TextPainter, printable
from mindcv.engine.predictions import Predictions
from mindcv.utils.files import atomic_path
from mindcv.utils.logger import logger

__all__ = ["ConfusedPair", "draw_confused_pairs", "most_confused"]

_SIDE, _MARGIN, _LINE = 112, 8, 20
_NUM_PAIRS, _NUM_THUMBNAILS = 10, 6


class ConfusedPair(NamedTuple):
    """Images of one class that are taken for another class.

    Attributes:
        true: class of the images.
        predicted: class that they are taken for.
        count: number of these images.
        num_images: number of all images of the class `true`.
    """

    true: int
    predicted: int
    count: int
    num_images: int


def most_confused(confusion: np.ndarray, limit: int = _NUM_PAIRS) -> list[ConfusedPair]:
    """Return the pairs with the most wrong predictions, at most `limit`.

    Of equal counts, the pair with the larger share of its class comes first, and then the smaller class number.

    Args:
        confusion: counts [K, K]; rows are true classes.
        limit: largest number of pairs.
    """
    totals = confusion.sum(axis=1)
    wrong = confusion - np.diag(np.diag(confusion))
    pairs = [ConfusedPair(t, p, int(wrong[t, p]), int(totals[t])) for t, p in np.argwhere(wrong).tolist()]
    return sorted(pairs, key=lambda pair: (-pair.count, -pair.count / pair.num_images, pair))[:limit]


def draw_confused_pairs(
    predictions: Predictions,
    confusion: np.ndarray,
    class_names: Sequence[str],
    read_image: Callable[[int], Image.Image],
    path: Union[str, os.PathLike],
) -> int:
    """Draw a row for each of the ten most confused pairs: names, counts and up to six images.

    The images of a pair are those with the highest confidence, and each shows its confidence. No file is written if all
    predictions are right. The log says so.

    Args:
        predictions: prediction for each image.
        confusion: counts [K, K] of these predictions.
        class_names: K names.
        read_image: function that returns image i of `predictions`.
        path: picture file.

    Returns:
        The number of pairs in the picture.
    """
    pairs = most_confused(confusion)
    if not pairs:
        logger.info("all predictions are right, so '%s' is not written: there are no confused classes", os.fspath(path))
        return 0
    width = 2 * _MARGIN + _NUM_THUMBNAILS * (_SIDE + _MARGIN)
    row_height = 2 * _LINE + _SIDE + 2 * _MARGIN
    sheet = Image.new("RGB", (width, len(pairs) * row_height + _MARGIN), "white")
    for row, pair in enumerate(pairs):
        is_shown = (predictions.labels == pair.true) & (predictions.predicted == pair.predicted)
        indices = np.flatnonzero(is_shown)
        indices = indices[np.argsort(-predictions.confidences[indices], kind="stable")][:_NUM_THUMBNAILS]
        _draw_row(sheet, row * row_height + _MARGIN, pair, class_names)
        for column, index in enumerate(indices.tolist()):
            left, top = _MARGIN + column * (_SIDE + _MARGIN), row * row_height + _MARGIN + _LINE
            _draw_thumbnail(sheet, (left, top), read_image(index), predictions.confidences[index])
    with atomic_path(path) as side:
        sheet.save(side)
    return len(pairs)


def _draw_row(sheet: Image.Image, top: int, pair: ConfusedPair, class_names: Sequence[str]) -> None:
    """Write the names and the counts of a pair above its images."""
    draw, painter = ImageDraw.Draw(sheet), TextPainter(13)
    share = 100 * pair.count / pair.num_images
    counts = f"{pair.count} of {pair.num_images} ({share:.1f}%)"
    room = sheet.width - 2 * _MARGIN - painter.width(counts) - _LINE
    arrow = "  taken for  "
    true, predicted = (
        painter.shortened(printable(class_names[label]), (room - painter.width(arrow)) / 2)
        for label in (pair.true, pair.predicted)
    )
    x = float(_MARGIN)
    for text, colour in ((true, "#1a7f37"), (arrow, "#666666"), (predicted, "#cf222e")):
        painter.draw(draw, (x, top), text, colour)
        x += painter.width(text)
    painter.draw(draw, (sheet.width - _MARGIN - painter.width(counts), top), counts, "black")


def _draw_thumbnail(sheet: Image.Image, place: tuple[int, int], image: Image.Image, confidence: float) -> None:
    """Draw an image in a square, and its confidence below the square."""
    left, top = place
    thumbnail = fit_square(image.convert("RGB"), _SIDE)
    sheet.paste(thumbnail, (left + (_SIDE - thumbnail.width) // 2, top + (_SIDE - thumbnail.height) // 2))
    draw, painter = ImageDraw.Draw(sheet), TextPainter(12)
    text = f"{100 * confidence:.1f}%"
    painter.draw(draw, (left + (_SIDE - painter.width(text)) / 2, top + _SIDE + 2), text, "#666666")
