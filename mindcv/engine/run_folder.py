"""The files that runs leave in a folder: finding them, and removing them for a new run.

Decision 0074 says why a new run refuses a folder that holds a run.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Union

from mindcv.engine.snapshot import SUFFIX, UNSAVED
from mindcv.utils.logger import counted, logger

__all__ = ["find_checkpoints", "is_without_state", "remove_runs"]

# MindCV names its checkpoints in the same way.
_CHECKPOINT = re.compile(rf".+-\d+_\d+(\.ckpt|{re.escape(SUFFIX)})|.+_best\.ckpt")
_RESULTS = ("metrics.csv", "learning_curve.png", "reconstruction-*.png")


def find_checkpoints(folder: Union[str, os.PathLike]) -> list[Path]:
    """Return the sorted checkpoints and snapshots of any model in a folder; [] if the folder does not exist."""
    return sorted(path for path in Path(folder).glob("*") if _CHECKPOINT.fullmatch(path.name))


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
