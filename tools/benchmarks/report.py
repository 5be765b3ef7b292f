"""Figures as JSON and as tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Optional

from benchmarks.machine import describe_machine
from benchmarks.options import BenchmarkConfig
from mindcv.utils.files import atomic_write_text

__all__ = ["COLUMNS", "as_report", "cells", "contender_table", "machine_line", "markdown_table", "write_json"]

COLUMNS = ("contender", "images/s", "min to max", "ratio", "first step, s", "peak memory, MiB")
_GROWTH = "memory growth, MiB"


def as_report(config: BenchmarkConfig, summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The result as one JSON object: at its top the first contender's figures, in `contenders` those of all."""
    first = {key: value for key, value in summaries[0].items() if key != "name"}
    settings = config.settings
    threads = settings.pop("threads")
    return {
        "settings": settings,
        "threads": threads,
        "machine": describe_machine(),
        **first,
        "contenders": list(summaries),
    }


def write_json(path: str, report: dict[str, Any]) -> None:
    """Write a report; the file is whole or not there."""
    atomic_write_text(path, json.dumps(report, indent=2) + "\n")


def contender_table(report: dict[str, Any]) -> str:
    """The contenders of one report, a row each."""
    is_data = report["settings"]["task"] == "data"
    header = [*COLUMNS, _GROWTH] if is_data else COLUMNS
    return markdown_table(header, cells(report, with_growth=is_data))


def cells(report: dict[str, Any], with_growth: bool = False) -> list[list[str]]:
    """The text of `COLUMNS` for each contender; the ratio is of medians, to the first contender's."""
    rows = []
    for figures in report["contenders"]:
        low, high = figures["images_per_s_min"], figures["images_per_s_max"]
        row = [
            figures["name"],
            _shown(figures["images_per_s_median"]),
            f"{_shown(low)} to {_shown(high)}",
            f"{figures['images_per_s_median'] / report['contenders'][0]['images_per_s_median']:.2f}",
            _shown(figures["first_step_s"]),
            _shown(figures["peak_memory_mib"]),
        ]
        rows.append([*row, _shown(figures["memory_growth_mib"])] if with_growth else row)
    return rows


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], num_names: int = 1) -> str:
    """A table that reads well as text too: padded, the first `num_names` columns to the left, others to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        names = [text.ljust(width) for text, width in zip(row[:num_names], widths)]
        numbers = [text.rjust(width) for text, width in zip(row[num_names:], widths[num_names:])]
        return f"| {' | '.join(names + numbers)} |"

    rule = ["-" * width for width in widths[:num_names]] + ["-" * (width - 1) + ":" for width in widths[num_names:]]
    return "\n".join([line(header), line(rule), *(line(row) for row in rows)])


def machine_line(reports: Sequence[dict[str, Any]]) -> str:
    """Processor, cores, instruction sets and memory of reports of one machine, and the versions of what ran on it."""
    machine = reports[0]["machine"]
    parts = [machine["cpu_model"] or "unknown processor", f"{machine['cores']} cores"]
    if machine["instruction_sets"] is not None:
        parts.append(" ".join(machine["instruction_sets"]) or "no AVX2")
    if machine["memory_mib"] is not None:
        parts.append(f"{machine['memory_mib'] / 1024:.0f} GiB")
    return f"{', '.join(parts)}; {', '.join(_versions(reports))}."


def _versions(reports: Sequence[dict[str, Any]]) -> list[str]:
    """'package version' of all contenders; where they differ in one, with the contenders of each version."""
    users: dict[str, dict[str, list[str]]] = {}
    for figures in (figures for report in reports for figures in report["contenders"]):
        for package, version in figures["versions"].items():
            names = users.setdefault(package, {}).setdefault(version, [])
            if figures["name"] not in names:
                names.append(figures["name"])
    lines = []
    for package, versions in users.items():
        notes = [
            f"{version} ({' '.join(names)})" if len(versions) > 1 else version for version, names in versions.items()
        ]
        lines.append(f"{package} {' / '.join(notes)}")
    return lines


def _shown(value: Optional[float]) -> str:
    """At least two and mostly three digits that mean something; no more could be told from noise."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
