"""Files that a run can be resumed from: whole, or refused.

Decision 0068 says why their format is not MindSpore's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from mindcv.convert import write_safetensors
from mindcv.convert.ckpt_file import METADATA_KEY
from mindcv.convert.digest import check_digest
from mindcv.convert.safetensors_file import read_and_verify
from mindcv.utils.errors import CheckpointError
from mindcv.utils.logger import logger

__all__ = ["SUFFIX", "UNSAVED", "SavedRun", "StateFiles", "find_newest", "read_state", "write_state"]

SUFFIX = ".resume.safetensors"
# An empty file that is in a folder from the beginning of a run until the run is saved for the first time.
UNSAVED = ".not-saved-yet"
_RECORD = "mindcv_run"
_EARLIER_DIGEST = "sha256"  # where version 0.1.0 kept the digest

# A run as arrays by name, and as JSON values.
SavedRun = tuple[Mapping[str, np.ndarray], Mapping[str, Any]]


def write_state(path: Union[str, os.PathLike], arrays: Mapping[str, np.ndarray], record: Mapping[str, Any]) -> None:
    """Write a run to `path`, a safetensors file, under a digest of all of it; the file is whole or not there.

    Raises:
        UserError: the disk is full, or cannot be written to.
    """
    # To a reader of weights it is one more checkpoint, with the metadata of one.
    write_safetensors(path, arrays, {METADATA_KEY: json.dumps(record.get("metadata", {})), _RECORD: json.dumps(record)})


def read_state(path: Union[str, os.PathLike]) -> SavedRun:
    """What `write_state` wrote.

    Raises:
        CheckpointError: no such file, no file of this kind, or one that is not what was written, by a single bit.
    """
    arrays, texts, is_verified = read_and_verify(path)
    digest = texts.pop(_EARLIER_DIGEST, None)
    if _RECORD not in texts or not (is_verified or digest):
        raise CheckpointError(f"'{path}' holds no run to resume")
    if not is_verified:
        check_digest(path, digest, arrays, texts)
    return arrays, json.loads(texts[_RECORD])


def find_newest(folder: Union[str, os.PathLike]) -> Optional[tuple[Path, SavedRun]]:
    """The newest whole saved run in a folder, or None where there is none at all; damaged ones are named.

    Raises:
        CheckpointError: there are some, and all are damaged.
    """
    found, num_damaged = [], 0
    for path in sorted(Path(folder).glob(f"*{SUFFIX}")):
        try:
            found.append((path, read_state(path)))
        except CheckpointError as error:
            num_damaged += 1
            logger.warning("not used: %s", error)
    if not found:
        if num_damaged:
            raise CheckpointError(f"none of the {num_damaged} files *{SUFFIX} in '{folder}' is whole")
        return None
    return max(found, key=lambda file: _age_of(file[1]))


class StateFiles:
    """The saved runs of a folder: `<model>-<epoch>_<step>.resume.safetensors`, of which the newest are kept.

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

    def save(self, arrays: Mapping[str, np.ndarray], record: Mapping[str, Any], epoch: int, step: int) -> Path:
        """Write a run, then remove what is too old; what earlier processes wrote goes once there are enough of its own.

        Raises:
            UserError: see `write_state`.
        """
        path = self.folder / f"{self.model_name}-{epoch}_{step}{SUFFIX}"
        write_state(path, arrays, record)
        (self.folder / UNSAVED).unlink(missing_ok=True)
        self._written = [*(old for old in self._written if old != path), path][-self.keep_max :]
        if len(self._written) == self.keep_max:
            for old in self.folder.glob(f"{self.model_name}-*{SUFFIX}"):
                if old not in self._written:
                    old.unlink(missing_ok=True)
        return path


def _age_of(run: SavedRun) -> tuple[float, int, bool]:
    """Grows with time: of a process that was started later, at a later step, with its epoch's end behind it."""
    record = run[1]
    return record["started"], record["state"]["global_step"], record["state"]["is_epoch_done"]
