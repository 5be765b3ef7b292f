"""Locks that exclude other processes. The system releases the locks of a process when the process ends in any way.

Decision 0076 says why a run locks its folder.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Union

from mindcv.utils.files import ensure_writable_dir
from mindcv.utils.logger import logger

try:
    import fcntl
except ImportError:  # Windows, where there are no locks
    fcntl = None

__all__ = ["LOCK_FILE", "hold_folder", "holder_of", "locked", "release_folders"]

# A folder is locked by the lock of this file in it. The text of the file names the process that
# holds the lock, for messages only.
LOCK_FILE = ".in-use.lock"


@dataclass(frozen=True)
class _Hold:
    """The lock of a folder. The lock lasts as long as `file` is open in this process."""

    folder: Path
    file: IO[bytes]
    is_folder_new: bool


_holds: dict[str, _Hold] = {}


def hold_folder(folder: Union[str, os.PathLike], advice: str) -> str:
    """Lock `folder` against other processes until `release_folders` or the end of this process.

    The folder is created if it does not exist. If the file system does not support locks, a warning says so, and the
    folder counts as locked.

    Args:
        folder: folder to lock.
        advice: advice to the user in that warning.

    Returns:
        '' if this process now holds the lock, and otherwise a description of the process that holds it.

    Raises:
        UserError: the folder cannot be created or written to.
    """
    real_path = os.path.realpath(folder)
    if real_path in _holds:
        return ""
    is_new = not os.path.isdir(folder)
    path = ensure_writable_dir(folder) / LOCK_FILE
    while True:
        file = open(path, "a+b")  # noqa: SIM115  (the lock lasts as long as the file is open)
        try:
            _lock(file, advice, may_wait=False)
        except BlockingIOError:
            with file:
                file.seek(0)
                return file.read(200).decode(errors="replace").strip() or "another process"
        if _is_named(file, path):
            break
        file.close()  # the process that held the lock has removed the file in the meantime
    file.truncate(0)
    file.write(f"process {os.getpid()} on host {socket.gethostname()}\n".encode())
    file.flush()
    _holds[real_path] = _Hold(path.parent, file, is_new)
    return ""


def holder_of(folder: Union[str, os.PathLike]) -> str:
    """Return a description of the process that has locked `folder`, or '' if no process has. Nothing is created."""
    if fcntl is None:
        return ""
    try:
        with open(Path(folder) / LOCK_FILE, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read(200).decode(errors="replace").strip() or "another process"
    except OSError:  # no lock file, or a file system without locks
        pass
    return ""


def release_folders() -> None:
    """Release all folders that this process has locked. Remove a folder that `hold_folder` created if it is empty."""
    while _holds:
        _, hold = _holds.popitem()
        path = hold.folder / LOCK_FILE
        with suppress(OSError), hold.file:
            if _is_named(hold.file, path):
                path.unlink()
        if hold.is_folder_new:
            with suppress(OSError):
                hold.folder.rmdir()


def _forget_folders() -> None:
    """Drop the locks in a forked process. Otherwise a worker that outlives its parent would keep the parent's lock."""
    while _holds:
        _holds.popitem()[1].file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_folders)


@contextmanager
def locked(path: Union[str, os.PathLike]) -> Iterator[IO[bytes]]:
    """Open the file at `path` for appending, and lock it against other processes that call this function.

    The file is created if it does not exist. The holder of the lock may rename or remove the file. The processes that
    wait for it then get a new file of this name.
    """
    while True:
        with open(path, "a+b") as file:
            _lock(file, "start only one process that downloads this file", may_wait=True)
            if _is_named(file, path):
                yield file
                return


def _lock(file: IO[bytes], advice: str, may_wait: bool) -> None:
    """Lock `file` until it is closed.

    Raises:
        BlockingIOError: another process has locked the file, and `may_wait` is off.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX if may_wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:  # some network file systems do not support locks
        logger.warning("cannot lock '%s' (%s): %s", file.name, error.strerror, advice)


def _is_named(file: IO[bytes], path: Union[str, os.PathLike]) -> bool:
    """Return whether `path` is still the name of this open file, and not missing or another file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
