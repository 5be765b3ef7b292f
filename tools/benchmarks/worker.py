"""The process of a contender. It builds the workload, and then runs one round for each line that it receives.

It is started as `python -m benchmarks.worker NAME`, and reads the settings as a JSON line from standard input. It
writes one JSON line to standard output when it is ready, and one after each round. The output of libraries goes to
standard error instead. The process ends at the end of its input. This module uses only the standard library, because
the interpreter of the peers may run it.

As a rank of a job, it is started by msrun or torchrun as `python -m benchmarks.worker NAME ADDRESS`. It then reads and
writes a socket instead, and sends its rank first.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import platform
import signal
import socket
import sys
import time
import traceback
from typing import Any, TextIO

from benchmarks.machine import available_cores, peak_memory_mib, tree_memory_mib

__all__ = ["bind_to_cores", "end_with_parent", "main"]

_MODULES = {
    "mindcv": "benchmarks.run_mindcv",
    "mindcv-again": "benchmarks.run_mindcv",
    "timm": "benchmarks.run_timm",
    "timm-compile": "benchmarks.run_timm",
    "onnxruntime": "benchmarks.run_onnxruntime",
    "onnxruntime-own-file": "benchmarks.run_onnxruntime",
    "openvino": "benchmarks.run_openvino",
    "openvino-own-file": "benchmarks.run_openvino",
}
# Environment variables that thread pools read when their library is loaded.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def main(name: str, address: str = "") -> None:
    """Serve the contender `name` until the input ends. The input is standard input or the socket at `address`."""
    if os.environ.get("MS_ROLE") == "MS_SCHED":  # msrun starts its scheduler with the command of the ranks
        importlib.import_module(_MODULES[name]).serve_job()
        return
    rank = _rank() if address else 0
    if not address:
        end_with_parent()
    requests, answers = _connect(address, rank) if address else (sys.stdin, _reserve_stdout())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent stops this one
    try:
        settings = json.loads(requests.readline())
        _limit_threads(settings["threads"], rank)
        _serve(name, settings, requests, answers)
    except Exception as error:
        # The class is found by its name, because a peer's interpreter cannot import the package
        # that defines it.
        is_user_error = "UserError" in [base.__name__ for base in type(error).__mro__]
        if not is_user_error:
            traceback.print_exc()
        first_line = str(error).strip().split("\n")[0]
        _answer(answers, error=first_line if is_user_error else f"{type(error).__name__}: {first_line}")
        sys.exit(1)


def _serve(name: str, settings: dict[str, Any], requests: TextIO, answers: TextIO) -> None:
    workload = importlib.import_module(_MODULES[name]).build(settings)
    start = time.perf_counter()
    workload.first()
    first_step = time.perf_counter() - start
    for _ in range(settings["warmup"]):
        workload.run()
    versions = {**workload.versions, "python": platform.python_version()}
    extra = workload.extra_figures()
    _answer(answers, first_step_s=first_step, versions=versions, threads=available_cores(), extra_figures=extra)
    for _ in requests:
        start = time.perf_counter()
        images = sum(workload.run() for _ in range(settings["steps"]))
        seconds = time.perf_counter() - start
        _answer(
            answers,
            images=images,
            seconds=seconds,
            peak_memory_mib=peak_memory_mib(),
            memory_mib=tree_memory_mib(),
        )


def end_with_parent() -> None:
    """Ask Linux to kill this process when its parent ends.

    Otherwise the process would notice the end of its input only after a step, which may take minutes while a peer
    compiles.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _rank() -> int:
    """Return the rank that the launcher gave this process: RANK_ID from msrun, RANK from torchrun."""
    return int(os.environ["RANK_ID" if "RANK_ID" in os.environ else "RANK"])


def _connect(address: str, rank: int) -> tuple[TextIO, TextIO]:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    os.dup(connection.fileno())  # stays open until the process has ended, which tells the other side about the end
    stream = connection.makefile("rw", encoding="utf-8")
    _answer(stream, rank=rank, pid=os.getpid())
    return stream, stream


def _reserve_stdout() -> TextIO:
    """Return the real standard output. File descriptor 1 becomes standard error, also for C++ code that prints."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _limit_threads(threads: int, rank: int) -> None:
    """Bind the process to `threads` cores, with other cores for each rank.

    Of all ways to limit the threads of a library, this is the only one that every library must obey.
    """
    bind_to_cores(rank * threads, threads)
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = str(threads)


def bind_to_cores(first: int, count: int) -> None:
    """Bind this process to `count` of the cores that it may use, beginning with number `first` of them."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[first : first + count])


def _answer(answers: TextIO, **values: Any) -> None:
    print(json.dumps(values), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
