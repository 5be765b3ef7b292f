"""What the pickle inside a PyTorch file describes: storages, tensors that are views of them, NumPy arrays.

Arrays are made when they are asked for, once for each storage; every tensor is a view. So the memory that a file can
ask for is a small multiple of its size, however many tensors it lists.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from mindcv.convert.file_bytes import array_of, itemsize, quoted
from mindcv.utils.errors import CheckpointError

__all__ = ["Inert", "Namespace", "NumpyArray", "NumpyType", "Storage", "TorchTensor", "TypedStorage", "is_count"]

# An expanded tensor (stride 0) has more elements than its storage. It stays a view here, but whoever copies it pays for
# all of them: a few bytes must not stand for terabytes.
_MAX_EXPANDED = 2**24
_MAX_AXES = 32  # NumPy's
_MAX_SIZE = 2**48  # of an empty array, with 1 in place of 0: NumPy fails on larger ones


def is_count(value: Any) -> bool:
    """Whether `value` is an integer from 0 up that fits 62 bits; True and False are none."""
    return type(value) is int and 0 <= value < 2**62


class Storage:
    """Bytes of a file that tensors are views of.

    Args:
        nbytes: their number.
        data: the bytes, or None when they come after the tensors in the file: `fill` sets them then.
        byteorder: '<' or '>'.
    """

    __slots__ = ("nbytes", "_arrays", "_byteorder", "_data")

    def __init__(self, nbytes: int, data: Optional[memoryview] = None, byteorder: str = "<"):
        self.nbytes = nbytes
        self._data = data
        self._byteorder = byteorder
        self._arrays: dict[str, np.ndarray] = {}

    def fill(self, data: memoryview) -> None:
        """Set the bytes, `nbytes` of them."""
        self._data = data

    def array(self, dtype: str) -> np.ndarray:
        """All elements, a read-only array [N]; bfloat16 becomes float32."""
        if dtype not in self._arrays:
            self._arrays[dtype] = array_of(self._data, dtype, self._byteorder)
        return self._arrays[dtype]


@dataclass(frozen=True)
class TypedStorage:
    """A storage and the type of its elements (PyTorch's name)."""

    storage: Storage
    dtype: str

    @property
    def numel(self) -> int:
        """Number of elements."""
        return self.storage.nbytes // itemsize(self.dtype)


@dataclass(frozen=True)
class TorchTensor:
    """A tensor: offset, shape and strides, in elements, over a storage. They have been checked against its size."""

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def over(cls, typed: TypedStorage, offset: Any, shape: Any, strides: Any) -> TorchTensor:
        """The tensor that a file describes by these values.

        Raises:
            CheckpointError: they are not what they should be, or reach beyond the storage.
        """
        whole = isinstance(shape, (tuple, list)) and isinstance(strides, (tuple, list))
        if not whole or len(shape) != len(strides) or len(shape) > _MAX_AXES:
            raise CheckpointError("a tensor's shape and strides do not belong together")
        if not all(map(is_count, (offset, *shape, *strides))):
            raise CheckpointError("a tensor's shape, strides or offset is not an integer from 0 up")
        numel = math.prod(shape)
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
        if numel and last >= typed.numel:
            raise CheckpointError(f"a tensor reaches element {last} of a storage of {typed.numel}")
        if numel > max(typed.numel, _MAX_EXPANDED):
            raise CheckpointError(f"a tensor repeats {typed.numel} elements to {numel}")
        if math.prod(size or 1 for size in shape) >= _MAX_SIZE:
            raise CheckpointError(f"a tensor's shape is too large: {shape}")
        return cls(typed.storage, typed.dtype, offset, tuple(shape), tuple(strides))

    def array(self) -> np.ndarray:
        """The values: a read-only view of the storage, of this shape and strides."""
        flat = self.storage.array(self.dtype)
        if 0 in self.shape:
            return np.zeros(self.shape, flat.dtype)
        # PyTorch lets an axis of one element have any stride, beyond 64 bits in bytes too.
        steps = [0 if size == 1 else stride * flat.itemsize for size, stride in zip(self.shape, self.strides)]
        return np.ndarray(self.shape, flat.dtype, flat, self.offset * flat.itemsize, steps)


class NumpyType:
    """A NumPy element type of a plain number; the pickle sets its byte order after making it."""

    __slots__ = ("dtype",)

    def __init__(self, name: Any):
        if not isinstance(name, str) or not re.fullmatch(r"[iu][1248]|f[248]|c8|c16|b1", name):
            kind = quoted(name) if isinstance(name, str) else "without a name"
            raise CheckpointError(f"a NumPy array of type {kind} is not read")
        self.dtype = np.dtype(name)

    def set_state(self, state: Any) -> None:
        """Take the byte order from the state that NumPy pickles; nothing else may be in it."""
        plain = isinstance(state, tuple) and len(state) == 8 and state[2:] == (None, None, None, -1, -1, 0)
        if not plain or state[1] not in ("<", ">", "|", "="):
            raise CheckpointError("a NumPy type has more to it than a byte order")
        self.dtype = self.dtype.newbyteorder(state[1])


class NumpyArray:
    """A NumPy array; the pickle fills it after making it."""

    __slots__ = ("_array",)

    def __init__(self) -> None:
        self._array: Optional[np.ndarray] = None

    def set_state(self, state: Any) -> None:
        """Take (version, shape, type, whether Fortran order, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise CheckpointError("a NumPy array is not described by five values")
        _, shape, kind, fortran, data = state
        self.set(data, kind, shape, "F" if fortran else "C")

    def set(self, data: Any, kind: Any, shape: Any, order: Any) -> None:
        """Take the bytes, their `NumpyType`, the shape and the order, 'C' or 'F'."""
        sound = isinstance(data, bytes) and isinstance(kind, NumpyType) and isinstance(shape, tuple)
        if not sound or order not in ("C", "F") or len(shape) > _MAX_AXES or not all(map(is_count, shape)):
            raise CheckpointError("a NumPy array is not described by bytes, type, shape and order")
        if math.prod(shape) * kind.dtype.itemsize != len(data) or math.prod(size or 1 for size in shape) >= _MAX_SIZE:
            raise CheckpointError(f"a NumPy array of shape {shape} has {len(data)} bytes")
        if not data:
            self._array = np.zeros(shape, kind.dtype.newbyteorder("="))
        elif kind.dtype == bool:  # a byte that is neither 0 nor 1 is no valid value
            self._array = (np.frombuffer(data, np.uint8) != 0).reshape(shape, order=order)
        else:
            native = kind.dtype.newbyteorder("=")
            self._array = np.frombuffer(data, kind.dtype).astype(native, copy=False).reshape(shape, order=order)

    def array(self) -> np.ndarray:
        """The values, in this machine's byte order."""
        if self._array is None:
            raise CheckpointError("a NumPy array has no values")
        return self._array


class Namespace(dict):
    """The attributes of an `argparse.Namespace`."""


@dataclass(frozen=True)
class Inert:
    """Stands for a value that is of no use here, by its kind."""

    name: str
