"""Contact sheets: pictures that show many images as tiles of one size."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["fit_square", "join_tiles", "restored_pixels", "short_paths"]


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


def restored_pixels(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Return normalised images [N, C, H, W] as uint8 [N, H, W, 3]. The normalisation is on the scale from 0 to 255."""
    mean, std = (np.asarray(values, np.float32)[:, None, None] for values in (mean, std))
    pixels = np.clip(np.rint(images * std + mean), 0, 255).astype(np.uint8)
    return np.broadcast_to(pixels.transpose(0, 2, 3, 1), (*pixels.shape[:1], *pixels.shape[2:], 3))
