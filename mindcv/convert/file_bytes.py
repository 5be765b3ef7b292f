"""Turns the bytes of a file into NumPy arrays. The file is mapped into memory, and copied only where it must be."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Union

import numpy as np

from mindcv.utils.errors import CheckpointError, closest_file

__all__ = ["DTYPES", "array_of", "existing_file", "itemsize", "map_file", "quoted"]

# Name of an element type in PyTorch -> type code by which NumPy reads it.
DTYPES = {
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "bfloat16": "u2",  # NumPy has no bfloat16; it is the upper half of a float32
    "complex128": "c16",
    "complex64": "c8",
    "int64": "i8",
    "int32": "i4",
    "int16": "i2",
    "int8": "i1",
    "uint64": "u8",
    "uint32": "u4",
    "uint16": "u2",
    "uint8": "u1",
    "bool": "u1",  # a file may hold bytes other than 0 and 1, which are not valid values of NumPy's bool
}


def existing_file(path: Union[str, os.PathLike]) -> Path:
    """Return `path` after checking that it is a file and is not empty.

    Raises:
        CheckpointError: the file does not exist or is empty.
    """
    path = Path(path)
    if not path.is_file():
        folder = f"the folder '{path.parent}' {'exists' if path.parent.is_dir() else 'does not exist either'}"
        near = closest_file(path.name, [file.name for file in path.parent.glob("*.*") if file.is_file()])
        suggestion = "" if near is None else f"; did you mean '{near}'?"
        raise CheckpointError(f"checkpoint '{path}' does not exist ({folder}){suggestion}")
    if path.stat().st_size == 0:
        raise CheckpointError(f"checkpoint '{path}' is empty")
    return path


def map_file(path: Union[str, os.PathLike]) -> memoryview:
    """Map a file into memory, read-only. Pages are read on first access, and the system can drop them again.

    Views of the result stay valid when another file replaces this one, but not when this file itself is truncated.

    Raises:
        CheckpointError: the file does not exist, is empty, or may not be read.
    """
    path = existing_file(path)
    try:
        with open(path, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise CheckpointError(f"checkpoint '{path}' cannot be read: {error.strerror}") from None


def array_of(data: memoryview, dtype: str, byteorder: str = "<") -> np.ndarray:
    """Return the elements in `data` as a read-only array [N] in this machine's byte order.

    The array is a view where byte order and alignment allow, and a copy otherwise. bfloat16 is converted to float32,
    which is exact. Bytes after the last whole element are ignored.

    Args:
        data: bytes of the elements.
        dtype: element type, a key of `DTYPES`.
        byteorder: byte order of `data`: '<' for little-endian, '>' for big-endian.
    """
    stored = np.dtype(DTYPES[dtype]).newbyteorder(byteorder)
    count = len(data) // stored.itemsize
    # NumPy refuses an empty buffer.
    array = np.frombuffer(data, stored, count) if count else np.zeros(0, stored)
    if not stored.isnative or not array.flags.aligned:
        array = array.astype(stored.newbyteorder("="))
    if dtype == "bfloat16":
        array = array.astype(np.uint32)
        array <<= 16
        array = array.view(np.float32)
    elif dtype == "bool":
        array = array != 0
    array.flags.writeable = False
    return array


def itemsize(dtype: str) -> int:
    """Return the number of bytes that one element takes in a file. `dtype` is a key of `DTYPES`."""
    return np.dtype(DTYPES[dtype]).itemsize


def quoted(text: str) -> str:
    """Quote a string that came from a file, for an error message. The result is ASCII, one line and short."""
    return ascii(text[:80])
