"""Finds images that cannot be read, before a long run or the compilation of a network starts."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Optional

import numpy as np

from mindcv.data.dataset import ImageDataset
from mindcv.data.image_io import check_header, decode
from mindcv.utils.distributed import Group
from mindcv.utils.errors import DataError
from mindcv.utils.logger import logger

__all__ = ["UnreadableImages", "find_unreadable", "find_unreadable_files", "why_unreadable"]

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


def find_unreadable_files(paths: Sequence[str]) -> dict[str, DataError]:
    """Return the error of each file whose header is not that of a readable image. The pixels are not read.

    Pipes and devices are left out, because they can be read only once.
    """
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="mindcv-check") as threads:
        errors = zip(paths, threads.map(_header_error, paths))
        return {path: error for path, error in errors if error is not None}


def _header_error(path: str) -> Optional[DataError]:
    if os.path.exists(path) and not os.path.isfile(path):
        return None
    try:
        with open(path, "rb") as file:
            check_header(file)
    except DataError as error:
        return DataError(f"image '{path}': {error}")
    except OSError as error:
        return DataError(f"image '{path}': {error.strerror}")
    return None


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


class UnreadableImages:
    """Collects the images that cannot be read, lists them at the end, and decides whether they are an error.

    Args:
        num_images: how many images there are in all.
        may_skip: no error as long as there is one image that can be read.
    """

    def __init__(self, num_images: int, may_skip: bool):
        self.num_images, self.may_skip = num_images, may_skip
        self.errors: list[DataError] = []

    def leave_out(self, paths: Sequence[str]) -> list[str]:
        """Return the images whose headers can be read.

        Raises:
            DataError: there are none.
        """
        errors = find_unreadable_files(paths)
        for error in errors.values():
            self.add(error)
        if len(errors) == len(paths):
            self.check()
        return [path for path in paths if path not in errors]

    def add(self, error: DataError) -> None:
        """Take note of one image."""
        self.errors.append(error)

    def check(self) -> None:
        """List the images that were left out. Call it at the end, since a progress bar hides earlier lines.

        Raises:
            DataError: no image could be read, or images were left out and `may_skip` is off.
        """
        count = len(self.errors)
        if not count:
            return
        if self.num_images > 1:
            for error in self.errors:
                logger.warning("%s", error)
        if self.num_images == count == 1:
            raise self.errors[0]
        if count == self.num_images:
            raise DataError(f"none of the {count} images can be read")
        if not self.may_skip:
            raise DataError(
                f"{count} of {self.num_images} images cannot be read and were left out; --skip_corrupt True makes "
                "this no error"
            )
