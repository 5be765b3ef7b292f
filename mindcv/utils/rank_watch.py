"""Says which worker of a job ended badly, and where its log is.

msrun ends a job when a worker dies, but names neither; it does show the errors in the log of its scheduler. So the
scheduler's process watches the workers beside it and writes there. Linux only, from 5.3 on: it reads /proc, and has the
system tell it of an end at once.

Decision 0073 says why a thread cannot do this.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

__all__ = ["watch_workers"]

_PROC = Path("/proc")
_PAUSE = 0.2  # seconds between two looks for new workers


@dataclass(frozen=True)
class _Worker:
    """A worker as it was when last seen alive."""

    pid: int
    rank: str
    log: str


def watch_workers() -> None:
    """Fork a process that watches this one's siblings, and ends with this one or with the first that ends badly.

    A process and not a thread: MindSpore's scheduler waits for its workers without letting Python run.
    """
    if not hasattr(os, "pidfd_open"):
        return
    sys.stderr.flush()
    scheduler, launcher = os.getpid(), os.getppid()
    if os.fork():
        return
    try:
        _watch(scheduler, launcher)
    finally:
        os._exit(0)


def _watch(scheduler: int, launcher: int) -> None:
    seen: set[int] = set()
    running: dict[int, _Worker] = {}  # by the descriptors that tell of their ends
    while os.getppid() == scheduler:
        for pid in _children_of(launcher):
            worker = _worker(pid) if pid not in seen else None
            if worker is not None:
                seen.add(pid)
                running[os.pidfd_open(pid)] = worker
        # How a process ended can be read only until msrun takes note of it, which looks once a second.
        for descriptor in select.select(list(running), [], [], _PAUSE)[0]:
            worker = running.pop(descriptor)
            os.close(descriptor)
            end = _bad_end(worker.pid)
            if end:
                # The word in brackets is what msrun looks for.
                sys.stderr.write(f"[ERROR] rank {worker.rank} {end}; its log is {worker.log}\n")
                sys.stderr.flush()
                return


def _children_of(parent: int) -> list[int]:
    found = []
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            fields = _stat(int(folder.name))
            if fields and int(fields[1]) == parent:
                found.append(int(folder.name))
    return found


def _stat(pid: int) -> Optional[list[str]]:
    """The fields of proc(5)'s stat from the state on, or None for a process that is gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _worker(pid: int) -> Optional[_Worker]:
    """The process, if it is a worker."""
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes().decode(errors="replace").split("\0")
        values = dict(item.split("=", 1) for item in environment if "=" in item)
        log = os.readlink(_PROC / str(pid) / "fd" / "1")
    except OSError:
        return None
    return _Worker(pid, values.get("RANK_ID", "?"), log) if values.get("MS_ROLE") == "MS_WORKER" else None


def _bad_end(pid: int) -> Optional[str]:
    """How a process ended, unless it runs on, ended well, or was taken note of by its parent already."""
    fields = _stat(pid)
    if not fields or fields[0] != "Z":
        return None
    status = int(fields[-1])  # as of wait(2)
    if os.WIFSIGNALED(status):
        return f"was ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with status {os.WEXITSTATUS(status)}" if os.WEXITSTATUS(status) else None
