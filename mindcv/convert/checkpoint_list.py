"""Finds the checkpoint files that a list of files, folders and glob patterns names."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from mindcv.convert.checkpoint_file import INDEX_SUFFIX, SNAPSHOT_SUFFIX
from mindcv.utils.errors import CheckpointError

__all__ = ["find_checkpoint_files"]

_SUFFIXES = (".ckpt", ".safetensors", ".pth", ".pt", ".bin")


def find_checkpoint_files(patterns: Sequence[str], more_suffixes: Sequence[str] = ()) -> list[str]:
    """Return the checkpoint files that the patterns name, each once, in the order of the patterns.

    A folder stands for the checkpoints in it, sorted by name. Snapshots for resuming a run are left out. An index of
    shards stands for its shards, so all other files of its folder are left out. A pattern is sorted by name too.

    Args:
        patterns: files, folders or glob patterns; `**` stands for folders of any depth.
        more_suffixes: ends of the names of other files that count as checkpoints.

    Raises:
        CheckpointError: a pattern names no file, or a folder holds no checkpoint.
    """
    suffixes = (*_SUFFIXES, *more_suffixes)
    files: dict[str, str] = {}
    for pattern in patterns:
        found = [pattern] if os.path.lexists(pattern) else sorted(glob.glob(pattern, recursive=True))
        if not found:
            raise CheckpointError(f"'{pattern}' names no checkpoint: a file, a folder or a glob pattern is expected")
        is_folder = os.path.isdir(pattern)
        if is_folder:
            found = [str(path) for path in _checkpoints_in(Path(pattern), suffixes)]
        for path in found:
            # A pattern may also match logs, folders and snapshots beside the checkpoints; a file that is named counts.
            if path == pattern or is_folder or _is_checkpoint(Path(path), suffixes):
                files.setdefault(os.path.realpath(path), path)
    if not files:
        raise CheckpointError(f"no checkpoint is among the files that {' '.join(map(repr, patterns))} names")
    return list(files.values())


def _checkpoints_in(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    indices = sorted(folder.glob(f"*{INDEX_SUFFIX}"))
    found = indices or sorted(path for path in folder.iterdir() if _is_checkpoint(path, suffixes))
    if not found:
        raise CheckpointError(f"folder '{folder}' holds no checkpoint: no file name ends in {' '.join(suffixes)}")
    return found


def _is_checkpoint(path: Path, suffixes: Sequence[str]) -> bool:
    has_suffix = path.name.endswith((*suffixes, INDEX_SUFFIX)) and not path.name.endswith(SNAPSHOT_SUFFIX)
    return has_suffix and path.is_file() and not path.name.startswith(".")
