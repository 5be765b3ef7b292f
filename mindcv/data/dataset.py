"""Data sets: plain Python objects that return encoded images and labels by index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional, Protocol, Union

import numpy as np

from mindcv.data.constants import Purpose
from mindcv.data.sampler import samples_per_rank
from mindcv.utils.checks import check_int
from mindcv.utils.errors import DataError, UserError
from mindcv.utils.random import stream

__all__ = ["ArrayImages", "ImageCollection", "ImageDataset"]


class ImageCollection(Protocol):
    """Images that can be read by index, such as an image folder or arrays in memory."""

    class_names: Sequence[str]
    labels: np.ndarray  # one integer for each image

    def __len__(self) -> int: ...

    def read(self, index: int) -> tuple[Union[bytes, np.ndarray], int]:
        """Return the contents of an image file, or a uint8 array [H, W] or [H, W, C], and the label."""
        ...

    def describe(self, index: int) -> str:
        """Return the name of the image for messages."""
        ...

    def key(self, index: int) -> bytes:
        """Return an identifier of the image that does not depend on the order or the location of the collection."""
        ...

    def check(self, index: int) -> None:
        """Raise a DataError if the header of the image cannot be read."""
        ...


class ArrayImages:
    """Images in memory.

    Args:
        name: name of the data set, for messages.
        images: uint8 array [N, H, W] or [N, H, W, C].
        labels: integers [N], indices into `class_names`.
        class_names: name of each class.
        numbers: number of each sample in messages; 0..N-1 by default.

    Raises:
        DataError: a label is not the index of a class, or the numbers of images and labels differ.
    """

    def __init__(
        self,
        name: str,
        images: np.ndarray,
        labels: np.ndarray,
        class_names: Sequence[str],
        numbers: Optional[np.ndarray] = None,
    ):
        if len(labels) != len(images):
            raise DataError(f"{name} has {len(images)} images but {len(labels)} labels")
        if len(labels) and not 0 <= min(labels) <= max(labels) < len(class_names):
            raise DataError(
                f"{name} has labels from {min(labels)} to {max(labels)}, but they must be from 0 to "
                f"{len(class_names) - 1}"
            )
        self.name = name
        self.images = images
        self.labels = labels
        self.class_names = list(class_names)
        self.numbers = np.arange(len(images)) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> tuple[np.ndarray, int]:
        """See `ImageCollection`."""
        return self.images[index], int(self.labels[index])

    def describe(self, index: int) -> str:
        """See `ImageCollection`."""
        return f"{self.name} sample {self.numbers[index]}"

    def key(self, index: int) -> bytes:
        """See `ImageCollection`."""
        return str(self.numbers[index]).encode()

    def check(self, index: int) -> None:
        """See `ImageCollection`. Images in memory can always be read."""

    def __repr__(self) -> str:
        return f"ArrayImages('{self.name}', {len(self)} images, {len(self.class_names)} classes)"


class ImageDataset:
    """Images by index, and the settings with which a loader reads them.

    Args:
        images: source of the images.
        shuffle: whether the loader shuffles the samples in each epoch.
        seed: seed of the order, the augmentation and the choice of `num_samples`; at least 0.
        num_samples: number of samples to use. They are a random choice that depends only on `seed` and is equal in
            all shards. (The first N samples of a folder would belong to one class.) None uses all samples.
        num_shards, shard_id: number of ranks that share the data set, and index of this rank. None means one rank.
        num_parallel_workers: number of data-loader workers, unless the loader sets it.
        num_aug_repeats: number of consecutive appearances of a training sample, each with its own augmentation. 0 and
            1 mean one appearance.

    Raises:
        UserError: an argument is out of range.
    """

    def __init__(
        self,
        images: ImageCollection,
        *,
        shuffle: bool = True,
        seed: int = 0,
        num_samples: Optional[int] = None,
        num_shards: Optional[int] = None,
        shard_id: Optional[int] = None,
        num_parallel_workers: Optional[int] = None,
        num_aug_repeats: int = 0,
    ):
        check_int("seed", seed, 0)
        check_int("num_aug_repeats", num_aug_repeats, 0)
        if num_parallel_workers is not None:
            check_int("num_parallel_workers", num_parallel_workers, 0)
        self.images = images
        self.shuffle = shuffle
        self.seed = seed
        self.num_shards, self.shard_id = _check_shard(num_shards, shard_id)
        self.num_parallel_workers = num_parallel_workers
        self.num_aug_repeats = num_aug_repeats
        self._chosen = None if num_samples is None else _choose(len(images), num_samples, seed)
        self.num_left_out = 0  # by `leave_out`
        self.class_names = list(images.class_names)
        self.class_to_idx = {name: index for index, name in enumerate(self.class_names)}

    def __len__(self) -> int:
        """Return the number of distinct samples in all shards together."""
        return len(self.images) if self._chosen is None else len(self._chosen)

    def read(self, index: int) -> tuple[Union[bytes, np.ndarray], int]:
        """Return the contents of the sample's file, or a uint8 array [H, W] or [H, W, C], and the sample's label.

        Raises:
            DataError: the file cannot be read.
            IndexError: the index is out of range.
        """
        return self.images.read(self._index_in_images(index))

    def describe(self, index: int) -> str:
        """Return the name of a sample for messages: its path, or its data set and number."""
        return self.images.describe(self._index_in_images(index))

    def check(self, index: int) -> None:
        """Raise a DataError if the header of the sample's image cannot be read."""
        self.images.check(self._index_in_images(index))

    def leave_out(self, indices: Sequence[int]) -> None:
        """Remove samples from the data set. The indices of later samples decrease."""
        chosen = np.arange(len(self.images)) if self._chosen is None else self._chosen
        self._chosen = np.delete(chosen, list(indices))
        self.num_left_out += len(indices)

    @property
    def labels(self) -> np.ndarray:
        """Label of each sample."""
        return self.images.labels if self._chosen is None else self.images.labels[self._chosen]

    def __repr__(self) -> str:
        shard = f", shard {self.shard_id} of {self.num_shards}" if self.num_shards > 1 else ""
        return f"ImageDataset({len(self)} samples, {self.num_classes()} classes{shard}, images={self.images!r})"

    def num_classes(self) -> int:
        """Return the number of classes."""
        return len(self.class_names)

    def get_col_names(self) -> list[str]:
        """Return the names of the columns, which are those of MindSpore's image data sets."""
        return ["image", "label"]

    def output_types(self) -> list[np.dtype]:
        """Return the types of the columns before any transform, as MindSpore's data sets do."""
        return [np.dtype(np.uint8), np.dtype(np.int32)]

    def get_dataset_size(self) -> int:
        """Return the number of samples of this shard in a training epoch. It is equal for all shards."""
        return samples_per_rank(len(self), rank=self.shard_id, num_ranks=self.num_shards, pad=True)

    def _index_in_images(self, index: int) -> int:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is out of range for a data set of {len(self)} samples")
        return int(index if self._chosen is None else self._chosen[index])


def _choose(size: int, num_samples: int, seed: int) -> np.ndarray:
    check_int("num_samples", num_samples, 1, size, note=", the size of the data set")
    return np.sort(stream(seed, Purpose.SUBSET).permutation(size)[:num_samples])


def _check_shard(num_shards: Optional[int], shard_id: Optional[int]) -> tuple[int, int]:
    if (num_shards is None) != (shard_id is None):
        raise UserError(f"num_shards and shard_id must be given together, got {num_shards} and {shard_id}")
    if num_shards is None:
        return 1, 0
    check_int("num_shards", num_shards, 1)
    return num_shards, check_int("shard_id", shard_id, 0, num_shards - 1, note=" (num_shards - 1)")
