"""Contact sheets: pictures that show many images as tiles of one size."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

__all__ = ["fit_square", "join_tiles", "short_paths"]


def join_tiles(tiles: Sequence[Image.Image], columns: int) -> Image.Image:
    """Return a picture with the tiles in rows of `columns`, from left to right. All tiles have one size."""
    width, height = tiles[0].size
    sheet = Image.new("RGB", (columns * width, math.ceil(len(tiles) / columns) * height), "white")
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % columns * width, number // columns * height))
    return sheet


def fit_square(image: Image.Image, side: int) -> Image.Image:
    """Resize the image so that its longer side has `side` pixels."""
    scale = side / max(image.size)
    # A tiny image keeps its pixels visible; larger images are reduced with a smooth filter.
    resampling = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BICUBIC
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), resampling)


def short_paths(paths: Sequence[str]) -> list[str]:
    """Return the shortest end of each path that differs from the ends of all other paths."""
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    captions = []
    for own in parts:
        others = [other for other in parts if other != own]
        count = next(n for n in range(1, len(own) + 1) if all(other[-n:] != own[-n:] for other in others))
        captions.append(os.path.join(*own[-count:]))
    return captions
