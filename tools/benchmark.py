"""Measure the speed and memory of this library, and of its peers beside it.

    python tools/benchmark.py --model convnextv2_atto --task forward --batch_size 8 [--peer timm] [--json out.json]

The tool prints a table with images/s (median, minimum and maximum over rounds), the time of the first step and the peak
memory. With `--suite docs` it measures the cases of docs/reference/benchmarks.md and writes their tables.
"""

from __future__ import annotations

import sys

import own_mindcv  # noqa: F401
from benchmarks.contenders import check_packages, measure
from benchmarks.options import parse_command_line
from benchmarks.report import as_report, contender_table, lock_table, machine_line, write_json
from benchmarks.suite import run_suite

from mindcv.utils.cli import run_script


def main() -> None:
    config = parse_command_line(sys.argv[1:])
    if config.suite:
        run_suite(config)
        return
    check_packages(config)
    report = as_report(config, measure(config))
    if config.json:
        write_json(config.json, report)
    print(f"{machine_line([report])}\n\n{contender_table(report)}")
    if locks := lock_table(report):
        print(f"\n{locks}")


if __name__ == "__main__":
    run_script(main)
