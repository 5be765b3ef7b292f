"""`run.json`: how each process that trained into a folder was started, with which options and on which machine.

Decision 0085 says what a resumed run adds, and why no name of a host or a user is recorded.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional, Union

import mindspore as ms
import numpy as np
import PIL

from mindcv.engine.callbacks import Callback
from mindcv.engine.progress import RunProgress
from mindcv.kernels import status
from mindcv.utils.errors import UserError
from mindcv.utils.files import atomic_write_text
from mindcv.utils.logger import logger

__all__ = ["RUN_RECORD", "RunRecord", "describe_machine", "describe_start", "git_revision", "read_starts"]

RUN_RECORD = "run.json"
_GIT_SECONDS = 10


class RunRecord(Callback):
    """Adds an entry to the list `starts` in `run.json` after the first step of a process.

    A new run and a resumed run both add an entry. The entry of a resumed run says at which step it goes on. A run that
    fails before the end of its first step adds none, so that it leaves no file in a new folder. An earlier run has been
    removed by then (`RemovalOfEarlierRun`).

    Args:
        folder: folder of the run, which must exist.
        facts: JSON values of the entry, see `describe_start`.
    """

    def __init__(self, folder: Union[str, os.PathLike], facts: Mapping[str, Any]):
        self.path = Path(folder) / RUN_RECORD
        self.start = dict(facts)
        self.is_written = False

    def on_train_begin(self, progress: RunProgress) -> None:
        """Note where the process goes on."""
        is_resumed = progress.global_step > 0
        place = {"epoch": progress.epoch, "step": progress.step, "global_step": progress.global_step}
        self.start["resumed_at"] = place if is_resumed else None

    def reads_weights(self, global_step: int) -> bool:
        """See `Callback.reads_weights`. Writing may fail, and then no later step may have been started."""
        return not self.is_written

    def on_step_end(self, progress: RunProgress) -> None:
        """Add the entry after the first step."""
        if not self.is_written:
            self._add()
        self.is_written = True

    def _add(self) -> None:
        starts = [*self._earlier_starts(), self.start]
        atomic_write_text(self.path, json.dumps({"starts": starts}, indent=2, ensure_ascii=False) + "\n")

    def _earlier_starts(self) -> list[dict[str, Any]]:
        """Return the entries that the file holds. A damaged file is kept under another name."""
        try:
            return read_starts(self.path.parent)
        except UserError as error:
            number = 1
            while (kept := self.path.with_name(f"run.{number}.json")).exists():
                number += 1
            self.path.rename(kept)
            logger.warning("%s; it is kept as '%s'", error, kept)
            return []


def read_starts(folder: Union[str, os.PathLike]) -> list[dict[str, Any]]:
    """Return the entries of `run.json` in a folder, the oldest first; [] if there is no such file.

    Raises:
        UserError: the file is damaged, or another program wrote it.
    """
    path = Path(folder) / RUN_RECORD
    if not path.exists():
        return []
    try:
        starts = json.loads(path.read_text(encoding="utf-8"))["starts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' cannot be read as the record of a run: {error!r}") from None
    if not isinstance(starts, list) or not all(isinstance(start, dict) for start in starts):
        raise UserError(f"'{path}' is not the record of a run: 'starts' must be a list of objects")
    return starts


def describe_start(options: Mapping[str, Any], sources: Mapping[str, str], num_processes: int) -> dict[str, Any]:
    """Describe how this process was started, as JSON values.

    Args:
        options: the value of every option.
        sources: for each option that was set, where its value comes from: the command line, a line of a file or the
            resumed run.
        num_processes: number of processes of the run.
    """
    import mindcv

    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": list(sys.argv),
        "options": {name: list(value) if isinstance(value, tuple) else value for name, value in options.items()},
        "option_sources": {name: sources[name] for name in options if name in sources},
        "versions": {
            "mindcv": mindcv.__version__,
            "mindspore": ms.__version__,
            "numpy": np.__version__,
            "pillow": PIL.__version__,
            "python": platform.python_version(),
        },
        "git": git_revision(Path(mindcv.__file__).parent),
        "device": ms.get_context("device_target"),
        "num_processes": num_processes,
        "machine": describe_machine(),
    }


def describe_machine(proc: Union[str, os.PathLike] = "/proc") -> dict[str, Any]:
    """Return facts about this machine that change speed or last digits; None stands for an unknown fact.

    `cores` is the number of cores that this process may use. `memory_mib` is the memory of the whole machine.
    `kernels` is the instruction set that the CPU kernels use; None without kernels.

    Args:
        proc: folder in which Linux describes the system. Other systems do not have it.
    """
    model = re.search(r"^model name\s*:\s*(.+)$", _text(Path(proc) / "cpuinfo"), re.M)
    memory = re.search(r"^MemTotal:\s+(\d+) kB", _text(Path(proc) / "meminfo"), re.M)
    has_affinity = hasattr(os, "sched_getaffinity")
    return {
        "processor": model[1].strip() if model else platform.processor() or platform.machine() or None,
        "cores": len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count(),
        "memory_mib": int(memory[1]) // 1024 if memory else None,
        "system": platform.platform(),
        "kernels": status().instruction_set,
    }


def git_revision(folder: Union[str, os.PathLike]) -> Optional[dict[str, Any]]:
    """Return the git commit of a package's folder, and whether files that git tracks were changed since.

    The result is None if git does not track the package. So an installed package does not take the commit of a
    repository that happens to be around it.
    """
    if not _git(folder, "ls-files", "--error-unmatch", "__init__.py"):
        return None
    revision, changes = _git(folder, "rev-parse", "HEAD"), _git(folder, "status", "--porcelain", "-uno")
    if revision is None or changes is None:
        return None
    return {"revision": revision, "has_changes": bool(changes)}


def _git(folder: Union[str, os.PathLike], *words: str) -> Optional[str]:
    """Return what a git command prints; None if it fails, or if git is not installed."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # `git status` must not write to the repository
    command = ["git", "-C", os.fspath(folder), *words]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_GIT_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return ""
