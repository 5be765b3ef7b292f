"""Values that the pickle inside a PyTorch file describes: storages, tensors that are views of them, and NumPy arrays.

An array is created on first use, once for each storage, and every tensor is a view of it. A file can therefore allocate
only a small multiple of its own size, however many tensors it lists.
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

# Largest number of elements of an expanded tensor (stride 0), which has more elements than its
# storage. The tensor is a view here, but a copy of it takes memory for all elements, so a few bytes
# must not describe terabytes.
_MAX_EXPANDED = 2**24
_MAX_AXES = 32  # NumPy's limit
# Largest number of elements in a shape whose zeros count as ones. NumPy fails on empty arrays of
# larger shapes.
_MAX_SIZE = 2**48


def is_count(value: Any) -> bool:
    """Return whether `value` is an integer from 0 up that fits into 62 bits. Booleans do not count as integers."""
    return type(value) is int and 0 <= value < 2**62


class Storage:
    """The bytes in a file that one or more tensors share.

    Args:
        nbytes: number of bytes.
        data: the bytes, or None if they follow the tensors in the file. `fill` sets them later.
        byteorder: '<' for little-endian, '>' for big-endian.
    """

    __slots__ = ("nbytes", "_arrays", "_byteorder", "_data")

    def __init__(self, nbytes: int, data: Optional[memoryview] = None, byteorder: str = "<"):
        self.nbytes = nbytes
        self._data = data
        self._byteorder = byteorder
        self._arrays: dict[str, np.ndarray] = {}

    def fill(self, data: memoryview) -> None:
        """Set the bytes. There must be `nbytes` of them."""
        self._data = data

    def array(self, dtype: str) -> np.ndarray:
        """Return all elements as a read-only array [N]. bfloat16 is converted to float32."""
        if dtype not in self._arrays:
            self._arrays[dtype] = array_of(self._data, dtype, self._byteorder)
        return self._arrays[dtype]


@dataclass(frozen=True)
class TypedStorage:
    """A storage and the type of its elements, by PyTorch's name."""

    storage: Storage
    dtype: str

    @property
    def numel(self) -> int:
        """Number of elements."""
        return self.storage.nbytes // itemsize(self.dtype)


@dataclass(frozen=True)
class TorchTensor:
    """A tensor: a view of a storage with an offset, a shape and strides, all in elements.

    `over` checks them against the size of the storage.
    """

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def over(cls, typed: TypedStorage, offset: Any, shape: Any, strides: Any) -> TorchTensor:
        """Return the tensor that a file describes by these values.

        Raises:
            CheckpointError: the values are invalid, or the tensor reaches beyond the storage.
        """
        whole = isinstance(shape, (tuple, list)) and isinstance(strides, (tuple, list))
        if not whole or len(shape) != len(strides) or len(shape) > _MAX_AXES:
            raise CheckpointError("a tensor's shape and strides do not have the same length, or are too long")
        if not all(map(is_count, (offset, *shape, *strides))):
            raise CheckpointError("a tensor's shape, strides and offset must be integers from 0 up")
        numel = math.prod(shape)
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
        if numel and last >= typed.numel:
            raise CheckpointError(f"a tensor reaches element {last} of a storage of {typed.numel} elements")
        if numel > max(typed.numel, _MAX_EXPANDED):
            raise CheckpointError(f"a tensor expands {typed.numel} elements to {numel}, which is too many")
        if math.prod(size or 1 for size in shape) >= _MAX_SIZE:
            raise CheckpointError(f"a tensor's shape is too large: {shape}")
        return cls(typed.storage, typed.dtype, offset, tuple(shape), tuple(strides))

    def array(self) -> np.ndarray:
        """Return the values as a read-only view of the storage."""
        flat = self.storage.array(self.dtype)
        if 0 in self.shape:
            return np.zeros(self.shape, flat.dtype)
        # PyTorch allows any stride for an axis of one element, even one that exceeds 64 bits in
        # bytes.
        steps = [0 if size == 1 else stride * flat.itemsize for size, stride in zip(self.shape, self.strides)]
        return np.ndarray(self.shape, flat.dtype, flat, self.offset * flat.itemsize, steps)


class NumpyType:
    """NumPy element type of a plain number. The pickle sets its byte order after the constructor."""

    __slots__ = ("dtype",)

    def __init__(self, name: Any):
        if not isinstance(name, str) or not re.fullmatch(r"[iu][1248]|f[248]|c8|c16|b1", name):
            kind = quoted(name) if isinstance(name, str) else "without a name"
            raise CheckpointError(f"a NumPy array of type {kind} is not supported")
        self.dtype = np.dtype(name)

    def set_state(self, state: Any) -> None:
        """Set the byte order from NumPy's pickled state. The state must contain nothing else."""
        plain = isinstance(state, tuple) and len(state) == 8 and state[2:] == (None, None, None, -1, -1, 0)
        if not plain or state[1] not in ("<", ">", "|", "="):
            raise CheckpointError("a NumPy type has more state than a byte order, which is not supported")
        self.dtype = self.dtype.newbyteorder(state[1])


class NumpyArray:
    """A NumPy array. The pickle sets its values after the constructor."""

    __slots__ = ("_array",)

    def __init__(self) -> None:
        self._array: Optional[np.ndarray] = None

    def set_state(self, state: Any) -> None:
        """Set the values from NumPy's pickled state: (version, shape, type, whether Fortran order, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise CheckpointError("a NumPy array is not described by five values")
        _, shape, kind, fortran, data = state
        self.set(data, kind, shape, "F" if fortran else "C")

    def set(self, data: Any, kind: Any, shape: Any, order: Any) -> None:
        """Set the values from their bytes, their `NumpyType`, the shape, and the order, 'C' or 'F'."""
        sound = isinstance(data, bytes) and isinstance(kind, NumpyType) and isinstance(shape, tuple)
        if not sound or order not in ("C", "F") or len(shape) > _MAX_AXES or not all(map(is_count, shape)):
            raise CheckpointError("a NumPy array is not described by bytes, type, shape and order")
        if math.prod(shape) * kind.dtype.itemsize != len(data) or math.prod(size or 1 for size in shape) >= _MAX_SIZE:
            raise CheckpointError(
                f"a NumPy array of shape {shape} and type {kind.dtype} does not fit its {len(data)} bytes"
            )
        if not data:
            self._array = np.zeros(shape, kind.dtype.newbyteorder("="))
        elif kind.dtype == bool:  # a file may hold bytes other than 0 and 1, which are not valid values
            self._array = (np.frombuffer(data, np.uint8) != 0).reshape(shape, order=order)
        else:
            native = kind.dtype.newbyteorder("=")
            self._array = np.frombuffer(data, kind.dtype).astype(native, copy=False).reshape(shape, order=order)

    def array(self) -> np.ndarray:
        """Return the values in this machine's byte order."""
        if self._array is None:
            raise CheckpointError("a NumPy array has no values")
        return self._array


class Namespace(dict):
    """The attributes of an `argparse.Namespace`, by name."""


@dataclass(frozen=True)
class Inert:
    """Placeholder for a value that is not needed here, such as a device or a date. `name` is its type."""

    name: str
