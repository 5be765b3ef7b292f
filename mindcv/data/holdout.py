"""Holds out a fraction of the training images for validation.

Decision 0048 says why hashes of the images' paths choose them.
"""

from __future__ import annotations

import hashlib
import math
from typing import Union

import numpy as np

from mindcv.data.dataset import ImageCollection
from mindcv.utils.checks import check_number
from mindcv.utils.errors import DataError

__all__ = ["ImageSubset", "hold_out"]


class ImageSubset:
    """Some images of a collection.

    Args:
        images: the collection.
        indices: indices of the chosen images, in order.
        digest: digest of the split that the subset belongs to. Equal digests mean that the same images are held out.
    """

    def __init__(self, images: ImageCollection, indices: np.ndarray, digest: str = ""):
        self.images = images
        self.indices = indices
        self.digest = digest
        self.class_names = images.class_names
        self.labels = images.labels[indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return f"ImageSubset({len(self)} of {self.images!r})"

    def read(self, index: int) -> tuple[Union[bytes, np.ndarray], int]:
        """See `ImageCollection`."""
        return self.images.read(int(self.indices[index]))

    def describe(self, index: int) -> str:
        """See `ImageCollection`."""
        return self.images.describe(int(self.indices[index]))

    def key(self, index: int) -> bytes:
        """See `ImageCollection`."""
        return self.images.key(int(self.indices[index]))

    def check(self, index: int) -> None:
        """See `ImageCollection`."""
        self.images.check(int(self.indices[index]))


def hold_out(images: ImageCollection, fraction: float, seed: int) -> tuple[ImageSubset, ImageSubset]:
    """Split a collection into images for training and images that are held out for validation.

    The split is stratified: each class with n images gives `fraction` * n of them, rounded, but at least one and at
    most n - 1. So a class with one image keeps it for training. The held-out images of a class are those whose keys
    (paths relative to the folder) have the smallest hashes under `seed`. So the split is equal in every process and on
    every file system, and most images stay in their part when others are added or removed.

    Args:
        images: the collection.
        fraction: fraction to hold out, above 0 and below 1.
        seed: seed of the hash, at least 0.

    Returns:
        The images for training, and the images that are held out.

    Raises:
        UserError: `fraction` is out of range.
        DataError: no class has two images.
    """
    check_number("val_fraction", fraction, above=0, below=1)
    salt = seed.to_bytes(16, "little")
    hashes = np.array([_hash(images.key(index), salt) for index in range(len(images))], np.uint64)
    is_held_out = np.zeros(len(images), bool)
    order = np.lexsort((hashes, images.labels))
    _, starts, counts = np.unique(images.labels[order], return_index=True, return_counts=True)
    for start, count in zip(starts, counts):
        num_held_out = min(max(math.floor(fraction * count + 0.5), 1), count - 1)
        is_held_out[order[start : start + num_held_out]] = True
    if not is_held_out.any():
        raise DataError(
            f"val_fraction {fraction:g} cannot hold out images for validation, because each class has only one image"
        )
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.sort(hashes[is_held_out]).astype("<u8").tobytes())
    parts = (np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out))
    return tuple(ImageSubset(images, indices, digest.hexdigest()) for indices in parts)


def _hash(key: bytes, salt: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=8, salt=salt).digest(), "little")
