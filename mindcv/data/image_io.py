"""From the bytes of an image file, of whatever kind, to a Pillow image of one mode."""

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
    """Decode one image, upright, in the mode asked for.

    Every format that Pillow reads will do; of an animation or a many-page file the first frame is taken. The EXIF
    orientation is applied. Alpha is dropped, the colours below it kept, as Pillow's own `convert('RGB')` does. Values
    of more than 8 bits are scaled down (Pillow's `convert` clips them, which turns a 16-bit photograph white):

    - 16-bit grey: v // 256;
    - 32-bit integers and floats, whose range no header states: values all within 0..255 are taken as they are, within
      0..65535 divided by 256, integers beyond divided by 2**23; floats within 0..1 are multiplied by 255. A 16-bit
      PNG, which older versions of Pillow hand out as 32-bit integers, is 16-bit whatever its values are.

    Args:
        encoded: the contents of an image file, or a uint8 array of shape (H, W) or (H, W, C) with C 1, 3 or 4.
        mode: 'RGB', or 'L' for networks with one input channel.

    Raises:
        DataError: the bytes are not an image, or it is damaged, truncated, empty or absurdly large. The message does
            not name the file, which only the caller knows.
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
        # Pillow's readers answer damaged input with OSError, SyntaxError, ValueError, struct.error, EOFError,
        # IndexError, DecompressionBombError and more: what failed is the file, in each case.
        raise DataError(_reason(error)) from error


def set_pixel_limit(max_pixels: int) -> None:
    """Refuse images of more pixels from now on, in this process; 0 refuses none.

    A small file can claim so many pixels that decoding it takes all memory, so there is a limit at all.
    """
    # Pillow refuses above twice this number and warns above it once, which says nothing new to who set the limit.
    Image.MAX_IMAGE_PIXELS = -(-max_pixels // 2) if max_pixels else None
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def check_header(file: BinaryIO) -> None:
    """Raise a DataError when a file does not begin as an image that `decode` may read. The pixels are not looked at."""
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
    """The pixels of a Pillow image, uint8 (H, W) or (H, W, 3); more than 8 bits are scaled down as `decode` does it."""
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
    return image if image.mode == mode else image.convert(mode)  # which copies where there is nothing to convert


def _from_bytes(encoded: bytes, mode: str) -> Image.Image:
    with Image.open(io.BytesIO(encoded)) as image:
        # All of it in one call of the decoder: Pillow's 64 KiB at a time cost copies and turns at Python's lock.
        image.decodermaxblock = max(image.decodermaxblock, len(encoded))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode in _HIGH_DEPTH:
            image = _to_8_bits(image, is_16_bit=image.mode.startswith("I;16") or encoded.startswith(b"\x89PNG"))
        # The colour stays the same without it, and Pillow warns about palettes that have it.
        image.info.pop("transparency", None)
        return _in_mode(image, mode)


def _to_8_bits(image: Image.Image, is_16_bit: bool) -> Image.Image:
    values = np.asarray(image)
    if not np.isfinite(values).all():
        raise DataError("the image holds values that are not finite")
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
            raise DataError(f"the image holds floating-point values up to {largest:g}, whose range is unknown")
        values = values >> 23
    return Image.fromarray(values.astype(np.uint8))


def _reason(error: Exception) -> str:
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not an image of a known format, or its header is damaged"  # Pillow's own names a BytesIO object
    if isinstance(error, Image.DecompressionBombError):
        found = re.search(r"\d+", str(error))
        pixels = f"{int(found[0]):,}" if found else "too many"
        limit = f"{2 * Image.MAX_IMAGE_PIXELS:,}" if Image.MAX_IMAGE_PIXELS else "the allowed number"
        return f"it has {pixels} pixels, more than {limit}; --max_image_pixels sets the limit, and 0 removes it"
    return str(error) or type(error).__name__
