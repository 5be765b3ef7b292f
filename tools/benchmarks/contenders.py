"""Contenders, the rounds that they run in turn, and the figures of these rounds.

A contender is a library that is measured: this library or one of its peers.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from benchmarks.images import image_folder
from benchmarks.neighbours import busy_processes
from benchmarks.options import BenchmarkConfig
from benchmarks.processes import LAUNCHERS, Job, OneProcess, Processes, environment
from mindcv.export.onnx_package import require_onnx
from mindcv.utils.errors import UserError

__all__ = ["Contender", "Figures", "check_packages", "measure", "run_rounds"]

# Pause before each round, in which the thread pools of the last contender go to sleep. Those of
# MindSpore and PyTorch are idle at once, but others may spin for a while.
_PAUSE_SECONDS = 0.3

# Peer -> packages that it needs.
_PACKAGES = {
    "timm": ("torch", "timm"),
    "timm-compile": ("torch", "timm"),
    "onnxruntime": ("torch", "timm", "onnx", "onnxruntime"),
    "onnxruntime-own-file": ("onnxruntime",),
    "openvino": ("torch", "timm", "onnx", "openvino"),
    "openvino-own-file": ("openvino",),
}
_TIMM_EXPORTER, _OWN_EXPORTER = "benchmarks.export_onnx", "benchmarks.export_own_onnx"
# Peer -> module that writes the ONNX file which it runs.
_EXPORTERS = {
    "onnxruntime": _TIMM_EXPORTER,
    "onnxruntime-own-file": _OWN_EXPORTER,
    "openvino": _TIMM_EXPORTER,
    "openvino-own-file": _OWN_EXPORTER,
}
# A step of the task data is an epoch. A round is one epoch, and a first epoch fills the system's
# file cache.
_EPOCHS = {"steps": 1, "warmup": 1}


@dataclass
class Figures:
    """The figures of one contender.

    Attributes:
        name: name of the contender.
        first_step_s: time of the first step in seconds.
        versions: package -> version.
        images_per_s: one number for each round.
        memory_mib: memory of all its processes after each round, in MiB; None if the system does not report it.
        extra_figures: further figures of this library by name, which other contenders do not have.
        peak_memory_mib: largest memory of its main process since its start, or the sum over the ranks of a job, in
            MiB; None if the system does not report it.
    """

    name: str
    first_step_s: float
    versions: dict[str, str]
    extra_figures: dict[str, float] = field(default_factory=dict)
    images_per_s: list[float] = field(default_factory=list)
    memory_mib: list[Optional[float]] = field(default_factory=list)
    peak_memory_mib: Optional[float] = None

    def add_round(self, answers: Sequence[dict[str, Any]]) -> None:
        """Add the answers of its workers to a round. A round lasts until the last worker has finished."""
        seconds = max(answer["seconds"] for answer in answers)
        self.images_per_s.append(sum(answer["images"] for answer in answers) / seconds)
        self.memory_mib.append(_sum([answer["memory_mib"] for answer in answers]))
        self.peak_memory_mib = _sum([answer["peak_memory_mib"] for answer in answers])

    def summary(self) -> dict[str, Any]:
        """Return the figures as JSON values.

        Median, minimum and maximum are over the rounds. Memory growth is from the first round to the last.
        """
        first, last = self.memory_mib[0], self.memory_mib[-1]
        return {
            "name": self.name,
            "images_per_s_median": statistics.median(self.images_per_s),
            "images_per_s_min": min(self.images_per_s),
            "images_per_s_max": max(self.images_per_s),
            "first_step_s": self.first_step_s,
            "peak_memory_mib": self.peak_memory_mib,
            "memory_growth_mib": None if first is None or last is None else last - first,
            "versions": self.versions,
            **self.extra_figures,
        }


class Contender:
    """A library whose worker processes are running (see `benchmarks.worker`).

    Args:
        name: name of the contender in tables.
        processes: its worker processes. They are stopped if the workers cannot be prepared.
        settings: settings of the workload, as JSON values.

    Raises:
        UserError: a worker could not be prepared.
    """

    def __init__(self, name: str, processes: Processes, settings: dict[str, Any]):
        self.name = name
        self._processes = processes
        try:
            ready = processes.ask(json.dumps(settings))
        except BaseException:
            processes.close(seconds=0)
            raise
        first_step = max(answer["first_step_s"] for answer in ready)
        self.figures = Figures(name, first_step, ready[0]["versions"], ready[0].get("extra_figures", {}))

    def run_round(self) -> None:
        """Run one round and record its figures.

        Raises:
            UserError: a process failed or was killed.
        """
        self.figures.add_round(self._processes.ask("round"))

    def close(self) -> None:
        """Stop the processes, even if they are busy."""
        self._processes.close()


def measure(config: BenchmarkConfig) -> list[dict[str, Any]]:
    """Measure the contenders of `config`, and return their summaries in the same order.

    Busy processes start when all contenders have made their first step and their warm-up.

    Raises:
        UserError: a contender failed. The message names it.
    """
    with ExitStack() as stack:
        settings = {**_EPOCHS, **config.settings, **stack.enter_context(_inputs(config))}
        onnx_paths = stack.enter_context(_onnx_files(config))
        contenders = []
        for name in config.contenders:
            own = {**settings, "compile": name == "timm-compile", "onnx_path": onnx_paths.get(name, "")}
            contenders.append(Contender(name, _start(config, name), own))
            stack.callback(contenders[-1].close)
        with busy_processes(config.busy_processes, settings["threads"] * config.processes):
            run_rounds(contenders, config.rounds)
    return [contender.figures.summary() for contender in contenders]


def _start(config: BenchmarkConfig, name: str) -> Processes:
    python, arguments = config.interpreter(name), ["-m", "benchmarks.worker", name]
    if config.processes == 1:
        return OneProcess(name, [python, *arguments])
    return Job(name, LAUNCHERS[name](python), arguments, config.processes)


def run_rounds(contenders: Sequence[Contender], rounds: int, pause: float = _PAUSE_SECONDS) -> None:
    """Run one round of each contender in turn, `rounds` times. Noise on the machine then affects all of them equally.

    `pause` is the time before each round in seconds.
    """
    for _ in range(rounds):
        for contender in contenders:
            time.sleep(pause)
            contender.run_round()


def check_packages(config: BenchmarkConfig) -> None:
    """Check that the interpreter of the peers has the packages that they need, before anything is measured.

    Raises:
        UserError: packages are missing. The message names them and the command that installs them.
    """
    if any(_EXPORTERS.get(name) == _OWN_EXPORTER for name in config.contenders):
        require_onnx()
    needed = {package for name in config.contenders for package in _PACKAGES.get(name, ())}
    if config.task == "data" and "timm" in config.contenders:
        needed.add("torchvision")
    if not needed:
        return
    python = config.interpreter("a peer")
    code = "import importlib.util, sys; print(*(n for n in sys.argv[1:] if importlib.util.find_spec(n) is None))"
    done = subprocess.run([python, "-c", code, *sorted(needed)], capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"peer_python: '{python}' fails: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    missing = done.stdout.strip()
    if missing:
        peers = ", ".join(config.peer)
        raise UserError(f"peer {peers}: packages are missing: {missing}; run: {python} -m pip install {missing}")


@contextmanager
def _inputs(config: BenchmarkConfig) -> Iterator[dict[str, str]]:
    """Create the files that contenders read, and yield the settings that name them. Remove the files afterwards."""
    with tempfile.TemporaryDirectory(prefix="mindcv-benchmark-") as folder:
        paths = {}
        if config.task == "data":
            paths["data_dir"] = config.data_dir or str(image_folder(Path(folder) / "images"))
        if config.second_run:
            paths["compile_cache_dir"] = str(Path(folder) / "compiled")
        yield paths


@contextmanager
def _onnx_files(config: BenchmarkConfig) -> Iterator[dict[str, str]]:
    """Write the ONNX files that the contenders run, and yield contender -> path. Remove the files afterwards."""
    exporters = {name: _EXPORTERS[name] for name in config.contenders if name in _EXPORTERS}
    with tempfile.TemporaryDirectory(prefix="mindcv-benchmark-") as folder:
        for module in sorted(set(exporters.values())):
            _export_onnx(config, module, f"{folder}/{module}.onnx")
        yield {name: f"{folder}/{module}.onnx" for name, module in exporters.items()}


def _export_onnx(config: BenchmarkConfig, module: str, path: str) -> None:
    python = sys.executable if module == _OWN_EXPORTER else config.interpreter("a peer")
    settings = json.dumps({**config.settings, "onnx_path": path})
    done = subprocess.run([python, "-m", module], input=settings, stdout=sys.stderr, text=True, env=environment())
    if done.returncode:
        raise UserError(f"export of {config.model} to ONNX failed with status {done.returncode}; its output is above")


def _sum(values: Sequence[Optional[float]]) -> Optional[float]:
    return None if None in values else sum(values)
