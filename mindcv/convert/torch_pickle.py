"""Reads the pickle inside a PyTorch file without running any code from it.

A small interpreter executes the opcodes that PyTorch writes (pickle protocols 2 to 5). It refuses any other opcode, and
any name that is not in `torch_names`.

A restricted `pickle.Unpickler` would also refuse foreign code, but it does not withstand hostile data. Its memo is an
array as long as the largest index, so 9 bytes allocated 2 GB. It hashes nested tuples recursively until the process
crashes. Its opcode BUILD sets attributes of any object on the stack (decision 0051).

Sets are returned as lists, an OrderedDict as a dict, an `argparse.Namespace` as a `Namespace`, and tensors as
`TorchTensor`.
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
    """Return the value of the pickle that starts at byte `start` of `data`, and the offset of the byte after its end.

    Args:
        data: bytes that contain the pickle.
        find_storage: function from a key and a number of bytes to the storage. It raises CheckpointError if there is
            no such storage.
        start: offset of the first byte of the pickle.

    Raises:
        CheckpointError: the pickle is damaged, or contains anything other than tensors and plain values.
    """
    interpreter = _Interpreter(data, find_storage, start)
    return interpreter.run(), interpreter.position


class _Interpreter:
    """Interpreter of pickle opcodes, with the stack and the memo that the opcodes work on."""

    def __init__(self, data: memoryview, find_storage: FindStorage, start: int):
        self.position = start
        self._data = data
        self._find_storage = find_storage
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []  # the part of the stack below each mark
        self._memo: dict[int, Any] = {}
        # Number of items and bytes that all calls together may visit. An honest file uses each of
        # its bytes in one or two calls.
        self._budget = 4 * len(data) + 1024

    def run(self) -> Any:
        while True:
            at = self.position
            opcode = self.take(1)
            if opcode == b".":
                return self.pop()
            execute = _OPCODES.get(opcode)
            if execute is None:
                known = pickletools.code2op.get(opcode.decode("latin1"))
                shown = f"the opcode {known.name}" if known else f"byte {opcode[0]}"
                raise CheckpointError(f"its pickle has {shown} at byte {at}, which PyTorch does not write")
            execute(self)

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
            raise CheckpointError("its pickle has a string that is not valid UTF-8") from None

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
            raise CheckpointError("its pickle copies far more data than it contains")

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        if not self._stack:
            raise CheckpointError("its pickle takes a value from an empty stack")
        return self._stack.pop()

    def top(self, kind: type) -> Any:
        if not self._stack or not isinstance(self._stack[-1], kind):
            raise CheckpointError(f"its pickle adds items to a value that is not a {kind.__name__}")
        return self._stack[-1]

    def mark(self) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def pop_mark(self) -> list[Any]:
        if not self._marked:
            raise CheckpointError("its pickle takes a mark, but the stack has none")
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

    def memo_put(self, index: int) -> None:
        self._memo[index] = self.top(object)

    def memo_put_next(self) -> None:
        self.memo_put(len(self._memo))

    def memo_get(self, index: int) -> None:
        if index not in self._memo:
            raise CheckpointError(f"its pickle reads entry {index} of the memo before it is set")
        self.push(self._memo[index])

    def push_global(self, module: Any, attribute: Any) -> None:
        if not isinstance(module, str) or not isinstance(attribute, str):
            raise CheckpointError("its pickle has a name that is not a string")
        self.push(resolve(module, attribute))

    def stack_global(self) -> None:
        attribute = self.pop()
        self.push_global(self.pop(), attribute)

    def reduce(self) -> None:
        args = self.pop()
        self.push(call(self.pop(), args, self.spend))

    def build(self) -> None:
        state = self.pop()
        target = self.top(object)
        if isinstance(target, Namespace):
            if not isinstance(state, dict):
                raise CheckpointError("the attributes of a Namespace are not a dictionary")
            self.spend(len(state))
            target.update(state)
        elif isinstance(target, NumpyType):
            target.set_state(state)
        elif isinstance(target, NumpyArray):
            is_tuple = isinstance(state, tuple)
            self.spend(sum(len(part) for part in state if isinstance(part, bytes)) if is_tuple else 0)
            target.set_state(state)
        # The attributes of an OrderedDict and of an inert value are ignored: they are not weights.
        elif type(target) is not dict and not isinstance(target, Inert):
            raise CheckpointError(f"its pickle sets attributes of a {type(target).__name__}, which is refused")

    def push_storage(self) -> None:
        """Push the storage that a persistent id describes.

        The id is ('storage', class, key, device, number of elements). The old format appends None, or a
        description of the view if the storage is a view of another one.
        """
        persistent_id = self.pop()
        is_tuple = isinstance(persistent_id, tuple) and len(persistent_id) in (5, 6)
        if not is_tuple or persistent_id[0] != "storage":
            raise CheckpointError("its pickle has a persistent id that does not describe a storage")
        _, kind, key, _, numel = persistent_id[:5]
        if len(persistent_id) == 6 and persistent_id[5] is not None:
            raise CheckpointError("a storage is a view of another (PyTorch before 0.4), which is not supported")
        if not isinstance(kind, Name) or kind.full not in STORAGE_DTYPES:
            raise CheckpointError("a storage has no known element type")
        if not isinstance(key, str) or not is_count(numel):
            raise CheckpointError("a storage has no valid key or size")
        dtype = STORAGE_DTYPES[kind.full]
        self.push(TypedStorage(self._find_storage(key, numel * itemsize(dtype)), dtype))


_Opcode = Callable[[_Interpreter], None]


def _constant(value: Any) -> _Opcode:
    return lambda interpreter: interpreter.push(value)


def _empty(kind: type) -> _Opcode:
    return lambda interpreter: interpreter.push(kind())


def _packed(code: str) -> _Opcode:
    layout = struct.Struct(code)
    return lambda interpreter: interpreter.push(layout.unpack(interpreter.take(layout.size))[0])


def _text(size: int) -> _Opcode:
    return lambda interpreter: interpreter.push(interpreter.text(interpreter.number(size)))


def _bytes(size: int) -> _Opcode:
    return lambda interpreter: interpreter.push(interpreter.take(interpreter.number(size)))


def _integer(size: int) -> _Opcode:
    return lambda interpreter: interpreter.push(
        int.from_bytes(interpreter.take(interpreter.number(size)), "little", signed=True)
    )


def _tuple(count: int) -> _Opcode:
    return lambda interpreter: interpreter.tuple_of(count)


_OPCODES: dict[bytes, _Opcode] = {
    b"\x80": lambda interpreter: interpreter.take(1),  # PROTO
    b"\x95": lambda interpreter: interpreter.take(8),  # FRAME: a hint for readers of streams, ignored here
    b"(": _Interpreter.mark,
    b"0": _Interpreter.pop,
    b"1": _Interpreter.pop_mark,
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
    b"U": _text(1),  # SHORT_BINSTRING, from Python 2
    b"T": _text(4),  # BINSTRING, from Python 2
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
    b"t": lambda interpreter: interpreter.push(tuple(interpreter.pop_mark())),
    b"\x91": lambda interpreter: interpreter.push(interpreter.pop_mark()),  # FROZENSET
    b"a": _Interpreter.append,
    b"e": lambda interpreter: interpreter.extend(interpreter.pop_mark()),  # APPENDS
    b"\x90": lambda interpreter: interpreter.extend(interpreter.pop_mark()),  # ADDITEMS
    b"s": _Interpreter.set_item,
    b"u": lambda interpreter: interpreter.update(interpreter.pop_mark()),  # SETITEMS
    b"q": lambda interpreter: interpreter.memo_put(interpreter.number(1)),  # BINPUT
    b"r": lambda interpreter: interpreter.memo_put(interpreter.number(4)),  # LONG_BINPUT
    b"\x94": _Interpreter.memo_put_next,  # MEMOIZE
    b"h": lambda interpreter: interpreter.memo_get(interpreter.number(1)),  # BINGET
    b"j": lambda interpreter: interpreter.memo_get(interpreter.number(4)),  # LONG_BINGET
    b"c": lambda interpreter: interpreter.push_global(interpreter.line(), interpreter.line()),  # GLOBAL
    b"\x93": _Interpreter.stack_global,
    b"R": _Interpreter.reduce,
    b"\x81": _Interpreter.reduce,  # NEWOBJ: a class and its arguments
    b"b": _Interpreter.build,
    b"Q": _Interpreter.push_storage,
}
