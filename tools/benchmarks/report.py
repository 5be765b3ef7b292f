"""Writes the figures of a benchmark as JSON and as tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Optional

from benchmarks.lock_time import CORE_COUNTS, LOCK_FIGURES, reachable
from benchmarks.machine import describe_machine
from benchmarks.options import BenchmarkConfig
from mindcv.utils.files import atomic_write_text

__all__ = [
    "COLUMNS",
    "as_report",
    "cells",
    "contender_table",
    "lock_table",
    "machine_line",
    "markdown_table",
    "write_json",
]

COLUMNS = ("contender", "images/s", "min to max", "ratio", "first step, s", "peak memory, MiB")
_GROWTH = "memory growth, MiB"


def as_report(config: BenchmarkConfig, summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the result as one JSON object.

    The top level has the figures of the first contender, and `contenders` has those of all.
    """
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
    """Write a report atomically."""
    atomic_write_text(path, json.dumps(report, indent=2) + "\n")


def contender_table(report: dict[str, Any]) -> str:
    """Return a table of one report, with a row for each contender."""
    is_data = report["settings"]["task"] == "data"
    header = [*COLUMNS, _GROWTH] if is_data else COLUMNS
    return markdown_table(header, cells(report, with_growth=is_data))


def lock_table(report: dict[str, Any]) -> str:
    """Return what the lock of Python allows: time for an image, and the images/s that numbers of cores can reach.

    It is empty if the report has no such figures.
    """
    if not set(LOCK_FIGURES) <= report.keys():
        return ""
    figures = {name: report[name] for name in LOCK_FIGURES}
    rows = []
    for count in CORE_COUNTS:
        of_threads, of_processes, num_threads = reachable(figures, count)
        rows.append([str(count), _shown(of_threads), _shown(of_processes), str(num_threads)])
    header = ("cores", "threads of one process, images/s", "processes, images/s", "threads of each process")
    return (
        f"An image takes {_shown(figures['image_ms'])} ms of processor time in a worker. For "
        f"{figures['image_lock_ms']:.3f} ms of it the worker holds Python's lock, and the main process for "
        f"{figures['main_lock_ms']:.3f} ms if workers are processes.\n\n{markdown_table(header, rows)}"
    )


def cells(report: dict[str, Any], with_growth: bool = False) -> list[list[str]]:
    """Return the text of `COLUMNS` for each contender. The ratio compares its median with the first contender's."""
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
    """Return a Markdown table that is padded for reading as text.

    The first `num_names` columns are aligned to the left, and the others to the right.
    """
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        names = [text.ljust(width) for text, width in zip(row[:num_names], widths)]
        numbers = [text.rjust(width) for text, width in zip(row[num_names:], widths[num_names:])]
        return f"| {' | '.join(names + numbers)} |"

    rule = ["-" * width for width in widths[:num_names]] + ["-" * (width - 1) + ":" for width in widths[num_names:]]
    return "\n".join([line(header), line(rule), *(line(row) for row in rows)])


def machine_line(reports: Sequence[dict[str, Any]]) -> str:
    """Describe the machine of the reports (processor, cores, instruction sets, memory) and the packages' versions."""
    machine = reports[0]["machine"]
    parts = [machine["cpu_model"] or "unknown processor", f"{machine['cores']} cores"]
    if machine["instruction_sets"] is not None:
        parts.append(" ".join(machine["instruction_sets"]) or "no AVX2")
    if machine["memory_mib"] is not None:
        parts.append(f"{machine['memory_mib'] / 1024:.0f} GiB")
    return f"{', '.join(parts)}; {', '.join(_versions(reports))}."


def _versions(reports: Sequence[dict[str, Any]]) -> list[str]:
    """Return 'package version' for all packages. If contenders have different versions, name them for each version."""
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
    """Return a figure with two or three significant digits. Further digits would be noise."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
