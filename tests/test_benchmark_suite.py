"""Tests of tools/benchmark.py apart from measuring: the machine, tables, the list of cases, images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mindcv.utils.errors import ConfigError, UserError

ROOT = Path(__file__).parents[1]


pytestmark = pytest.mark.usefixtures("tools")


def parsed(*arguments):
    from benchmarks.options import parse_command_line

    return parse_command_line(list(map(str, arguments)))


# Machine

CPUINFO = """processor\t: 0
model name\t: Some Processor 9000
flags\t\t: fpu avx2 avx512fp16 amx_bf16

processor\t: 1
"""


def test_describe_machine_reads_proc(tmp_path):
    from benchmarks.machine import describe_machine

    (tmp_path / "cpuinfo").write_text(CPUINFO)
    (tmp_path / "meminfo").write_text("MemFree: 1 kB\nMemTotal:       2097152 kB\n")
    assert describe_machine(str(tmp_path)) == {
        "cpu_model": "Some Processor 9000",
        "cores": len(os.sched_getaffinity(0)),
        "instruction_sets": ["avx2", "amx_bf16"],
        "memory_mib": 2048.0,
    }
    nowhere = describe_machine(str(tmp_path / "none"))
    assert nowhere["instruction_sets"] is None and nowhere["memory_mib"] is None


def test_tree_memory_mib_counts_children():
    from benchmarks.machine import tree_memory_mib

    hold = "import sys; block = bytearray(b'x') * 64_000_000; print(1, flush=True); sys.stdin.read()"
    before = tree_memory_mib()
    child = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    during = tree_memory_mib()
    child.communicate()
    assert 61 < during - before < 100


# Reports


def report_of(*rates, task="forward", memory=1024.0, **versions):
    """Return a report of contenders a, b ..., whose median, minimum and maximum are rate, rate / 2 and rate * 2."""
    contenders = [
        {
            "name": name,
            "images_per_s_median": rate,
            "images_per_s_min": rate / 2,
            "images_per_s_max": rate * 2,
            "first_step_s": 0.123,
            "peak_memory_mib": 1234.5,
            "memory_growth_mib": -0.5,
            "versions": {"pillow": versions.get(name, "13"), name: "1"},
        }
        for name, rate in zip("abc", rates)
    ]
    machine = {"cpu_model": "P", "cores": 2, "instruction_sets": ["avx2"], "memory_mib": memory}
    return {"settings": {"task": task}, "threads": 2, "machine": machine, "contenders": contenders}


def test_contender_table_aligns_figures_and_gives_ratios():
    from benchmarks.report import contender_table

    assert contender_table(report_of(8.0, 100.0)) == (
        "| contender | images/s |   min to max | ratio | first step, s | peak memory, MiB |\n"
        "| --------- | -------: | -----------: | ----: | ------------: | ---------------: |\n"
        "| a         |     8.00 | 4.00 to 16.0 |  1.00 |          0.12 |             1234 |\n"
        "| b         |      100 |  50.0 to 200 | 12.50 |          0.12 |             1234 |"
    )
    table = contender_table(report_of(8.0, task="data"))
    assert table.splitlines()[0].endswith("| memory growth, MiB |") and table.endswith("|              -0.50 |")


def test_lock_table_limits_processes_by_the_main_process():
    from benchmarks.report import lock_table

    assert lock_table(report_of(8.0, task="data")) == ""
    report = {**report_of(8.0, task="data"), "image_ms": 4.0, "image_lock_ms": 1.0, "main_lock_ms": 0.05}
    lines = lock_table(report).splitlines()
    assert lines[0].startswith("An image takes 4.00 ms of processor time in a worker. For 1.000 ms of it the worker")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[4:]]
    assert [row[0] for row in rows] == ["2", "8", "24", "96", "192"]
    # A lock that is held for 1 ms allows 1000 images/s, and a main process of 0.05 ms allows 20,000.
    assert 900 < float(rows[-1][1]) <= 1000 and float(rows[-1][2]) == 20000
    assert float(rows[1][2]) == pytest.approx(8 / 4 * 1000, rel=0.1)


def test_contender_table_shows_a_dash_for_an_unknown_figure():
    from benchmarks.report import contender_table

    report = report_of(8.0)
    report["contenders"][0]["peak_memory_mib"] = None
    assert contender_table(report).endswith("|                - |")


def test_machine_line_names_versions_that_differ():
    from benchmarks.report import machine_line

    assert machine_line([report_of(1.0, 2.0)]) == "P, 2 cores, avx2, 1 GiB; pillow 13, a 1, b 1."
    line = machine_line([report_of(1.0, 2.0, b="12"), report_of(1.0)])
    assert line == "P, 2 cores, avx2, 1 GiB; pillow 13 (a) / 12 (b), a 1, b 1."


# The suite

PAGE = "# Title\n\n<!-- figures: begin -->\nold\n<!-- figures: end -->\n\nLast words.\n"


@pytest.fixture
def suite(tmp_path, monkeypatch):
    """Return (config, folder of results, page, list of measured cases). The figures are invented, not measured."""
    from benchmarks import suite

    measured = []

    def made_up(config):
        measured.append((config.task, config.model, tuple(config.contenders)))
        return report_of(8.0, 4.0)["contenders"]

    monkeypatch.setattr(suite, "measure", made_up)
    monkeypatch.setattr(suite, "check_packages", lambda config: None)
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    arguments = ["--suite", "docs", "--results", tmp_path / "results", "--page", page, "--peer", "timm", "openvino"]
    return parsed(*arguments, "--peer_compile"), tmp_path / "results", page, measured


def test_run_suite_measures_only_missing_cases(suite, capsys):
    from benchmarks.suite import CASES, run_suite

    config, results, page, measured = suite
    run_suite(replace(config, only="train-convnext_tiny-b8-*"))
    assert measured == [("train", "convnext_tiny", ("mindcv", "timm", "timm-compile"))]
    assert [path.name for path in results.iterdir()] == ["train-convnext_tiny-b8-224px-all.json"]
    text = page.read_text()
    assert text.startswith("# Title\n") and text.endswith("\n\nLast words.\n") and "old" not in text
    assert "### Training step\n" in text and "### Forward pass" not in text
    assert "| model         | processes | images each | threads each | contender |" in text
    assert "| convnext_tiny | 1         | 8 x 224 px  | 2            | a         |" in text

    run_suite(replace(config, only="*-convnext_tiny-b8-*"))
    assert [task for task, *_ in measured] == ["train", "forward"]  # the first is kept
    assert measured[1][2] == ("mindcv", "timm", "timm-compile", "openvino")
    assert "### Forward pass\n" in page.read_text()
    assert "forward-convnext_tiny-b8-224px-all\n| contender" in capsys.readouterr().out
    assert len({case.name for case in CASES}) == len(CASES)


def test_run_suite_leaves_out_cases_that_need_more_cores(suite, monkeypatch, capsys):
    from benchmarks import suite as module

    config, results, page, measured = suite
    monkeypatch.setattr(module, "available_cores", lambda: 2)
    module.run_suite(replace(config, only="train-convnextv2_atto-b16-*"))
    assert sorted(path.stem for path in results.iterdir()) == [
        "train-convnextv2_atto-b16-224px-all",
        "train-convnextv2_atto-b16-224px-all-2p",
    ]
    rows = [line.split("|")[1:6] for line in page.read_text().splitlines() if line.startswith("| convnextv2_atto")]
    assert [[cell.strip() for cell in row[1:3]] for row in rows] == [["1", "16 x 224 px"]] * 2 + [
        ["2", "16 x 224 px"]
    ] * 2
    (case,) = (case for case in module.CASES if case.name == "train-convnextv2_tiny-b4-224px-all-2p")
    own = case.config(config)
    assert own.processes == 2 and own.contenders == ["mindcv", "timm", "timm-compile"]
    assert replace(case, task="forward").config(config).contenders == ["mindcv", "timm", "timm-compile"]

    monkeypatch.setattr(module, "available_cores", lambda: 1)
    measured.clear()
    capsys.readouterr()
    module.run_suite(replace(config, only="*_tiny-b4-224px*"))
    assert measured == []
    first_line = capsys.readouterr().out.splitlines()[0]
    case_name = "train-convnextv2_tiny-b4-224px-all-2p"
    assert first_line == f"{case_name}: left out, because it needs 2 cores and 1 are available"


def test_cases_pass_the_checks_of_the_options(suite):
    from benchmarks.options import _task_problems
    from benchmarks.suite import CASES

    for case in CASES:
        assert _task_problems(replace(case.config(suite[0]), given=frozenset())) == []


def test_run_suite_refuses_wrong_patterns_machines_and_pages(suite):
    from benchmarks.suite import run_suite

    config, results, page, _ = suite
    with pytest.raises(ConfigError, match="only: 'fly' matches no case"):
        run_suite(replace(config, only="fly"))
    results.mkdir()
    for name, memory in (("forward-convnext_tiny-b8-224px-all", 1.0), ("train-convnext_tiny-b8-224px-all", 2.0)):
        (results / f"{name}.json").write_text(json.dumps(report_of(1.0, memory=memory)))
    with pytest.raises(UserError, match="come from 2 machines"):
        run_suite(config)
    page.write_text("no place for tables")
    with pytest.raises(UserError, match="must have one line <!-- figures: begin -->"):
        run_suite(config)


def test_benchmarks_page_has_markers_for_the_tables():
    from benchmarks.suite import BEGIN, END

    text = (ROOT / "docs/reference/benchmarks.md").read_text()
    assert text.count(BEGIN) == text.count(END) == 1


# Images


def test_image_folder_gives_the_same_files_every_time(tmp_path):
    from benchmarks.images import image_folder

    paths = sorted(image_folder(tmp_path / "a", 12).rglob("*.jpg"))
    assert len(paths) == 12 and len({path.parent.name for path in paths}) == 10
    again = sorted(image_folder(tmp_path / "b", 12).rglob("*.jpg"))
    assert [path.read_bytes() for path in paths] == [path.read_bytes() for path in again]
    assert len({path.read_bytes() for path in paths}) == 12
    for path in paths[:2]:
        with Image.open(path) as image:
            assert image.size == (500, 375) and image.mode == "RGB"
        assert 70_000 < path.stat().st_size < 150_000
