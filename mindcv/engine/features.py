"""Features of images from a frozen network, kept in a temporary file, so that memory does not grow with the images."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Optional, Union

import numpy as np
from mindspore import nn
from tqdm import tqdm

from mindcv.data import ImageLoader
from mindcv.engine.evaluate import predict_batches, start_prediction
from mindcv.engine.inference import read_image
from mindcv.utils.distributed import Group
from mindcv.utils.errors import DataError, NotFiniteError, UserError

__all__ = ["FeatureRows", "Features", "extract_features", "extract_from_files", "read_batches"]

_BLOCK_BYTES = 1 << 24
_READERS = 4  # threads that decode the images of a batch


class FeatureRows:
    """Rows of float32 values in a temporary file without a name, which the system removes with the object.

    Args:
        num_features: number of values in a row.
        folder: folder of the file. None means the folder for temporary files, which `TMPDIR` names.

    Raises:
        UserError: the file cannot be written, because the disk is full for example.
    """

    dtype = np.dtype("<f4")

    def __init__(self, num_features: int, folder: Optional[Union[str, os.PathLike]] = None):
        self.num_features = num_features
        self.num_rows = 0
        self._folder = os.fspath(folder or tempfile.gettempdir())
        self._way_out = (
            "give another folder for the output" if folder else "the environment variable TMPDIR names another"
        )
        try:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - the object closes it
        except OSError as error:
            raise self._failure(error) from None

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and number of features."""
        return self.num_rows, self.num_features

    @property
    def nbytes(self) -> int:
        """Size of all rows in bytes."""
        return self.num_rows * self.num_features * self.dtype.itemsize

    def append(self, rows: np.ndarray) -> None:
        """Add rows [N, num_features]."""
        try:
            self._file.seek(self.nbytes)
            self._file.write(np.ascontiguousarray(rows, self.dtype))
            self._file.flush()
        except OSError as error:
            raise self._failure(error) from None
        self.num_rows += len(rows)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows `start` to `stop`, which may be beyond the end."""
        stop = min(stop, self.num_rows)
        row_bytes = self.num_features * self.dtype.itemsize
        self._file.seek(start * row_bytes)
        data = self._file.read(max(stop - start, 0) * row_bytes)
        return np.frombuffer(data, self.dtype).reshape(-1, self.num_features)

    def blocks(self, max_rows: Optional[int] = None) -> Iterator[np.ndarray]:
        """Yield all rows in order, at most 16 MB and `max_rows` rows at a time."""
        step = max(1, min(_BLOCK_BYTES // (self.num_features * self.dtype.itemsize), max_rows or self.num_rows))
        for start in range(0, self.num_rows, step):
            yield self.read(start, start + step)

    def close(self) -> None:
        """Remove the file now."""
        self._file.close()

    def _failure(self, error: OSError) -> UserError:
        reason = error.strerror or str(error)
        return UserError(f"cannot keep the features in folder '{self._folder}': {reason}; {self._way_out}")


@dataclass
class Features:
    """The features and the labels of the images of a data set, in the order of the data set."""

    rows: FeatureRows
    labels: np.ndarray


def extract_features(
    network: nn.Cell, loader: ImageLoader, num_features: int, group: Group, title: str
) -> Optional[Features]:
    """Run a network over every image of a loader once, and collect its results in the main process.

    Args:
        network: maps images [B, C, H, W] to features [B, num_features]. It stays in evaluation mode.
        loader: loader for evaluation, of which each process reads its share.
        num_features: number of features of an image.
        group: the processes that work together.
        title: name of the images in the progress bar.

    Returns:
        The features of all images in the main process, bit-identical for any number of processes; None in the others.

    Raises:
        DataError: an image cannot be read.
        UserError: a feature is not finite, the disk is full, or another process has failed.
    """
    network.set_train(False)
    own = group.together(_extract_share, network, loader, num_features, title if group.is_main else "")
    return own if group.size == 1 else _gather(own, group)


def _extract_share(network: nn.Cell, loader: ImageLoader, num_features: int, title: str) -> Features:
    """Compute the features of the images of this process. An empty `title` means no progress bar."""
    rows, labels = FeatureRows(num_features), []
    start = partial(start_prediction, network, batch_size=loader.get_batch_size())
    batches, total = predict_batches(start, loader.batches()), loader.get_dataset_size()
    bar = tqdm(batches, total=total, desc=title, disable=None if title else True, leave=False)
    for _, batch_labels, features in bar:
        rows.append(_checked(features))
        labels.append(batch_labels)
    return Features(rows, np.concatenate(labels) if labels else np.zeros(0, np.int32))


def _checked(features: np.ndarray) -> np.ndarray:
    if not np.isfinite(features).all():
        raise NotFiniteError("the network's features are not finite: its weights or the input hold NaN or infinity")
    # A sum over processes turns -0.0 into 0.0, so one process does it as well.
    return features + np.float32(0)


def _gather(own: Features, group: Group) -> Optional[Features]:
    """Collect the rows of all processes in the main process, in the order in which a single process has them.

    Image i of the data set belongs to process i % size. Blocks of equal size pass through the
    memory of each process.
    """
    counts = np.zeros(group.size, np.int64)
    counts[group.rank] = own.rows.num_rows
    counts = group.sum_integers(counts)
    labels = np.zeros(int(counts.sum()), np.int64)
    labels[group.rank :: group.size] = own.labels
    labels = group.sum_integers(labels)
    num_features = own.rows.num_features
    step = max(1, _BLOCK_BYTES // (num_features * group.size * 4))
    rows, failure = FeatureRows(num_features) if group.is_main else None, None
    for start in range(0, int(counts.max()), step):
        blocks = group.gather(own.rows.read(start, start + step), step)  # [size, step, num_features]
        if rows is not None and failure is None:
            is_there = start + np.arange(step)[:, None] < counts
            try:
                rows.append(blocks.transpose(1, 0, 2)[is_there])
            except UserError as error:
                failure = error  # the other processes wait for this one until the last block
    own.rows.close()
    if failure is not None:
        raise failure
    return None if rows is None else Features(rows, labels)


def read_batches(
    paths: Sequence[str],
    transform: Callable[[bytes], np.ndarray],
    batch_size: int,
    on_unreadable: Callable[[DataError], None],
    title: str,
) -> Iterator[tuple[np.ndarray, list[int]]]:
    """Yield batches of image files: images [N, C, H, W], and the indices of their files. Unreadable files are left out.

    A batch has fewer than `batch_size` images if it is the last one, or if some of its files cannot be read.

    Args:
        paths: image files.
        transform: maps the bytes of an image file to [C, H, W] float32.
        batch_size: number of files at a time.
        on_unreadable: function that is called with the error of each image that cannot be read.
        title: title of the progress bar.
    """

    def read(path: str) -> Union[np.ndarray, DataError]:
        try:
            return read_image(path, transform)
        except DataError as error:
            return error

    with ThreadPoolExecutor(_READERS, thread_name_prefix="mindcv-read") as threads:
        for first in tqdm(range(0, len(paths), batch_size), desc=title, disable=None, leave=False):
            results = list(threads.map(read, paths[first : first + batch_size]))
            images = {first + place: image for place, image in enumerate(results) if isinstance(image, np.ndarray)}
            for error in results:
                if isinstance(error, DataError):
                    on_unreadable(error)
            if images:
                yield np.stack(list(images.values())), list(images)


def extract_from_files(
    network: nn.Cell,
    paths: Sequence[str],
    transform: Callable[[bytes], np.ndarray],
    batch_size: int,
    rows: FeatureRows,
    on_unreadable: Callable[[DataError], None],
) -> list[int]:
    """Append the features of image files to `rows`, and return the indices of the files that could be read.

    Args:
        network: maps images [B, C, H, W] to features, in evaluation mode.
        paths, transform, on_unreadable: see `read_batches`.
        batch_size: number of images at a time.
        rows: rows that the features are appended to.

    Raises:
        UserError: a feature is not finite, or the disk is full.
    """
    batch_size, kept = min(batch_size, len(paths)), []
    start = partial(start_prediction, network, batch_size=batch_size)
    batches = read_batches(paths, transform, batch_size, on_unreadable, "extract")
    for _, indices, features in predict_batches(start, batches):
        rows.append(_checked(features))
        kept += indices
    return kept
