"""Reader and writer of MindSpore's `.ckpt` files, with metadata (JSON) and a digest beside the arrays.

MindSpore and MindCV read these files too. They see the metadata and the digest as two more entries and ignore them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Union

import mindspore as ms
import numpy as np

from mindcv.convert.digest import DIGEST_KEY, check_digest, digest_of
from mindcv.convert.file_bytes import existing_file
from mindcv.utils.device import mindspore_log_disabled
from mindcv.utils.errors import CheckpointError
from mindcv.utils.files import atomic_path

__all__ = ["METADATA_KEY", "read_ckpt", "write_ckpt"]

# Name of the entry that holds the metadata as JSON.
METADATA_KEY = "mindcv_metadata"


def write_ckpt(path: Union[str, os.PathLike], weights: Mapping[str, ms.Tensor], metadata: Mapping[str, Any]) -> None:
    """Write `weights` and `metadata` (JSON values) atomically: a crash leaves either the old file or the new one.

    Raises:
        UserError: the file cannot be written (see `atomic_path`).
    """
    entries = [{"name": name, "data": tensor} for name, tensor in weights.items()]
    texts = {METADATA_KEY: json.dumps(metadata)}
    digest = digest_of({name: tensor.asnumpy() for name, tensor in weights.items()}, texts)
    with atomic_path(path) as side, mindspore_log_disabled():
        ms.save_checkpoint(entries, str(side), append_dict={**texts, DIGEST_KEY: digest})


def read_ckpt(path: Union[str, os.PathLike]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays and the metadata of a `.ckpt` file. The metadata is {} if other software wrote the file.

    bfloat16 is converted to float32.

    Raises:
        CheckpointError: the file does not exist, is not a complete MindSpore checkpoint, or its digest does not match
            its contents.
    """
    path = existing_file(path)
    if path.suffix != ".ckpt":  # MindSpore refuses any other suffix
        raise CheckpointError(
            f"checkpoint '{path}' must have a name that ends in .ckpt, because MindSpore reads no other: rename it to "
            f"'{path.with_suffix('.ckpt').name}'"
        )
    try:
        open(path, "rb").close()
    except OSError as error:
        raise CheckpointError(f"checkpoint '{path}' cannot be read: {error.strerror}") from None
    try:
        with mindspore_log_disabled():
            entries = ms.load_checkpoint(str(path))
    except Exception:  # MindSpore raises several kinds for a damaged file, and speaks of permissions that are right
        raise CheckpointError(
            f"checkpoint '{path}' cannot be read: it is damaged, or no MindSpore checkpoint; copy or download it again"
        ) from None
    digest = entries.pop(DIGEST_KEY, None)
    texts = {name: str(entries.pop(name)) for name in (METADATA_KEY,) if name in entries}
    tensors = {name: entry for name, entry in entries.items() if isinstance(entry, ms.Tensor)}
    if digest is not None:
        check_digest(path, str(digest), {name: tensor.asnumpy() for name, tensor in tensors.items()}, texts)
    try:
        metadata = dict(json.loads(texts.get(METADATA_KEY, "{}")))
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"checkpoint '{path}' has damaged metadata: {error}") from None
    return {name: _array(tensor) for name, tensor in tensors.items()}, metadata


def _array(tensor: ms.Tensor) -> np.ndarray:
    # MindSpore represents bfloat16 in NumPy by a type that other libraries do not know.
    return (tensor.astype(ms.float32) if tensor.dtype == ms.bfloat16 else tensor).asnumpy()
