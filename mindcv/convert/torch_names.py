"""Table of the functions and classes that the pickle of a PyTorch file may refer to.

A pickle refers to functions and classes by name. This module never imports or looks up such a function. Each known name
has a replacement here that builds plain data, and a file with any other name is refused.
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
# Name of a storage class -> type of its elements.
STORAGE_DTYPES = {
    **{f"torch.{name}": dtype for name, dtype in _STORAGES.items()},
    **{f"torch.cuda.{name}": dtype for name, dtype in _STORAGES.items()},
    "torch.storage.UntypedStorage": "uint8",
}
_TORCH_DTYPES = {f"torch.{dtype}": dtype for dtype in DTYPES}
_TENSOR_CLASSES = {"torch.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"}

# Modules that were renamed: pattern of the old name -> new name.
_RENAMED = (
    (re.compile(r"__builtin__\."), "builtins."),
    (re.compile(r"numpy\.core\."), "numpy._core."),
    (re.compile(r"pathlib\._local\."), "pathlib."),
)


@dataclass(frozen=True)
class Name:
    """A known name in the pickle. It is only a name, and `call` runs the replacement that the table has for it."""

    full: str


def resolve(module: str, attribute: str) -> Name:
    """Return the known name `module.attribute`.

    Raises:
        CheckpointError: the name is not known.
    """
    full = f"{module}.{attribute}"
    for pattern, new_name in _RENAMED:
        full = pattern.sub(new_name, full) if pattern.match(full) else full
    if full in _CALLS or full in _KNOWN:
        return Name(full)
    default = "which is neither a tensor nor a plain value"
    reason = next((words for part, words in _UNSUPPORTED.items() if part in full), default)
    raise CheckpointError(f"it refers to {quoted(full)}, {reason}; no code of the file was run")


def call(name: Any, args: Any, spend: Spend) -> Any:
    """Build the value that the file asks for by calling `name`. The result is plain data.

    Args:
        name: a `Name`; any other value is refused.
        args: arguments in the file, a tuple of any values.
        spend: function that is given the number of items or bytes that are visited or copied. It raises if the total
            exceeds the file's budget, which happens if a hostile file uses one value again and again.

    Raises:
        CheckpointError: the name cannot be called, or the arguments do not fit it.
    """
    if not isinstance(name, Name) or name.full not in _CALLS or not isinstance(args, tuple):
        callee = quoted(name.full) if isinstance(name, Name) else "a value"
        raise CheckpointError(f"it calls {callee}, which is not a known function")
    spend(len(args))
    try:
        return _CALLS[name.full](spend, *args)
    except TypeError:  # the number of arguments differs
        raise CheckpointError(f"it calls {name.full} with arguments that PyTorch does not use") from None


def put(target: dict, key: Any, value: Any) -> None:
    """Set `target[key] = value` for a key that is cheap to hash: a number, a string, or a short tuple of them.

    Raises:
        CheckpointError: the key has another type.
    """
    if not _is_key(key) and not (isinstance(key, tuple) and len(key) <= 8 and all(map(_is_key, key))):
        raise CheckpointError(f"a dictionary has a key of type {type(key).__name__}, which is not supported")
    target[key] = value


def _is_key(value: Any) -> bool:
    # With integers of any size, a hostile file could make as many keys with the same hash as it
    # likes.
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
    if metadata:  # PyTorch would negate or conjugate the values when they are used
        raise CheckpointError(
            "a tensor is a lazy negation or conjugate, which is not supported: save its resolved copy"
        )
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
        raise CheckpointError("a tensor has no storage or no element type")
    typed = TypedStorage(typed.storage, _TORCH_DTYPES[dtype.full])
    return _tensor_v2(spend, typed, offset, shape, strides, requires_grad, hooks, metadata)


def _parameter(spend: Spend, data: Any, requires_grad: Any, hooks: Any, state: Any = None) -> TorchTensor:
    if not isinstance(data, TorchTensor):
        raise CheckpointError("a parameter is not a tensor")
    return data


def _tensor_with_attributes(spend: Spend, function: Any, kind: Any, args: Any, state: Any) -> Any:
    # Only the tensor builders are allowed: a function that calls any function could recurse without
    # limit.
    sound = isinstance(function, Name) and function.full in _TENSOR_BUILDERS
    if not sound or not isinstance(kind, Name) or kind.full not in _TENSOR_CLASSES:
        raise CheckpointError("a tensor has a class that is not supported")
    return call(function, args, spend)


def _ordered(spend: Spend, pairs: Any = ()) -> dict:
    spend(len(pairs) if isinstance(pairs, (list, tuple)) else 0)
    if not isinstance(pairs, (list, tuple)) or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
        raise CheckpointError("an OrderedDict is not built from pairs")
    result: dict = {}
    for key, value in pairs:
        put(result, key, value)
    return result


def _defaultdict(spend: Spend, factory: Any = None) -> dict:
    return {}


def _counter(spend: Spend, counts: Any = None) -> dict:
    if not isinstance(counts, dict):
        raise CheckpointError("a Counter is not built from a dictionary")
    spend(len(counts))
    return dict(counts)


def _set(spend: Spend, items: Any = ()) -> list:
    if not isinstance(items, (list, tuple)):
        raise CheckpointError("a set is not built from a list")
    spend(len(items))
    return list(items)


def _size(spend: Spend, sizes: Any) -> tuple:
    if not isinstance(sizes, tuple):
        raise CheckpointError("a torch.Size is not built from a tuple")
    return sizes


def _device(spend: Spend, kind: Any, index: Any = None) -> Inert:
    return Inert("torch.device")


def _bytes(spend: Spend, text: Any = "", encoding: Any = "latin1") -> bytes:
    # Pickle protocol 2 has no byte strings. It writes each byte as the character with that number.
    spend(len(text) if isinstance(text, str) else 0)
    if not isinstance(text, str) or encoding != "latin1" or max(text, default="") > "\xff":
        raise CheckpointError("a byte string is not encoded as latin1 text, which pickle uses")
    return text.encode("latin1")


def _path(spend: Spend, *parts: Any) -> str:
    if not all(isinstance(part, str) for part in parts):
        raise CheckpointError("a path is not built from strings")
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
        raise CheckpointError("a NumPy array has a class that is not supported")
    return NumpyArray()


def _numpy_buffer(spend: Spend, data: Any, kind: Any, shape: Any, order: Any) -> NumpyArray:
    result = NumpyArray()
    spend(len(data) if isinstance(data, bytes) else 0)
    result.set(data, kind, shape, order)
    return result


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
# Names that may occur as a value or an argument, but are not called.
_KNOWN = {
    *STORAGE_DTYPES,
    *_TORCH_DTYPES,
    *_TENSOR_CLASSES,
    "numpy.ndarray",
    # Default factories of a defaultdict. long and unicode belong to Python 2.
    *(f"builtins.{name}" for name in ("dict", "list", "int", "long", "float", "str", "unicode", "bool")),
}
# Part of a name -> reason why the file is refused, for names with a known meaning.
_UNSUPPORTED = {
    "_rebuild_qtensor": "a quantised tensor, which is not supported",
    "_rebuild_sparse": "a sparse tensor, which is not supported",
    "_rebuild_nested": "a nested tensor, which is not supported",
    "_rebuild_meta": "a tensor without data",
    "torch.float8": "an element type that is not supported",
    "torch.Q": "a quantised tensor, which is not supported",
    "torch.nn.modules": "part of a whole pickled module: save its state_dict() instead",
}
