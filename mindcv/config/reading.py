"""Reading a command line into a configuration. All problems are collected and raised as one error."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, Callable, Optional

from mindcv.config.checks import cross_checks, without_network_options
from mindcv.config.parsing import Option, options_of, read_value, used_options
from mindcv.config.sources import Findings, Given, help_text, read_command_line, read_yaml
from mindcv.config.warnings import suspicions
from mindcv.utils.errors import ConfigError

__all__ = ["read_config", "read_tool_config"]


def read_config(
    argv: Sequence[str],
    config_class: type,
    script_classes: Sequence[type],
    checks: Sequence[Callable[[Any], list[str]]],
) -> Any:
    """See `mindcv.config.parse_args`; `script_classes` are the configuration classes of all scripts."""
    used, others = used_options(config_class), _options_of_other_scripts(config_class, script_classes)
    elsewhere = {name: _used_elsewhere(config_class.script, scripts) for name, (_, scripts) in others.items()}
    findings = Findings()
    flags, wants_help = read_command_line(argv, used, elsewhere, findings)
    if wants_help:
        _print_help(config_class, used, config_class.required)
    known = {**{name: option for name, (option, _) in others.items()}, **used}
    raw: Given = {}
    is_yaml_read = True
    if "config" in flags and len(flags["config"][1]) == 1:
        num_problems = len(findings.problems)
        raw = read_yaml(flags["config"][1][0], known, findings)
        is_yaml_read = bool(raw) or len(findings.problems) == num_problems
    _drop_other_weights(raw, flags, findings)
    raw.update(flags)

    values = _read_values(raw, known, findings)
    fields = options_of(config_class)
    sources = {name: _source(where, name) for name, (where, _) in raw.items()}
    config = config_class(**{name: value for name, value in values.items() if name in fields}, given=sources)
    config, left_out = without_network_options(config)
    ill_typed = raw.keys() - values.keys()
    if is_yaml_read:  # else the file might have named them
        findings.problems += [told for told in config.missing() if told.partition(":")[0] not in ill_typed]
    # What a checkpoint or a saved run will set is judged then, and not by the default that stands in its place.
    settled = used.keys() - ill_typed - (set(config.completed_later()) - raw.keys())
    findings.problems += cross_checks(config, settled)
    for check in checks:
        findings.problems += check(config)
    if findings.problems:
        raise ConfigError(findings.problems)
    doubts = suspicions(config, settled, is_complete=not config.completed_later())
    return replace(config, warnings=(*findings.warnings, *left_out, *doubts))


def read_tool_config(
    argv: Sequence[str], config_class: type, problems_of: Callable[[Any], list[str]]
) -> tuple[Any, list[str]]:
    """The configuration of a tool that reads no YAML file, and the warnings about its command line.

    Args:
        argv: the words after the tool's name; `--help` prints the options and ends the process.
        config_class: a dataclass with the fields of `option` and `given`, the names of the options that were set.
        problems_of: gives a sentence for each problem of a configuration whose options are well-typed.

    Raises:
        ConfigError: with a sentence for every problem there is.
    """
    options, findings = options_of(config_class), Findings()
    flags, wants_help = read_command_line(argv, options, {}, findings)
    if wants_help:
        _print_help(config_class, options)
    config = config_class(**_read_values(flags, options, findings), given=frozenset(flags))
    # Problems between options are found only when each option is right: a default may stand where one is wrong.
    problems = findings.problems or problems_of(config)
    if problems:
        raise ConfigError(problems)
    return config, findings.warnings


def _print_help(
    config_class: type, options: Mapping[str, Option], required: Optional[Mapping[str, str]] = None
) -> None:
    print(help_text(inspect.cleandoc(config_class.__doc__), options, required or {}))
    raise SystemExit(0)


def _options_of_other_scripts(
    config_class: type, script_classes: Collection[type]
) -> dict[str, tuple[Option, list[str]]]:
    """Option and scripts of every name that the script of `config_class` does not use."""
    others: dict[str, tuple[Option, list[str]]] = {}
    for other in script_classes:
        for name, option in used_options(other).items():
            others.setdefault(name, (option, []))[1].append(other.script)
    return {name: found for name, found in others.items() if name not in used_options(config_class)}


def _used_elsewhere(script: str, scripts: Sequence[str]) -> str:
    return f"{script or 'this script'} does not use this option; it belongs to {_listed(scripts)}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _drop_other_weights(from_file: Given, flags: Given, findings: Findings) -> None:
    """Let weights that the command line names replace those of the YAML file, of either kind."""
    for kind, other in (("pretrained", "ckpt_path"), ("ckpt_path", "pretrained")):
        if kind in flags and other in from_file and other not in flags:
            where, value = from_file.pop(other)
            if value and str(value).lower() not in ("false", "none"):
                findings.warnings.append(
                    f"{where}: the weights of the command line (--{kind}) replace {other} {value!r}"
                )


def _read_values(raw: Given, options: Mapping[str, Option], findings: Findings) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, (where, value) in raw.items():
        try:
            values[name] = read_value(options[name], value)
        except ValueError as error:
            findings.problems.append(f"{where}: {error}")
    return values


def _source(where: str, name: str) -> str:
    return "command line" if where.startswith("--") else where[: -len(f": {name}")]
