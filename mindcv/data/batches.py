"""Makes batches as a pure function of epoch and batch number, and prefetches them in data-loader workers."""

from __future__ import annotations

import ctypes
import math
import mmap
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.context import BaseContext
from typing import Any, Optional, Union

import numpy as np

from mindcv.data.batch_memory import BatchMemory
from mindcv.data.constants import Purpose
from mindcv.data.dataset import ImageDataset
from mindcv.data.mixup import Mixup
from mindcv.data.sampler import Share, epoch_order
from mindcv.data.splits import Splitter
from mindcv.data.transform_base import Compose
from mindcv.utils.errors import DataError, UserError
from mindcv.utils.logger import logger
from mindcv.utils.random import stream

__all__ = ["Batch", "BatchMaker", "EpochView", "SampleReader", "prefetch"]

_ADVICE = "--skip_corrupt True replaces such images in training and leaves them out of validation"

Batch = tuple[np.ndarray, np.ndarray]

# Function from a shape to a float32 array of this shape with undefined values.
Allocator = Callable[[tuple[int, ...]], np.ndarray]


def _allocate(shape: tuple[int, ...]) -> np.ndarray:
    return np.empty(shape, np.float32)


class SampleReader:
    """Reads and transforms single samples.

    Args:
        dataset: data set that the samples come from.
        transform: transform from the encoded image to a [C, H, W] array. A `Splitter` makes several versions.
        target_transform: transform of the label.
        skip_corrupt: whether to replace a sample that cannot be read or decoded by the next readable one. After the
            last sample of the data set comes the first. Each replacement is counted, and the log warns once for each
            corrupt sample. If it is False, such a sample is a DataError that names it.
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
        # Forked workers share these two.
        self._num_replaced = multiprocessing.Value(ctypes.c_int64, 0)
        self._is_corrupt = multiprocessing.RawArray(ctypes.c_bool, len(dataset)) if skip_corrupt else None

    @property
    def num_replaced(self) -> int:
        """Number of replacements of corrupt samples so far. A sample counts each time that it is replaced."""
        return self._num_replaced.value

    def read(
        self, index: int, epoch: int, repeat: int, outs: Sequence[Optional[np.ndarray]]
    ) -> tuple[list[np.ndarray], Any]:
        """Return the image of a sample in each of its `num_splits` versions, and its label.

        The pixels depend only on seed, epoch, index and repeat.

        Args:
            index: index of the sample.
            epoch: index of the epoch, from 0.
            repeat: number of earlier appearances of the sample in the epoch.
            outs: an array or None for each version. A version is written to its array if the shape fits and the
                transforms support it (see `ArrayTransform`).

        Raises:
            DataError: the sample is corrupt and `skip_corrupt` is off, or every sample is corrupt.
        """
        if not self.skip_corrupt:
            try:
                return self._read(index, epoch, repeat, outs)
            except DataError as error:
                raise DataError(f"{error} ({_ADVICE})") from error
        for step in range(len(self.dataset)):
            candidate = (index + step) % len(self.dataset)
            if self._is_corrupt[candidate]:
                continue
            try:
                sample = self._read(candidate, epoch, repeat, outs)
            except DataError as error:
                with self._num_replaced.get_lock():  # another worker may find the same sample at the same time
                    is_new, self._is_corrupt[candidate] = not self._is_corrupt[candidate], True
                if is_new:
                    logger.warning("%s; it is replaced by another image", error)
                continue
            if step:
                with self._num_replaced.get_lock():
                    self._num_replaced.value += 1
            return sample
        raise DataError(f"none of the {len(self.dataset)} images can be read")

    def count_values(self, indices: Iterable[int]) -> int:
        """Return the number of values in all versions of one image, the first of `indices` that can be read.

        Returns 0 if none of them can be read.
        """
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
        reader: reader of the samples.
        batch_size: number of samples in a batch, without their splits.
        drop_remainder: whether to leave out a smaller last batch.
        is_training: whether the samples are divided between ranks as for training (see `Share`) and are repeated.
        mixup: mixer of each group of images, or None.
        group_size: number of consecutive images that are mixed with each other. It divides `batch_size`. None means
            `batch_size`.
    """

    def __init__(
        self,
        reader: SampleReader,
        batch_size: int,
        drop_remainder: bool = False,
        is_training: bool = False,
        mixup: Optional[Mixup] = None,
        group_size: Optional[int] = None,
    ):
        self.reader = reader
        self.dataset = reader.dataset
        self.batch_size = batch_size
        self.drop_remainder = drop_remainder
        self.is_training = is_training
        self.mixup = mixup
        self.group_size = batch_size if group_size is None else group_size
        self.share = Share(
            len(self.dataset),
            batch_size,
            is_training,
            self.dataset.shard_id,
            self.dataset.num_shards,
            None if mixup is None else self.group_size,
        )
        self.num_batches = self.share.num_batches(drop_remainder)

    @property
    def num_splits(self) -> int:
        """Number of versions of each sample; 1 without splits."""
        return self.reader.num_splits

    @property
    def num_replaced(self) -> int:
        """Number of replacements of corrupt samples so far."""
        return self.reader.num_replaced

    def order(self, epoch: int) -> np.ndarray:
        """Return the samples that this rank reads in an epoch, in order (see `epoch_order`)."""
        dataset = self.dataset
        return epoch_order(
            len(dataset),
            self.share.positions(),
            seed=dataset.seed,
            epoch=epoch,
            shuffle=dataset.shuffle,
            num_repeats=dataset.num_aug_repeats if self.is_training else 0,
        )

    def count_values(self, order: np.ndarray, number: int) -> int:
        """Estimate the number of values in a full batch from one image of batch `number`.

        Returns 0 if none of its images can be read.
        """
        samples = order[number * self.batch_size : (number + 1) * self.batch_size]
        return self.batch_size * self.reader.count_values(samples[:, 0].tolist())

    def make(self, order: np.ndarray, epoch: int, number: int, empty: Allocator = _allocate) -> Batch:
        """Make one batch of an epoch.

        Args:
            order: order of the epoch, from `order`.
            epoch: index of the epoch, from 0.
            number: index of the batch in the epoch, from 0.
            empty: function that allocates the array of the images.

        Returns:
            Images, float32 [B, C, H, W], and labels. Labels are int32 [B], or float32 [B, num_classes] after mixup.
            Target transforms may give labels another shape. With S splits there are S * B rows: first the B clean
            images, then the same images in their second version, and so on.

        Raises:
            DataError: an image cannot be read or decoded.
            UserError: the transforms do not return arrays of one shape.
        """
        own, read = self.share.batch(number), self.share.read(number)
        first = number * self.batch_size
        images, labels = self._read(order[first : first + len(read)], epoch, empty if read == own else _allocate)
        if self.mixup is None:
            return images, labels
        labels = self._mix(images, labels, epoch, read.start)
        if read == own:
            return images, labels
        rows = slice(own.start - read.start, own.stop - read.start)
        own_images = empty((len(own), *images.shape[1:]))
        own_images[...] = images[rows]
        return own_images, labels[rows]

    def _read(self, samples: np.ndarray, epoch: int, empty: Allocator) -> Batch:
        """Return the images and labels of samples, which are rows of an order."""
        num_splits = self.num_splits
        images, labels = None, []
        for row, (index, repeat) in enumerate(samples.tolist()):
            rows = [None] * num_splits if images is None else list(images[:, row])
            versions, label = self.reader.read(index, epoch, repeat, rows)
            if images is None:  # the shape is known after the first image
                images = empty((num_splits, len(samples), *np.shape(versions[0])))
            for split, image in enumerate(versions):
                self._check_image(image, images.shape[2:], index)
                if image is not rows[split]:
                    images[split, row] = image
            labels.append(label)
        images = images.reshape(-1, *images.shape[2:])
        labels = np.concatenate([np.asarray(labels)] * num_splits)
        return images, labels.astype(np.float32 if labels.dtype.kind == "f" else np.int32)

    def _mix(self, images: np.ndarray, labels: np.ndarray, epoch: int, start: int) -> np.ndarray:
        """Mix each group of images in place, and return the mixed labels.

        The first image is the first one of a group. It is at position `start` in the order of the epoch. The random
        numbers belong to the number of the group in the epoch, which does not depend on ranks and batches.
        """
        targets = []
        for first in range(0, len(images), self.group_size):
            group = slice(first, first + self.group_size)
            # The last integer was once the rank. It stays 0, so that the numbers of one process stay.
            rng = stream(self.dataset.seed, Purpose.MIX, epoch, (start + first) // self.group_size, 0)
            targets.append(self.mixup(images[group], labels[group], rng, epoch, in_place=True)[1])
        return np.concatenate(targets)

    def _check_image(self, image: Any, shape: tuple[int, ...], index: int) -> None:
        if not isinstance(image, np.ndarray) or image.shape != shape:
            raise UserError(
                "the transforms must return arrays of one shape (C, H, W), but the batch has the shape "
                f"{shape} and '{self.dataset.describe(index)}' gives "
                f"{getattr(image, 'shape', type(image).__name__)}"
            )


class EpochView:
    """The batches of an epoch from `start` on, as the sequence that MindSpore's GeneratorDataset reads.

    An epoch ends when the whole sequence has been read. A batch that is requested again comes from the next epoch, so
    an iterator over several epochs shuffles and augments each of them anew. MindSpore always gives the same batch
    number to the same worker. So it is enough to count the requests for each number, also in worker processes.
    """

    def __init__(self, maker: BatchMaker, epoch: int = 0, start: int = 0):
        self.maker = maker
        self.epoch = epoch
        self.start = start
        self._num_requests: dict[int, int] = {}
        self._latest: tuple[int, Optional[np.ndarray]] = (-1, None)

    def __len__(self) -> int:
        return max(self.maker.num_batches - self.start, 0)

    def __getitem__(self, position: int) -> Batch:
        return self.make(int(position))

    def make(self, position: int, empty: Allocator = _allocate) -> Batch:
        """Make the batch at `position` of the sequence. `empty` is the argument of `BatchMaker.make`."""
        epoch = self.epoch + self._num_requests.get(position, 0)
        self._num_requests[position] = epoch - self.epoch + 1
        return self.maker.make(self.order(epoch), epoch, self.start + position, empty)

    def count_values(self) -> int:
        """Return the number of values in the images of a batch, or 0 for an empty sequence or unreadable images."""
        return self.maker.count_values(self.order(self.epoch), self.start) if len(self) else 0

    def order(self, epoch: int) -> np.ndarray:
        """Return the order of an epoch. The order of the latest epoch is cached."""
        # One read and one write of the pair: threads may compute an order twice, but never confuse
        # two orders.
        latest, order = self._latest
        if latest != epoch:
            order = self.maker.order(epoch)
            self._latest = (epoch, order)
        return order


def prefetch(view: EpochView, num_workers: int, use_processes: bool) -> Iterator[Batch]:
    """Yield the batches of one epoch in order. Data-loader workers prefetch them.

    The workers are threads or processes. Threads are fast because Pillow's decoder and the kernels release Python's
    global lock. Processes help transforms in pure Python. At most num_workers + 2 batches exist at a time, however slow
    the consumer is. An error in a worker is raised here, in place of its batch.
    """
    view.order(view.epoch)  # computed once here, because each worker process would otherwise compute it again
    workers = (_Processes if use_processes else _Threads)(view, num_workers)
    with workers.executor:
        pending = deque()
        try:
            for position in range(len(view)):
                pending.append(workers.submit(position))
                if len(pending) > num_workers + 1:
                    yield workers.take(pending.popleft())
            while pending:
                yield workers.take(pending.popleft())
        except UserError as error:
            raise error from None  # the cause of an error from a process is only the text of its traceback
        except BrokenProcessPool:
            raise UserError(
                "a data-loader process was ended from outside, for example because memory ran out: give a smaller "
                "num_parallel_workers, or threads with python_multiprocessing=False"
            ) from None
        finally:
            for future in pending:
                future.cancel()


class _Threads:
    def __init__(self, view: EpochView, num_workers: int):
        self.executor = ThreadPoolExecutor(num_workers, thread_name_prefix="mindcv-data")
        self._view = view
        self._memory = BatchMemory()

    def submit(self, position: int) -> Future:
        return self.executor.submit(self._view.make, position, self._memory.empty)

    def take(self, future: Future) -> Batch:
        return future.result()


class _Processes:
    """Worker processes that write images to shared memory. They are forked where the system supports it.

    The shared memory has one slot for each batch that may exist at a time, and the batches use the slots in turn. A
    slot is free again when its batch has been copied out of it. A pipe would cost another 1.6 ms of processor time for
    an image of 224 x 224 pixels. It is used only for a batch that does not fit into its slot, because its images have
    other sizes.
    """

    def __init__(self, view: EpochView, num_workers: int):
        method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
        context = multiprocessing.get_context(method)
        size = view.count_values()
        memory = [_shared_memory(4 * size, context) for _ in range(num_workers + 2)] if size else []
        self._slots = _as_arrays(memory)
        self._memory = BatchMemory()
        self.executor = ProcessPoolExecutor(num_workers, context, initializer=_start_worker, initargs=(view, memory))

    def submit(self, position: int) -> Future:
        return self.executor.submit(_make_in_worker, position)

    def take(self, future: Future) -> Batch:
        position, images, labels = future.result()
        if isinstance(images, tuple):
            shared = _array_in(self._slots[position % len(self._slots)], images)
            images = self._memory.empty(images)
            images[...] = shared
        return images, labels


def _shared_memory(size: int, context: BaseContext) -> Any:
    # A RawArray is a file in /dev/shm. In a container this folder has 64 MB by default, less than
    # one batch. Forked processes need no file.
    return mmap.mmap(-1, size) if context.get_start_method() == "fork" else context.RawArray(ctypes.c_byte, size)


def _as_arrays(memory: Sequence[Any]) -> list[np.ndarray]:
    return [np.frombuffer(block, np.float32) for block in memory]


def _array_in(slot: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of this shape in the one-dimensional `slot`, or a new array if it does not fit."""
    size = math.prod(shape)
    return slot[:size].reshape(shape) if size <= len(slot) else _allocate(shape)


# A worker process keeps its state here: the epoch whose batches it makes, and the slots for their
# images.
_view: Optional[EpochView] = None
_slots: Sequence[np.ndarray] = ()


def _start_worker(view: EpochView, memory: Sequence[Any]) -> None:
    global _view, _slots
    _view, _slots = view, _as_arrays(memory)
    # A forked worker inherits the handler of the training process, which would only note a SIGTERM.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # Ctrl-C and a closed terminal send a signal to all processes. Only the parent should react.
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def _make_in_worker(position: int) -> tuple[int, Union[tuple[int, ...], np.ndarray], np.ndarray]:
    """Make a batch. Return its position, its images and its labels.

    Images in shared memory are returned as their shape only. Images that did not fit are returned as an array.
    """
    slot = _slots[position % len(_slots)] if _slots else np.empty(0, np.float32)
    images, labels = _view.make(position, partial(_array_in, slot))
    return position, images.shape if np.may_share_memory(images, slot) else images, labels
