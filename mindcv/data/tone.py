"""Operations on images that give each value of a channel another one: tables, and images that are looked up in them.

They are those of Pillow's ImageOps and ImageEnhance, with their bits, for the modes 'RGB' and 'L'. Pillow fills its
tables in Python and hands them over number by number, and it blends whole images, with Python's lock held.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from mindcv.data import pixels

__all__ = [
    "autocontrast",
    "brightness",
    "contrast",
    "equalize",
    "invert",
    "posterize",
    "solarize",
    "solarize_add",
]

_LEVELS = np.arange(256)
_RAMP = Image.frombytes("L", (256, 1), bytes(range(256)))


def invert(image: Image.Image) -> Image.Image:
    """`ImageOps.invert`."""
    return _looked_up(image, 255 - _LEVELS)


def posterize(image: Image.Image, bits: int) -> Image.Image:
    """`ImageOps.posterize`: keep `bits` (1..8) of each value."""
    return _looked_up(image, _LEVELS >> (8 - bits) << (8 - bits))


def solarize(image: Image.Image, threshold: float) -> Image.Image:
    """`ImageOps.solarize`: invert what is not below the threshold."""
    return _looked_up(image, np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS))


def solarize_add(image: Image.Image, addition: int) -> Image.Image:
    """Brighten what is darker than 128."""
    return _looked_up(image, np.where(_LEVELS < 128, np.minimum(_LEVELS + addition, 255), _LEVELS))


def autocontrast(image: Image.Image) -> Image.Image:
    """`ImageOps.autocontrast`: stretch each channel so that it reaches from 0 to 255."""
    return _looked_up(image, *map(_stretched, _histograms(image)))


def equalize(image: Image.Image) -> Image.Image:
    """`ImageOps.equalize`: give each channel a histogram as flat as may be."""
    return _looked_up(image, *map(_equalized, _histograms(image)))


def brightness(image: Image.Image, factor: float) -> Image.Image:
    """`ImageEnhance.Brightness`: 0 is black, 1 the image, above 1 brighter."""
    return _looked_up(image, _blend(0, factor))


def contrast(image: Image.Image, factor: float) -> Image.Image:
    """`ImageEnhance.Contrast`: 0 is the mean grey, 1 the image, above 1 of more contrast."""
    (histogram,) = _histograms(image.convert("L"))
    mean = int(float(histogram @ _LEVELS) / float(histogram.sum()) + 0.5)
    return _looked_up(image, _blend(mean, factor))


def _looked_up(image: Image.Image, *tables: np.ndarray) -> Image.Image:
    """The image through one table of 256 values a channel, or one for all."""
    whole = np.empty((len(image.getbands()), 256), np.uint8)
    whole[...] = tables
    return pixels.looked_up(image, whole)


def _histograms(image: Image.Image) -> np.ndarray:
    """How often each value comes, (channels, 256)."""
    return np.array(image.histogram()).reshape(-1, 256)


def _stretched(histogram: np.ndarray) -> np.ndarray:
    found = histogram.nonzero()[0]
    if len(found) < 2:
        return _LEVELS
    scale = 255.0 / (found[-1] - found[0])
    return np.clip((_LEVELS * scale + -found[0] * scale).astype(int), 0, 255)


def _equalized(histogram: np.ndarray) -> np.ndarray:
    found = histogram[histogram > 0]
    step = int(found[:-1].sum()) // 255
    if not step:
        return _LEVELS
    below = histogram.cumsum() - histogram
    return np.minimum((step // 2 + below) // step, 255)


def _blend(level: int, factor: float) -> np.ndarray:
    """Table of Pillow's own blend of a flat image, all of `level`, with another."""
    return np.asarray(Image.blend(Image.new("L", _RAMP.size, level), _RAMP, factor))[0]
