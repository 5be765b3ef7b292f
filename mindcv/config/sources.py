"""The sources of options, which are the command line and YAML files, and the text of `--help`.

Nothing here raises for what the user wrote: every problem becomes a sentence in a list, so that all are told at once.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Optional, Union

import yaml

from mindcv.config.parsing import Option, Words
from mindcv.utils.errors import closest_file, nearest

__all__ = ["Findings", "Given", "help_text", "read_command_line", "read_yaml"]

# Option -> (the place where it was given, the value as it was written there).
Given = dict[str, tuple[str, Any]]

# Names in earlier versions of MindCV, and the options that replaced them.
_RENAMED = {
    "filter_bias_and_bn": "weight_decay_filter ('auto' is what True was, 'disable' what False was)",
    "dynamic_loss_scale": "loss_scale_type ('dynamic' is what True was, 'fixed' what False was)",
}
# Names that other libraries use, where the nearest name is a different option or none.
_OTHER_NAMES = {
    "learning_rate": "lr",
    "wd": "weight_decay",
    "optimizer": "opt",
    "sched": "scheduler",
    "b": "batch_size",
    "j": "num_parallel_workers",
    "workers": "num_parallel_workers",
    "img_size": "image_resize",
    "image_size": "image_resize",
    "input_size": "image_resize",
    "arch": "model",
    "weights": "ckpt_path",
    "checkpoint": "ckpt_path",
    "output": "ckpt_save_dir",
    "output_dir": "ckpt_save_dir",
    "input": "image_path",
    "smoothing": "label_smoothing",
    "drop_path": "drop_path_rate",
    "dropout": "drop_rate",
}
# The dash of the keyboard, and dashes of text processors, which copied commands can contain.
_DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2212"
_HELP_WIDTH = 100


@dataclass
class Findings:
    """Sentences about the given options: problems are errors, warnings are allowed but probably not meant."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def read_command_line(
    argv: Sequence[str], options: Mapping[str, Option], elsewhere: Mapping[str, str], findings: Findings
) -> tuple[Given, bool]:
    """Return the flags of `argv`, and whether the user asks for help.

    A flag is `--key value`, `--key=value`, `--key` alone for true, or `-c` for `--config`; a list is several words.
    The last value of a flag that is given twice counts, with a warning.

    Args:
        argv: words of the command line.
        options: the options that the script uses.
        elsewhere: name of an option that the script does not use -> sentence that says which scripts use it.
        findings: receives the problems and warnings.
    """
    given: Given = {}
    wants_help = False
    for flag, words in _flags(argv):
        name = flag[2:]
        if words[:1] == ["="] and name in options:
            findings.problems.append(f"{flag}: write '{flag}={' '.join(words[1:])}' without spaces around '='")
            continue
        for word in [word for word in words[1:] if word.partition("=")[0] in options and "=" in word]:
            findings.problems.append(_stray_word(word, options))
            words.remove(word)
        if flag in ("-h", "--help"):
            wants_help = True
        elif not flag:
            findings.problems.append(_stray_word(words[0], options))
        elif not flag.startswith("--"):
            findings.problems.append(_single_dash(flag, words, options))
        elif name not in options:
            told = elsewhere[name] + _meant(name, options) if name in elsewhere else unknown_option(name, options)
            findings.problems.append(f"{flag}: {told}")
        elif not words and options[name].type is not bool:
            expected = f"{options[name].expected} ({options[name].help})"
            findings.problems.append(f"{flag}: a value is missing, expected {expected}")
        else:
            if name in given:
                before, last = (" ".join(w) if w else "True" for w in (given[name][1], words))
                findings.warnings.append(f"{flag} is given twice: the last value, {last!r}, is used and not {before!r}")
            given[name] = (flag, words)
    return {name: (flag, words or True) for name, (flag, words) in given.items()}, wants_help


def unknown_option(name: str, options: Mapping[str, Option]) -> str:
    """Return the sentence about a key or flag that is not in `options`."""
    if name in _RENAMED:
        return f"'{name}' is now {_RENAMED[name]}"
    return f"there is no option '{name}'" + (_meant(name, options) or nearest(name, options))


def _meant(name: str, options: Mapping[str, Option]) -> str:
    """Return a question about the option that has this name in other software; '' if `options` has none."""
    meant = _OTHER_NAMES.get(name.replace("-", "_"))
    return f"; did you mean '{meant}'?" if meant in options else ""


def _stray_word(word: str, options: Mapping[str, Option]) -> str:
    told = f"command line: '{word}' belongs to no flag"
    if word.partition("=")[0] in options:
        return f"{told}; write '--{word}'"
    if word.endswith((".yaml", ".yml")):
        return f"{told}; a recipe is given as '--config {word}'"
    return f"{told}; a value follows the name of its option, as in '--option {word}'"


def _single_dash(flag: str, words: Sequence[str], options: Mapping[str, Option]) -> str:
    name = flag.lstrip(_DASHES)
    meant = " ".join([f"--{name}", *words])
    found = f"write '{meant}'" if name in options else unknown_option(name, options)
    return f"{flag}: options start with two dashes ('--'); {found}"


