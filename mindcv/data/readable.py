"""Finds images that cannot be read, before a long run starts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Optional

import numpy as np

from mindcv.data.dataset import ImageDataset
from mindcv.data.image_io import decode
from mindcv.utils.distributed import Group
from mindcv.utils.errors import DataError

__all__ = ["find_unreadable", "why_unreadable"]

_THREADS = 8  # threads mostly wait for the disk when they read headers


def find_unreadable(dataset: ImageDataset, group: Group, whole: bool = False) -> list[int]:
    """Return the indices of the samples whose images cannot be read.

    The processes of the group share the work, and each returns the complete result.

    Args:
        dataset: data set, which must be equal in all processes apart from the shard.
        group: group of the processes.
        whole: whether to decode each image instead of reading only its header.
    """
    is_bad = np.zeros(len(dataset), np.int64)
    share = range(group.rank, len(dataset), group.size)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="mindcv-check") as threads:
        reasons = threads.map(lambda index: why_unreadable(dataset, index, whole), share)
        is_bad[list(share)] = [reason is not None for reason in reasons]
    return np.flatnonzero(group.sum_integers(is_bad)).tolist()


def why_unreadable(dataset: ImageDataset, index: int, whole: bool = False) -> Optional[str]:
    """Return the reason why the image of a sample cannot be read, or None if it can be read."""
    try:
        if whole:
            decode(dataset.read(index)[0])
        else:
            dataset.check(index)
    except DataError as error:
        return str(error)
    return None
