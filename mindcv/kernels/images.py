"""The image kernels: functions on the bytes of images, for data workers. One thread each, and no lock of Python's held.

Sources are rows of pixels without gaps, of 1 byte or of 4 (red, green, blue and one that means nothing).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from mindcv.kernels.library import library_path

__all__ = ["FILTERS", "Side", "affine", "resize", "to_planes"]

# By their number in images.cc.
FILTERS = ("box", "bilinear", "hamming", "bicubic", "lanczos")


class Side(NamedTuple):
    """How one side of an image is resized.

    Attributes:
        size: pixels there are.
        resized: pixels that the whole side becomes.
        start, kept: where the part of those begins that is wanted, and its length.
        is_flipped: whether that part is wanted backwards.
    """

    size: int
    resized: int
    start: int
    kept: int
    is_flipped: bool = False


def resize(pixels: bytes, channels: int, filter_name: str, across: Side, down: Side, down_first: bool) -> np.ndarray:
    """Resize as Pillow does, antialiased, in fixed point with bytes between the two passes; the same bits.

    Args:
        pixels: down.size rows of across.size pixels.
        channels: bytes of a pixel, 1 or 4.
        filter_name: one of `FILTERS`.
        across, down: the two sides.
        down_first: whether the sides' lengths are changed from top to bottom first; see `data.pixels`.

    Returns:
        uint8 (down.kept, across.kept, channels).

    Raises:
        MemoryError: there is no room for what lies between the passes.
    """
    out = np.empty((down.kept, across.kept, channels), np.uint8)
    sides = (ctypes.c_int32 * 10)(*across, *down)
    number = FILTERS.index(filter_name)
    if _library().mindcv_resize(pixels, across.size * channels, channels, number, sides, down_first, _address(out)):
        raise MemoryError("no memory to resize an image")
    return out


def to_planes(pixels: bytes, mean: np.ndarray, std: np.ndarray, out: np.ndarray) -> None:
    """Write (value - mean) / std of each channel, in float32, to its plane.

    Args:
        pixels: of 4 bytes for three planes, of 1 byte for one.
        mean, std: float32, one a plane, without gaps.
        out: float32 (planes, height, width), without gaps.
    """
    planes = len(out)
    _library().mindcv_to_planes(pixels, out[0].size, planes, _address(mean), _address(std), _address(out))


def affine(
    pixels: bytes, width: int, height: int, matrix: Sequence[float], is_cubic: bool, fill: tuple[int, int, int]
) -> np.ndarray:
    """What Pillow's `Image.transform` with `AFFINE` gives at the same size; the same bits.

    Args:
        pixels: `height` rows of `width` pixels of 4 bytes.
        matrix: six numbers, from the result's coordinates to the source's.
        is_cubic: bicubic instead of bilinear.
        fill: the colour of what is outside the source.

    Returns:
        uint8 (height, width, 4).
    """
    out = np.empty((height, width, 4), np.uint8)
    numbers = (ctypes.c_double * 6)(*matrix)
    _library().mindcv_affine(pixels, width, height, is_cubic, numbers, bytes((*fill, 0)), _address(out))
    return out


def _address(array: np.ndarray) -> int:
    assert array.flags.c_contiguous
    return array.__array_interface__["data"][0]


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(library_path()))
    pointer, int32, int64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    library.mindcv_resize.argtypes = [pointer, int64, int32, int32, pointer, int32, pointer]
    library.mindcv_to_planes.argtypes = [pointer, int64, int32, pointer, pointer, pointer]
    library.mindcv_affine.argtypes = [pointer, int64, int64, int32, pointer, pointer, pointer]
    library.mindcv_to_planes.restype = library.mindcv_affine.restype = None
    return library
