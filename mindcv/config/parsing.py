"""The `Option` record, and the conversion of words and YAML values to the type of an option."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, Optional, Union

from mindcv.utils.errors import nearest

__all__ = ["Option", "Words", "options_of", "read_value", "used_options"]

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")
_NONE = ("none", "null", "")
# Values that other libraries use, where no allowed value has a similar name.
_OTHER_VALUES = {
    "cuda": "GPU",
    "npu": "Ascend",
    "cross_entropy": "CE",
    "crossentropy": "CE",
    "cosine": "cosine_decay",
    "fp16": "float16",
    "half": "float16",
    "bf16": "bfloat16",
}


@dataclasses.dataclass(frozen=True)
class Option:
    """One option, as its field in the configuration class declares it. Bounds apply to each element of a list.

    `scripts` names the scripts that use the option; it is empty when every script does whose class has the field.
    `is_verbatim` is for lists of file names: each word is one element, even if it contains commas or spaces.
    """

    name: str
    type: Any
    default: Any
    help: str
    group: str
    choices: tuple = ()
    scripts: tuple = ()
    low: Optional[float] = None
    above: Optional[float] = None
    high: Optional[float] = None
    below: Optional[float] = None
    is_verbatim: bool = False

    @property
    def expected(self) -> str:
        """Describe the allowed values in words."""
        words = _in_words(self.type)
        if self.choices:
            listed = ", ".join(str(choice) or repr(choice) for choice in self.choices)
            if not typing.get_origin(self.type):
                words = f"one of {listed}"
            elif self.type == Optional[str]:
                words = f"one of {listed} or None"
            elif self.type == Union[bool, str]:
                words = f"true, false or {listed}"
            else:
                words = f"{words} ({listed})"
        bounds = (("at least", self.low), ("above", self.above), ("at most", self.high), ("below", self.below))
        limits = [f"{word} {bound:g}" for word, bound in bounds if bound is not None]
        return words + (f", {' and '.join(limits)}" if limits else "")

    def within(self, value: Any) -> bool:
        """Whether each number in `value` is within the bounds."""
        numbers = value if isinstance(value, (list, tuple)) else [value]
        return all(
            (self.low is None or n >= self.low)
            and (self.above is None or n > self.above)
            and (self.high is None or n <= self.high)
            and (self.below is None or n < self.below)
            for n in numbers
            if isinstance(n, (int, float))
        )


@cache
def options_of(config_class: type) -> Mapping[str, Option]:
    """Return the options that a configuration class declares, by name, in order."""
    hints = typing.get_type_hints(config_class)
    options = {}
    for field in dataclasses.fields(config_class):
        if "help" in field.metadata:
            made = field.default_factory is not dataclasses.MISSING
            default = field.default_factory() if made else field.default
            options[field.name] = Option(field.name, hints[field.name], default, **field.metadata)
    return MappingProxyType(options)


@cache
def used_options(config_class: type) -> Mapping[str, Option]:
    """Return the options that the script of a configuration class uses, by name; its own options come first."""
    script = config_class.script
    options = options_of(config_class).items()
    used = {name: option for name, option in options if not (script and option.scripts) or script in option.scripts}
    return MappingProxyType({**{name: option for name, option in used.items() if not option.scripts}, **used})


def read_value(option: Option, raw: Any) -> Any:
    """Convert `raw` (a YAML value, a word of the command line, or a list of words) to the type of the option.

    Raises:
        ValueError: it is not one; the message says what is expected.
    """
    if option.is_verbatim and isinstance(raw, (str, Words)):
        raw = [raw] if isinstance(raw, str) else list(raw)
    if isinstance(raw, Words) and len(raw) == 1:
        raw = raw[0]
    wrong = f"expected {option.expected}, got {_shown(raw)}"
    if isinstance(raw, str) and option.choices:
        meant = _OTHER_VALUES.get(raw.lower())
        wrong += f"; did you mean '{meant}'?" if meant in option.choices else nearest(raw, map(str, option.choices))
    try:
        # For options where '' means "not given", null means the same.
        value = "" if option.default == "" and _is_none(raw) else _convert(option.type, raw)
        value = _canonical(option.choices, value)
    except (ValueError, OverflowError):
        raise ValueError(wrong + _with_point(option, raw)) from None
    if not option.within(value):
        raise ValueError(wrong + _as_share(option, value))
    return value


def _with_point(option: Option, raw: Any) -> str:
    """Suggest what to write instead of a decimal comma, for an option that is one number."""
    if option.type not in (float, Optional[float]) or not isinstance(raw, str) or raw.count(",") != 1:
        return ""
    text = raw.strip(",").replace(",", ".")
    return f"; write {text}" if text.replace(".", "", 1).replace("e-", "", 1).isdigit() else ""


def _as_share(option: Option, value: Any) -> str:
    """Suggest what to write instead of a percentage, for an option that is a share."""
    is_share = option.type in (float, Optional[float]) and 1 in (option.high, option.below)
    is_percentage = is_share and isinstance(value, float) and 1 < value <= 100
    return f"; for {value:g} percent write {value / 100:g}" if is_percentage else ""


def _is_none(raw: Any) -> bool:
    return raw is None or (isinstance(raw, str) and raw.strip().lower() in _NONE)


def _shown(raw: Any) -> str:
    return repr(" ".join(raw) if isinstance(raw, Words) else raw)


class Words(list):
    """The words that follow one flag on the command line."""


def _convert(hint: Any, raw: Any) -> Any:
    """Convert `raw` to the type `hint`, or raise ValueError."""
    origin = typing.get_origin(hint)
    if origin is Union:
        return _first_that_fits(typing.get_args(hint), raw)
    if origin in (list, tuple):
        return _convert_list(origin, typing.get_args(hint), raw)
    return _CONVERTERS[hint](raw)


def _first_that_fits(hints: tuple, raw: Any) -> Any:
    if type(None) in hints and _is_none(raw):
        return None
    for hint in hints:
        if hint is not type(None):
            try:
                return _convert(hint, raw)
            except ValueError:
                pass
    raise ValueError(raw)


def _convert_list(origin: type, element_hints: tuple, raw: Any) -> Any:
    """Split `[a, b]`, `(a, b)`, `a,b`, several words, or one value into a list."""
    if isinstance(raw, Words):
        raw = " ".join(raw)
    if isinstance(raw, str):
        text = raw.strip()
        if text[:1] + text[-1:] in ("[]", "()"):
            text = text[1:-1]
        raw = [part.strip("'\"") for part in text.replace(",", " ").split()]
    elif isinstance(raw, (bool, dict)) or raw is None:
        raise ValueError(raw)
    elif not isinstance(raw, (list, tuple)):
        raw = [raw]
    if origin is tuple and len(raw) != len(element_hints):
        raise ValueError(raw)
    return origin(_convert(element_hints[0], element) for element in raw)


def _to_bool(raw: Any) -> bool:
    word = str(raw).strip().lower()
    if isinstance(raw, (bool, int, str)) and word in _TRUE + _FALSE:
        return word in _TRUE
    raise ValueError(raw)


def _to_float(raw: Any) -> float:
    # YAML 1.1 reads 1e-5, without a point, as text; so are quoted numbers and the command line.
    if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
        raise ValueError(raw)
    value = float(raw)
    if not math.isfinite(value):
        raise ValueError(raw)
    return value


def _to_int(raw: Any) -> int:
    if isinstance(raw, int) and not isinstance(raw, bool):
        return raw
    value = _to_float(raw)
    if not value.is_integer():
        raise ValueError(raw)
    return int(value)


def _to_str(raw: Any) -> str:
    if not isinstance(raw, str):
        raise ValueError(raw)
    return raw


_CONVERTERS = {bool: _to_bool, int: _to_int, float: _to_float, str: _to_str}


def _canonical(choices: tuple, value: Any) -> Any:
    """The choice that `value` is, upper or lower case. Choices restrict values of their own type alone: an option may
    also take, say, any number."""
    if not choices or not isinstance(value, type(choices[0])):
        return value
    by_lower = {str(choice).lower(): choice for choice in choices}
    if str(value).lower() not in by_lower:
        raise ValueError(value)
    return by_lower[str(value).lower()]


def _in_words(hint: Any) -> str:
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "None"}
    if hint in words:
        return words[hint]
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is Union:
        return " or ".join(_in_words(argument) for argument in arguments)
    plural = {int: "whole numbers", float: "numbers", str: "names"}[arguments[0]]
    return f"a list of {plural}" if typing.get_origin(hint) is list else f"{len(arguments)} {plural}"
