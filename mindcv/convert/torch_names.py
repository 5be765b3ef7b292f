"""The names that the pickle of a PyTorch file may hold, and the inert value that each makes.

A pickle asks for functions and classes by name. No such function is ever looked up: a name is a key of the tables here,
or the file is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable

from mindcv.convert.file_bytes import DTYPES, quoted
from mindcv.convert.torch_values import Inert, Namespace, NumpyArray, NumpyType, TorchTensor, TypedStorage
from mindcv.utils.errors import CheckpointError

__all__ = ["STORAGE_DTYPES", "Name", "call", "put", "resolve"]

Spend = Callable[[int], None]

_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
# Class of a storage -> type of its elements.
STORAGE_DTYPES = {
    **{f"torch.{name}": dtype for name, dtype in _STORAGES.items()},
    **{f"torch.cuda.{name}": dtype for name, dtype in _STORAGES.items()},
    "torch.storage.UntypedStorage": "uint8",
}
_TORCH_DTYPES = {f"torch.{dtype}": dtype for dtype in DTYPES}
_TENSOR_CLASSES = {"torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"}

# What older versions call a module that newer ones moved.
_MOVED = (
    (re.compile(r"__builtin__\."), "builtins."),
    (re.compile(r"numpy\.core\."), "numpy._core."),
    (re.compile(r"pathlib\._local\."), "pathlib."),
)


@dataclass(frozen=True)
class Name:
    """A known name that the pickle mentions; it does nothing unless `call` finds it in the table of calls."""

    full: str


def resolve(module: str, attribute: str) -> Name:
    """The known name `module.attribute`.

    Raises:
        CheckpointError: it is not known.
    """
    full = f"{module}.{attribute}"
    for pattern, to in _MOVED:
        full = pattern.sub(to, full) if pattern.match(full) else full
    if full in _CALLS or full in _KNOWN:
        return Name(full)
    what = next((words for sign, words in _UNREADABLE.items() if sign in full), "which is no tensor and no plain value")
    raise CheckpointError(f"it holds {quoted(full)}, {what}; nothing of it was run")


def call(name: Any, args: Any, spend: Spend) -> Any:
    """What the file's call of `name` makes: a plain or inert value.

    Args:
        name: a `Name`, else the file is refused.
        args: the arguments in the file, a tuple of anything.
        spend: told the number of items or bytes that are gone through or copied; it raises when they outgrow the file,
            as they do when one value is used over and over.

    Raises:
        CheckpointError: the name is none that is called, or the arguments are not its own.
    """
    if not isinstance(name, Name) or name.full not in _CALLS or not isinstance(args, tuple):
        raise CheckpointError(f"it calls {quoted(name.full) if isinstance(name, Name) else 'what is no function'}")
    spend(len(args))
    try:
        return _CALLS[name.full](spend, *args)
    except TypeError:  # another number of arguments than the function here has
        raise CheckpointError(f"it calls {name.full} with other arguments than PyTorch does") from None


def put(target: dict, key: Any, value: Any) -> None:
    """`target[key] = value` for keys that are cheap to hash: numbers, strings, and short tuples of them."""
    if not _is_key(key) and not (isinstance(key, tuple) and len(key) <= 8 and all(map(_is_key, key))):
        raise CheckpointError(f"a dictionary has a key of type {type(key).__name__}")
    target[key] = value


def _is_key(value: Any) -> bool:
    # Integers of any size would allow as many of one hash as one likes.
    return value is None or type(value) in (str, bool, float, bytes) or type(value) is int and abs(value) < 2**63


def _tensor_v1(spend: Spend, typed: Any, offset: Any, shape: Any, strides: Any) -> TorchTensor:
    if not isinstance(typed, TypedStorage):
        raise CheckpointError("a tensor has no storage")
    return TorchTensor.over(typed, offset, shape, strides)


def _tensor_v2(
    spend: Spend,
    typed: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    requires_grad: Any,
    hooks: Any,
    metadata: Any = None,
) -> TorchTensor:
    if metadata:  # the values are to be negated or conjugated
        raise CheckpointError("a tensor is a lazy negation or conjugate, which is not read")
    return _tensor_v1(spend, typed, offset, shape, strides)


def _tensor_v3(
    spend: Spend,
    typed: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    requires_grad: Any,
    hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> TorchTensor:
    if not isinstance(dtype, Name) or dtype.full not in _TORCH_DTYPES or not isinstance(typed, TypedStorage):
        raise CheckpointError("a tensor has no storage or no type")
    typed = TypedStorage(typed.storage, _TORCH_DTYPES[dtype.full])
    return _tensor_v2(spend, typed, offset, shape, strides, requires_grad, hooks, metadata)


def _parameter(spend: Spend, data: Any, requires_grad: Any, hooks: Any, state: Any = None) -> TorchTensor:
    if not isinstance(data, TorchTensor):
        raise CheckpointError("a parameter is no tensor")
    return data


def _tensor_with_attributes(spend: Spend, function: Any, kind: Any, args: Any, state: Any) -> Any:
    # Only the tensor builders: a call that may call would be recursion as deep as the file likes.
    sound = isinstance(function, Name) and function.full in _TENSOR_BUILDERS
    if not sound or not isinstance(kind, Name) or kind.full not in _TENSOR_CLASSES:
        raise CheckpointError("a tensor is of a class that is not read")
    return call(function, args, spend)


def _ordered(spend: Spend, pairs: Any = ()) -> dict:
    spend(len(pairs) if isinstance(pairs, (list, tuple)) else 0)
    if not isinstance(pairs, (list, tuple)) or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
        raise CheckpointError("an OrderedDict is made of something else than pairs")
    made: dict = {}
    for key, value in pairs:
        put(made, key, value)
    return made


def _defaultdict(spend: Spend, factory: Any = None) -> dict:
    return {}


def _counter(spend: Spend, counts: Any = None) -> dict:
    if not isinstance(counts, dict):
        raise CheckpointError("a Counter is made of something else than a dictionary")
    spend(len(counts))
    return dict(counts)


def _set(spend: Spend, items: Any = ()) -> list:
    if not isinstance(items, (list, tuple)):
        raise CheckpointError("a set is made of something else than a list")
    spend(len(items))
    return list(items)


def _size(spend: Spend, sizes: Any) -> tuple:
    if not isinstance(sizes, tuple):
        raise CheckpointError("a torch.Size is made of something else than a tuple")
    return sizes


def _device(spend: Spend, kind: Any, index: Any = None) -> Inert:
    return Inert("torch.device")


def _bytes(spend: Spend, text: Any = "", encoding: Any = "latin1") -> bytes:
    # Protocol 2 has no bytes: each becomes the character of its number.
    spend(len(text) if isinstance(text, str) else 0)
    if not isinstance(text, str) or encoding != "latin1" or max(text, default="") > "\xff":
        raise CheckpointError("a byte string is not written as pickle writes them")
    return text.encode("latin1")


def _path(spend: Spend, *parts: Any) -> str:
    if not all(isinstance(part, str) for part in parts):
        raise CheckpointError("a path is made of something else than strings")
    spend(sum(map(len, parts)))
    return "/".join(parts)


def _namespace(spend: Spend) -> Namespace:
    return Namespace()


def _numpy_type(spend: Spend, name: Any, align: Any = False, copy: Any = True) -> NumpyType:
    return NumpyType(name)


def _numpy_scalar(spend: Spend, kind: Any, data: Any) -> Any:
    return _numpy_buffer(spend, data, kind, (), "C").array().item()


def _numpy_array(spend: Spend, kind: Any, shape: Any, filler: Any) -> NumpyArray:
    if kind != Name("numpy.ndarray"):
        raise CheckpointError("a NumPy array is of a class that is not read")
    return NumpyArray()


def _numpy_buffer(spend: Spend, data: Any, kind: Any, shape: Any, order: Any) -> NumpyArray:
    made = NumpyArray()
    spend(len(data) if isinstance(data, bytes) else 0)
    made.set(data, kind, shape, order)
    return made


def _inert(name: str) -> Callable[..., Inert]:
    def make(spend: Spend, *args: Any) -> Inert:
        return Inert(name)

    return make


_TENSOR_BUILDERS: Mapping[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor_v1,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
_CALLS: Mapping[str, Callable[..., Any]] = {
    **_TENSOR_BUILDERS,
    "torch._tensor._rebuild_from_type_v2": _tensor_with_attributes,
    "torch.Size": _size,
    "torch.device": _device,
    "collections.OrderedDict": _ordered,
    "collections.defaultdict": _defaultdict,
    "collections.Counter": _counter,
    "builtins.set": _set,
    "builtins.frozenset": _set,
    "builtins.bytes": _bytes,
    "_codecs.encode": _bytes,
    "argparse.Namespace": _namespace,
    "types.SimpleNamespace": _namespace,
    "numpy.dtype": _numpy_type,
    "numpy._core.multiarray.scalar": _numpy_scalar,
    "numpy._core.multiarray._reconstruct": _numpy_array,
    "numpy._core.numeric._frombuffer": _numpy_buffer,
    **{f"pathlib.{name}": _path for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")},
    **{f"datetime.{name}": _inert(f"datetime.{name}") for name in ("date", "datetime", "time", "timedelta")},
}
# Names that stand as a value or an argument.
_KNOWN = {
    *STORAGE_DTYPES,
    *_TORCH_DTYPES,
    *_TENSOR_CLASSES,
    "numpy.ndarray",
    # Factories of a defaultdict; long and unicode are Python 2's.
    *(f"builtins.{name}" for name in ("dict", "list", "int", "long", "float", "str", "unicode", "bool")),
}
# Part of a name -> why the file is refused, where one can say more.
_UNREADABLE = {
    "_rebuild_qtensor": "a quantised tensor, which is not read",
    "_rebuild_sparse": "a sparse tensor, which is not read",
    "_rebuild_nested": "a nested tensor, which is not read",
    "_rebuild_meta": "a tensor without data",
    "torch.float8": "a type of element that is not read",
    "torch.Q": "a quantised tensor, which is not read",
    "torch.nn.modules": "part of a whole pickled module: save its state_dict() instead",
}
