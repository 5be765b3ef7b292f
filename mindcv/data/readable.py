"""Whether images can be read, found out before hours are spent on them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Optional

import numpy as np

from mindcv.data.dataset import ImageDataset
from mindcv.data.image_io import decode
from mindcv.utils.distributed import Group
from mindcv.utils.errors import DataError

__all__ = ["find_unreadable", "why_unreadable"]

_THREADS = 8  # reading headers is waiting for the disk


def find_unreadable(dataset: ImageDataset, group: Group, whole: bool = False) -> list[int]:
    """The samples whose images cannot be read.

    The processes of the group share the work, and each gets the whole answer.

    Args:
        dataset: the same in all processes, apart from the shard.
        group: the processes.
        whole: decode each image instead of reading its header.
    """
    is_bad = np.zeros(len(dataset), np.int64)
    share = range(group.rank, len(dataset), group.size)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="mindcv-check") as threads:
        reasons = threads.map(lambda index: why_unreadable(dataset, index, whole), share)
        is_bad[list(share)] = [reason is not None for reason in reasons]
    return np.flatnonzero(group.sum_integers(is_bad)).tolist()


def why_unreadable(dataset: ImageDataset, index: int, whole: bool = False) -> Optional[str]:
    """The reason why the image of a sample cannot be read; None when it can be."""
    try:
        if whole:
            decode(dataset.read(index)[0])
        else:
            dataset.check(index)
    except DataError as error:
        return str(error)
    return None
