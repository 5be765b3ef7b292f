"""Checks of the arguments of public functions and classes.

Each check raises a `UserError` of one sentence that names the argument, what was found and what is expected. NumPy's
numbers count as numbers, and True and False do not. A number is finite.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from numbers import Real
from operator import index as as_index
from typing import Any, NoReturn, Optional, Union

import numpy as np
from mindspore import nn

from mindcv.utils.errors import UserError, unknown_name

__all__ = [
    "are_numbers",
    "check_flags",
    "check_int",
    "check_ints",
    "check_kind",
    "check_name",
    "check_network",
    "check_not_negative",
    "check_number",
    "check_numbers",
    "check_path",
    "check_positive",
    "check_text",
    "is_number",
    "shown",
]

# Bound -> the words before its number.
_BOUNDS = {"low": "of at least", "above": "above", "high": "at most", "below": "below"}


def is_number(value: Any) -> bool:
    """Whether the value is a finite real number."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def are_numbers(values: Any, count: Optional[int] = None) -> bool:
    """Whether the value is a list, tuple or array of finite real numbers, `count` of them unless that is None."""
    items = _items(values)
    return items is not None and count in (None, len(items)) and all(map(is_number, items))


def check_number(name: str, value: Any, **bounds: Optional[float]) -> Any:
    """The value, unchanged.

    Args:
        name: of the argument.
        value: what was given for it.
        **bounds: `low` and `high`, which are allowed themselves, `above` and `below`, which are not.
    """
    if not is_number(value) or not _is_within(value, bounds):
        _refuse(name, value, f"a number{_in_words(bounds)}")
    return value


def check_not_negative(**values: Any) -> None:
    """Refuse the first of the named values that is not a number of at least 0."""
    for name, value in values.items():
        check_number(name, value, low=0)


def check_positive(**values: Any) -> None:
    """Refuse the first of the named values that is not a number above 0."""
    for name, value in values.items():
        check_number(name, value, above=0)


def check_numbers(name: str, values: Any, count: Optional[int] = None, **bounds: Optional[float]) -> Any:
    """The list, tuple or array of numbers, unchanged; the bounds, as in `check_number`, hold for each number."""
    if not are_numbers(values, count) or not all(_is_within(value, bounds) for value in values):
        how_many = "a list of numbers" if count is None else f"a list of {count} number{'s' * (count != 1)}"
        _refuse(name, values, f"{how_many}{', each' * bool(bounds)}{_in_words(bounds)}")
    return values


def check_int(name: str, value: Any, low: Optional[int] = None, high: Optional[int] = None, note: str = "") -> int:
    """The value as an int; `note` follows the bounds in the message."""
    number = _as_int(value)
    bounds = {"low": low, "high": high}
    if number is None or not _is_within(number, bounds):
        _refuse(name, value, f"a whole number{_in_words(bounds)}{note}")
    return number


def check_ints(
    name: str, values: Any, count: Optional[int] = None, low: Optional[int] = None, high: Optional[int] = None
) -> tuple[int, ...]:
    """The values as a tuple of ints."""
    items, bounds = _items(values), {"low": low, "high": high}
    numbers = None if items is None else [_as_int(item) for item in items]
    is_right = numbers is not None and None not in numbers and count in (None, len(numbers))
    if not is_right or not all(_is_within(number, bounds) for number in numbers):
        how_many = "a list of whole numbers" if count is None else f"a list of {count} whole numbers"
        _refuse(name, values, f"{how_many}{', each' * bool(_in_words(bounds))}{_in_words(bounds)}")
    return tuple(numbers)


def check_flags(**flags: Any) -> None:
    """Refuse a flag that is neither True nor False: a text like 'False' would count as True. 0 and 1 are allowed."""
    for name, value in flags.items():
        if not isinstance(value, (bool, np.bool_)) and not (isinstance(value, int) and value in (0, 1)):
            _refuse(name, value, "True or False")


def check_text(name: str, value: Any) -> str:
    """The value, when it is a string."""
    if not isinstance(value, str):
        _refuse(name, value, "a string")
    return value


def check_path(name: str, value: Any) -> Union[str, os.PathLike]:
    """The value, when it is a path: a string or an `os.PathLike`."""
    if not isinstance(value, (str, os.PathLike)):
        _refuse(name, value, "a path (a string or a pathlib.Path)")
    return value


def check_name(name: str, value: Any, known: Iterable[str], ignore_case: bool = False) -> str:
    """The one of the `known` names that the value is.

    Args:
        name: of the argument, or of the kind of things that are known by these names.
        value: what was given.
        known: all names that are allowed. An empty one is allowed, and not told.
        ignore_case: upper and lower case are the same.
    """
    known = tuple(known)
    if not isinstance(value, str):
        _refuse(name, value, f"one of the strings {', '.join(repr(key) for key in sorted(known) if key)}")
    for key in known:
        if value == key or (ignore_case and value.lower() == key.lower()):
            return key
    raise UserError(unknown_name(name, value, filter(None, known)))


def check_kind(name: str, value: Any, kind: Union[type, tuple[type, ...]], expected: str) -> Any:
    """The value, when it is an instance of `kind`; `expected` says in the message what that is."""
    if not isinstance(value, kind):
        _refuse(name, value, expected)
    return value


def check_network(name: str, value: Any) -> nn.Cell:
    """The value, when it is a network."""
    return check_kind(name, value, nn.Cell, "a network (a mindspore.nn.Cell)")


def shown(value: Any) -> str:
    """The value as a message shows it: as it is written in Python if that is short, and else its type."""
    if value is None or isinstance(value, (str, int, float, list, tuple, dict, set, np.generic, os.PathLike)):
        written = repr(value)
        if len(written) <= 80 and "\n" not in written:
            return written
    return f"a value of type {type(value).__name__}"


def _refuse(name: str, value: Any, expected: str) -> NoReturn:
    raise UserError(f"{name} must be {expected}, got {shown(value)}")


def _as_int(value: Any) -> Optional[int]:
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        return as_index(value)
    except TypeError:
        return None


def _items(values: Any) -> Optional[list[Any]]:
    if not isinstance(values, (list, tuple, range, np.ndarray)) or getattr(values, "ndim", 1) != 1:
        return None
    return list(values)


def _is_within(value: float, bounds: dict[str, Optional[float]]) -> bool:
    low, above, high, below = (bounds.get(name) for name in _BOUNDS)
    is_high_enough = (low is None or value >= low) and (above is None or value > above)
    return is_high_enough and (high is None or value <= high) and (below is None or value < below)


def _in_words(bounds: dict[str, Optional[float]]) -> str:
    words = [f"{word} {bounds[name]:g}" for name, word in _BOUNDS.items() if bounds.get(name) is not None]
    return f" {' and '.join(words)}" if words else ""
