"""The SHA-256 digest inside a checkpoint of this library, which shows whether the file was damaged.

Decision 0054 says what the digest covers and why MindSpore's own checksum is not enough.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Union

import numpy as np

from mindcv.utils.errors import CheckpointError

__all__ = ["DIGEST_KEY", "check_digest", "digest_of"]

# Name of the entry that holds the digest. Files of other software and of earlier versions have no
# such entry.
DIGEST_KEY = "mindcv_sha256"


def digest_of(arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> str:
    """Compute the SHA-256 of the texts and of the names, types, shapes and bytes of the arrays, as hexadecimal digits.

    The result does not depend on the order of the entries or on the byte order in memory.
    """
    digest = hashlib.sha256(json.dumps(dict(texts), sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], arrays[name].dtype.newbyteorder("<"))
        digest.update(f"\n{name} {array.dtype.str} {arrays[name].shape}\n".encode())
        # The view as bytes is needed because types of other libraries, such as bfloat16, provide no
        # buffer.
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def check_digest(
    path: Union[str, os.PathLike], digest: str, arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]
) -> None:
    """Compare the digest that the file `path` contains with the digest of the arrays and texts read from it.

    Raises:
        CheckpointError: the two digests differ.
    """
    if digest != digest_of(arrays, texts):
        raise CheckpointError(f"'{path}' is damaged: its digest does not match its contents; copy or download it again")
