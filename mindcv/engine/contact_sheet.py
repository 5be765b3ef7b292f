"""Contact sheets: pictures that show many images as tiles of one size."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

__all__ = ["join_tiles", "short_paths"]


def join_tiles(tiles: Sequence[Image.Image], columns: int) -> Image.Image:
    """Return a picture with the tiles in rows of `columns`, from left to right. All tiles have one size."""
    width, height = tiles[0].size
    sheet = Image.new("RGB", (columns * width, math.ceil(len(tiles) / columns) * height), "white")
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % columns * width, number // columns * height))
    return sheet


def short_paths(paths: Sequence[str]) -> list[str]:
    """Return the shortest end of each path that differs from the ends of all other paths."""
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    captions = []
    for own in parts:
        others = [other for other in parts if other != own]
        count = next(n for n in range(1, len(own) + 1) if all(other[-n:] != own[-n:] for other in others))
        captions.append(os.path.join(*own[-count:]))
    return captions
