"""Memory for batches that is used again when they are gone."""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence

import numpy as np

__all__ = ["BatchMemory"]


# Large arrays of NumPy's begin 16 bytes after a cache line, so that a vector of 64 bytes touches two: writing an image
# took 91 us and not 71.
_LINE = 64
_SPARE = _LINE // 4 - 1


class BatchMemory:
    """Makes float32 arrays, in the memory of earlier ones that nothing refers to any more.

    The system clears fresh memory before a process gets it, which takes 3 ms for a batch of 32 x 3 x 224 x 224. What is
    used again belongs to an array that is gone with all its views and buffers, be it MindSpore or the user who had
    them: no array changes in anyone's hands. As much is held as was in use at the same time, until this is gone itself.
    """

    def __init__(self):
        self._free: list[np.ndarray] = []  # appending and popping need no lock

    def empty(self, shape: Sequence[int]) -> np.ndarray:
        """An array of that shape with anything in it, at the start of a cache line. Any thread may ask."""
        size = math.prod(shape)
        try:
            block = self._free.pop()
        except IndexError:
            block = None
        if block is None or len(block) < size + _SPARE:  # one that is too small goes back to the system
            block = np.empty(size + _SPARE, np.float32)
        # Views of an array refer to the array that owns the memory, but never to one beyond a memoryview: all that can
        # be made of what is returned here refers to `owner`.
        owner = np.frombuffer(memoryview(block), np.float32)
        weakref.finalize(owner, self._free.append, block).atexit = False
        start = -owner.__array_interface__["data"][0] % _LINE // owner.itemsize
        return owner[start : start + size].reshape(shape)
