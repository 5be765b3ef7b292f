"""Pictures of the feature maps of a network's stages."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Union

import numpy as np
from PIL import Image, ImageDraw

from mindcv.engine.contact_sheet import restored_pixels, short_paths
from mindcv.engine.feature_analysis import DrawnMaps, FeatureAnalysis
from mindcv.engine.fonts import TextPainter, printable
from mindcv.utils.files import atomic_path

__all__ = ["draw_feature_maps", "scaled_channels"]

_Normalization = tuple[Sequence[float], Sequence[float]]

_CHANNELS, _ACROSS = 64, 8  # channels of a stage that are drawn, and how many in a row
_CELL, _GAP, _MARGIN, _LINE = 36, 1, 12, 20
_GRID = _ACROSS * (_CELL + _GAP) + _GAP
_NEGATIVE, _ZERO, _POSITIVE = (
    np.array(colour, np.float64) for colour in ((30, 80, 180), (255, 255, 255), (190, 30, 40))
)
_INK, _PALE = "black", "#666666"
_BORDER = "#333333"  # darker than the colours of the maps, which a grey border disappears between


def scaled_channels(maps: np.ndarray) -> np.ndarray:
    """Return maps [C, h, w], each divided by its largest absolute value. A map of zeros stays zero.

    The cosine distance does not depend on the scale of a channel either, so equal channels look equal.
    """
    largest = np.abs(maps).max(axis=(1, 2), keepdims=True)
    return np.divide(maps, largest, out=np.zeros_like(maps), where=largest > 0)


def draw_feature_maps(
    analyses: Sequence[FeatureAnalysis], normalizations: Sequence[_Normalization], path: Union[str, os.PathLike]
) -> None:
    """Draw the first 64 channels of each stage: a row for each image and network, and a column for each stage.

    Args:
        analyses: results of one or more networks for the same images.
        normalizations: mean and standard deviation that the images of each network were normalised with, on the scale
            from 0 to 255.
        path: of the picture.
    """
    headings = [printable(heading) for heading in short_paths([analysis.name for analysis in analyses])]
    captions = short_paths([drawn.path for drawn in analyses[0].drawn])
    num_stages = len(analyses[0].drawn[0].maps)
    width = _MARGIN + (1 + num_stages) * (_GRID + _MARGIN)
    row_height = 2 * _LINE + _GRID + _MARGIN
    sheet = Image.new("RGB", (width, 2 * _LINE + row_height * len(captions) * len(analyses)), "white")
    draw, painter = ImageDraw.Draw(sheet), TextPainter(13)
    _draw_scale(sheet, draw, painter)
    top = 2 * _LINE
    for number, caption in enumerate(captions):
        for analysis, heading, (mean, std) in zip(analyses, headings, normalizations):
            shown = analysis.drawn[number]
            painter.draw(draw, (_MARGIN, top), painter.shortened(heading, width - 2 * _MARGIN, keep_end=True), _INK)
            below = painter.shortened(printable(caption), _GRID, keep_end=True)
            painter.draw(draw, (_MARGIN, top + _LINE), below, _PALE)
            pixels = Image.fromarray(restored_pixels(shown.image[None], mean, std)[0])
            sheet.paste(_resized(pixels, _GRID), (_MARGIN, top + 2 * _LINE))
            _draw_stages(sheet, draw, painter, shown, top)
            top += row_height
    with atomic_path(path) as side:
        sheet.save(side)


def _draw_stages(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, painter: TextPainter, shown: DrawnMaps, top: int
) -> None:
    for stage, maps in enumerate(shown.maps):
        left = _MARGIN + (1 + stage) * (_GRID + _MARGIN)
        channels, height, width = maps.shape
        count = f"{_CHANNELS} of {channels}" if channels > _CHANNELS else str(channels)
        title = painter.shortened(f"stage {stage}: {count} channels of {height} x {width}", _GRID)
        painter.draw(draw, (left, top + _LINE), title, _PALE)
        for index, values in enumerate(scaled_channels(maps[:_CHANNELS])):
            cell = _resized(Image.fromarray(np.rint(_coloured(values)).astype(np.uint8)), _CELL)
            x = left + _GAP + index % _ACROSS * (_CELL + _GAP)
            y = top + 2 * _LINE + _GAP + index // _ACROSS * (_CELL + _GAP)
            draw.rectangle((x - _GAP, y - _GAP, x + _CELL, y + _CELL), outline=_BORDER)
            sheet.paste(cell, (x, y))


def _draw_scale(sheet: Image.Image, draw: ImageDraw.ImageDraw, painter: TextPainter) -> None:
    """Draw a line at the top that explains the colours."""
    x, bar = _MARGIN, np.broadcast_to(np.linspace(-1, 1, 80), (12, 80))
    for text in ("each map is divided by its largest absolute value:  -1", None, "1"):
        if text is None:
            sheet.paste(Image.fromarray(np.rint(_coloured(bar)).astype(np.uint8)), (round(x), 10))
            draw.rectangle((round(x), 10, round(x) + 79, 21), outline="#cccccc")
            x += 80 + _MARGIN // 2
        else:
            painter.draw(draw, (x, 8), text, _INK)
            x += painter.width(text) + _MARGIN // 2


def _coloured(values: np.ndarray) -> np.ndarray:
    """Return the colours [..., 3] of values from -1 to 1."""
    strength = np.abs(values)[..., None].astype(np.float64)
    return (1 - strength) * _ZERO + strength * np.where(values[..., None] < 0, _NEGATIVE, _POSITIVE)


def _resized(image: Image.Image, side: int) -> Image.Image:
    """Fit the image into a square. A small map keeps its cells visible, and a large one is averaged."""
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST)
