"""A file's bytes as arrays of this machine, mapped rather than read where the two are the same."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Union

import numpy as np

from mindcv.utils.errors import CheckpointError, closest_file

__all__ = ["DTYPES", "array_of", "existing_file", "itemsize", "map_file", "quoted"]

# PyTorch's name of an element type -> how NumPy reads it.
DTYPES = {
    "float64": "f8",
    "float32": "f4",
    "float16": "f2",
    "bfloat16": "u2",  # NumPy has no such type: the upper half of a float32
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
    "bool": "u1",  # a byte that is neither 0 nor 1 is no valid value of NumPy's bool
}


def existing_file(path: Union[str, os.PathLike]) -> Path:
    """`path`, which is a file with something in it.

    Raises:
        CheckpointError: it is not.
    """
    path = Path(path)
    if not path.is_file():
        there = f"the folder '{path.parent}' is there" if path.parent.is_dir() else f"nor a folder '{path.parent}'"
        near = closest_file(path.name, [file.name for file in path.parent.glob("*.*") if file.is_file()])
        meant = "" if near is None else f"; did you mean '{near}'?"
        raise CheckpointError(f"checkpoint '{path}' does not exist ({there}){meant}")
    if path.stat().st_size == 0:
        raise CheckpointError(f"checkpoint '{path}' is empty")
    return path


def map_file(path: Union[str, os.PathLike]) -> memoryview:
    """The bytes of a file, read-only; pages are read when they are touched, and need no memory that is not to spare.

    Views of it stay good when another file takes the name, not when this file itself is cut.

    Raises:
        CheckpointError: no such file, an empty one, or no permission.
    """
    path = existing_file(path)
    try:
        with open(path, "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise CheckpointError(f"checkpoint '{path}' cannot be read: {error.strerror}") from None


def array_of(data: memoryview, dtype: str, byteorder: str = "<") -> np.ndarray:
    """All elements of `data` as a read-only array [N] in this machine's byte order; what is left over is ignored.

    It is a view where byte order and alignment allow, and a copy otherwise. bfloat16 becomes float32, exactly.

    Args:
        data: the bytes.
        dtype: a key of `DTYPES`.
        byteorder: '<' or '>', that of the bytes.
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
    """Bytes of an element in the file; `dtype` is a key of `DTYPES`."""
    return np.dtype(DTYPES[dtype]).itemsize


def quoted(text: str) -> str:
    """A string of a file for an error message: quoted, in one short line, whatever is in it."""
    return ascii(text[:80])
