"""Creates a folder of images for the task data. They are equal on every machine, and similar to ImageNet's in size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mindcv.utils.random import stream

__all__ = ["image_folder"]

_WIDTH, _HEIGHT = 500, 375
_NUM_CLASSES = 10
# (side of a noise cell in pixels, strength of the noise in levels). Coarse and fine noise together
# give files of about 100 kB at this quality, like those of ImageNet.
_OCTAVES = ((125, 60.0), (25, 30.0), (5, 20.0), (1, 18.0))
_QUALITY = 95


def image_folder(folder: Path, num_images: int = 400) -> Path:
    """Write JPEG images of 500 x 375 pixels into `folder`/<class>/, to ten classes in turn. Return `folder`."""
    for number in range(num_images):
        class_folder = folder / f"class_{number % _NUM_CLASSES}"
        class_folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_texture(number)).save(class_folder / f"{number:04d}.jpg", quality=_QUALITY)
    return folder


def _texture(number: int) -> np.ndarray:
    """Return an image with noise of several scales, uint8 [H, W, 3]. It depends only on `number`."""
    rng = stream(number)
    levels = np.full((_HEIGHT, _WIDTH, 3), 128, np.float32)
    for cell, strength in _OCTAVES:
        coarse = rng.integers(0, 256, (_HEIGHT // cell, _WIDTH // cell, 3), np.uint8)
        enlarged = Image.fromarray(coarse).resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC)
        levels += (np.asarray(enlarged, np.float32) / 127.5 - 1) * strength
    return levels.clip(0, 255).astype(np.uint8)
