"""The image kernels: functions on the bytes of images, for data workers. One thread each, and no lock of Python's held.

Sources are uint8 (height, width, channels) with one channel, or four (red, green, blue and one that means nothing).
Their rows have no gaps between pixels.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from mindcv.kernels.library import library_path

__all__ = ["FILTERS", "Side", "affine", "look_up", "mix", "resize", "saturate", "sharpen", "to_planes"]

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


def resize(source: np.ndarray, filter_name: str, across: Side, down: Side, down_first: bool) -> np.ndarray:
    """Resize as Pillow does, antialiased, in fixed point with bytes between the two passes; the same bits.

    Args:
        source: down.size rows of across.size pixels; there may be gaps between rows, as in a part of an image.
        filter_name: one of `FILTERS`.
        across, down: the two sides.
        down_first: whether the sides' lengths are changed from top to bottom first; see `data.pixels`.

    Returns:
        uint8 (down.kept, across.kept, channels).

    Raises:
        MemoryError: there is no room for what lies between the passes.
    """
    height, width, channels = source.shape
    assert (width, height) == (across.size, down.size) and source.strides[1:] == (channels, 1)
    out = np.empty((down.kept, across.kept, channels), np.uint8)
    sides = (ctypes.c_int32 * 10)(*across, *down)
    number = FILTERS.index(filter_name)
    if _library().mindcv_resize(_start(source), source.strides[0], channels, number, sides, down_first, _start(out)):
        raise MemoryError("no memory to resize an image")
    return out


def to_planes(source: np.ndarray, mean: np.ndarray, std: np.ndarray, out: np.ndarray) -> None:
    """Write (value - mean) / std of each channel, in float32, to its plane.

    Args:
        source: pixels of 4 bytes for three planes, of 1 byte for one; no gaps.
        mean, std: float32, one a plane, without gaps.
        out: float32 (planes, height, width), without gaps.
    """
    planes = len(out)
    _library().mindcv_to_planes(_address(source), out[0].size, planes, _address(mean), _address(std), _address(out))


def mix(image: np.ndarray, partner: np.ndarray, share: np.float32, partner_share: np.float32) -> None:
    """Blend two images with one another, in place: each becomes share * itself + (1 - share) * the other.

    Args:
        image, partner: float32 of one shape, without gaps; they may be the same array.
        share, partner_share: of each in itself.
    """
    assert image.shape == partner.shape and image.dtype == partner.dtype == np.float32
    _library().mindcv_mix(_address(image), _address(partner), image.size, share, partner_share)


def look_up(source: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """Each value through the table of its channel.

    Args:
        source: pixels of 4 bytes for three tables, of 1 byte for one; no gaps.
        tables: uint8 (channels, 256).

    Returns:
        uint8, of the shape of `source`.
    """
    height, width, channels = source.shape
    assert tables.shape == (1 if channels == 1 else 3, 256) and tables.dtype == np.uint8
    out = np.empty(source.shape, np.uint8)
    _library().mindcv_look_up(_address(source), width * height, channels, _address(tables), _address(out))
    return out


def sharpen(source: np.ndarray, factor: float) -> np.ndarray:
    """What Pillow's `ImageEnhance.Sharpness` gives: the image blurred (`factor` 0), itself (1) or sharper."""
    height, width, channels = source.shape
    out = np.empty(source.shape, np.uint8)
    _library().mindcv_sharpen(_address(source), width, height, channels, factor, _address(out))
    return out


def saturate(source: np.ndarray, factor: float) -> np.ndarray:
    """What Pillow's `ImageEnhance.Color` gives, of pixels of 4 bytes: grey (`factor` 0), itself (1) or beyond."""
    out = np.empty(source.shape, np.uint8)
    _library().mindcv_saturate(_address(source), out.size // 4, factor, _address(out))
    return out


def affine(source: np.ndarray, matrix: Sequence[float], is_cubic: bool, fill: tuple[int, int, int]) -> np.ndarray:
    """What Pillow's `Image.transform` with `AFFINE` gives at the same size; the same bits.

    Args:
        source: pixels of 4 bytes; no gaps.
        matrix: six numbers, from the result's coordinates to the source's.
        is_cubic: bicubic instead of bilinear.
        fill: the colour of what is outside the source.

    Returns:
        uint8 (height, width, 4).
    """
    height, width, _ = source.shape
    out = np.empty((height, width, 4), np.uint8)
    numbers = (ctypes.c_double * 6)(*matrix)
    _library().mindcv_affine(_address(source), width, height, is_cubic, numbers, bytes((*fill, 0)), _address(out))
    return out


def _address(array: np.ndarray) -> int:
    assert array.flags.c_contiguous
    return _start(array)


def _start(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(library_path()))
    pointer, int32, int64, float32 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64, ctypes.c_float
    library.mindcv_resize.argtypes = [pointer, int64, int32, int32, pointer, int32, pointer]
    library.mindcv_to_planes.argtypes = [pointer, int64, int32, pointer, pointer, pointer]
    library.mindcv_mix.argtypes = [pointer, pointer, int64, float32, float32]
    library.mindcv_look_up.argtypes = [pointer, int64, int32, pointer, pointer]
    library.mindcv_sharpen.argtypes = [pointer, int64, int64, int32, float32, pointer]
    library.mindcv_saturate.argtypes = [pointer, int64, float32, pointer]
    library.mindcv_affine.argtypes = [pointer, int64, int64, int32, pointer, pointer, pointer]
    for name in ("to_planes", "mix", "look_up", "sharpen", "saturate", "affine"):
        library[f"mindcv_{name}"].restype = None
    return library
