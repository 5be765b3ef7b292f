"""The options of tools/benchmark.py, and which of them apply to which task."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Optional, Union

from benchmarks.machine import available_cores
from benchmarks.processes import LAUNCHERS
from mindcv.config import option
from mindcv.config.reading import read_tool_config
from mindcv.models import is_model, is_model_in_modules, list_models
from mindcv.utils.errors import unknown_name
from mindcv.utils.files import file_problem
from mindcv.utils.logger import logger

__all__ = ["PEERS", "TASKS", "BenchmarkConfig", "parse_command_line"]

TASKS = ("forward", "train", "pretrain", "data")
# Peer -> tasks that it supports. The runtimes run the ONNX file of timm's model, or the file that
# this library writes.
PEERS = {
    "timm": TASKS,
    **dict.fromkeys(("onnxruntime", "openvino", "onnxruntime-own-file", "openvino-own-file"), ("forward",)),
}

_COMPUTE = ("forward", "train", "pretrain")
# Options that apply only to some tasks. For another task they are an error; they are not ignored.
_TASKS_OF_OPTION = {
    **dict.fromkeys(("model", "device_target", "mode", "dtype", "processes"), _COMPUTE),
    **dict.fromkeys(("steps", "warmup", "peer_compile"), _COMPUTE),
    **dict.fromkeys(("pipeline", "data_dir", "workers", "python_multiprocessing"), ("data",)),
    "second_run": ("train",),
    "mask_ratio": ("pretrain",),
}
# Options that the cases of the suite set.
_OPTIONS_OF_CASES = (
    "task",
    "model",
    "batch_size",
    "image_size",
    "processes",
    "threads",
    "pipeline",
    "workers",
    "steps",
    "second_run",
)

_case = partial(option, group="Measurement")
_run = partial(option, group="Execution")
_result = partial(option, group="Results")


@dataclass(frozen=True)
class BenchmarkConfig:
    """Measure images/s, time of the first step and memory, of this library and of its peers beside it.

    Each contender runs in a process of its own, and their rounds alternate.
    """

    # fmt: off
    task: str = _case(
        "forward", "task to measure: the forward pass, the training step, the step of masked pre-training, or the data "
        "pipeline", choices=TASKS)
    model: str = _case("", "name of the model; required unless the task is data")
    batch_size: int = _case(8, "number of images in a batch, for each process", low=1)
    image_size: int = _case(224, "height and width of the images in pixels", low=32)
    mask_ratio: float = _case(
        0.6, "for the task pretrain: share of the patches of 32 pixels that is removed", above=0, below=1)
    dtype: str = _case("float32", "number format of the computation", choices=("float32", "bfloat16"))
    pipeline: str = _case(
        "train", "for the task data: the pipeline of training or of evaluation", choices=("train", "eval"))
    data_dir: str = _case("", "for the task data: folder with a folder for each class; without it, 400 images are made")
    workers: int = _case(1, "for the task data: number of workers of this library and of processes of timm", low=1)
    python_multiprocessing: Union[bool, str] = _case(
        "auto", "for the task data: run the workers of this library in processes of their own; auto measures whether "
        "they are faster", choices=("auto",))

    device_target: str = _run("CPU", "device of this library; peers run on CPU only", choices=("CPU", "GPU", "Ascend"))
    mode: int = _run(0, "execution mode of MindSpore: 0 is graph mode, 1 is PyNative mode", choices=(0, 1))
    processes: int = _run(
        1, "number of processes of each contender, which train together under msrun or torchrun", low=1)
    threads: Optional[int] = _run(None, "number of cores for each process; None shares all cores out equally", low=1)
    busy_processes: int = _run(
        0, "number of other processes that compute without a pause on the same cores while the rounds run", low=0)
    steps: int = _run(10, "number of steps in a round; for the task data, a round is an epoch", low=1)
    warmup: int = _run(3, "number of steps after the first one that are not counted", low=0)
    rounds: int = _run(5, "number of rounds of each contender", low=1)
    second_run: bool = _run(
        False, "for the task train: run this library a second time with the compiled step of the first")
    peer: list[str] = _run(
        [], f"other library to measure beside this one: {', '.join(PEERS)}; can be given several times")
    peer_compile: bool = _run(False, "run timm with torch.compile as well")
    peer_python: str = _run(
        "", "Python interpreter that has the packages of the peers; empty means the one that is running")
    peers_only: bool = _run(False, "run the peers only, and not this library")

    json: str = _result("", "JSON file to write the figures to")
    suite: str = _result(
        "", "measure a list of cases and write their tables; empty measures one case", choices=("", "docs"))
    results: str = _result("", "for a suite: folder of its JSON files; a case that has a file is not measured again")
    only: str = _result("*", "for a suite: pattern of the names of the cases to measure, for example train-*")
    page: str = _result("docs/reference/benchmarks.md", "for a suite: page whose tables are written")
    # fmt: on

    given: frozenset = field(default=frozenset(), repr=False, compare=False)

    @property
    def contenders(self) -> list[str]:
        """Names of the contenders, in the order of the table."""
        own = ["mindcv", "mindcv-again"] if self.second_run else ["mindcv"]
        names = [] if self.peers_only else own
        for peer in self.peer:
            names += ["timm", "timm-compile"] if peer == "timm" and self.peer_compile else [peer]
        return names

    @property
    def settings(self) -> dict[str, Any]:
        """The options that apply to the task. The contenders receive them, and a result file records them."""
        names = ["task", "batch_size", "image_size", "rounds", "busy_processes"]
        names += [name for name, tasks in _TASKS_OF_OPTION.items() if self.task in tasks and name != "peer_compile"]
        settings = {name: getattr(self, name) for name in names if name != "data_dir"}
        return {**settings, "threads": self.threads or available_cores() // self.processes}

    def interpreter(self, contender: str) -> str:
        """Return the Python interpreter that runs a contender."""
        return self.peer_python if self.peer_python and not contender.startswith("mindcv") else sys.executable


def parse_command_line(argv: Sequence[str]) -> BenchmarkConfig:
    """Parse the command line, without the name of the script. `--help` prints the options and ends the process.

    Raises:
        ConfigError: options are wrong. It holds one sentence for each problem.
    """
    config, warnings = read_tool_config(_with_peers_joined(argv), BenchmarkConfig, _problems)
    for warning in warnings:
        logger.warning("%s", warning)
    return config


def _with_peers_joined(argv: Sequence[str]) -> list[str]:
    """Return `argv` with all flags `--peer` joined into one. For other flags, the last one given counts."""
    words, peers, is_peer, is_given = [], [], False, False
    for word in argv:
        flag, equals, value = word.partition("=")
        if flag == "--peer":
            is_peer = is_given = True
            peers += [value] if equals else []
            continue
        is_peer = is_peer and not word.startswith("--")
        (peers if is_peer else words).append(word)
    return [*words, "--peer", *dict.fromkeys(peers)] if is_given else words


def _problems(config: BenchmarkConfig) -> list[str]:
    problems = [unknown_name("peer:", peer, PEERS) for peer in config.peer if peer not in PEERS]
    if problem := file_problem(config.json):
        problems.append(f"json: {problem}")
    if config.suite:
        problems += _suite_problems(config)
    else:
        problems += [
            f"{name}: has an effect only with --suite" for name in ("results", "only", "page") if name in config.given
        ]
        problems += _task_problems(config)
    cores = available_cores()
    if config.processes > cores:
        problems.append(f"processes: {config.processes} is more than the {cores} available cores")
    elif config.threads and config.threads * config.processes > cores:
        each = f"{config.processes} times " if config.processes > 1 else ""
        problems.append(f"threads: {each}{config.threads} is more than the {cores} available cores")
    if config.peer_python and not shutil.which(config.peer_python):
        problems.append(f"peer_python: '{config.peer_python}' is not a Python interpreter that can be run")
    if config.peer_compile and "timm" not in config.peer:
        problems.append("peer_compile: has an effect only with --peer timm")
    if config.peer and config.device_target != "CPU":
        problems.append(f"device_target: must be CPU, because peers run only on CPU, got {config.device_target}")
    if config.second_run and config.mode != 0:
        problems.append("second_run: needs graph mode (--mode 0)")
    if config.second_run and config.peers_only:
        problems.append("second_run: cannot be combined with peers_only, because it runs this library")
    if config.peers_only and not config.peer:
        problems.append("peers_only: needs at least one --peer")
    problems += [
        f"dtype: {peer} does not support bfloat16 on CPU"
        for peer in config.peer
        if config.dtype == "bfloat16" and peer.startswith("onnxruntime")
    ]
    return problems


def _task_problems(config: BenchmarkConfig) -> list[str]:
    problems = [
        f"{name}: has no effect on the task {config.task}"
        for name, tasks in _TASKS_OF_OPTION.items()
        if name in config.given and config.task not in tasks
    ]
    problems += [
        f"peer: {peer} does not support the task {config.task}"
        for peer in config.peer
        if peer in PEERS and config.task not in PEERS[peer]
    ]
    problems += [
        f"processes: {peer} runs in one process only, got {config.processes}"
        for peer in config.peer
        if config.processes > 1 and peer in PEERS and peer not in LAUNCHERS
    ]
    if config.task in _COMPUTE and not config.model:
        problems.append(f"model: is required for the task {config.task}")
    elif config.model and not is_model(config.model):
        problems.append(unknown_name("model:", config.model, list_models()))
    elif config.model and is_model_in_modules(config.model, ["fcmae"]) != (config.task == "pretrain"):
        kind = "a masked autoencoder, such as fcmae_convnextv2_tiny" if config.task == "pretrain" else "a classifier"
        problems.append(f"model: the task {config.task} measures {kind}, got '{config.model}'")
    if config.data_dir and not os.path.isdir(config.data_dir):
        problems.append(f"data_dir: the folder '{config.data_dir}' does not exist")
    return problems


def _suite_problems(config: BenchmarkConfig) -> list[str]:
    problems = [
        f"{name}: cannot be combined with --suite, which sets it for each case"
        for name in (*_OPTIONS_OF_CASES, "json")
        if name in config.given
    ]
    if config.busy_processes:
        problems.append("busy_processes: cannot be combined with --suite, whose cases need a quiet machine")
    if not config.results:
        problems.append("results: is required with --suite")
    return problems
