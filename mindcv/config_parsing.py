"""How a value of an option is read from YAML or the command line, whatever the options are.

Nothing here raises for what the user wrote: every problem is a sentence in a list, so that all can be told at once.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Optional, Union

import yaml

from mindcv.utils.errors import nearest

__all__ = ["Option", "help_text", "options_of", "read_command_line", "read_value", "read_yaml"]

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")
_NONE = ("none", "null", "")
# MindCV's names of earlier versions, and what took their place.
_RENAMED = {
    "filter_bias_and_bn": "weight_decay_filter ('auto' is what True was, 'disable' what False was)",
    "dynamic_loss_scale": "loss_scale_type ('dynamic' is what True was, 'fixed' what False was)",
}


@dataclasses.dataclass(frozen=True)
class Option:
    """One option: what the field of the configuration says about it. Bounds hold for each element of a list.

    `is_verbatim` is for lists of file names: each word is one element, even if it contains commas or spaces.
    """

    name: str
    type: Any
    default: Any
    help: str
    group: str
    choices: tuple = ()
    low: Optional[float] = None
    above: Optional[float] = None
    high: Optional[float] = None
    below: Optional[float] = None
    is_verbatim: bool = False

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        words = _in_words(self.type)
        if self.choices:
            listed = ", ".join(str(choice) or repr(choice) for choice in self.choices)
            words = f"{words} ({listed})" if typing.get_origin(self.type) else f"one of {listed}"
        bounds = (("at least", self.low), ("above", self.above), ("at most", self.high), ("below", self.below))
        limits = [f"{word} {bound:g}" for word, bound in bounds if bound is not None]
        return words + (f", {' and '.join(limits)}" if limits else "")

    def within(self, value: Any) -> bool:
        """Whether each number in `value` keeps the bounds."""
        numbers = value if isinstance(value, (list, tuple)) else [value]
        return all(
            (self.low is None or n >= self.low)
            and (self.above is None or n > self.above)
            and (self.high is None or n <= self.high)
            and (self.below is None or n < self.below)
            for n in numbers
            if isinstance(n, (int, float))
        )


def options_of(config_class: type) -> dict[str, Option]:
    """The options a configuration class declares, by name, in order."""
    hints = typing.get_type_hints(config_class)
    options = {}
    for field in dataclasses.fields(config_class):
        if "help" in field.metadata:
            made = field.default_factory is not dataclasses.MISSING
            default = field.default_factory() if made else field.default
            options[field.name] = Option(field.name, hints[field.name], default, **field.metadata)
    return options


def read_value(option: Option, raw: Any) -> Any:
    """`raw` (a YAML value, a word of the command line, or a list of words) as the option's type.

    Raises:
        ValueError: it is not one; the message says what is expected.
    """
    if option.is_verbatim and isinstance(raw, (str, _Words)):
        raw = [raw] if isinstance(raw, str) else list(raw)
    if isinstance(raw, _Words) and len(raw) == 1:
        raw = raw[0]
    wrong = f"expected {option.expected}, got {_shown(raw)}"
    if isinstance(raw, str) and option.choices:
        wrong += nearest(raw, map(str, option.choices))
    try:
        # Options for which '' means "not given" take null for it as well.
        value = "" if option.default == "" and _is_none(raw) else _convert(option.type, raw)
        value = _canonical(option.choices, value)
    except (ValueError, OverflowError):
        raise ValueError(wrong) from None
    if not option.within(value):
        raise ValueError(wrong)
    return value


def _is_none(raw: Any) -> bool:
    return raw is None or (isinstance(raw, str) and raw.strip().lower() in _NONE)


def _shown(raw: Any) -> str:
    return repr(" ".join(raw) if isinstance(raw, _Words) else raw)


class _Words(list):
    """What stood after one flag on the command line: any number of words."""


def _convert(hint: Any, raw: Any) -> Any:
    """`raw` as the type `hint`; ValueError if it is not one."""
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
    """A list from `[a, b]`, `(a, b)`, `a,b`, several words, or one bare value."""
    if isinstance(raw, _Words):
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


def unknown_option(name: str, options: dict[str, Option]) -> str:
    """A sentence for a key or flag that is none of `options`."""
    if name in _RENAMED:
        return f"'{name}' is now {_RENAMED[name]}"
    return f"there is no option '{name}'{nearest(name, options)}"


def read_command_line(
    argv: Sequence[str], options: dict[str, Option], problems: list[str]
) -> tuple[dict[str, tuple[str, Any]], bool]:
    """The flags of `argv` as `{name: (where, raw value)}`, and whether help is asked for.

    `--key value`, `--key=value`, `--key` alone for true, `-c` for `--config`, several words for a list. The last
    of a flag given twice counts, as is usual on a command line.
    """
    given: dict[str, tuple[str, Any]] = {}
    wants_help = False
    for flag, words in _flags(argv):
        if flag in ("-h", "--help"):
            wants_help = True
        elif not flag:
            problems.append(f"command line: '{words[0]}' belongs to no flag")
        elif flag[2:] not in options:
            problems.append(f"{flag}: {unknown_option(flag[2:], options)}")
        elif words:
            given[flag[2:]] = (flag, words)
        elif options[flag[2:]].type is bool:
            given[flag[2:]] = (flag, True)
        else:
            problems.append(f"{flag}: a value is missing, expected {options[flag[2:]].expected}")
    return given, wants_help


def _flags(argv: Sequence[str]) -> Iterator[tuple[str, _Words]]:
    """Each flag with the words that follow it; words before the first come one by one with an empty flag."""
    flag, words = "", _Words()
    for word in argv:
        if word.startswith("--") or word in ("-c", "-h"):
            if flag:
                yield flag, words
            flag, equals, value = word.partition("=")
            flag, words = {"-c": "--config"}.get(flag, flag), _Words([value] if equals else [])
        elif flag:
            words.append(word)
        else:
            yield "", _Words([word])
    if flag:
        yield flag, words


def read_yaml(path: str, options: dict[str, Option], problems: list[str]) -> dict[str, tuple[str, Any]]:
    """The keys of a flat YAML file as `{name: (where, raw value)}`."""
    given: dict[str, tuple[str, Any]] = {}
    for line, key, value in _yaml_items(path, problems):
        where = f"{path}:{line}: {key}"
        if key in given:
            problems.append(f"{where}: given twice, first at {given[key][0].rsplit(':', 1)[0]}")
        elif key == "config":
            problems.append(f"{where}: a YAML file cannot name another")
        elif key not in options:
            problems.append(f"{where}: {unknown_option(key, options)}")
        else:
            given[key] = (where, value)
    return given


def _yaml_items(path: str, problems: list[str]) -> list[tuple[int, str, Any]]:
    """(line, key, value) of the mapping in a YAML file; duplicate keys are kept."""
    try:
        with open(path, encoding="utf-8") as file:
            loader = yaml.SafeLoader(file.read())
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            problems.append(f"{path}: expected lines of the form 'key: value'")
            return []
        build = partial(loader.construct_object, deep=True)
        return [(key.start_mark.line + 1, str(build(key)), build(value)) for key, value in node.value]
    except OSError as error:
        problems.append(f"--config: cannot read '{path}': {error.strerror}")
    except UnicodeDecodeError:
        problems.append(f"--config: '{path}' is not text in UTF-8")
    except (yaml.YAMLError, ValueError) as error:
        problems.append(f"{path}: not valid YAML: {' '.join(str(error).split())}")
    return []


def help_text(summary: str, options: dict[str, Option]) -> str:
    """The text of `--help`, grouped as the options are."""
    lines = [summary, "", "The command line wins over the YAML file, and that over the defaults."]
    group = None
    for option in options.values():
        if option.group != group:
            group = option.group
            lines += ["", f"{group}:"]
        flag = "-c, --config" if option.name == "config" else f"--{option.name}"
        lines.append(f"  {flag}: {option.help} ({option.expected}; default {option.default!r})")
    return "\n".join(lines)
