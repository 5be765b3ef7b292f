"""Batches as a pure function of epoch and batch number, and workers that make them ahead of time."""

from __future__ import annotations

import ctypes
import math
import mmap
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing.context import BaseContext
from typing import Any, Optional, Union

import numpy as np

from mindcv.data.batch_memory import BatchMemory
from mindcv.data.constants import Purpose
from mindcv.data.dataset import ImageDataset
from mindcv.data.mixup import Mixup
from mindcv.data.sampler import epoch_order, samples_per_rank
from mindcv.data.splits import Splitter
from mindcv.data.transform_base import Compose
from mindcv.utils.errors import DataError, UserError
from mindcv.utils.logger import logger
from mindcv.utils.random import stream

__all__ = ["Batch", "BatchMaker", "EpochView", "SampleReader", "run_ahead"]

_WAY_OUT = "--skip_corrupt True replaces such images in training and leaves them out of validation"

Batch = tuple[np.ndarray, np.ndarray]

# A shape to a float32 array of that shape, with anything in it.
Allocator = Callable[[tuple[int, ...]], np.ndarray]


def _new(shape: tuple[int, ...]) -> np.ndarray:
    return np.empty(shape, np.float32)


class SampleReader:
    """Reads and transforms one sample; may replace a corrupt one.

    Args:
        dataset: where samples come from.
        transform: for the encoded image; what comes out is a (C, H, W) array. A `Splitter` makes several.
        target_transform: for the label.
        skip_corrupt: a sample that cannot be read or decoded is replaced by the next readable one, the data set
            beginning anew at its end; counted, and warned of once. Otherwise it is a DataError that names it.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        transform: Union[Compose, Splitter],
        target_transform: Compose,
        skip_corrupt: bool = False,
    ):
        self.dataset = dataset
        self.transform = transform
        self.target_transform = target_transform
        self.skip_corrupt = skip_corrupt
        self.num_splits = transform.num_splits if isinstance(transform, Splitter) else 1
        # Shared with forked workers.
        self._num_replaced = multiprocessing.Value(ctypes.c_int64, 0)
        self._is_corrupt = multiprocessing.RawArray(ctypes.c_bool, len(dataset)) if skip_corrupt else None

    @property
    def num_replaced(self) -> int:
        """Corrupt samples replaced so far, each as often as it came."""
        return self._num_replaced.value

    def read(
        self, index: int, epoch: int, repeat: int, outs: Sequence[Optional[np.ndarray]]
    ) -> tuple[list[np.ndarray], Any]:
        """The image of a sample in each of its `num_splits` versions, and its label.

        The pixels depend on seed, epoch, index and repeat alone. The versions are written to `outs`, where there is
        room and the transforms can; see `ArrayTransform`.

        Raises:
            DataError: the sample is corrupt and `skip_corrupt` off, or every sample is corrupt.
        """
        if not self.skip_corrupt:
            try:
                return self._read(index, epoch, repeat, outs)
            except DataError as error:
                raise DataError(f"{error} ({_WAY_OUT})") from error
        for step in range(len(self.dataset)):
            candidate = (index + step) % len(self.dataset)
            if self._is_corrupt[candidate]:
                continue
            try:
                sample = self._read(candidate, epoch, repeat, outs)
            except DataError as error:
                with self._num_replaced.get_lock():  # another worker may have come upon it at the same time
                    is_news, self._is_corrupt[candidate] = not self._is_corrupt[candidate], True
                if is_news:
                    logger.warning("%s; another image takes its place", error)
                continue
            if step:
                with self._num_replaced.get_lock():
                    self._num_replaced.value += 1
            return sample
        raise DataError(f"not one of the {len(self.dataset)} images can be read")

    def count_values(self, indices: Iterable[int]) -> int:
        """Numbers in all versions of one image, the first of `indices` that can be read; 0 when none of them can."""
        for index in indices:
            try:
                versions, _ = self._read(index, 0, 0, [None] * self.num_splits)
            except DataError:
                continue
            return sum(map(np.size, versions))
        return 0

    def _read(
        self, index: int, epoch: int, repeat: int, outs: Sequence[Optional[np.ndarray]]
    ) -> tuple[list[np.ndarray], Any]:
        image, label = self.dataset.read(index)
        key = (self.dataset.seed, Purpose.AUGMENT, epoch, index, repeat)
        rng = stream(*key)
        try:
            if isinstance(self.transform, Splitter):
                versions = self.transform(image, rng, key, outs)
            else:
                versions = [self.transform(image, rng, outs[0])]
        except DataError as error:
            raise DataError(f"cannot decode '{self.dataset.describe(index)}': {error}") from error
        return versions, self.target_transform(label, rng)


class BatchMaker:
    """Makes any batch of any epoch, for the rank that the data set is sharded for.

    Args:
        reader: makes the samples.
        batch_size: samples in a batch.
        drop_remainder: whether a last batch that is smaller is left out.
        is_training: pads the shards to equal length (see `epoch_order`) and repeats augmentation.
        mixup: mixes each batch, or None.
    """

    def __init__(
        self,
        reader: SampleReader,
        batch_size: int,
        drop_remainder: bool = False,
        is_training: bool = False,
        mixup: Optional[Mixup] = None,
    ):
        self.reader = reader
        self.batch_size = batch_size
        self.drop_remainder = drop_remainder
        self.is_training = is_training
        self.mixup = mixup
        dataset = reader.dataset
        ranks = {"rank": dataset.shard_id, "num_ranks": dataset.num_shards}
        self.num_samples = count = samples_per_rank(len(dataset), **ranks, pad=is_training)
        self.num_batches = count // batch_size if drop_remainder else -(-count // batch_size)

    def order(self, epoch: int) -> np.ndarray:
        """The samples of an epoch, see `epoch_order`."""
        dataset = self.reader.dataset
        return epoch_order(
            len(dataset),
            seed=dataset.seed,
            epoch=epoch,
            shuffle=dataset.shuffle,
            num_repeats=dataset.num_aug_repeats if self.is_training else 0,
            rank=dataset.shard_id,
            num_ranks=dataset.num_shards,
            pad=self.is_training,
        )

    def count_values(self, order: np.ndarray, number: int) -> int:
        """Numbers in a batch like `number` of that order, judged by one of its images; 0 when none can be read."""
        places = order[number * self.batch_size : (number + 1) * self.batch_size]
        return self.batch_size * self.reader.count_values(places[:, 0].tolist())

    def make(self, order: np.ndarray, epoch: int, number: int, empty: Allocator = _new) -> Batch:
        """Batch `number` of an epoch of that order: float32 (B, C, H, W), and int32 (B,) labels.

        Labels are float32 (B, num_classes) after mixup, and whatever shape target transforms give them otherwise. With
        S splits there are S * B rows: the B clean images, then the same in their second version, and so on.

        Args:
            order: from `order`.
            epoch: number of the epoch, from 0.
            number: of the batch in the epoch.
            empty: makes the array of the images.

        Raises:
            DataError: an image cannot be read or decoded.
            UserError: the transforms do not give arrays of one shape.
        """
        places = order[number * self.batch_size : (number + 1) * self.batch_size]
        num_splits = self.reader.num_splits
        images, labels = None, []
        for row, (index, repeat) in enumerate(places.tolist()):
            rows = [None] * num_splits if images is None else list(images[:, row])
            versions, label = self.reader.read(index, epoch, repeat, rows)
            if images is None:  # it takes one image to know the shape
                images = empty((num_splits, len(places), *np.shape(versions[0])))
            for split, image in enumerate(versions):
                self._check_image(image, images.shape[2:], index)
                if image is not rows[split]:
                    images[split, row] = image
            labels.append(label)
        images = images.reshape(-1, *images.shape[2:])
        labels = np.concatenate([np.asarray(labels)] * num_splits)
        labels = labels.astype(np.float32 if labels.dtype.kind == "f" else np.int32)
        if self.mixup is None:
            return images, labels
        dataset = self.reader.dataset
        rng = stream(dataset.seed, Purpose.MIX, epoch, number, dataset.shard_id)
        return self.mixup(images, labels, rng, epoch, in_place=True)

    def _check_image(self, image: Any, shape: tuple[int, ...], index: int) -> None:
        if not isinstance(image, np.ndarray) or image.shape != shape:
            raise UserError(
                "the transforms must end in arrays of one shape (C, H, W), got "
                f"{getattr(image, 'shape', type(image).__name__)} for '{self.reader.dataset.describe(index)}' in a "
                f"batch of {shape}"
            )


class EpochView:
    """The batches from `start` on as a sequence, the form that MindSpore's GeneratorDataset reads.

    An epoch ends when the sequence has been read through: when a batch is asked for again it is that of the next
    epoch, so that an iterator over several epochs augments and shuffles each anew. (A batch number always goes to the
    same worker of MindSpore's, which is why counting the questions for it is enough, in processes too.)
    """

    def __init__(self, maker: BatchMaker, epoch: int = 0, start: int = 0):
        self.maker = maker
        self.epoch = epoch
        self.start = start
        self._visits: dict[int, int] = {}
        self._latest: tuple[int, Optional[np.ndarray]] = (-1, None)

    def __len__(self) -> int:
        return max(self.maker.num_batches - self.start, 0)

    def __getitem__(self, place: int) -> Batch:
        return self.make(int(place))

    def make(self, place: int, empty: Allocator = _new) -> Batch:
        """Batch `place` of the sequence; `empty` as in `BatchMaker.make`."""
        epoch = self.epoch + self._visits.get(place, 0)
        self._visits[place] = epoch - self.epoch + 1
        return self.maker.make(self.order(epoch), epoch, self.start + place, empty)

    def count_values(self) -> int:
        """Numbers in the images of a batch; see `BatchMaker.count_values`. There is none when the sequence is empty."""
        return self.maker.count_values(self.order(self.epoch), self.start) if len(self) else 0

    def order(self, epoch: int) -> np.ndarray:
        """The samples of an epoch, kept until those of another are asked for."""
        latest, order = self._latest  # one read, one write: threads may make an order twice, but never mix two up
        if latest != epoch:
            order = self.maker.order(epoch)
            self._latest = (epoch, order)
        return order


def run_ahead(view: EpochView, num_workers: int, use_processes: bool) -> Iterator[Batch]:
    """The batches of one epoch, in order, made ahead by workers.

    Workers are threads, which do well because Pillow's decoding and the kernels release Python's lock, or processes,
    for transforms in pure Python. At most num_workers + 2 batches exist at a time, however slow the consumer is. An
    error in a worker is raised here as it was there, in place of the batch it befell.
    """
    view.order(view.epoch)  # before the workers start, which would each make their own
    workers = (_Processes if use_processes else _Threads)(view, num_workers)
    with workers.executor:
        pending = deque()
        try:
            for place in range(len(view)):
                pending.append(workers.submit(place))
                if len(pending) > num_workers + 1:
                    yield workers.take(pending.popleft())
            while pending:
                yield workers.take(pending.popleft())
        except UserError as error:
            raise error from None  # a process's error carries the text of its traceback as its cause
        finally:
            for future in pending:
                future.cancel()


class _Threads:
    def __init__(self, view: EpochView, num_workers: int):
        self.executor = ThreadPoolExecutor(num_workers, thread_name_prefix="mindcv-data")
        self._view = view
        self._memory = BatchMemory()

    def submit(self, place: int) -> Future:
        return self.executor.submit(self._view.make, place, self._memory.empty)

    def take(self, future: Future) -> Batch:
        return future.result()


class _Processes:
    """Worker processes, forked where the system can, which leave the images in shared memory.

    There are as many rooms as batches at a time, taken in turn: the room of a batch is free when that batch has been
    taken, copied out of it. A pipe took another 1.6 ms of processor time for an image of 224 x 224 pixels. A batch that
    does not fit, images being of other sizes, takes the pipe all the same.
    """

    def __init__(self, view: EpochView, num_workers: int):
        method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
        context = multiprocessing.get_context(method)
        size = view.count_values()
        memory = [_shared_memory(4 * size, context) for _ in range(num_workers + 2)] if size else []
        self._rooms = _as_rooms(memory)
        self._memory = BatchMemory()
        self.executor = ProcessPoolExecutor(num_workers, context, initializer=_start_worker, initargs=(view, memory))

    def submit(self, place: int) -> Future:
        return self.executor.submit(_make, place)

    def take(self, future: Future) -> Batch:
        place, images, labels = future.result()
        if isinstance(images, tuple):
            shared = _in_room(self._rooms[place % len(self._rooms)], images)
            images = self._memory.empty(images)
            images[...] = shared
        return images, labels


def _shared_memory(size: int, context: BaseContext) -> Any:
    # RawArray is a file in /dev/shm, which is 64 MB by default in a container, less than one batch. Forked processes
    # need no file.
    return mmap.mmap(-1, size) if context.get_start_method() == "fork" else context.RawArray(ctypes.c_byte, size)


def _as_rooms(memory: Sequence[Any]) -> list[np.ndarray]:
    return [np.frombuffer(block, np.float32) for block in memory]


def _in_room(room: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An array of that shape in `room`, which has one dimension; a new one when it does not fit."""
    size = math.prod(shape)
    return room[:size].reshape(shape) if size <= len(room) else _new(shape)


_view: Optional[EpochView] = None  # in a worker process: what it makes batches of
_rooms: Sequence[np.ndarray] = ()  # and where it puts their images


def _start_worker(view: EpochView, memory: Sequence[Any]) -> None:
    global _view, _rooms
    _view, _rooms = view, _as_rooms(memory)
    # Ctrl-C and a terminal that is closed reach the whole group; the parent alone should answer.
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _make(place: int) -> tuple[int, Union[tuple[int, ...], np.ndarray], np.ndarray]:
    """Which batch it is, the shape of the images in its room, or the images when they did not fit, and the labels."""
    room = _rooms[place % len(_rooms)] if _rooms else np.empty(0, np.float32)
    images, labels = _view.make(place, partial(_in_room, room))
    return place, images.shape if np.may_share_memory(images, room) else images, labels
