"""Memory that processes share: the parent takes blocks of it for batches, and a worker writes a batch into a block.

The memory belongs to a file without a name, so the system frees it when the last process ends, however it ends.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["BlockWriter", "Place", "SharedBlocks", "aligned"]

_LINE = 64  # bytes of a cache line
# Arrays of less than this share of the largest array of a batch are copied.
_SMALL = 1 / 8


def aligned(size: int, unit: int = _LINE) -> int:
    """Return the smallest multiple of `unit` that is at least `size`."""
    return -(-size // unit) * unit


class _Block(NamedTuple):
    offset: int
    size: int
    memory: mmap.mmap


class Place(NamedTuple):
    """The place of an array in a block."""

    offset: int
    shape: tuple[int, ...]
    kind: str


class SharedBlocks:
    """The parent's side of the shared memory.

    A block is free again when the array that was made of it and all views of that array are gone, no matter whether
    MindSpore or the user held them. So no array changes while it is in use (compare `BatchMemory`).

    Attributes:
        file: file descriptor of the memory, which the workers inherit.
    """

    def __init__(self):
        self.file = _nameless_file()
        self._closing = weakref.finalize(self, os.close, self.file)
        self._end = 0
        self._free: list[_Block] = []  # appending and popping need no lock

    def store(self, data: Any) -> tuple[int, int]:
        """Copy bytes into the memory, where they stay, and return their (offset, size)."""
        data = memoryview(data).cast("B")
        block = self._new(max(data.nbytes, 1))
        block.memory[: data.nbytes] = data
        return block.offset, data.nbytes

    def take(self, size: int) -> _Block:
        """Return a block of at least `size` bytes for the result of a worker."""
        while self._free:
            block = self._free.pop()
            if block.size >= size:
                return block
            if hasattr(mmap, "MADV_REMOVE"):  # gives the memory of a block that is too small back to the system
                block.memory.madvise(mmap.MADV_REMOVE)
        return self._new(size)

    def give_back(self, block: _Block) -> None:
        """Make a block free that no array was made of."""
        self._free.append(block)

    def items(self, block: _Block, items: Sequence[Any]) -> list[Any]:
        """Return the items of a batch, with each `Place` replaced by the array that is there.

        The arrays own the block together. A small array is copied, so that it does not keep the block of large ones.
        """
        # A view references the array that owns the memory, but never an array behind a memoryview.
        owner = np.frombuffer(memoryview(block.memory), np.uint8)
        weakref.finalize(owner, self._free.append, block).atexit = False
        arrays = [_view(owner, *item) if isinstance(item, Place) else item for item in items]
        largest = max((array.nbytes for array in arrays if isinstance(array, np.ndarray)), default=0)
        return [
            array.copy() if isinstance(item, Place) and array.nbytes < _SMALL * largest else array
            for item, array in zip(items, arrays)
        ]

    def _new(self, size: int) -> _Block:
        size = aligned(size, mmap.ALLOCATIONGRANULARITY)
        os.ftruncate(self.file, self._end + size)
        block = _Block(self._end, size, mmap.mmap(self.file, size, offset=self._end))
        self._end += size
        return block


class BlockWriter:
    """The worker's side: places the arrays of a batch in one block.

    Args:
        memory: the mapped block.
    """

    def __init__(self, memory: mmap.mmap):
        self._bytes = np.frombuffer(memory, np.uint8)
        self._used = 0

    def empty(self, shape: Sequence[int]) -> np.ndarray:
        """Return a float32 array with undefined values, in the block if there is room."""
        size = 4 * math.prod(shape)
        if self._used + size > len(self._bytes):
            return np.empty(shape, np.float32)
        array = _view(self._bytes, self._used, shape, np.dtype(np.float32).str)
        self._used += aligned(size)
        return array

    def placed(self, item: Any) -> Any:
        """Return the `Place` of an array in the block. An array that does not fit and other items are returned as such.

        An array that is outside of the block is copied into it.
        """
        if not isinstance(item, np.ndarray) or item.dtype.hasobject:
            return item
        array = np.ascontiguousarray(item)
        offset = _address(array) - _address(self._bytes)
        if not 0 <= offset < len(self._bytes):
            offset = self._used
            if offset + array.nbytes > len(self._bytes):
                return array
            _view(self._bytes, offset, array.shape, array.dtype.str)[...] = array
            self._used += aligned(array.nbytes)
        return Place(offset, array.shape, array.dtype.str)


def _view(block: np.ndarray, offset: int, shape: Sequence[int], kind: str) -> np.ndarray:
    kind = np.dtype(kind)
    return block[offset : offset + kind.itemsize * math.prod(shape)].view(kind).reshape(shape)


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):  # Linux. A container's limit of 64 MB for /dev/shm does not apply to it.
        return os.memfd_create("mindcv-data")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
