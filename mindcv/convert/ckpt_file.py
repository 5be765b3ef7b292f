"""MindSpore's `.ckpt` file: arrays by name, and beside them what a reader of the weights must know, as JSON.

MindSpore and MindCV read the same file: to them the metadata is one more, unknown entry.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Union

import mindspore as ms
import numpy as np

from mindcv.utils.errors import CheckpointError
from mindcv.utils.files import atomic_path

__all__ = ["read_ckpt", "write_ckpt"]

_METADATA = "mindcv_metadata"


def write_ckpt(path: Union[str, os.PathLike], weights: Mapping[str, ms.Tensor], metadata: Mapping[str, Any]) -> None:
    """Write `weights` and `metadata` (JSON values) to `path`; a crash leaves the old file or the new one, whole."""
    entries = [{"name": name, "data": tensor} for name, tensor in weights.items()]
    with atomic_path(path) as side:
        ms.save_checkpoint(entries, str(side), append_dict={_METADATA: json.dumps(metadata)})


def read_ckpt(path: Union[str, os.PathLike]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the metadata of a `.ckpt` file; {} for the metadata of a file that other software wrote.

    Raises:
        CheckpointError: no such file, or not a whole MindSpore checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        there = f"the folder '{path.parent}' is there" if path.parent.is_dir() else f"nor a folder '{path.parent}'"
        raise CheckpointError(f"checkpoint '{path}' does not exist ({there})")
    if path.suffix != ".ckpt":
        raise CheckpointError(f"checkpoint '{path}' is not a .ckpt file, the one format that this version reads")
    if path.stat().st_size == 0:  # MindSpore blames prefixes that nobody gave
        raise CheckpointError(f"checkpoint '{path}' is empty")
    try:
        entries = ms.load_checkpoint(str(path))
    except Exception as error:  # MindSpore raises several kinds for a damaged file
        raise CheckpointError(f"checkpoint '{path}' cannot be read: {str(error).strip().splitlines()[0]}") from None
    metadata = json.loads(str(entries.pop(_METADATA, "{}")))
    return {name: entry.asnumpy() for name, entry in entries.items() if isinstance(entry, ms.Tensor)}, metadata
