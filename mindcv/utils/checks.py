"""Checks of the arguments of public functions and classes.

A failed check raises a `UserError` with one sentence that names the argument, the value found and the value expected.
NumPy's numbers count as numbers. True and False do not, and neither do NaN and infinity.

The parameter `name` of each check is the name of the argument in the message, and `value` is the value to check.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from numbers import Real
from operator import index as as_index
from typing import TYPE_CHECKING, Any, NoReturn, Optional, Union

import numpy as np

from mindcv.utils.errors import UserError, unknown_name

if TYPE_CHECKING:  # data-loader processes use this module without MindSpore
    from mindspore import nn

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

# Name of a bound -> words that precede its number in a message.
_BOUNDS = {"low": "of at least", "above": "above", "high": "at most", "below": "below"}


def is_number(value: Any) -> bool:
    """Return whether the value is a finite real number."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def are_numbers(values: Any, count: Optional[int] = None) -> bool:
    """Return whether the value is a list, tuple or array of finite real numbers, of length `count` if it is given."""
    items = _items(values)
    return items is not None and count in (None, len(items)) and all(map(is_number, items))


def check_number(name: str, value: Any, **bounds: Optional[float]) -> Any:
    """Return the value unchanged if it is a number within the bounds.

    Args:
        name: name of the argument.
        value: value to check.
        **bounds: `low` and `high` are inclusive bounds, `above` and `below` are exclusive ones.
    """
    if not is_number(value) or not _is_within(value, bounds):
        _refuse(name, value, f"a number{_in_words(bounds)}")
    return value


def check_not_negative(**values: Any) -> None:
    """Raise an error for the first of the named values that is not a number of at least 0."""
    for name, value in values.items():
        check_number(name, value, low=0)


def check_positive(**values: Any) -> None:
    """Raise an error for the first of the named values that is not a number above 0."""
    for name, value in values.items():
        check_number(name, value, above=0)


def check_numbers(name: str, values: Any, count: Optional[int] = None, **bounds: Optional[float]) -> Any:
    """Return the list, tuple or array unchanged if each item is a number within the bounds (see `check_number`)."""
    if not are_numbers(values, count) or not all(_is_within(value, bounds) for value in values):
        expected = "a list of numbers" if count is None else f"a list of {count} number{'s' * (count != 1)}"
        _refuse(name, values, f"{expected}{', each' * bool(bounds)}{_in_words(bounds)}")
    return values


def check_int(name: str, value: Any, low: Optional[int] = None, high: Optional[int] = None, note: str = "") -> int:
    """Return the value as an int if it is a whole number within the bounds. `note` ends the error message."""
    number = _as_int(value)
    bounds = {"low": low, "high": high}
    if number is None or not _is_within(number, bounds):
        _refuse(name, value, f"a whole number{_in_words(bounds)}{note}")
    return number


def check_ints(
    name: str, values: Any, count: Optional[int] = None, low: Optional[int] = None, high: Optional[int] = None
) -> tuple[int, ...]:
    """Return the values as a tuple of ints if each is a whole number within the bounds."""
    items, bounds = _items(values), {"low": low, "high": high}
    numbers = None if items is None else [_as_int(item) for item in items]
    is_right = numbers is not None and None not in numbers and count in (None, len(numbers))
    if not is_right or not all(_is_within(number, bounds) for number in numbers):
        expected = "a list of whole numbers" if count is None else f"a list of {count} whole numbers"
        _refuse(name, values, f"{expected}{', each' * bool(_in_words(bounds))}{_in_words(bounds)}")
    return tuple(numbers)


def check_flags(**flags: Any) -> None:
    """Raise an error for the first flag that is not True, False, 1 or 0. A text such as 'False' would count as True."""
    for name, value in flags.items():
        if not isinstance(value, (bool, np.bool_)) and not (isinstance(value, int) and value in (0, 1)):
            _refuse(name, value, "True or False")


def check_text(name: str, value: Any) -> str:
    """Return the value if it is a string."""
    if not isinstance(value, str):
        _refuse(name, value, "a string")
    return value


def check_path(name: str, value: Any) -> Union[str, os.PathLike]:
    """Return the value if it is a path: a string or an `os.PathLike`."""
    if not isinstance(value, (str, os.PathLike)):
        _refuse(name, value, "a path (a string or a pathlib.Path)")
    return value


def check_name(name: str, value: Any, known: Iterable[str], ignore_case: bool = False) -> str:
    """Return the known name that equals the value.

    Args:
        name: name of the argument, or of the kind of thing that has these names.
        value: value to check.
        known: all allowed names. An empty name may be among them, and messages do not show it.
        ignore_case: whether upper and lower case are treated as equal.
    """
    known = tuple(known)
    if not isinstance(value, str):
        _refuse(name, value, f"one of the strings {', '.join(repr(key) for key in sorted(known) if key)}")
    for key in known:
        if value == key or (ignore_case and value.lower() == key.lower()):
            return key
    raise UserError(unknown_name(name, value, filter(None, known)))


def check_kind(name: str, value: Any, kind: Union[type, tuple[type, ...]], expected: str) -> Any:
    """Return the value if it is an instance of `kind`. `expected` describes such an instance in the message."""
    if not isinstance(value, kind):
        _refuse(name, value, expected)
    return value


def check_network(name: str, value: Any) -> nn.Cell:
    """Return the value if it is a network."""
    from mindspore import nn

    return check_kind(name, value, nn.Cell, "a network (a mindspore.nn.Cell)")


def shown(value: Any) -> str:
    """Return a short description of the value for a message: its Python expression if that is short, or its type."""
    if value is None or isinstance(value, (str, int, float, list, tuple, dict, set, np.generic, os.PathLike)):
        expression = repr(value)
        if len(expression) <= 80 and "\n" not in expression:
            return expression
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
