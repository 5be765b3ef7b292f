"""The files that runs leave in a folder: finding them, and removing them for a new run.

Decision 0074 says why a new run refuses a folder that holds a run.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Union

from mindcv.engine.snapshot import SUFFIX, UNSAVED
from mindcv.utils.errors import CheckpointError
from mindcv.utils.logger import counted, logger

__all__ = ["EVENT_FILES", "REPORT", "find_checkpoints", "is_without_state", "newest_checkpoint", "remove_runs"]

# MindCV names its checkpoints in the same way.
_CHECKPOINT = re.compile(rf".+-\d+_\d+(\.ckpt|{re.escape(SUFFIX)})|.+_best\.ckpt")
_NUMBERED = re.compile(r"(.+)-(\d+)_(\d+)\.ckpt")
# File names of TensorBoard's event files. TensorBoard reads every file whose name contains "tfevents"; the end of the
# name tells the files of this library from those of others.
EVENT_FILES = "events.out.tfevents.*.mindcv"
REPORT = "report.html"  # the page of tools/report.py
_RESULTS = ("run.json", "metrics.csv", "learning_curve.png", "reconstruction-*.png", REPORT, EVENT_FILES)


def find_checkpoints(folder: Union[str, os.PathLike]) -> list[Path]:
    """Return the sorted checkpoints and snapshots of any model in a folder; [] if the folder does not exist."""
    return sorted(path for path in Path(folder).glob("*") if _CHECKPOINT.fullmatch(path.name))


def newest_checkpoint(folder: Union[str, os.PathLike]) -> Path:
    """Return the checkpoint of the last epoch and step in a folder, by the numbers in the names.

    Raises:
        CheckpointError: the folder holds none, or those of several models.
    """
    found = [path for path in find_checkpoints(folder) if _NUMBERED.fullmatch(path.name)]
    models = sorted({_NUMBERED.fullmatch(path.name)[1] for path in found})
    if not found:
        raise CheckpointError(f"folder '{folder}' holds no checkpoint (<model>-<epoch>_<step>.ckpt)")
    if len(models) > 1:
        raise CheckpointError(f"folder '{folder}' holds checkpoints of {' and '.join(models)}: give one of the files")
    return max(found, key=lambda path: tuple(map(int, _NUMBERED.fullmatch(path.name).groups()[1:])))


def is_without_state(folder: Union[str, os.PathLike]) -> bool:
    """Whether the run in a folder was killed before its first snapshot (see `SnapshotWriter.begin`)."""
    return (Path(folder) / UNSAVED).exists()


def remove_runs(folder: Union[str, os.PathLike]) -> None:
    """Remove the files that runs have left in a folder, and log their number."""
    results = [path for pattern in _RESULTS for path in sorted(Path(folder).glob(pattern))]
    files = [*find_checkpoints(folder), *results]
    for path in files:
        path.unlink(missing_ok=True)
    if files:
        logger.info("overwrite: removed %s of an earlier run from '%s'", counted(len(files), "file"), folder)
