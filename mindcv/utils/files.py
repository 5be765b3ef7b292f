"""Files that are either whole or not there."""

from __future__ import annotations

import glob
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Union

from mindcv.utils.errors import UserError

__all__ = [
    "atomic_path",
    "atomic_write_text",
    "ensure_writable",
    "ensure_writable_dir",
    "remove_open_side_files",
    "remove_side_files",
]

# What a side file has in its name.
_SIDE = ".part-"
# The side files that this process is writing to.
_open_sides: set[Path] = set()


@contextmanager
def atomic_path(path: Union[str, os.PathLike]) -> Iterator[Path]:
    """A side name to write to, in the same folder; it becomes `path` when the block ends well.

    The bytes are on disk (fsync) before the name changes, and the folder's entry after it, so that a crash leaves
    either the old file or the new one. When the block raises, the side file is removed and `path` is untouched. The
    side name keeps the suffix of `path`, which writers such as Pillow and matplotlib look at. A symbolic link stays,
    and the file that it points to is replaced. A device or a pipe, such as /dev/stdout, stays too and is written to.

    Raises:
        UserError: an OSError came out of the block or of the disk, which is full or cannot be written to.
    """
    is_stream = _is_stream(path)
    path = Path(path) if is_stream else Path(os.path.realpath(path))
    side = None
    try:
        folder = Path(tempfile.gettempdir()) if is_stream else path.parent
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}{_SIDE}", suffix=path.suffix, dir=folder)
        side = Path(name)
        _open_sides.add(side)
        os.close(handle)
        yield side
        if is_stream:
            with open(side, "rb") as source, open(path, "wb") as target:
                shutil.copyfileobj(source, target)
            return
        os.chmod(side, 0o666 & ~_umask())  # mkstemp's 0600 and MindSpore's 0400 are nobody's wish for a result
        _fsync(side)
        os.replace(side, path)
        _fsync(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot save '{path}': {reason}; what was saved before is whole") from error
    finally:
        if side is not None:
            _remove(side)
            _open_sides.discard(side)


def remove_side_files(folder: Union[str, os.PathLike]) -> None:
    """Remove what killed processes left in a folder; only where nobody else is writing to it."""
    for path in Path(folder).glob(f".*{_SIDE}*"):
        path.unlink(missing_ok=True)


def remove_open_side_files() -> None:
    """Remove the side files that this process is writing to, before it ends at once."""
    for side in list(_open_sides):
        _remove(side)


def atomic_write_text(path: Union[str, os.PathLike], text: str) -> None:
    """Write `text` as UTF-8 so that `path` is never half written.

    A byte of a file name that is not UTF-8 becomes an escape such as \\udcff, which JSON reads back as it was.
    """
    with atomic_path(path) as side:
        side.write_text(text, encoding="utf-8", errors="backslashreplace")


def ensure_writable_dir(path: Union[str, os.PathLike]) -> Path:
    """Create `path` with its parents and prove that a file can be made in it.

    Raises:
        UserError: the folder cannot be made or written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"cannot write to folder '{path}': {error.strerror}") from None
    return path


def ensure_writable(*paths: str) -> None:
    """Prove, before the work that fills them, that files can be made at `paths`; empty ones stand for none.

    Raises:
        UserError: a path is given twice or is a folder, or a file's folder cannot be made or written to.
    """
    given = [os.path.abspath(path) for path in paths if path]
    for path in filter(None, paths):
        if given.count(os.path.abspath(path)) > 1:
            raise UserError(f"'{path}' is given as the place of two results: one would overwrite the other")
        if os.path.isdir(path) or path.endswith(("/", os.sep)):
            raise UserError(f"cannot write to '{path}': it is a folder, and the name of a file is expected")
        if not _is_stream(path):
            ensure_writable_dir(Path(os.path.realpath(path)).parent)


def _is_stream(path: Union[str, os.PathLike]) -> bool:
    """Whether `path` is a device, a pipe or a socket: renaming a file to it would put the file in its place."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _remove(side: Path) -> None:
    """Remove a side file, and what its writer put beside it: MindSpore's writes to another suffix first."""
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
