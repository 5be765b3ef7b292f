"""A share of the training images that is held out for validation.

Decision 0048 says why hashes of the images' paths choose them.
"""

from __future__ import annotations

import hashlib
import math
from typing import Union

import numpy as np

from mindcv.data.dataset import ImageCollection
from mindcv.utils.errors import DataError, UserError

__all__ = ["ImageSubset", "hold_out"]


class ImageSubset:
    """Some images of a collection.

    Args:
        images: the collection.
        indices: which images, in this order.
        digest: of the split that the subset is a part of; equal digests mean that the same images are held out.
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
    """The images to train on, and those held out of them.

    The split is stratified: each class with n images gives `fraction` * n of them, rounded, but at least one and at
    most n - 1, so that a class with one image keeps it for training. A class gives the images whose keys (paths
    relative to the folder) have the smallest hashes under `seed`. So the split is the same in every process and on
    every file system, and most images keep their side when others are added or removed.

    Args:
        images: the collection.
        fraction: above 0 and below 1.
        seed: of the hash, at least 0.

    Raises:
        UserError: `fraction` is out of range.
        DataError: no class has two images.
    """
    if not 0 < fraction < 1:
        raise UserError(f"val_fraction must be above 0 and below 1, got {fraction}")
    salt = seed.to_bytes(16, "little")
    hashes = np.array([_hash(images.key(index), salt) for index in range(len(images))], np.uint64)
    is_held_out = np.zeros(len(images), bool)
    order = np.lexsort((hashes, images.labels))
    _, starts, counts = np.unique(images.labels[order], return_index=True, return_counts=True)
    for start, count in zip(starts, counts):
        share = min(max(math.floor(fraction * count + 0.5), 1), count - 1)
        is_held_out[order[start : start + share]] = True
    if not is_held_out.any():
        raise DataError(
            f"val_fraction {fraction:g} cannot hold out images for validation: each class has one image only"
        )
    digest = hashlib.blake2b(digest_size=16)
    digest.update(np.sort(hashes[is_held_out]).astype("<u8").tobytes())
    parts = (np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out))
    return tuple(ImageSubset(images, indices, digest.hexdigest()) for indices in parts)


def _hash(key: bytes, salt: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(key, digest_size=8, salt=salt).digest(), "little")
