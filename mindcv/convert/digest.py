"""The SHA-256 digest inside a checkpoint of this library, which shows whether the file was damaged.

Decision 0054 says what the digest covers and why MindSpore's own checksum is not enough.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Protocol, Union

import numpy as np

from mindcv.utils.errors import CheckpointError

__all__ = ["DIGEST_KEY", "BlockArray", "blocks_of", "check_digest", "digest_of"]

# Name of the entry that holds the digest. Files of other software and of earlier versions have no
# such entry.
DIGEST_KEY = "mindcv_sha256"


class BlockArray(Protocol):
    """An array that is too large for the memory, and is read in blocks along its first axis."""

    dtype: np.dtype
    shape: tuple[int, ...]
    nbytes: int

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows in order."""


def blocks_of(array: Union[np.ndarray, BlockArray]) -> Iterator[memoryview]:
    """Yield the bytes of an array in row-major order, with little-endian elements."""
    for block in array.blocks() if hasattr(array, "blocks") else [array]:
        block = np.ascontiguousarray(block, block.dtype.newbyteorder("<"))
        # The view as bytes is needed because types of other libraries, such as bfloat16, provide no
        # buffer.
        yield block.reshape(-1).view(np.uint8).data


def digest_of(arrays: Mapping[str, Union[np.ndarray, BlockArray]], texts: Mapping[str, str]) -> str:
    """Compute the SHA-256 of the texts and of the names, types, shapes and bytes of the arrays, as hexadecimal digits.

    The result does not depend on the order of the entries or on the byte order in memory.
    """
    digest = hashlib.sha256(json.dumps(dict(texts), sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\n{name} {array.dtype.newbyteorder('<').str} {array.shape}\n".encode())
        for block in blocks_of(array):
            digest.update(block)
    return digest.hexdigest()


def check_digest(
    path: Union[str, os.PathLike], digest: str, arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]
) -> None:
    """Compare the digest that the file `path` contains with the digest of the arrays and texts read from it.

    Raises:
        CheckpointError: the two digests differ.
    """
    if digest != digest_of(arrays, texts):
        raise CheckpointError(f"'{path}' is damaged: its digest does not match its contents; copy or download it again")
