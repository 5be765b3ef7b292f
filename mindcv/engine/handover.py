"""Hands the batches of a loader over to the device, which normalises and mixes the pixels of a `PixelBatch`.

Decision 0091 says when pixels are handed over, and why the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Union

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from mindcv.data.batches import Batch
from mindcv.data.pixel_batches import PixelBatch

__all__ = ["as_tensor", "gives_host_bits", "hand_over"]


def hand_over(batch: Union[Batch, PixelBatch]) -> tuple[Tensor, Tensor]:
    """Return the images of a batch, float32 [B, C, H, W], and its labels as tensors."""
    if not isinstance(batch, PixelBatch):
        images, labels = batch
        return as_tensor(images), as_tensor(labels)
    images = _normalized(as_tensor(batch.pixels), as_tensor(batch.mean), as_tensor(batch.std))
    if len(batch.erased_rows):
        rows = as_tensor(batch.erased_rows.reshape(-1, 1))
        images = ops.tensor_scatter_update(images, rows, as_tensor(batch.erased))
    return _mixed(images, batch), as_tensor(batch.labels)


def as_tensor(array: np.ndarray) -> Tensor:
    """Return a tensor that shares the memory of a batch, or of a copy if the array is not contiguous.

    The loader does not use the memory again as long as the tensor exists (see `BatchMemory`). A copy of 128 images of
    224 pixels takes 50 ms in the thread that starts the steps.
    """
    return Tensor.from_numpy(np.require(array, requirements="CW"))


def gives_host_bits(mean: Sequence[float], std: Sequence[float]) -> bool:
    """Return whether the device normalises and mixes to the same bits as the host.

    IEEE 754 rounds each of the operations in one way, but a device may divide by a product with the inverse, or join a
    product and a sum. So all values of a pixel are tried with `mean` and `std`, with their averages over the channels,
    which grey images may use, and with random ones.
    """
    rng = np.random.default_rng(0)
    values = np.arange(256, dtype=np.uint8)
    means = [*mean, sum(mean) / len(mean), *rng.uniform(0, 255, 16)]
    stds = [*std, sum(std) / len(std), *rng.uniform(30, 130, 16)]
    mean, std = (np.array(channels, np.float32).reshape(-1, 1, 1) for channels in (means, stds))
    pixels = np.stack([rng.permutation(values) for _ in range(8 * len(mean))]).reshape(8, len(mean), 16, 16)
    rows, shares = np.arange(8, dtype=np.int32), rng.random(8, np.float32)
    plan = (rows, rows[::-1], np.ones(8, bool), shares, np.zeros((8, 4), np.int32))
    images, _ = hand_over(PixelBatch(pixels, rows, np.empty(0, np.float32), rows[:0], mean, std, *plan))
    host, share = (pixels.astype(np.float32) - mean) / std, shares.reshape(-1, 1, 1, 1)
    return images.asnumpy().tobytes() == (host * share + host[::-1] * (np.float32(1) - share)).tobytes()


def _normalized(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return ops.div(ops.sub(ops.cast(pixels, ms.float32), mean), std)


def _mixed(images: Tensor, batch: PixelBatch) -> Tensor:
    """Return the images of the batch, made of those that were read."""
    own, is_blend, (height, width) = images, batch.is_blend, images.shape[2:]
    if not np.array_equal(batch.rows, np.arange(len(images))):
        own = ops.gather(images, as_tensor(batch.rows), 0)
    is_pasted = batch.boxes.any(axis=1)
    if not is_blend.any() and not is_pasted.any():
        return own
    partners = ops.gather(images, as_tensor(batch.partners), 0)
    mixed = own
    if is_blend.any():
        share = _column(batch.shares)
        mixed = ops.add(ops.mul(own, share), ops.mul(partners, _column(np.float32(1) - batch.shares)))
        if not is_blend.all():
            mixed = ops.where(_column(is_blend), mixed, own)
    if is_pasted.any():
        top, bottom, left, right = batch.boxes.T[:, :, None]
        rows, columns = np.arange(height), np.arange(width)
        is_row, is_column = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)
        mask = ops.logical_and(as_tensor(is_row[:, None, :, None]), as_tensor(is_column[:, None, None, :]))
        mixed = ops.where(mask, partners, mixed)
    return mixed


def _column(values: np.ndarray) -> Tensor:
    """Return a value for each image as a tensor [M, 1, 1, 1]."""
    return as_tensor(values.reshape(-1, 1, 1, 1))
