"""Batches of pixels, which the device normalises and mixes. They have a quarter of the bytes.

Decision 0091 says which numbers this keeps. Like `batches`, this module does not import MindSpore.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np

from mindcv.data.batches import Allocator, BatchMaker
from mindcv.data.mixup import UNMIXED, Mix

__all__ = ["PixelBatch", "PixelBatchMaker"]

# Number of erased images in a batch is rounded up to a multiple of this, so that the device sees few shapes.
_ERASED_STEP = 8


class PixelBatch(NamedTuple):
    """A batch whose images are not normalised and mixed yet.

    It is made of N images that were read, and has M images. M is smaller than N only where several ranks read images
    that are mixed with each other.

    Attributes:
        pixels: uint8 [N, C, H, W].
        labels: [M] or [M, num_classes], as in other batches.
        erased: float32 [K, C, H, W], images that are normalised already, because random erasing has changed them.
        erased_rows: int32 [K], their rows among the N images. A row may occur several times, with the same image.
        mean: float32 [C, 1, 1], what normalisation subtracts.
        std: float32 [C, 1, 1], what normalisation divides by.
        rows: int32 [M], row of each image of the batch among the N images.
        partners: int32 [M], row of the image that it is mixed with.
        is_blend: bool [M], whether image and partner are blended.
        shares: float32 [M], weight of the image in a blend; the partner has 1 - share.
        boxes: int32 [M, 4], (top, bottom, left, right) of the area that is pasted from the partner; zeros for none.
    """

    pixels: np.ndarray
    labels: np.ndarray
    erased: np.ndarray
    erased_rows: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    rows: np.ndarray
    partners: np.ndarray
    is_blend: np.ndarray
    shares: np.ndarray
    boxes: np.ndarray


class PixelBatchMaker(BatchMaker):
    """Makes the same batches as `BatchMaker`, as `PixelBatch`es. The reader's transform is a `PixelTransform`."""

    def make(self, samples: np.ndarray, epoch: int, number: int, empty: Optional[Allocator] = None) -> PixelBatch:
        """See `BatchMaker.make`."""
        own, read = self.share.batch(number), self.share.read(number)
        pixels, labels, erased, erased_rows = self._read_pixels(samples, epoch, empty)
        mixes, partners = [UNMIXED] * len(labels), range(len(labels))
        if self.mixup is not None:
            mixes, partners, labels = self._plan(labels, pixels.shape[2:], epoch, read.start)
        kept = slice(own.start - read.start, own.stop - read.start)
        return PixelBatch(
            pixels,
            labels[kept],
            erased,
            erased_rows,
            *self.reader.transform.normalize.arrays,
            rows=np.arange(kept.start, kept.stop, dtype=np.int32),
            partners=np.array(partners[kept], np.int32),
            is_blend=np.array([mix.is_blend for mix in mixes[kept]]),
            shares=np.array([mix.share for mix in mixes[kept]], np.float32),
            boxes=np.array([mix.box or (0, 0, 0, 0) for mix in mixes[kept]], np.int32),
        )

    def _read_pixels(
        self, samples: np.ndarray, epoch: int, empty: Optional[Allocator]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the first four parts of the `PixelBatch` of samples, which are rows of an order."""
        pixels, labels, erased, erased_rows = None, [], [], []
        for row, (index, repeat) in enumerate(samples.tolist()):
            out = None if pixels is None else pixels[row]
            versions, label = self.reader.read(index, epoch, repeat, [out])
            if pixels is None:  # the shape is known after the first image
                pixels = _empty_bytes((len(samples), *versions[0].shape), empty)
            self._check_image(versions[0], pixels.shape[1:], index)
            if versions[0] is not out:
                pixels[row] = versions[0]
            if len(versions) > 1:
                erased.append(versions[1])
                erased_rows.append(row)
            labels.append(label)
        num_more = -len(erased) % _ERASED_STEP
        erased += erased[:1] * num_more
        erased_rows += erased_rows[:1] * num_more
        stacked = np.stack(erased) if erased else np.empty((0, *pixels.shape[1:]), np.float32)
        return pixels, self._label_array(labels), stacked, np.array(erased_rows, np.int32)

    def _plan(
        self, labels: np.ndarray, shape: tuple[int, int], epoch: int, start: int
    ) -> tuple[Sequence[Mix], Sequence[int], np.ndarray]:
        """Return how each image is mixed, the row of its partner, and the mixed labels. Compare `_mix`."""
        mixes, partners, targets = [], [], []
        for group, rng in self._groups(len(labels), epoch, start):
            drawn, mixed_labels = self.mixup.plan(labels[group], shape, rng, epoch)
            mixes += drawn
            partners += range(len(labels))[group][::-1]
            targets.append(mixed_labels)
        return mixes, partners, np.concatenate(targets)


def _empty_bytes(shape: tuple[int, ...], empty: Optional[Allocator]) -> np.ndarray:
    """Return a uint8 array of undefined values, in memory of `empty`, which allocates float32 arrays."""
    if empty is None:
        return np.empty(shape, np.uint8)
    size = math.prod(shape)
    return empty((-(-size // 4),)).view(np.uint8)[:size].reshape(shape)
