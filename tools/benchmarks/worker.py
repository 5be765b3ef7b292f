"""A contender's process: builds its workload, then runs a round for each line it is sent.

Started as `python -m benchmarks.worker NAME` with the settings as a JSON line on standard input. It answers on standard
output, one JSON line each: first when it is ready, then for each round; whatever a library prints goes to standard
error instead. It ends when its input does. Standard library only: what runs it may be the peers' interpreter.

As a rank of a job (`python -m benchmarks.worker NAME ADDRESS`, started by msrun or torchrun) it reads and writes a
socket instead, and first says which rank it is.
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

__all__ = ["main"]

_MODULES = {
    "mindcv": "benchmarks.run_mindcv",
    "mindcv-again": "benchmarks.run_mindcv",
    "timm": "benchmarks.run_timm",
    "timm-compile": "benchmarks.run_timm",
    "onnxruntime": "benchmarks.run_onnxruntime",
    "openvino": "benchmarks.run_openvino",
}
# Thread pools read these when their library is loaded.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def main(name: str, address: str = "") -> None:
    """Serve the contender `name` until there are no more questions, on standard input or the socket at `address`."""
    if os.environ.get("MS_ROLE") == "MS_SCHED":  # msrun starts its scheduler with the command of the ranks
        importlib.import_module(_MODULES[name]).serve_job()
        return
    rank = _rank() if address else 0
    if not address:
        _end_with_parent()
    questions, answers = _connect(address, rank) if address else (sys.stdin, _reserve_stdout())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; who started this ends it
    try:
        settings = json.loads(questions.readline())
        _limit_threads(settings["threads"], rank)
        _serve(name, settings, questions, answers)
    except Exception as error:
        # By name: the package that defines it cannot be imported by a peer's interpreter.
        is_users = "UserError" in [base.__name__ for base in type(error).__mro__]
        if not is_users:
            traceback.print_exc()
        first_line = str(error).strip().split("\n")[0]
        _answer(answers, error=first_line if is_users else f"{type(error).__name__}: {first_line}")
        sys.exit(1)


def _serve(name: str, settings: dict[str, Any], questions: TextIO, answers: TextIO) -> None:
    workload = importlib.import_module(_MODULES[name]).build(settings)
    start = time.perf_counter()
    workload.first()
    first_step = time.perf_counter() - start
    for _ in range(settings["warmup"]):
        workload.run()
    versions = {**workload.versions, "python": platform.python_version()}
    _answer(answers, first_step_s=first_step, versions=versions, threads=available_cores())
    for _ in questions:
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


def _end_with_parent() -> None:
    """Have Linux kill this process when the one that started it ends: the end of input is seen only after a step, which
    may take minutes while a peer compiles."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _rank() -> int:
    """The number that the launcher gave this process: RANK_ID from msrun, RANK from torchrun."""
    return int(os.environ["RANK_ID" if "RANK_ID" in os.environ else "RANK"])


def _connect(address: str, rank: int) -> tuple[TextIO, TextIO]:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    os.dup(connection.fileno())  # open until the process has ended: by that the other side knows it has
    stream = connection.makefile("rw", encoding="utf-8")
    _answer(stream, rank=rank, pid=os.getpid())
    return stream, stream


def _reserve_stdout() -> TextIO:
    """The real standard output; file descriptor 1 becomes standard error, for C++ code that prints too."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def _limit_threads(threads: int, rank: int) -> None:
    """Bind the process to `threads` cores, each rank to others: of all the ways to bound a library, the one that each
    must keep."""
    if hasattr(os, "sched_setaffinity"):
        first = rank * threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[first : first + threads])
    for variable in _THREAD_VARIABLES:
        os.environ[variable] = str(threads)


def _answer(answers: TextIO, **values: Any) -> None:
    print(json.dumps(values), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
