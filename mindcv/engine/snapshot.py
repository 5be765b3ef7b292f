"""Snapshots of a run, from which it can be resumed, and their files. A file is whole, or it is refused.

Decision 0068 says why their format is not MindSpore's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from mindcv.convert import write_safetensors
from mindcv.convert.ckpt_file import METADATA_KEY
from mindcv.convert.digest import check_digest
from mindcv.convert.safetensors_file import read_and_verify
from mindcv.engine.progress import RunProgress
from mindcv.utils.errors import CheckpointError
from mindcv.utils.logger import logger

__all__ = [
    "SUFFIX",
    "UNSAVED",
    "RunDescription",
    "Snapshot",
    "SnapshotWriter",
    "find_newest",
    "read_snapshot",
    "write_snapshot",
]

SUFFIX = ".resume.safetensors"
# An empty file that is in a folder from the beginning of a run until the run is saved for the first time.
UNSAVED = ".not-saved-yet"
_RECORD = "mindcv_run"
# How the images of a step are divided between processes: 1 was image by image in turn, 2 is batch by batch.
_DIVISION = 2
_EARLIER_DIGEST = "sha256"  # where version 0.1.0 kept the digest


@dataclass(frozen=True)
class RunDescription:
    """What a run is, whatever step it is at. All values can be written as JSON.

    Attributes:
        started: time at which the process began, in seconds since 1970.
        config: the value of every option of the run.
        metadata: what a reader of the weights must know; it is also the metadata of the run's checkpoints.
        num_images: number of training images; None in files of version 0.1.0.
        division: how the images of a step are divided between processes. It is 1 in files of earlier versions, whose
            runs of several processes do not go on bit by bit.
    """

    started: float
    config: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    num_images: Optional[int] = None
    division: int = _DIVISION


@dataclass(frozen=True)
class Snapshot:
    """Everything that a run needs to continue from one step as if it had never stopped.

    Attributes:
        arrays: the parameters of the network, the optimizer, the average of the weights and the loss scale, by name.
        description: what run it is.
        progress: where the run was.
        callbacks: class name of a callback -> what its `saved` gave.
        folder: folder that the snapshot was read from; None for one that was taken in this process.
    """

    arrays: Mapping[str, np.ndarray]
    description: RunDescription
    progress: RunProgress
    callbacks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    folder: Optional[Path] = None

    @property
    def record(self) -> dict[str, Any]:
        """All but the arrays, as JSON values."""
        return {**asdict(self.description), "state": self.progress.as_dict(), "callbacks": dict(self.callbacks)}


def write_snapshot(path: Union[str, os.PathLike], snapshot: Snapshot) -> None:
    """Write a snapshot to a safetensors file with a digest of its contents. The file is whole or not there.

    Raises:
        UserError: the disk is full, or it cannot be written to.
    """
    # A reader of weights takes the file for a checkpoint, so it has the metadata of one.
    metadata, record = dict(snapshot.description.metadata), snapshot.record
    write_safetensors(path, snapshot.arrays, {METADATA_KEY: json.dumps(metadata), _RECORD: json.dumps(record)})


def read_snapshot(path: Union[str, os.PathLike]) -> Snapshot:
    """Read a file that `write_snapshot` wrote.

    Raises:
        CheckpointError: the file does not exist, is no snapshot, or differs from what was written by a single bit.
    """
    arrays, texts, is_verified = read_and_verify(path)
    digest = texts.pop(_EARLIER_DIGEST, None)
    if _RECORD not in texts or not (is_verified or digest):
        raise CheckpointError(f"'{path}' holds no run to resume")
    if not is_verified:
        check_digest(path, digest, arrays, texts)
    record = json.loads(texts[_RECORD])
    try:
        progress, callbacks = RunProgress(**record.pop("state")), record.pop("callbacks")
        description = RunDescription(**{"division": 1, **record})
        return Snapshot(arrays, description, progress, callbacks, Path(path).parent)
    except (KeyError, TypeError) as error:  # the digest is right, so that the file is as it was written
        raise CheckpointError(f"'{path}' was written by another version of mindcv, which saves other fields") from error


def find_newest(folder: Union[str, os.PathLike]) -> Optional[tuple[Path, Snapshot]]:
    """The newest whole saved run in a folder, or None where there is none at all; damaged ones are named.

    Raises:
        CheckpointError: there are some, and all are damaged.
    """
    found, num_damaged = [], 0
    for path in sorted(Path(folder).glob(f"*{SUFFIX}")):
        try:
            found.append((path, read_snapshot(path)))
        except CheckpointError as error:
            num_damaged += 1
            logger.warning("not used: %s", error)
    if not found:
        if num_damaged:
            raise CheckpointError(f"none of the {num_damaged} files *{SUFFIX} in '{folder}' is whole")
        return None
    return max(found, key=lambda file: _age_of(file[1]))


class SnapshotWriter:
    """Writes the snapshots of a run, `<model>-<epoch>_<step>.resume.safetensors`, and keeps the newest files.

    Args:
        folder: must exist.
        model_name: first part of the file names.
        keep_max: how many; with one, a file that the disk damages is the end of the run.
    """

    def __init__(self, folder: Union[str, os.PathLike], model_name: str, keep_max: int = 2):
        self.folder = Path(folder)
        self.model_name = model_name
        self.keep_max = keep_max
        self._written: list[Path] = []

    def begin(self) -> None:
        """Mark the folder as that of a new run: what is in it without a saved run was made by a run that was killed."""
        (self.folder / UNSAVED).touch()

    def end_without_save(self) -> None:
        """Take the mark of `begin` away again, where a run ends before its first step."""
        (self.folder / UNSAVED).unlink(missing_ok=True)

    def save(self, snapshot: Snapshot) -> Path:
        """Write a snapshot and return its path, then remove old files.

        Files of earlier processes are removed once this process has written `keep_max` of its own.

        Raises:
            UserError: see `write_snapshot`.
        """
        progress = snapshot.progress
        path = self.folder / f"{self.model_name}-{progress.epoch}_{progress.step}{SUFFIX}"
        write_snapshot(path, snapshot)
        (self.folder / UNSAVED).unlink(missing_ok=True)
        self._written = [*(old for old in self._written if old != path), path][-self.keep_max :]
        if len(self._written) == self.keep_max:
            for old in self.folder.glob(f"{self.model_name}-*{SUFFIX}"):
                if old not in self._written:
                    old.unlink(missing_ok=True)
        return path


def _age_of(snapshot: Snapshot) -> tuple[float, int, bool]:
    """A key that grows with time: the start of the process, then the step, then whether the epoch has ended."""
    progress = snapshot.progress
    return snapshot.description.started, progress.global_step, progress.is_epoch_done
