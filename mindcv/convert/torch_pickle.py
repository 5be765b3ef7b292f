"""Reads the pickle inside a PyTorch file without running anything.

A small machine of its own steps through the opcodes that PyTorch writes (pickle protocols 2 to 5); any other opcode
ends the reading, and so does a name that is not in `torch_names`. A restricted `pickle.Unpickler` would keep foreign
code out as well, but not hostile data: its memo is an array as long as the largest index asks for (9 bytes took 2 GB),
it hashes nested tuples by recursion until the process dies, and its BUILD writes into whatever is on the stack
(decision 0051).

Sets come out as lists, an OrderedDict as a dict, an `argparse.Namespace` as a `Namespace`, tensors as `TorchTensor`.
"""

from __future__ import annotations

import pickletools
import struct
from typing import Any, Callable

from mindcv.convert.file_bytes import itemsize
from mindcv.convert.torch_names import STORAGE_DTYPES, Name, call, put, resolve
from mindcv.convert.torch_values import Inert, Namespace, NumpyArray, NumpyType, Storage, TypedStorage, is_count
from mindcv.utils.errors import CheckpointError

__all__ = ["read_pickle"]

FindStorage = Callable[[str, int], Storage]

_MAX_NAME = 512


def read_pickle(data: memoryview, find_storage: FindStorage, start: int = 0) -> tuple[Any, int]:
    """The value of the pickle at byte `start` of `data`, and the byte after its end.

    Args:
        data: bytes that hold the pickle.
        find_storage: gives the storage of a key with a number of bytes; raises CheckpointError when there is none.
        start: where the pickle begins.

    Raises:
        CheckpointError: it is damaged, or holds something else than tensors and plain values.
    """
    machine = _Machine(data, find_storage, start)
    return machine.run(), machine.position