def _is_wrong_flag(word: str) -> bool:
    """Whether a word is meant as a flag, although it has one dash or dashes of a text processor."""
    name = word.lstrip(_DASHES)
    is_name = name.partition("=")[0].replace("-", "_").isidentifier()  # and not a file name
    return name != word and is_name and word.lower() not in ("-inf", "-nan")


def _flags(argv: Sequence[str]) -> Iterator[tuple[str, Words]]:
    """Yield each flag with the words after it. Words before the first flag come one by one, with an empty flag."""
    flag, words = "", Words()
    for word in argv:
        if word.startswith("--") or _is_wrong_flag(word):
            if flag:
                yield flag, words
            flag, equals, value = word.partition("=")
            flag, words = {"-c": "--config"}.get(flag, flag), Words([value] if equals else [])
        elif flag:
            words.append(word)
        else:
            yield "", Words([word])
    if flag:
        yield flag, words


def read_yaml(path: str, options: Mapping[str, Option], findings: Findings) -> Given:
    """Return the keys of a flat YAML file that are in `options`."""
    given: Given = {}
    for line, key, value in _yaml_items(path, findings.problems):
        where = f"{path}:{line}: {key}"
        if key in given:
            findings.problems.append(f"{where}: given twice, first at {given[key][0].rsplit(':', 1)[0]}")
        elif key == "config":
            findings.problems.append(f"{where}: a YAML file cannot name another")
        elif key not in options:
            findings.problems.append(f"{where}: {unknown_option(key, options)}")
        else:
            given[key] = (where, value)
    return given


def _yaml_items(path: str, problems: list[str]) -> list[tuple[int, str, Any]]:
    """Return (line, key, value) for each entry of the mapping in a YAML file; duplicate keys are kept."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            problems.append(f"{path}: {_not_a_mapping(node)}; expected lines of the form 'key: value'")
            return []
        build = partial(loader.construct_object, deep=True)
        return [(key.start_mark.line + 1, str(build(key)), build(value)) for key, value in node.value]
    except OSError as error:
        problems.append(f"--config: cannot read '{path}': {error.strerror}{_yaml_files_near(path)}")
    except UnicodeDecodeError:
        problems.append(f"--config: '{path}' is not text in UTF-8")
    except (yaml.YAMLError, ValueError) as error:
        problems.append(f"{path}: not valid YAML{_yaml_fault(error)}")
    return []


def _not_a_mapping(node: Union[yaml.Node, None]) -> str:
    if node is None:
        return "the file holds no options"
    return "the file holds a list" if isinstance(node, yaml.SequenceNode) else "the file holds a single value"


def _yaml_fault(error: Exception) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or not problem:
        return f": {' '.join(str(error).split())}"
    if r"'\t'" in problem:
        problem = "a tab stands where YAML allows spaces only"
    return f" in line {mark.line + 1}, column {mark.column + 1}: {problem}"


def _yaml_files_near(path: str) -> str:
    """Suggest YAML files for a path that is a folder or does not exist."""
    if not path:
        return ""
    if os.path.isdir(path):
        found = sorted(file.name for file in Path(path).glob("*.yaml"))
        return f" (it holds {', '.join(found[:8])}{' ...' if found[8:] else ''})" if found else ""
    # A recipe is often named without its folder, or with the folder of another family.
    places = [*Path("configs").glob("*"), Path(path).parent]
    files = {file.name: file for place in places for file in sorted(place.glob("*.yaml"))}
    name = Path(path).name
    close = f"{name}.yaml" if f"{name}.yaml" in files else closest_file(name, files)
    return "" if close is None else f"; did you mean '{files[close]}'?"


def help_text(summary: str, options: Mapping[str, Option], required: Mapping[str, str]) -> str:
    """Return the text of `--help`, which lists the options by group, in order.

    `required` maps each required option to the words that stand in place of its default.
    """
    lines = [summary]
    if "config" in options:
        lines += ["", "An option on the command line overrides the YAML file (--config), which overrides the default."]
    for group in dict.fromkeys(option.group for option in options.values()):
        lines += ["", f"{group}:"]
        lines += [_help_of(option, required.get(option.name)) for option in options.values() if option.group == group]
    return "\n".join(lines)


def _help_of(option: Option, required: Optional[str]) -> str:
    flag = "-c, --config" if option.name == "config" else f"--{option.name}"
    default = required or f"default {_shown(option.default)}"
    described, expected = f"  {flag}: {option.help}", f"({option.expected}; {default})"
    if len(described) + 1 + len(expected) <= _HELP_WIDTH:
        return f"{described} {expected}"
    wrap = partial(textwrap.wrap, width=_HELP_WIDTH, break_long_words=False, break_on_hyphens=False)
    indent = " " * 6
    return "\n".join(
        [*wrap(described, subsequent_indent=indent), *wrap(expected, initial_indent=indent, subsequent_indent=indent)]
    )


def _shown(default: Any) -> str:
    if isinstance(default, list) and default:
        return " ".join(f"{number:g}" for number in default)
    return "empty" if default == "" else repr(default)
