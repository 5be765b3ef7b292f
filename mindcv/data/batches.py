"""Makes batches as a pure function of epoch and batch number.

Worker processes import this module without MindSpore (decision 0090).
"""

from __future__ import annotations

import ctypes
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Optional, Union

import numpy as np

from mindcv.data.constants import Purpose
from mindcv.data.dataset import ImageDataset
from mindcv.data.mixup import Mixup
from mindcv.data.pixel_transform import PixelTransform
from mindcv.data.sampler import Share, epoch_order
from mindcv.data.splits import Splitter
from mindcv.data.transform_base import Compose
from mindcv.utils.errors import DataError, UserError
from mindcv.utils.logger import logger
from mindcv.utils.random import stream

__all__ = ["Allocator", "Batch", "BatchMaker", "EpochView", "SampleReader"]

_ADVICE = "--skip_corrupt True replaces such images in training and leaves them out of validation"

Batch = tuple[np.ndarray, np.ndarray]

# Bytes that alignment may need in addition to the contents of a batch.
_SPARE = 128

# Function from a shape to a float32 array of this shape with undefined values.
Allocator = Callable[[tuple[int, ...]], np.ndarray]


def _allocate(shape: tuple[int, ...]) -> np.ndarray:
    return np.empty(shape, np.float32)


class SampleReader:
    """Reads and transforms single samples.

    Args:
        dataset: data set that the samples come from.
        transform: transform from the encoded image to a [C, H, W] array. A `Splitter` makes several versions. A
            `PixelTransform` returns pixels, and a second version of an erased image.
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
        self._make_counters()

    def _make_counters(self) -> None:
        # The workers that MindSpore's iterators fork share these two.
        self._num_replaced = multiprocessing.Value(ctypes.c_int64, 0)
        self._is_corrupt = multiprocessing.RawArray(ctypes.c_bool, len(self.dataset)) if self.skip_corrupt else None

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the counters: a worker process counts from 0 and reports what it counted."""
        return {name: value for name, value in vars(self).items() if name not in ("_num_replaced", "_is_corrupt")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._make_counters()

    @property
    def num_replaced(self) -> int:
        """Number of replacements of corrupt samples so far. A sample counts each time that it is replaced."""
        return self._num_replaced.value

    def count_replaced(self, number: int) -> None:
        """Add the replacements that another process made."""
        with self._num_replaced.get_lock():
            self._num_replaced.value += number

    def take_num_replaced(self) -> int:
        """Return the number of replacements since the last call of this method, and count from 0 again."""
        with self._num_replaced.get_lock():
            number, self._num_replaced.value = self._num_replaced.value, 0
        return number

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
                self.count_replaced(1)
            return sample
        raise DataError(f"none of the {len(self.dataset)} images can be read")

    def try_samples(self, indices: Iterable[int]) -> Iterator[tuple[list[np.ndarray], Any]]:
        """Yield the versions and the label of each sample that can be read. The others are not counted as corrupt."""
        for index in indices:
            try:
                yield self._read(index, 0, 0, [None] * self.num_splits)
            except DataError:
                continue

    def _read(
        self, index: int, epoch: int, repeat: int, outs: Sequence[Optional[np.ndarray]]
    ) -> tuple[list[np.ndarray], Any]:
        image, label = self.dataset.read(index)
        key = (self.dataset.seed, Purpose.AUGMENT, epoch, index, repeat)
        rng = stream(*key)
        try:
            if isinstance(self.transform, Splitter):
                versions = self.transform(image, rng, key, outs)
            elif isinstance(self.transform, PixelTransform):
                versions = self.transform(image, rng, outs)
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

    def samples(self, order: np.ndarray, number: int) -> np.ndarray:
        """Return the samples that must be read for batch `number` of an epoch with the given order."""
        first = number * self.batch_size
        return order[first : first + len(self.share.read(number))]

    def count_bytes(self, versions: Sequence[np.ndarray], label: Any) -> int:
        """Return the size of a full batch in bytes, given the versions of a sample and its label."""
        num_values = sum(map(np.size, versions))
        num_labels = self.num_splits * (np.size(label) if self.mixup is None else self.mixup.num_classes)
        return 4 * self.batch_size * (num_values + num_labels) + _SPARE

    def make(self, samples: np.ndarray, epoch: int, number: int, empty: Allocator = _allocate) -> Batch:
        """Make one batch of an epoch.

        Args:
            samples: the samples of the batch, from `samples`.
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
        images, labels = self._read(samples, epoch, empty if read == own else _allocate)
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
        return images.reshape(-1, *images.shape[2:]), self._label_array(labels * num_splits)

    @staticmethod
    def _label_array(labels: Sequence[Any]) -> np.ndarray:
        labels = np.asarray(labels)
        return labels.astype(np.float32 if labels.dtype.kind == "f" else np.int32)

    def _mix(self, images: np.ndarray, labels: np.ndarray, epoch: int, start: int) -> np.ndarray:
        """Mix each group of images in place, and return the mixed labels.

        The first image is the first one of a group. It is at position `start` in the order of the epoch. The random
        numbers belong to the number of the group in the epoch, which does not depend on ranks and batches.
        """
        targets = []
        for group, rng in self._groups(len(images), epoch, start):
            targets.append(self.mixup(images[group], labels[group], rng, epoch, in_place=True)[1])
        return np.concatenate(targets)

    def _groups(self, num_images: int, epoch: int, start: int) -> Iterator[tuple[slice, np.random.Generator]]:
        """Yield the rows of each group of images that are mixed with each other, and its random numbers."""
        for first in range(0, num_images, self.group_size):
            # The last integer was once the rank. It stays 0, so that the numbers of one process stay.
            rng = stream(self.dataset.seed, Purpose.MIX, epoch, (start + first) // self.group_size, 0)
            yield slice(first, first + self.group_size), rng

    def _check_image(self, image: Any, shape: tuple[int, ...], index: int) -> None:
        if not isinstance(image, np.ndarray) or image.shape != shape:
            raise UserError(
                "the transforms must return arrays of one shape (C, H, W), but the batch has the shape "
                f"{shape} and '{self.dataset.describe(index)}' gives "
                f"{getattr(image, 'shape', type(image).__name__)}"
            )


class EpochView:
    """The batches of an epoch, as the sequence that MindSpore's GeneratorDataset reads.

    An epoch ends when the whole sequence has been read. A batch that is requested again comes from the next epoch, so
    an iterator over several epochs shuffles and augments each of them anew. MindSpore always gives the same batch
    number to the same worker. So it is enough to count the requests for each number, also in worker processes.
    """

    def __init__(self, maker: BatchMaker, epoch: int = 0):
        self.maker = maker
        self.epoch = epoch
        self._num_requests: dict[int, int] = {}
        self._latest: tuple[int, Optional[np.ndarray]] = (-1, None)

    def __len__(self) -> int:
        return self.maker.num_batches

    def __getitem__(self, position: int) -> Batch:
        return self.make(int(position))

    def make(self, position: int) -> Batch:
        """Make the batch at `position` of the sequence."""
        epoch = self.epoch + self._num_requests.get(position, 0)
        self._num_requests[position] = epoch - self.epoch + 1
        return self.maker.make(self.maker.samples(self.order(epoch), position), epoch, position)

    def order(self, epoch: int) -> np.ndarray:
        """Return the order of an epoch. The order of the latest epoch is cached."""
        # One read and one write of the pair: threads may compute an order twice, but never confuse
        # two orders.
        latest, order = self._latest
        if latest != epoch:
            order = self.maker.order(epoch)
            self._latest = (epoch, order)
        return order