class _Machine:
    """A stack, the items above the last mark, and the memo."""

    def __init__(self, data: memoryview, find_storage: FindStorage, start: int):
        self.position = start
        self._data = data
        self._find_storage = find_storage
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []  # the stacks below each mark
        self._memo: dict[int, Any] = {}
        # What calls may go through: an honest file uses each of its bytes in a call or two, not over and over.
        self._budget = 4 * len(data) + 1024

    def run(self) -> Any:
        while True:
            at = self.position
            opcode = self.take(1)
            if opcode == b".":
                return self.pop()
            step = _STEPS.get(opcode)
            if step is None:
                known = pickletools.code2op.get(opcode.decode("latin1"))
                what = f"the opcode {known.name}" if known else f"byte {opcode[0]}"
                raise CheckpointError(f"its pickle has {what} at {at}, which PyTorch does not write")
            step(self)

    def take(self, count: int) -> bytes:
        end = self.position + count
        if end > len(self._data):
            raise CheckpointError(f"its pickle ends too early, at byte {len(self._data)}")
        piece = self._data[self.position : end].tobytes()
        self.position = end
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def text(self, size: int) -> str:
        try:
            return self.take(size).decode("utf-8")
        except UnicodeDecodeError:
            raise CheckpointError("its pickle has a string that is not UTF-8") from None

    def line(self) -> str:
        end = self._data[self.position : self.position + _MAX_NAME].tobytes().find(b"\n")
        if end < 0:
            raise CheckpointError("its pickle has a name without an end")
        name = self.text(end)
        self.position += 1
        return name

    def spend(self, count: int) -> None:
        self._budget -= count
        if self._budget < 0:
            raise CheckpointError("its pickle copies far more than it holds")

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        if not self._stack:
            raise CheckpointError("its pickle takes a value where there is none")
        return self._stack.pop()

    def top(self, kind: type) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind):
            raise CheckpointError(f"its pickle adds items to what is no {kind.__name__}")
        return self._stack[-1]

    def mark(self) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def pop_mark(self) -> list[Any]:
        if not self._marked:
            raise CheckpointError("its pickle takes a mark where there is none")
        items, self._stack = self._stack, self._marked.pop()
        return items

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.push(tuple(reversed(items)))

    def extend(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def update(self, items: list[Any]) -> None:
        target = self.top(dict)
        if len(items) % 2:
            raise CheckpointError("its pickle has a key without a value")
        for key, value in zip(items[::2], items[1::2]):
            put(target, key, value)

    def append(self) -> None:
        self.extend([self.pop()])

    def set_item(self) -> None:
        value = self.pop()
        self.update([self.pop(), value])

    def remember(self, index: int) -> None:
        self._memo[index] = self.top(object)

    def remember_next(self) -> None:
        self.remember(len(self._memo))

    def recall(self, index: int) -> None:
        if index not in self._memo:
            raise CheckpointError(f"its pickle recalls value {index}, which it has not set")
        self.push(self._memo[index])

    def mention(self, module: Any, attribute: Any) -> None:
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise CheckpointError("its pickle has a name that is no string")
        self.push(resolve(module, attribute))

    def stack_global(self) -> None:
        attribute = self.pop()
        self.mention(self.pop(), attribute)

    def reduce(self) -> None:
        args = self.pop()
        self.push(call(self.pop(), args, self.spend))

    def build(self) -> None:
        state = self.pop()
        target = self.top(object)
        if isinstance(target, Namespace):
            if not isinstance(state, dict):
                raise CheckpointError("a Namespace has no dictionary")
            self.spend(len(state))
            target.update(state)
        elif isinstance(target, NumpyType):
            target.set_state(state)
        elif isinstance(target, NumpyArray):
            self.spend(sum(len(part) for part in state if isinstance(part, bytes)) if isinstance(state, tuple) else 0)
            target.set_state(state)
        elif type(target) is not dict and not isinstance(target, Inert):  # attributes of an OrderedDict are no weights
            raise CheckpointError(f"its pickle sets attributes of a {type(target).__name__}")

    def persistent(self) -> None:
        """('storage', class, key, device, number of elements), and in the old format None for no view."""
        found = self.pop()
        if not isinstance(found, tuple) or len(found) not in (5, 6) or found[0] != "storage":
            raise CheckpointError("its pickle refers to something else than a storage")
        _, kind, key, _, numel = found[:5]
        if len(found) == 6 and found[5] is not None:
            raise CheckpointError("a storage is a view of another (PyTorch before 0.4), which is not read")
        if not isinstance(kind, Name) or kind.full not in STORAGE_DTYPES:
            raise CheckpointError("a storage has no type")
        if not isinstance(key, str) or not is_count(numel):
            raise CheckpointError("a storage has no key or size")
        dtype = STORAGE_DTYPES[kind.full]
        self.push(TypedStorage(self._find_storage(key, numel * itemsize(dtype)), dtype))


_Step = Callable[[_Machine], None]


def _constant(value: Any) -> _Step:
    return lambda machine: machine.push(value)


def _empty(kind: type) -> _Step:
    return lambda machine: machine.push(kind())


def _packed(code: str) -> _Step:
    layout = struct.Struct(code)
    return lambda machine: machine.push(layout.unpack(machine.take(layout.size))[0])


def _text(size: int) -> _Step:
    return lambda machine: machine.push(machine.text(machine.number(size)))


def _bytes(size: int) -> _Step:
    return lambda machine: machine.push(machine.take(machine.number(size)))


def _integer(size: int) -> _Step:
    return lambda machine: machine.push(int.from_bytes(machine.take(machine.number(size)), "little", signed=True))


def _tuple(count: int) -> _Step:
    return lambda machine: machine.tuple_of(count)


_STEPS: dict[bytes, _Step] = {
    b"\x80": lambda machine: machine.take(1),  # PROTO
    b"\x95": lambda machine: machine.take(8),  # FRAME, a hint for readers of streams
    b"(": _Machine.mark,
    b"0": _Machine.pop,
    b"1": _Machine.pop_mark,
    b"N": _constant(None),
    b"\x88": _constant(True),
    b"\x89": _constant(False),
    b"K": _packed("<B"),  # BININT1
    b"M": _packed("<H"),  # BININT2
    b"J": _packed("<i"),  # BININT
    b"G": _packed(">d"),  # BINFLOAT
    b"\x8a": _integer(1),  # LONG1
    b"\x8b": _integer(4),  # LONG4
    b"\x8c": _text(1),  # SHORT_BINUNICODE
    b"X": _text(4),  # BINUNICODE
    b"\x8d": _text(8),  # BINUNICODE8
    b"U": _text(1),  # SHORT_BINSTRING, of Python 2
    b"T": _text(4),  # BINSTRING, of Python 2
    b"C": _bytes(1),  # SHORT_BINBYTES
    b"B": _bytes(4),  # BINBYTES
    b"\x8e": _bytes(8),  # BINBYTES8
    b"\x96": _bytes(8),  # BYTEARRAY8
    b"]": _empty(list),
    b"}": _empty(dict),
    b")": _constant(()),
    b"\x8f": _empty(list),  # EMPTY_SET
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"t": lambda machine: machine.push(tuple(machine.pop_mark())),
    b"\x91": lambda machine: machine.push(machine.pop_mark()),  # FROZENSET
    b"a": _Machine.append,
    b"e": lambda machine: machine.extend(machine.pop_mark()),  # APPENDS
    b"\x90": lambda machine: machine.extend(machine.pop_mark()),  # ADDITEMS
    b"s": _Machine.set_item,
    b"u": lambda machine: machine.update(machine.pop_mark()),  # SETITEMS
    b"q": lambda machine: machine.remember(machine.number(1)),  # BINPUT
    b"r": lambda machine: machine.remember(machine.number(4)),  # LONG_BINPUT
    b"\x94": _Machine.remember_next,  # MEMOIZE
    b"h": lambda machine: machine.recall(machine.number(1)),  # BINGET
    b"j": lambda machine: machine.recall(machine.number(4)),  # LONG_BINGET
    b"c": lambda machine: machine.mention(machine.line(), machine.line()),  # GLOBAL
    b"\x93": _Machine.stack_global,
    b"R": _Machine.reduce,
    b"\x81": _Machine.reduce,  # NEWOBJ: a class and its arguments
    b"b": _Machine.build,
    b"Q": _Machine.persistent,
}
