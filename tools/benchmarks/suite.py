"""Measures the list of cases of docs/reference/benchmarks.md. The work can be interrupted and continued later."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from benchmarks.contenders import check_packages, measure
from benchmarks.images import image_folder
from benchmarks.machine import available_cores
from benchmarks.options import PEERS, BenchmarkConfig
from benchmarks.processes import LAUNCHERS
from benchmarks.report import COLUMNS, as_report, cells, contender_table, machine_line, markdown_table, write_json
from mindcv.utils.errors import ConfigError, UserError
from mindcv.utils.files import atomic_write_text, ensure_writable_dir

__all__ = ["CASES", "Case", "run_suite", "tables"]

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


@dataclass(frozen=True)
class Case:
    """One measurement. Options that are not set here have their defaults.

    `batch_size` and `threads` apply to each process. `threads` 0 gives each process an equal share of all cores.
    """

    task: str
    model: str = ""
    batch_size: int = 1
    image_size: int = 224
    processes: int = 1
    threads: int = 0
    steps: int = 10
    pipeline: str = "train"
    workers: int = 1
    dtype: str = "float32"
    second_run: bool = False  # also run this library a second time, without peers

    @property
    def name(self) -> str:
        """Name of its JSON file, without the suffix."""
        subject = f"{self.pipeline}-w{self.workers}" if self.task == "data" else self.model
        threads = f"{self.threads}t" if self.threads else "all"
        processes = f"-{self.processes}p" if self.processes > 1 else ""
        dtype = "" if self.dtype == "float32" else f"-{self.dtype}"
        again = "-again" if self.second_run else ""
        return f"{self.task}-{subject}-b{self.batch_size}-{self.image_size}px-{threads}{processes}{dtype}{again}"

    @property
    def cores(self) -> int:
        """Smallest number of cores that the case can be measured on."""
        return self.processes * max(self.threads, 1)

    def config(self, config: BenchmarkConfig) -> BenchmarkConfig:
        """Return `config` with the options of this case, and only with peers that support it."""
        peers = [peer for peer in config.peer if self.task in PEERS[peer]]
        if self.processes > 1:
            peers = [peer for peer in peers if peer in LAUNCHERS]
        if self.dtype == "bfloat16":
            # ONNX Runtime does not support bfloat16 on CPU.
            peers = [peer for peer in peers if not peer.startswith("onnxruntime")]
        if self.second_run:
            peers = []
        own = {name: getattr(self, name) for name in self.__dataclass_fields__}
        own["threads"] = self.threads or None
        return replace(config, **own, peer=peers, peer_compile=config.peer_compile and self.task != "data")


CASES = (
    Case("forward", "convnextv2_tiny", 1),
    Case("forward", "convnextv2_tiny", 8, steps=5),
    Case("forward", "convnextv2_tiny", 32, steps=2),
    Case("forward", "convnextv2_tiny", 8, threads=1, steps=2),
    Case("forward", "convnextv2_tiny", 4, 384, steps=3),
    Case("forward", "convnextv2_atto", 1, steps=30),
    Case("forward", "convnextv2_atto", 32, steps=4),
    Case("forward", "convnext_tiny", 1),
    Case("forward", "convnext_tiny", 8, steps=5),
    Case("forward", "convnext_tiny", 32, steps=2),
    Case("forward", "convnextv2_tiny", 8, steps=8, dtype="bfloat16"),
    Case("train", "convnextv2_tiny", 1, steps=4),
    Case("train", "convnextv2_tiny", 8, steps=2),
    Case("train", "convnextv2_tiny", 32, steps=1),
    Case("train", "convnextv2_tiny", 8, steps=2, second_run=True),
    Case("train", "convnext_tiny", 1, steps=4),
    Case("train", "convnext_tiny", 8, steps=2),
    Case("train", "convnext_tiny", 32, steps=1),
    Case("train", "convnextv2_atto", 32, steps=2),
    Case("train", "convnextv2_tiny", 8, steps=3, dtype="bfloat16"),
    Case("train", "convnextv2_atto", 16, steps=4),
    Case("train", "convnextv2_atto", 16, processes=2, steps=4),
    Case("train", "convnextv2_tiny", 4, processes=2, steps=2),
    Case("pretrain", "fcmae_convnextv2_tiny", 8, steps=3),
    Case("pretrain", "fcmae_convnextv2_atto", 32, steps=4),
    *(Case("data", batch_size=32, pipeline=pipeline, workers=n) for pipeline in ("train", "eval") for n in (1, 2)),
)
_HEADINGS = {
    "forward": "Forward pass",
    "train": "Training step",
    "pretrain": "Step of masked pre-training",
    "data": "Data pipeline",
}
# Task -> headers of the columns that identify a row of its table.
_NAMES = {
    "forward": ("model", "images", "threads"),
    "train": ("model", "processes", "images each", "threads each"),
    "pretrain": ("model", "images", "threads"),
    "data": ("pipeline", "images", "threads"),
}


def run_suite(config: BenchmarkConfig) -> None:
    """Measure the cases that match `config.only` and have no file in `config.results` yet. Write the page's tables.

    The page is written after each case, so finished cases can be read while the others are still running.

    Raises:
        ConfigError: the pattern matches no case.
        UserError: a contender failed, or the files come from different machines.
    """
    cases = [case for case in CASES if fnmatch(case.name, config.only)]
    if not cases:
        names = ", ".join(case.name for case in CASES)
        raise ConfigError([f"only: '{config.only}' matches no case (there are: {names})"])
    folder = ensure_writable_dir(config.results)
    page = _page(config.page)
    _write_page(page, folder)
    missing = _cases_that_fit([case for case in cases if not (folder / f"{case.name}.json").exists()])
    for case in missing:
        check_packages(case.config(config))
    with _shared_images(missing) as data_dir:
        for case in missing:
            own = case.config(config)
            if not own.contenders:
                continue  # only peers are measured, and none of them supports the task
            if case.task == "data":
                own = replace(own, data_dir=data_dir)
            report = as_report(own, measure(own))
            write_json(str(folder / f"{case.name}.json"), report)
            _write_page(page, folder)
            print(f"{case.name}\n{contender_table(report)}\n", flush=True)
    print(f"{page}: tables of {len(list(folder.glob('*.json')))} cases")


def _cases_that_fit(cases: Sequence[Case]) -> list[Case]:
    """Return the cases for which this machine has enough cores. Print a line for each other case."""
    cores = available_cores()
    for case in cases:
        if case.cores > cores:
            print(f"{case.name}: left out, because it needs {case.cores} cores and {cores} are available", flush=True)
    return [case for case in cases if case.cores <= cores]


def tables(folder: Path) -> str:
    """Return the tables of the cases that have a file in `folder`, in the order of the list, as Markdown.

    Raises:
        UserError: the files come from different machines.
    """
    reports = [(case, json.loads(path.read_text(encoding="utf-8"))) for case, path in _files(folder)]
    machines = {json.dumps(report["machine"], sort_keys=True) for _, report in reports}
    if len(machines) > 1:
        raise UserError(
            f"results: the files in '{folder}' come from {len(machines)} machines: use a folder of its own for each"
        )
    if not reports:
        return "Nothing has been measured yet."
    parts = [machine_line([report for _, report in reports])]
    for task, heading in _HEADINGS.items():
        rows = [row for case, report in reports if case.task == task for row in _rows(case, report)]
        if rows:
            names = _NAMES[task]
            header = (*names, *COLUMNS, "memory growth, MiB") if task == "data" else (*names, *COLUMNS)
            parts.append(f"### {heading}\n\n{markdown_table(header, rows, num_names=len(names) + 1)}")
    return "\n\n".join(parts)


def _rows(case: Case, report: dict[str, Any]) -> list[list[str]]:
    is_data = case.task == "data"
    workers = f"{case.workers} worker{'s' if case.workers > 1 else ''}"
    subject = f"{'training' if case.pipeline == 'train' else 'evaluation'}, {workers}" if is_data else case.model
    subject += f", {case.dtype}" if case.dtype != "float32" else ""
    processes = [str(case.processes)] if case.task == "train" else []
    names = [subject, *processes, f"{case.batch_size} x {case.image_size} px", str(report["threads"])]
    return [[*names, *row] for row in cells(report, with_growth=is_data)]


def _files(folder: Path) -> list[tuple[Case, Path]]:
    paths = [(case, folder / f"{case.name}.json") for case in CASES]
    return [(case, path) for case, path in paths if path.exists()]


@contextmanager
def _shared_images(cases: list[Case]) -> Iterator[str]:
    """Create the images for all cases of the task data once, and yield their folder; '' if there is no such case."""
    if not any(case.task == "data" for case in cases):
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix="mindcv-benchmark-") as folder:
        yield str(image_folder(Path(folder)))


def _page(path: str) -> Path:
    page = Path(path)
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise UserError(
            f"page: '{path}' must have one line {BEGIN} and after it one line {END}; the tables go between them"
        )
    return page


def _write_page(page: Path, folder: Path) -> None:
    text = page.read_text(encoding="utf-8")
    before, after = text[: text.index(BEGIN)], text[text.index(END) :]
    atomic_write_text(page, f"{before}{BEGIN}\n\n{tables(folder)}\n\n{after}")
