"""Starts the processes that keep cores busy beside a measurement (`--busy_processes`), and ends them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.busy import READY
from benchmarks.processes import environment
from mindcv.utils.errors import UserError

__all__ = ["busy_processes"]


@contextmanager
def busy_processes(count: int, num_cores: int) -> Iterator[list[int]]:
    """Run `count` processes that compute without a pause. Yield their process ids, and kill them afterwards.

    The processes belong to the session of this process, as a contender of one process does. Linux then shares the cores
    out thread by thread. Between programs of different terminals, it may share them out by session first.

    Args:
        count: number of processes.
        num_cores: number of cores that the processes may use. They are the first ones, as for contenders.

    Raises:
        UserError: a process could not start.
    """
    command = [sys.executable, "-m", "benchmarks.busy", str(num_cores)]
    processes: list[subprocess.Popen] = []
    try:
        for _ in range(count):
            processes.append(
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environment()
                )
            )
        for process in processes:
            if process.stdout.readline().strip() != READY:
                raise UserError(f"busy_processes: a process ended with status {process.wait()} before it was busy")
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()
