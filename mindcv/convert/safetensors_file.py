"""The safetensors format: a length, a JSON header, the raw arrays one after the other.

Source: the format's own description. The reader holds a file to all of it: offsets without holes or overlaps, up to
the end of the file; sizes that follow from type and shape; no name twice.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any, Optional, Union

import numpy as np

from mindcv.convert.digest import DIGEST_KEY, check_digest, digest_of
from mindcv.convert.file_bytes import array_of, itemsize, map_file, quoted
from mindcv.utils.errors import CheckpointError, unknown_name
from mindcv.utils.files import atomic_path

__all__ = ["parse_json", "read_and_verify", "read_safetensors", "write_safetensors"]

# The format's name of an element type -> PyTorch's. Its 8-, 6- and 4-bit floats have no counterpart in NumPy.
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "C64": "complex64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
_MAX_HEADER = 100_000_000  # the format's
_MAX_SIZE = 2**48  # of an empty array, with 1 in place of 0: NumPy fails on larger ones
_METADATA = "__metadata__"


def read_safetensors(path: Union[str, os.PathLike]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays, in the order of the file, and the metadata ({} for none).

    Arrays are read-only views of the mapped file; bfloat16 and what is not aligned are copies, bfloat16 as float32.

    Raises:
        CheckpointError: no such file, not of this format, damaged, or with a type of element that is not read.
    """
    return read_and_verify(path)[:2]


def read_and_verify(path: Union[str, os.PathLike]) -> tuple[dict[str, np.ndarray], dict[str, str], bool]:
    """As `read_safetensors`; and whether the file has a digest, which then is right.

    Raises:
        CheckpointError: see `read_safetensors`; or the digest is not that of the contents.
    """
    arrays, metadata = _read(path)
    digest = metadata.pop(DIGEST_KEY, None)
    if digest is not None:
        check_digest(path, digest, arrays, metadata)
    return arrays, metadata, digest is not None


def _read(path: Union[str, os.PathLike]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    data = map_file(path)
    try:
        header, start = _read_header(data)
        metadata = header.pop(_METADATA, {})
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise CheckpointError(f"its {_METADATA} is not a table of strings")
        entries = {name: _Entry(name, described) for name, described in header.items()}
        _check_offsets(entries.values(), len(data) - start)
        return {name: entry.array(data[start:]) for name, entry in entries.items()}, metadata
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint '{path}': {error}") from None


def write_safetensors(
    path: Union[str, os.PathLike], arrays: Mapping[str, np.ndarray], metadata: Optional[Mapping[str, str]] = None
) -> None:
    """Write arrays and metadata, and a digest of both; a crash leaves the old file or the new one, whole.

    Args:
        path: the file.
        arrays: name -> array of a type that the format has.
        metadata: strings by name.

    Raises:
        CheckpointError: an array's type, or a value of the metadata, is not one that the format has.
    """
    if not all(isinstance(text, str) for item in (metadata or {}).items() for text in item):
        raise CheckpointError("the metadata of a safetensors file is strings by name")
    if _METADATA in arrays:
        raise CheckpointError(f"no array of a safetensors file can be called '{_METADATA}'")
    codes = {np.dtype(dtype): code for code, dtype in _DTYPES.items() if dtype != "bfloat16"}
    for name, array in arrays.items():
        if array.dtype.newbyteorder("=") not in codes:
            raise CheckpointError(
                unknown_name(f"the element type of {quoted(name)},", array.dtype.name, map(str, codes))
            )
    # Wide elements first: then each array is aligned for its type.
    order = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    texts = dict(metadata or {})
    header: dict[str, Any] = {_METADATA: {**texts, DIGEST_KEY: digest_of(arrays, texts)}}
    end = 0
    for name in order:
        array, begin, end = arrays[name], end, end + arrays[name].nbytes
        code = codes[array.dtype.newbyteorder("=")]
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as side, open(side, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            array = arrays[name]
            file.write(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())


class _Entry:
    """One array of the header, checked by itself."""

    def __init__(self, name: str, described: Any):
        self.name = name
        if not isinstance(described, dict) or described.keys() != {"dtype", "shape", "data_offsets"}:
            raise CheckpointError(f"its header has not dtype, shape and data_offsets, or more, for {quoted(name)}")
        code, self.shape, offsets = described["dtype"], described["shape"], described["data_offsets"]
        if not isinstance(code, str) or code not in _DTYPES:
            raise CheckpointError(unknown_name(f"the element type of {quoted(name)},", str(code)[:40], _DTYPES))
        self.dtype = _DTYPES[code]
        whole = isinstance(self.shape, list) and isinstance(offsets, list) and len(offsets) == 2
        if not whole or not all(type(n) is int and 0 <= n < 2**62 for n in (*self.shape, *offsets)):
            raise CheckpointError(f"its header gives {quoted(name)} a shape or offsets that are no list of integers")
        self.begin, self.end = offsets
        size = math.prod(self.shape) * itemsize(self.dtype)
        if len(self.shape) > 32 or math.prod(n or 1 for n in self.shape) >= _MAX_SIZE:
            raise CheckpointError(f"{quoted(name)} has too large a shape")
        if size != self.end - self.begin:
            has = self.end - self.begin
            raise CheckpointError(f"{quoted(name)}, {code} of shape {self.shape}, needs {size} bytes and has {has}")

    def array(self, data: memoryview) -> np.ndarray:
        return array_of(data[self.begin : self.end], self.dtype).reshape(self.shape)


def _read_header(data: memoryview) -> tuple[dict[str, Any], int]:
    """The JSON header, and the byte after it."""
    size = int.from_bytes(data[:8], "little")
    end = 8 + size
    if len(data) < 8 or size > _MAX_HEADER or end > len(data):
        raise CheckpointError(f"it is cut or no safetensors file: a header of {size} bytes in a file of {len(data)}")
    header = parse_json(data[8:end].tobytes())
    if not isinstance(header, dict):
        raise CheckpointError("its header is no JSON object")
    return header, end


def _check_offsets(entries: Any, size: int) -> None:
    """The arrays follow each other, from the header to the end of the file."""
    at = 0
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != at:
            fault = "overlaps another array" if entry.begin < at else "follows a hole"
            raise CheckpointError(f"{quoted(entry.name)} {fault} at byte {entry.begin} of the data")
        at = entry.end
    if at != size:
        raise CheckpointError(f"its arrays end at byte {at} of the data, and the file at {size}")


def parse_json(text: bytes) -> Any:
    """The value of a JSON text, in which no name may be twice in one object.

    Raises:
        CheckpointError: it is not JSON, or a name is there twice.
    """
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_int=_integer)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"its header or index is not JSON ({error})") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise CheckpointError(f"{quoted(name)} is there twice")
        made[name] = value
    return made


def _integer(digits: str) -> int:
    # Turning a very long row of digits into a number takes a time quadratic in its length.
    return int(digits) if len(digits) < 25 else 2**63
