"""Decodes image files of any kind to Pillow images of one mode."""

from __future__ import annotations

import io
import re
import warnings
from typing import BinaryIO, Union

import numpy as np
from PIL import Image, ImageOps

from mindcv.utils.errors import DataError

__all__ = ["check_header", "decode", "set_pixel_limit", "to_array"]

_HIGH_DEPTH = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")


def decode(encoded: Union[bytes, np.ndarray], mode: str = "RGB") -> Image.Image:
    """Decode one image to the given mode, in upright orientation.

    All formats of Pillow are supported. An animation or a file with several pages gives its first frame. The EXIF
    orientation is applied. The alpha channel is dropped and the colours below it are kept, as Pillow's
    `convert('RGB')` does. Values of more than 8 bits are scaled down. (Pillow's `convert` clips them, which turns a
    16-bit photograph white.)

    - 16-bit grey values become v // 256.
    - No header states the range of 32-bit integers and floats. If all values are within 0..255, they stay. If all are
      within 0..65535, they are divided by 256. Larger integers are divided by 2**23. Floats within 0..1 are multiplied
      by 255. A 16-bit PNG counts as 16-bit for any values, although older versions of Pillow return it as 32-bit
      integers.

    Args:
        encoded: contents of an image file, or a uint8 array [H, W] or [H, W, C] with C = 1, 3 or 4.
        mode: 'RGB', or 'L' for networks with one input channel.

    Raises:
        DataError: the bytes are not an image, or the image is damaged, truncated, empty or too large. The message does
            not name the file, because only the caller knows it.
    """
    if isinstance(encoded, np.ndarray):
        return _in_mode(_from_array(encoded), mode)
    if not encoded:
        raise DataError("the file is empty")
    try:
        return _from_bytes(encoded, mode)
    except (DataError, MemoryError):
        raise
    except Exception as error:
        # For damaged input, Pillow raises OSError, SyntaxError, ValueError, struct.error, EOFError,
        # IndexError, DecompressionBombError and more. The cause is the file in each case.
        raise DataError(_reason(error)) from error


def set_pixel_limit(max_pixels: int) -> None:
    """Set the largest number of pixels of an image for this process; 0 removes the limit.

    The limit is needed because a small file can claim so many pixels that decoding it takes all memory.
    """
    # Pillow refuses images above twice this number. Its warning above the number itself is not
    # needed here.
    Image.MAX_IMAGE_PIXELS = -(-max_pixels // 2) if max_pixels else None
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def check_header(file: BinaryIO) -> None:
    """Raise a DataError if the header of a file is not that of a readable image. The pixels are not read."""
    try:
        if not file.read(1):
            raise DataError("the file is empty")
        file.seek(0)
        with Image.open(file):
            pass
    except (DataError, MemoryError):
        raise
    except Exception as error:  # as in `decode`
        raise DataError(_reason(error)) from error


def to_array(image: Image.Image) -> np.ndarray:
    """Return the pixels of a Pillow image, uint8 [H, W] or [H, W, 3]. Larger values are scaled down as in `decode`."""
    if image.mode in _HIGH_DEPTH:
        image = _to_8_bits(image, is_16_bit=image.mode.startswith("I;16"))
    return np.asarray(image if image.mode == "L" else image.convert("RGB"))


def _from_array(array: np.ndarray) -> Image.Image:
    if array.size == 0:
        raise DataError(f"the image of shape {array.shape} has no pixels")
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (3,), (4,)):
        raise DataError(f"expected a uint8 array of shape (H, W) or (H, W, C), got {array.dtype} {array.shape}")
    return Image.fromarray(array[:, :, 0] if array.shape[2:] == (1,) else array)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    return (
        image if image.mode == mode else image.convert(mode)
    )  # `convert` would copy the image even if the mode is the same


def _from_bytes(encoded: bytes, mode: str) -> Image.Image:
    with Image.open(io.BytesIO(encoded)) as image:
        # The decoder reads the whole file in one call. Pillow's default of 64 KiB per call costs
        # copies and waits for Python's global lock.
        image.decodermaxblock = max(image.decodermaxblock, len(encoded))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode in _HIGH_DEPTH:
            image = _to_8_bits(image, is_16_bit=image.mode.startswith("I;16") or encoded.startswith(b"\x89PNG"))
        # The colours do not depend on this entry, and Pillow warns about palettes that have it.
        image.info.pop("transparency", None)
        return _in_mode(image, mode)


def _to_8_bits(image: Image.Image, is_16_bit: bool) -> Image.Image:
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise DataError("the image contains values that are not finite")
    values = np.maximum(values, 0)
    largest = values.max(initial=0)
    if is_16_bit:
        values = values // 256
    elif image.mode == "F" and largest <= 1:
        values = np.rint(values * 255)
    elif 255 < largest <= 65535:
        values = values // 256
    elif largest > 65535:
        if image.mode == "F":
            raise DataError(
                f"the image contains floating-point values up to {largest:g}, whose range is unknown: convert it to "
                "8 or 16 bits"
            )
        values = values >> 23
    return Image.fromarray(values.astype(np.uint8))


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return (
            "it is not an image of a known format, or its header is damaged"  # Pillow's message names a BytesIO object
        )
    if isinstance(error, Image.DecompressionBombError):
        match = re.search(r"\d+", str(error))
        pixels = f"{int(match[0]):,}" if match else "too many"
        limit = f"{2 * Image.MAX_IMAGE_PIXELS:,}" if Image.MAX_IMAGE_PIXELS else "the allowed number"
        return f"it has {pixels} pixels, more than {limit}; --max_image_pixels sets the limit, and 0 removes it"
    return str(error) or type(error).__name__
