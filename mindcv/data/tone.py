"""Operations that map each pixel value by a table, for images of the modes 'RGB' and 'L'.

They give the bits of Pillow's ImageOps and ImageEnhance, and they are faster. Pillow builds its tables in Python and
passes them number by number, or it blends whole images, and it holds Python's global lock meanwhile.
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
    """Invert all values, as `ImageOps.invert`."""
    return _map_values(image, 255 - _LEVELS)


def posterize(image: Image.Image, bits: int) -> Image.Image:
    """Keep the upper `bits` (1..8) of each value, as `ImageOps.posterize`."""
    return _map_values(image, _LEVELS >> (8 - bits) << (8 - bits))


def solarize(image: Image.Image, threshold: float) -> Image.Image:
    """Invert values at or above the threshold, as `ImageOps.solarize`."""
    return _map_values(image, np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS))


def solarize_add(image: Image.Image, addition: int) -> Image.Image:
    """Add `addition` to values below 128."""
    return _map_values(image, np.where(_LEVELS < 128, np.minimum(_LEVELS + addition, 255), _LEVELS))


def autocontrast(image: Image.Image) -> Image.Image:
    """Stretch each channel to the range from 0 to 255, as `ImageOps.autocontrast`."""
    return _map_values(image, *map(_stretched, _histograms(image)))


def equalize(image: Image.Image) -> Image.Image:
    """Flatten the histogram of each channel, as `ImageOps.equalize`."""
    return _map_values(image, *map(_equalized, _histograms(image)))


def brightness(image: Image.Image, factor: float) -> Image.Image:
    """Change the brightness as `ImageEnhance.Brightness`: 0 gives black, 1 changes nothing, above 1 brightens."""
    return _map_values(image, _blend(0, factor))


def contrast(image: Image.Image, factor: float) -> Image.Image:
    """Change the contrast as `ImageEnhance.Contrast`: 0 gives mean grey, 1 changes nothing, above 1 increases it."""
    (histogram,) = _histograms(image.convert("L"))
    mean = int(float(histogram @ _LEVELS) / float(histogram.sum()) + 0.5)
    return _map_values(image, _blend(mean, factor))


def _map_values(image: Image.Image, *tables: np.ndarray) -> Image.Image:
    """Map the values of an image by one table of 256 values per channel, or by one table for all channels."""
    tables_of_channels = np.empty((len(image.getbands()), 256), np.uint8)
    tables_of_channels[...] = tables
    return pixels.apply_tables(image, tables_of_channels)


def _histograms(image: Image.Image) -> np.ndarray:
    """Return the number of pixels of each value, [channels, 256]."""
    return np.array(image.histogram()).reshape(-1, 256)


def _stretched(histogram: np.ndarray) -> np.ndarray:
    values = histogram.nonzero()[0]
    if len(values) < 2:
        return _LEVELS
    scale = 255.0 / (values[-1] - values[0])
    return np.clip((_LEVELS * scale + -values[0] * scale).astype(int), 0, 255)


def _equalized(histogram: np.ndarray) -> np.ndarray:
    counts = histogram[histogram > 0]
    step = int(counts[:-1].sum()) // 255
    if not step:
        return _LEVELS
    below = histogram.cumsum() - histogram
    return np.minimum((step // 2 + below) // step, 255)


def _blend(level: int, factor: float) -> np.ndarray:
    """Return the table of Pillow's blend of a uniform image, whose values are all `level`, with another image."""
    return np.asarray(Image.blend(Image.new("L", _RAMP.size, level), _RAMP, factor))[0]
