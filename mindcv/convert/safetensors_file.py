"""Reader and writer of the safetensors format: the length of the header, a JSON header, then the raw arrays.

The source is the format's own description, and the reader enforces all of it. The arrays cover the data without holes
or overlaps, each size follows from element type and shape, and no name occurs twice.

The `safetensors` package is not used for writing. It shuffles the entries of the metadata in each process, so the same
checkpoint gives different bytes, and it writes the wrong values of arrays that are not contiguous (decision 0078).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any, Optional, Union

import numpy as np

from mindcv.convert.digest import DIGEST_KEY, BlockArray, blocks_of, check_digest, digest_of
from mindcv.convert.file_bytes import array_of, itemsize, map_file, quoted
from mindcv.utils.errors import CheckpointError, unknown_name
from mindcv.utils.files import atomic_path

__all__ = ["parse_json", "read_and_verify", "read_safetensors", "write_safetensors"]

# Name of an element type in the format -> its name in PyTorch. NumPy has no counterpart of the
# format's 8-, 6- and 4-bit floats.
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
_MAX_HEADER = 100_000_000  # bytes; the format sets this limit
# Largest number of elements in a shape whose zeros count as ones. NumPy fails on empty arrays of
# larger shapes.
_MAX_SIZE = 2**48
_METADATA = "__metadata__"


def read_safetensors(path: Union[str, os.PathLike]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays of a safetensors file, in the order of the file, and its metadata ({} if it has none).

    The arrays are read-only views of the mapped file. Arrays that are not aligned are copied. bfloat16 is converted to
    float32.

    Raises:
        CheckpointError: the file does not exist, is not a safetensors file, is damaged, or has an element type that
            is not supported.
    """
    return read_and_verify(path)[:2]


def read_and_verify(path: Union[str, os.PathLike]) -> tuple[dict[str, np.ndarray], dict[str, str], bool]:
    """Read a file as `read_safetensors` does, and also return whether it has a digest, which has then been verified.

    Raises:
        CheckpointError: the file cannot be read (see `read_safetensors`), or the digest does not match the contents.
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
            raise CheckpointError(f"its {_METADATA} must map strings to strings, and it does not")
        entries = {name: _Entry(name, fields) for name, fields in header.items()}
        _check_offsets(entries.values(), len(data) - start)
        return {name: entry.array(data[start:]) for name, entry in entries.items()}, metadata
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint '{path}': {error}") from None


def write_safetensors(
    path: Union[str, os.PathLike],
    arrays: Mapping[str, Union[np.ndarray, BlockArray]],
    metadata: Optional[Mapping[str, str]] = None,
) -> None:
    """Write arrays, metadata and a digest of both atomically: a crash leaves either the old file or the new one.

    The bytes depend on the contents alone, not on the order of `arrays`.

    Args:
        path: file to write.
        arrays: name -> array of any shape, whose element type the format supports. A `BlockArray` is read twice.
        metadata: name -> text.

    Raises:
        CheckpointError: the format does not support the type of an array or of a metadata value.
    """
    if not all(isinstance(text, str) for item in (metadata or {}).items() for text in item):
        raise CheckpointError("the metadata of a safetensors file must map strings to strings")
    if _METADATA in arrays:
        raise CheckpointError(
            f"no array of a safetensors file can be named '{_METADATA}': the format reserves the name"
        )
    codes = {np.dtype(dtype): code for code, dtype in _DTYPES.items() if dtype != "bfloat16"}
    for name, array in arrays.items():
        if array.dtype.newbyteorder("=") not in codes:
            raise CheckpointError(
                unknown_name(f"the element type of {quoted(name)},", array.dtype.name, map(str, codes))
            )
    # Arrays with wide elements come first, so that each array is aligned for its element type.
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
            for block in blocks_of(arrays[name]):
                file.write(block)


class _Entry:
    """The header's entry for one array. The constructor checks everything that does not depend on other entries."""

    def __init__(self, name: str, fields: Any):
        self.name = name
        if not isinstance(fields, dict) or fields.keys() != {"dtype", "shape", "data_offsets"}:
            raise CheckpointError(f"the header of {quoted(name)} must have exactly dtype, shape and data_offsets")
        code, self.shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
        if not isinstance(code, str) or code not in _DTYPES:
            raise CheckpointError(unknown_name(f"the element type of {quoted(name)},", str(code)[:40], _DTYPES))
        self.dtype = _DTYPES[code]
        whole = isinstance(self.shape, list) and isinstance(offsets, list) and len(offsets) == 2
        if not whole or not all(type(n) is int and 0 <= n < 2**62 for n in (*self.shape, *offsets)):
            raise CheckpointError(f"the shape and offsets of {quoted(name)} must be lists of integers from 0 up")
        self.begin, self.end = offsets
        size = math.prod(self.shape) * itemsize(self.dtype)
        if len(self.shape) > 32 or math.prod(n or 1 for n in self.shape) >= _MAX_SIZE:
            raise CheckpointError(f"the shape of {quoted(name)} is too large")
        if size != self.end - self.begin:
            has = self.end - self.begin
            raise CheckpointError(f"{quoted(name)}, {code} of shape {self.shape}, needs {size} bytes and has {has}")

    def array(self, data: memoryview) -> np.ndarray:
        return array_of(data[self.begin : self.end], self.dtype).reshape(self.shape)


def _read_header(data: memoryview) -> tuple[dict[str, Any], int]:
    """Return the parsed JSON header and the offset of the first byte after it."""
    size = int.from_bytes(data[:8], "little")
    end = 8 + size
    if len(data) < 8 or size > _MAX_HEADER or end > len(data):
        raise CheckpointError(
            f"it is truncated or not a safetensors file: a header of {size} bytes in a file of {len(data)}"
        )
    header = parse_json(data[8:end].tobytes())
    if not isinstance(header, dict):
        raise CheckpointError("its header is not a JSON object")
    return header, end


def _check_offsets(entries: Any, size: int) -> None:
    """Check that the arrays follow each other without gaps, from the header to the end of the file."""
    at = 0
    for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
        if entry.begin != at:
            fault = "overlaps another array" if entry.begin < at else "follows a gap"
            raise CheckpointError(f"{quoted(entry.name)} {fault} at byte {entry.begin} of the data")
        at = entry.end
    if at != size:
        raise CheckpointError(f"its arrays end at byte {at} of the data, but the file ends at byte {size}")


def parse_json(text: bytes) -> Any:
    """Parse a JSON text in which no name may occur twice in one object.

    Raises:
        CheckpointError: the text is not JSON, or a name occurs twice.
    """
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_int=_integer)
    except CheckpointError:
        raise
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"its header or index is not JSON ({error})") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise CheckpointError(f"the name {quoted(name)} occurs twice")
        result[name] = value
    return result


def _integer(digits: str) -> int:
    # Converting a very long string of digits takes time quadratic in its length. No valid number is
    # that long.
    return int(digits) if len(digits) < 25 else 2**63
