"""Writes files atomically, and checks that files and folders can be written."""

from __future__ import annotations

import glob
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Union

from mindcv.utils.errors import UserError

__all__ = [
    "atomic_files",
    "atomic_path",
    "atomic_write_text",
    "ensure_writable",
    "ensure_writable_dir",
    "file_problem",
    "folder_problem",
    "remove_open_side_files",
    "remove_side_files",
]

# Part of the name of each side file.
_SIDE = ".part-"
# Side files that this process is writing.
_open_sides: set[Path] = set()


@contextmanager
def atomic_path(path: Union[str, os.PathLike]) -> Iterator[Path]:
    """Yield the path of a side file in the same folder. It is renamed to `path` if the block succeeds.

    The bytes are on disk (fsync) before the file is renamed, and the folder is synchronised afterwards. So a crash
    leaves either the old file or the new one. If the block raises, the side file is removed and `path` is unchanged.
    The side file has the suffix of `path`, because writers such as Pillow and matplotlib depend on it. A symbolic link
    is kept, and the file that it points to is replaced. A device or a pipe, such as /dev/stdout, is kept too, and the
    bytes are written to it.

    Raises:
        UserError: the block or the disk raised an OSError, because the disk is full or cannot be written to.
    """
    is_stream = _is_stream(path)
    path = Path(path) if is_stream else Path(os.path.realpath(path))
    with _saving(path) as register:
        folder = Path(tempfile.gettempdir()) if is_stream else path.parent
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}{_SIDE}", suffix=path.suffix, dir=folder)
        side = register(name)
        os.close(handle)
        yield side
        if is_stream:
            with open(side, "rb") as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target)
            return
        os.chmod(side, 0o666 & ~_umask())  # mkstemp sets 0600 and MindSpore sets 0400
        _fsync(side)
        os.replace(side, path)
        _fsync(path.parent)


@contextmanager
def atomic_files(path: Union[str, os.PathLike]) -> Iterator[Path]:
    """Yield the path of a file with the name of `path` in a temporary folder beside it.

    Use it for a file that needs further files with fixed names beside it. The block writes all of them to the temporary
    folder. If it succeeds, they are moved to the folder of `path`, the file itself last, and replace what has their
    names. If the block raises, the temporary folder is removed and nothing else changes. The bytes are on disk (fsync)
    before they are moved.

    Raises:
        UserError: the block or the disk raised an OSError, because the disk is full or cannot be written to.
    """
    path = Path(os.path.realpath(path))
    with _saving(path) as register:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = register(tempfile.mkdtemp(prefix=f".{path.stem}{_SIDE}", dir=path.parent))
        yield folder / path.name
        for entry in sorted(folder.rglob("*")):
            os.chmod(entry, (0o777 if entry.is_dir() else 0o666) & ~_umask())
            _fsync(entry)
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name == path.name):
            target = path.parent / entry.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(entry, target)
        _fsync(path.parent)


@contextmanager
def _saving(path: Path) -> Iterator[Callable[[str], Path]]:
    """Yield a function that takes note of the side file or temporary folder of `path`, and returns it as a `Path`.

    It is removed when the block ends, if it still exists. An OSError of the block becomes a `UserError`.
    """
    sides = []

    def register(name: str) -> Path:
        sides.append(Path(name))
        _open_sides.add(sides[-1])
        return sides[-1]

    try:
        yield register
    except OSError as error:
        reason = error.strerror or str(error) if os.path.isdir(path.parent) else _why_not_writable(path.parent, error)
        raise UserError(f"cannot save '{path}': {reason}; files that were saved before are complete") from error
    finally:
        for side in sides:
            _remove(side)
            _open_sides.discard(side)


def remove_side_files(folder: Union[str, os.PathLike]) -> None:
    """Remove the side files of killed processes from a folder. No other process may be writing to the folder."""
    for path in Path(folder).glob(f".*{_SIDE}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_open_side_files() -> None:
    """Remove the side files that this process is writing. Call it before the process ends immediately."""
    for side in list(_open_sides):
        _remove(side)


def atomic_write_text(path: Union[str, os.PathLike], text: str) -> None:
    """Write `text` as UTF-8 atomically.

    A byte of a file name that is not UTF-8 is written as an escape such as \\udcff, which JSON reads back unchanged.
    """
    with atomic_path(path) as side:
        side.write_text(text, encoding="utf-8", errors="backslashreplace")


def ensure_writable_dir(path: Union[str, os.PathLike]) -> Path:
    """Create the folder `path` and its parents, and check that a file can be created in it.

    Raises:
        UserError: the folder cannot be created or written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"cannot write to folder '{path}': {_why_not_writable(Path(path), error)}") from None
    return path


def ensure_writable(*paths: str) -> None:
    """Check that files can be created at `paths`, before a long computation that writes them. Empty paths are ignored.

    Raises:
        UserError: a path is given twice or is a folder, or its folder cannot be created or written to.
    """
    for number, path in enumerate(paths):
        if problem := file_problem(path, paths[:number]):
            raise UserError(problem)


def file_problem(path: str, others: Sequence[str] = ()) -> str:
    """Return a sentence that says why no file can be created at `path`; '' if it can. Nothing is created.

    Args:
        path: the file. An empty path has no problem.
        others: files that the same process writes.
    """
    if not path:
        return ""
    if os.path.abspath(path) in [os.path.abspath(other) for other in others if other]:
        return f"'{path}' is given for two results, and one would overwrite the other: give two different paths"
    if os.path.isdir(path) or path.endswith(("/", os.sep)):
        return f"cannot write to '{path}': it is a folder, but the name of a file is expected"
    return "" if _is_stream(path) else folder_problem(Path(os.path.realpath(path)).parent)


def folder_problem(path: Union[str, os.PathLike]) -> str:
    """Return a sentence that says why the folder `path` cannot be created or written to; '' if it can.

    Nothing is created: missing folders are tried out in a temporary folder, which is removed.
    """
    folder = Path(os.path.abspath(path))
    place = _nearest_existing(folder)
    try:
        if place == folder:
            with tempfile.TemporaryFile(dir=folder):
                return ""
        with tempfile.TemporaryDirectory(prefix=f".check{_SIDE}", dir=place) as made:
            (Path(made) / folder.relative_to(place)).mkdir(parents=True)
    except OSError as error:
        return f"cannot write to folder '{path}': {_why_not_writable(Path(path), error)}"
    return ""


def _nearest_existing(path: Path) -> Path:
    """Return `path`, or the nearest place above it that exists."""
    return next(place for place in (path, *path.parents) if os.path.lexists(place))


def _why_not_writable(path: Path, error: OSError) -> str:
    for each in (path, *path.parents):
        if os.path.isdir(each):
            break
        if os.path.exists(each):
            return f"'{each}' is a file, and a folder is expected"
        if os.path.islink(each):
            return f"'{each}' is a link to a folder that does not exist"
    if isinstance(error, FileNotFoundError):  # in /proc, for example
        return f"no files can be created in '{each}'"
    return error.strerror


def _is_stream(path: Union[str, os.PathLike]) -> bool:
    """Return whether `path` is a device, a pipe or a socket. Renaming a file to it would replace it."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _remove(side: Path) -> None:
    """Remove a side file and files of its writer beside it, or a temporary folder.

    MindSpore writes to another suffix first.
    """
    if side.is_dir():
        shutil.rmtree(side, ignore_errors=True)
        return
    for path in side.parent.glob(f"{glob.escape(side.stem)}.*"):
        path.unlink(missing_ok=True)
    side.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
