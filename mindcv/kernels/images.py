"""The image kernels, for data-loader workers. Each runs in one thread and releases Python's global interpreter lock.

An image is a uint8 array (height, width, channels). It has one channel, or four: red, green, blue and one without
meaning. Its rows have no gaps between pixels. The results are bit-identical to Pillow's (decision 0045).

Each function checks its arguments. A ValueError names the argument that does not fit. The C functions check sizes and
numbers again (decision 0033).
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, Optional

import numpy as np

from mindcv.kernels.library import library_path

__all__ = ["FILTERS", "Side", "affine", "look_up", "mix", "resize", "saturate", "sharpen", "to_planes"]

# The index of a filter is its number in csrc/image/resize.cc.
FILTERS = ("box", "bilinear", "hamming", "bicubic", "lanczos")

_MAX_PIXELS = 1 << 28  # The largest side, so that every position in it fits into 32 bits.


class Side(NamedTuple):
    """Describes how one side of an image is resized, cropped and flipped. All lengths are in pixels.

    Attributes:
        size: length of the side before.
        resized: length of the whole side after resizing.
        start: first pixel of the resized side that the crop keeps.
        kept: number of pixels that the crop keeps.
        is_flipped: whether the cropped part is mirrored.
    """

    size: int
    resized: int
    start: int
    kept: int
    is_flipped: bool = False


def resize(source: np.ndarray, filter_name: str, across: Side, down: Side, down_first: bool) -> np.ndarray:
    """Resize an image with antialiasing. The result is bit-identical to Pillow's.

    As in Pillow, the arithmetic is fixed-point, and the pixels between the two passes are bytes.

    Args:
        source: image of down.size rows with across.size pixels each. It may have gaps between rows.
        filter_name: one of `FILTERS`.
        across, down: horizontal and vertical side.
        down_first: whether the vertical pass comes first (see `mindcv.data.pixels`).

    Returns:
        uint8 (down.kept, across.kept, channels).

    Raises:
        ValueError: an argument does not fit.
        MemoryError: there is not enough memory for the pixels between the two passes.
    """
    height, width, channels = _image_shape(source)
    if source.strides[1:] != (channels, 1):
        raise ValueError("source must have no gaps between pixels: numpy.ascontiguousarray(source) removes them")
    if filter_name not in FILTERS:
        raise ValueError(f"filter_name must be one of {', '.join(FILTERS)}, not {filter_name!r}")
    for name, side, length in (("across", across, width), ("down", down, height)):
        is_part = 0 <= side.start < side.start + side.kept <= side.resized
        if side.size != length or not is_part or side.resized > _MAX_PIXELS:
            raise ValueError(f"{name} must be a part of a side that has {length} pixels now, not {side}")
    out = np.empty((down.kept, across.kept, channels), np.uint8)
    sides = (ctypes.c_int32 * 10)(*across, *down)
    number = FILTERS.index(filter_name)
    _run("resize", _start(source), source.strides[0], channels, number, sides, down_first, _start(out))
    return out


def to_planes(source: np.ndarray, mean: np.ndarray, std: np.ndarray, out: np.ndarray) -> None:
    """Write (value - mean) / std of each channel, in float32, to its plane of `out`.

    Args:
        source: contiguous image. Four channels give three planes, and one channel gives one.
        mean, std: contiguous float32 arrays with one value for each plane, in the unit of the pixels, 0 to 255.
        out: contiguous float32 array (planes, height, width).

    Raises:
        ValueError: an argument does not fit.
    """
    height, width, channels = _image_shape(source)
    planes = _planes(channels)
    for name, values in (("mean", mean), ("std", std)):
        if not isinstance(values, np.ndarray) or values.size != planes:
            raise ValueError(
                f"{name} must be an array of {planes} values, one for each plane, not {_described(values)}"
            )
    mean, std = _address("mean", mean, np.float32, mean.shape), _address("std", std, np.float32, std.shape)
    target = _address("out", out, np.float32, (planes, height, width), is_written=True)
    _run("to_planes", _address("source", source, np.uint8, source.shape), width * height, planes, mean, std, target)


def mix(image: np.ndarray, partner: np.ndarray, share: np.float32, partner_share: np.float32) -> None:
    """Blend two images in place. Each becomes its share times itself plus (1 - its share) times the other image.

    Args:
        image, partner: contiguous float32 arrays of the same shape. They may be the same array.
        share: weight of `image` in its own result.
        partner_share: weight of `partner` in its own result.

    Raises:
        ValueError: an argument does not fit, or the arrays overlap without being the same.
    """
    if not isinstance(image, np.ndarray):
        raise ValueError(f"image must be a float32 array, not {_described(image)}")
    first = _address("image", image, np.float32, image.shape, is_written=True)
    second = _address("partner", partner, np.float32, image.shape, is_written=True)
    if first != second and np.may_share_memory(image, partner):  # may_share_memory is exact for contiguous arrays.
        raise ValueError("image and partner must be separate arrays or the same array, but they overlap in part")
    _run("mix", first, second, image.size, share, partner_share)


def look_up(source: np.ndarray, tables: np.ndarray) -> np.ndarray:
    """Replace each value by its entry in the table of its channel.

    Args:
        source: contiguous image.
        tables: contiguous uint8 (3, 256) for four channels, or (1, 256) for one.

    Returns:
        uint8 array of the shape of `source`.

    Raises:
        ValueError: an argument does not fit.
    """
    height, width, channels = _image_shape(source)
    addresses = (
        _address("source", source, np.uint8, source.shape),
        _address("tables", tables, np.uint8, (_planes(channels), 256)),
    )
    out = np.empty(source.shape, np.uint8)
    _run("look_up", addresses[0], width * height, channels, addresses[1], _start(out))
    return out


def sharpen(source: np.ndarray, factor: float) -> np.ndarray:
    """Change the sharpness of a contiguous image, bit-identical to Pillow's `ImageEnhance.Sharpness`.

    `factor` 0 gives a blurred image, 1 the image itself, and more a sharper image.

    Raises:
        ValueError: an argument does not fit.
    """
    height, width, channels = _image_shape(source)
    address = _address("source", source, np.uint8, source.shape)
    out = np.empty(source.shape, np.uint8)
    _run("sharpen", address, width, height, channels, _finite("factor", factor), _start(out))
    return out


def saturate(source: np.ndarray, factor: float) -> np.ndarray:
    """Change the saturation of a contiguous image of 4 channels, bit-identical to Pillow's `ImageEnhance.Color`.

    `factor` 0 gives a grey image, 1 the image itself, and more stronger colours.

    Raises:
        ValueError: an argument does not fit.
    """
    height, width, _ = _image_shape(source, 4)
    address = _address("source", source, np.uint8, source.shape)
    out = np.empty(source.shape, np.uint8)
    _run("saturate", address, width * height, _finite("factor", factor), _start(out))
    return out


def affine(source: np.ndarray, matrix: Sequence[float], is_cubic: bool, fill: tuple[int, int, int]) -> np.ndarray:
    """Transform an image at the same size, bit-identical to Pillow's `Image.transform` with `AFFINE`.

    Args:
        source: contiguous image of 4 channels.
        matrix: six numbers that map coordinates of the result to coordinates of the source.
        is_cubic: whether to interpolate bicubically instead of bilinearly.
        fill: red, green and blue, 0 to 255, for pixels outside of the source.

    Returns:
        uint8 (height, width, 4).

    Raises:
        ValueError: an argument does not fit.
    """
    height, width, _ = _image_shape(source, 4)
    if len(matrix) != 6:
        raise ValueError(f"matrix must be six numbers, not {len(matrix)}")
    if len(fill) != 3 or not all(0 <= value <= 255 for value in fill):
        raise ValueError(f"fill must be three numbers from 0 to 255, not {fill}")
    address = _address("source", source, np.uint8, source.shape)
    out = np.empty((height, width, 4), np.uint8)
    numbers = (ctypes.c_double * 6)(*matrix)
    _run("affine", address, width, height, is_cubic, numbers, bytes((*fill, 0)), _start(out))
    return out


def _image_shape(source: np.ndarray, channels: Optional[int] = None) -> tuple[int, int, int]:
    """Check an image and return its shape. It must have `channels` channels, or one or four if that is None."""
    allowed = (1, 4) if channels is None else (channels,)
    is_image = isinstance(source, np.ndarray) and source.dtype == np.uint8 and source.ndim == 3
    if not is_image or source.shape[2] not in allowed or not 0 < min(source.shape) <= max(source.shape) <= _MAX_PIXELS:
        expected = f"(height, width, {' or '.join(map(str, allowed))})"
        raise ValueError(f"source must be a uint8 array {expected} that is not empty, not {_described(source)}")
    return source.shape


def _planes(channels: int) -> int:
    return 1 if channels == 1 else 3


def _finite(name: str, value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, not {value}")
    return value


def _address(
    name: str, array: np.ndarray, dtype: type[np.generic], shape: tuple[int, ...], is_written: bool = False
) -> int:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{name} must be a {np.dtype(dtype)} array of shape {shape}, not {_described(array)}")
    if not array.flags.c_contiguous or not array.flags.aligned or (is_written and not array.flags.writeable):
        kind = "writeable and " if is_written else ""
        raise ValueError(f"{name} must be {kind}contiguous: numpy.ascontiguousarray({name}) gives such an array")
    return _start(array)


def _described(array: object) -> str:
    if not isinstance(array, np.ndarray):
        return f"a {type(array).__name__}"
    return f"a {array.dtype} array of shape {array.shape}"


def _run(name: str, *arguments: object) -> None:
    """Call a C function and raise its error. Its status is 1 if memory is short and 2 if an argument does not fit."""
    library = _library()
    status = getattr(library, f"mindcv_{name}")(*arguments)
    if status != 0:
        reason = library.mindcv_last_error().decode()
        raise (MemoryError if status == 1 else ValueError)(reason)


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
    library.mindcv_last_error.restype = ctypes.c_char_p
    return library
