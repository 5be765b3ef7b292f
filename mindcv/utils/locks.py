"""Locks that keep processes apart. The system drops the locks of a process when that ends, however it ends.

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
except ImportError:  # Windows, where processes are not kept apart
    fcntl = None

__all__ = ["LOCK_FILE", "hold_folder", "locked", "release_folders"]

# The file in a folder whose lock stands for the folder. Its text tells which process holds it, for messages only.
LOCK_FILE = ".in-use.lock"


@dataclass(frozen=True)
class _Hold:
    """The lock of a folder, which lasts as long as `file` is open in this process."""

    folder: Path
    file: IO[bytes]
    is_folder_new: bool


_holds: dict[str, _Hold] = {}


def hold_folder(folder: Union[str, os.PathLike], advice: str) -> str:
    """Keep `folder`, which is made if need be, from other processes until `release_folders` or the end of this process.

    Where the file system has no locks, a warning says so, and the folder counts as held.

    Args:
        folder: the folder.
        advice: what the warning tells the user to do.

    Returns:
        An empty string, also when this process holds the folder already; else the process that holds it.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    place = os.path.realpath(folder)
    if place in _holds:
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
        file.close()  # the process that held it has removed it meanwhile
    file.truncate(0)
    file.write(f"process {os.getpid()} on host {socket.gethostname()}\n".encode())
    file.flush()
    _holds[place] = _Hold(path.parent, file, is_new)
    return ""


def release_folders() -> None:
    """Let other processes have the folders that this one holds; a folder that was made and is empty is removed."""
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
    """In a forked process: without this, a worker that outlives its parent would keep the parent's lock."""
    while _holds:
        _holds.popitem()[1].file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_folders)


@contextmanager
def locked(path: Union[str, os.PathLike]) -> Iterator[IO[bytes]]:
    """The file at `path`, made if need be, open for appending, and kept from other processes that ask for it this way.

    Whoever holds it may rename or remove it: those who waited for it then get a new one of that name.
    """
    while True:
        with open(path, "a+b") as file:
            _lock(file, "start only one process that fetches it", may_wait=True)
            if _is_named(file, path):
                yield file
                return


def _lock(file: IO[bytes], advice: str, may_wait: bool) -> None:
    """Lock `file` until it is closed.

    Raises:
        BlockingIOError: another process has it locked, and this one may not wait.
    """
    if fcntl is None:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX if may_wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:  # some network file systems have no locks
        logger.warning("cannot lock '%s' (%s): %s", file.name, error.strerror, advice)


def _is_named(file: IO[bytes], path: Union[str, os.PathLike]) -> bool:
    """Whether `path` is still this open file, and not gone or another one."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False
