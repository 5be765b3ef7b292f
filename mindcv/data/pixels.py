"""Operations on pixels, by the C++ kernels if they are available and by Pillow otherwise, with the same bits.

Decision 0045 says how the kernels are compared with the installed Pillow, and what they gain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Optional, Union

import numpy as np
import PIL
from PIL import Image, ImageEnhance

from mindcv.data.pillow_memory import RAW_MODES, pixels_of
from mindcv.kernels import images
from mindcv.kernels.images import Side
from mindcv.kernels.library import is_available
from mindcv.utils.logger import logger

__all__ = [
    "affine",
    "apply_tables",
    "normalized",
    "resized",
    "rotated",
    "saturated",
    "sharpened",
    "to_bytes",
    "to_float",
]

# (left, top, right, bottom), in pixels.
Box = tuple[int, int, int, int]

_AFFINE_FILTERS = (
    Image.Resampling.BILINEAR,
    Image.Resampling.BICUBIC,
)  # filters of the geometric transforms in the kernels
_FILTER_NAMES = {getattr(Image.Resampling, name.upper()): name for name in images.FILTERS}

# Pillow version -> rule that says whether Pillow resizes vertically before it resizes horizontally.
# The order changes the bits, because the intermediate image is rounded to bytes. A rule is a
# function of (width, height, new width, new height).
_DOWN_FIRST: dict[str, Callable[[int, int, int, int], bool]] = {
    "13": lambda w, h, new_w, new_h: h > new_h and h - new_h > 2 * (w - new_w),
    "12": lambda w, h, new_w, new_h: h > new_h and h > 100 * w,
    "11": lambda w, h, new_w, new_h: False,
}
# Sizes at which the rules give different answers, on both sides of each threshold.
_PROBES = (
    (30, 60, 20, 20),
    (30, 60, 25, 50),
    (30, 61, 25, 50),
    (30, 40, 15, 80),
    (12, 40, 33, 39),
    (40, 30, 20, 10),
    (40, 30, 37, 24),
    (40, 30, 37, 23),
    (2, 200, 3, 150),
    (2, 201, 3, 150),
)


def resized(
    image: Image.Image,
    size: tuple[int, int],
    resample: Image.Resampling,
    *,
    box: Optional[Box] = None,
    keep: Optional[Box] = None,
    flips: tuple[bool, bool] = (False, False),
) -> Image.Image:
    """Crop, resize, crop again and flip, with the same bits as Pillow's separate operations.

    Args:
        image: image of any mode.
        size: (width, height) of `box` after resizing.
        resample: interpolation filter.
        box: part of the image that is resized. Pixels around it have no influence. None resizes the whole image.
        keep: part of the resized image that is returned; None returns all of it.
        flips: whether to swap left and right, and whether to swap top and bottom, at the end.
    """
    source = box or (0, 0, *image.size)
    width, height = source[2] - source[0], source[3] - source[1]
    is_inside = 0 <= source[0] < source[2] <= image.width and 0 <= source[1] < source[3] <= image.height
    is_known = image.mode in RAW_MODES and resample in _FILTER_NAMES and is_inside and min(size) > 0
    is_down_first = _down_first() if is_known and is_available() else None
    if is_down_first is None:
        return _resized_by_pillow(image.crop(box) if box else image, size, resample, keep, flips)
    left, top, right, bottom = keep or (0, 0, *size)
    across = Side(width, size[0], left, right - left, flips[0])
    down = Side(height, size[1], top, bottom - top, flips[1])
    return _resized_by_kernel(image, source, _FILTER_NAMES[resample], across, down, is_down_first(width, height, *size))


def to_float(image: Image.Image, out: np.ndarray) -> np.ndarray:
    """Write the values of an image of mode 'RGB' or 'L' to `out`, float32 [C, H, W], and return it."""
    for plane, band in zip(out, image.getbands()):
        # Pillow extracts one band in less time than NumPy needs to transpose all pixels.
        plane[...] = np.frombuffer(image.tobytes("raw", band), np.uint8).reshape(plane.shape)
    return out


def to_bytes(image: Image.Image, out: Optional[np.ndarray] = None) -> np.ndarray:
    """Return the values of an image of mode 'RGB' or 'L' as uint8 [C, H, W], in `out` if its shape fits."""
    shape = (len(image.getbands()), image.height, image.width)
    planes = np.empty(shape, np.uint8) if out is None or out.shape != shape else out
    np.copyto(planes, pixels_of(image)[:, :, : shape[0]].transpose(2, 0, 1))
    return planes


def normalized(image: Image.Image, mean: np.ndarray, std: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Write (value - mean) / std to `out`, float32 [C, H, W], and return it. `mean` and `std` are float32 [C, 1, 1]."""
    if is_available() and image.mode in RAW_MODES and out.flags.c_contiguous:
        images.to_planes(pixels_of(image), mean, std, out)
        return out
    to_float(image, out)
    out -= mean
    out /= std
    return out


def apply_tables(image: Image.Image, tables: np.ndarray) -> Image.Image:
    """Map each value of an image of mode 'RGB' or 'L' by the table of its channel. `tables` is uint8 [C, 256]."""
    if image.mode in RAW_MODES and is_available():
        return _image_of(images.look_up(pixels_of(image), tables), image)
    return image.point(tables.ravel().tolist())


def sharpened(image: Image.Image, factor: float) -> Image.Image:
    """Change the sharpness as `ImageEnhance.Sharpness`: 0 blurs, 1 changes nothing, above 1 sharpens."""
    if image.mode in RAW_MODES and is_available() and _enhances_equal():
        return _image_of(images.sharpen(pixels_of(image), factor), image)
    return ImageEnhance.Sharpness(image).enhance(factor)


