"""The digest that tells whether a checkpoint of this library is what was written.

Decision 0054 says what it covers and why MindSpore's own checksum is not enough.
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

# Of the entry of a file that holds its digest. Files of other software and of earlier versions have none.
DIGEST_KEY = "mindcv_sha256"


def digest_of(arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> str:
    """SHA-256 over texts and over the arrays' names, types, shapes and bytes, in hexadecimal digits.

    The order of the entries and the byte order in memory make no difference.
    """
    digest = hashlib.sha256(json.dumps(dict(texts), sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], arrays[name].dtype.newbyteorder("<"))
        digest.update(f"\n{name} {array.dtype.str} {arrays[name].shape}\n".encode())
        # As bytes: other libraries' types, such as bfloat16, give no buffer.
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def check_digest(
    path: Union[str, os.PathLike], digest: str, arrays: Mapping[str, np.ndarray], texts: Mapping[str, str]
) -> None:
    """Compare the digest in the file `path` with that of the arrays and texts that were read from it.

    Raises:
        CheckpointError: they differ.
    """
    if digest != digest_of(arrays, texts):
        raise CheckpointError(f"'{path}' is damaged: its digest is not that of its contents")
