"""Reports which worker of a job failed, and where the worker's log is.

msrun stops a job when a worker dies, but names neither the worker nor its log. It does show errors from the log of its
scheduler. The scheduler's process therefore watches the workers and writes to its own log. This works on Linux 5.3 and
later, because it reads /proc and waits on process descriptors (pidfd).

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
_POLL_INTERVAL = 0.2  # seconds between two searches for new workers


@dataclass(frozen=True)
class _Worker:
    """A worker process. `log` is the path of its log file."""

    pid: int
    rank: str
    log: str


def watch_workers() -> None:
    """Fork a process that watches the siblings of this one. It ends with this process or after the first failure.

    A thread would not do: MindSpore's scheduler waits for its workers without releasing Python's global lock.
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
    running: dict[int, _Worker] = {}  # process descriptor -> worker
    while os.getppid() == scheduler:
        for pid in _children_of(launcher):
            worker = _worker(pid) if pid not in seen else None
            if worker is not None:
                seen.add(pid)
                running[os.pidfd_open(pid)] = worker
        # The exit status can be read only until msrun collects it, and msrun looks once a second.
        for descriptor in select.select(list(running), [], [], _POLL_INTERVAL)[0]:
            worker = running.pop(descriptor)
            os.close(descriptor)
            failure = _failure_of(worker.pid)
            if failure:
                # msrun shows lines that contain "[ERROR]".
                sys.stderr.write(f"[ERROR] rank {worker.rank} {failure}; its log is {worker.log}\n")
                sys.stderr.flush()
                return


def _children_of(parent: int) -> list[int]:
    children = []
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            fields = _stat(int(folder.name))
            if fields and int(fields[1]) == parent:
                children.append(int(folder.name))
    return children


def _stat(pid: int) -> Optional[list[str]]:
    """Return the fields of /proc/PID/stat from the state on (see proc(5)), or None if the process is gone."""
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def _worker(pid: int) -> Optional[_Worker]:
    """Return the process if it is a worker, and None otherwise."""
    try:
        environment = (_PROC / str(pid) / "environ").read_bytes().decode(errors="replace").split("\0")
        values = dict(item.split("=", 1) for item in environment if "=" in item)
        log = os.readlink(_PROC / str(pid) / "fd" / "1")
    except OSError:
        return None
    return _Worker(pid, values.get("RANK_ID", "?"), log) if values.get("MS_ROLE") == "MS_WORKER" else None


def _failure_of(pid: int) -> Optional[str]:
    """Describe how a process failed. Return None if it still runs, succeeded, or its parent collected its status."""
    fields = _stat(pid)
    if not fields or fields[0] != "Z":
        return None
    status = int(fields[-1])  # encoded as in wait(2)
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"exited with status {os.WEXITSTATUS(status)}" if os.WEXITSTATUS(status) else None