def saturated(image: Image.Image, factor: float) -> Image.Image:
    """Change the saturation as `ImageEnhance.Color`: 0 gives grey, 1 changes nothing, above 1 gives more colour."""
    if image.mode == "RGB" and is_available() and _enhances_equal():
        return _image_of(images.saturate(pixels_of(image), factor), image)
    return ImageEnhance.Color(image).enhance(factor)


def affine(
    image: Image.Image, matrix: Sequence[float], resample: Image.Resampling, fill: Union[int, tuple[int, ...]]
) -> Image.Image:
    """Apply `Image.transform` with `AFFINE`, keeping the size. `fill` is the colour of pixels from outside."""
    if image.mode == "RGB" and resample in _AFFINE_FILTERS and is_available() and _transforms_equal():
        return _affine_by_kernel(image, matrix, resample, fill)
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=fill)


def rotated(
    image: Image.Image, degrees: float, resample: Image.Resampling, fill: Union[int, tuple[int, ...]]
) -> Image.Image:
    """Rotate counter-clockwise about the centre as `Image.rotate`, keeping the size. `fill` is that of `affine`."""
    if degrees % 90 == 0:
        return image.rotate(degrees, resample, fillcolor=fill)  # Pillow then copies pixels without interpolation
    # As in Pillow, the matrix maps the result to the source and has 15 decimals.
    angle = -math.radians(degrees % 360.0)
    cos, sin = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = image.width / 2, image.height / 2
    matrix = (cos, sin, cos * -x + sin * -y + x, -sin, cos, -sin * -x + cos * -y + y)
    return affine(image, matrix, resample, fill)


def _resized_by_pillow(
    image: Image.Image,
    size: tuple[int, int],
    resample: Image.Resampling,
    keep: Optional[Box],
    flips: tuple[bool, bool],
) -> Image.Image:
    image = image.resize(size, resample)
    if keep is not None:
        image = image.crop(keep)
    for is_flipped, method in zip(flips, (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM)):
        if is_flipped:
            image = image.transpose(method)
    return image


def _resized_by_kernel(
    image: Image.Image, box: Box, filter_name: str, across: Side, down: Side, down_first: bool
) -> Image.Image:
    left, top, right, bottom = box
    source = pixels_of(image)[top:bottom, left:right]
    return _image_of(images.resize(source, filter_name, across, down, down_first), image)


def _image_of(pixels: np.ndarray, original: Image.Image) -> Image.Image:
    """Return an image of the pixels, uint8 [H, W, 4] or [H, W, 1], with the mode and the info of `original`."""
    height, width, _ = pixels.shape
    image = Image.frombytes(original.mode, (width, height), pixels, "raw", RAW_MODES[original.mode])
    image.info = original.info.copy()
    return image


def _affine_by_kernel(
    image: Image.Image, matrix: Sequence[float], resample: Image.Resampling, fill: tuple[int, int, int]
) -> Image.Image:
    is_cubic = resample == Image.Resampling.BICUBIC
    return _image_of(images.affine(pixels_of(image), matrix, is_cubic, fill), image)


# The functions below compare the kernels with the installed Pillow, once per process and on small
# images. Forks of Pillow, later versions and other processors may give other bits. The comparison
# takes 5 ms.


@cache
def _down_first() -> Optional[Callable[[int, int, int, int], bool]]:
    """Return the rule in `_DOWN_FIRST` that the installed Pillow follows.

    Returns None and logs a line if it follows none of them.
    """
    for rule in _DOWN_FIRST.values():
        if all(_resizes_equal(rule, probe, name) for probe in _PROBES for name in images.FILTERS):
            return rule
    _log_pillow_fallback("resizes")
    return None


def _resizes_equal(
    rule: Callable[[int, int, int, int], bool], probe: tuple[int, int, int, int], filter_name: str
) -> bool:
    width, height, new_width, new_height = probe
    image = _noise(width, height)
    across, down = Side(width, new_width, 0, new_width), Side(height, new_height, 0, new_height)
    resized_image = _resized_by_kernel(image, (0, 0, width, height), filter_name, across, down, rule(*probe))
    expected = image.resize((new_width, new_height), Image.Resampling[filter_name.upper()])
    return resized_image.tobytes() == expected.tobytes()


@cache
def _transforms_equal() -> bool:
    """Return whether the kernel's affine transform gives the bits of Pillow. Log a line if it does not."""
    image, fill = _noise(23, 17), (1, 2, 3)
    for matrix in ((0.9, 0.3, -2.0, -0.3, 0.9, 4.5), (1, 0.2, 0, 0, 1, 0), (1, 0, 0, 0.2, 1, 0), (1, 0, 3.3, 0, 1, 0)):
        for curve in _AFFINE_FILTERS:
            transformed = _affine_by_kernel(image, matrix, curve, fill)
            expected = image.transform(image.size, Image.Transform.AFFINE, matrix, curve, fillcolor=fill)
            if transformed.tobytes() != expected.tobytes():
                _log_pillow_fallback("transforms")
                return False
    return True


@cache
def _enhances_equal() -> bool:
    """Return whether the kernels' enhancements give the bits of Pillow. Log a line if they do not."""
    image = _noise(23, 17)
    for kernel, enhancement in ((images.sharpen, ImageEnhance.Sharpness), (images.saturate, ImageEnhance.Color)):
        for factor in (0.37, 1.63):
            enhanced = _image_of(kernel(pixels_of(image), factor), image)
            if enhanced.tobytes() != enhancement(image).enhance(factor).tobytes():
                _log_pillow_fallback("enhances")
                return False
    return True


def _noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def _log_pillow_fallback(verb: str) -> None:
    logger.info(
        "Pillow %s %s images in a way that the kernels do not support: Pillow is used, which is slower",
        PIL.__version__,
        verb,
    )
