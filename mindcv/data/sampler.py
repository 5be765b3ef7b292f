"""Chooses and orders the samples of a rank in an epoch, as a pure function of seed, epoch and rank."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np

from mindcv.data.constants import Purpose
from mindcv.utils.random import stream

__all__ = ["Share", "epoch_order", "samples_per_rank"]


@dataclass(frozen=True)
class Share:
    """The positions in the order of an epoch whose samples one of N ranks reads, batch by batch.

    In training, the first N * B positions are the first batches of the ranks: the first B positions belong to rank 0,
    the next B to rank 1, and so on. So the ranks read the batches in turn that one process would read, and N ranks see
    the images of one process that accumulates N batches in a step. All ranks have the same number of samples. The
    smaller last batches are equal parts of the rest, for which the order starts again at its end if it does not divide.

    In evaluation, the positions go to the ranks in turn. Each sample goes to exactly one rank, so ranks may differ by
    one sample.

    Attributes:
        num_samples: size of the data set.
        batch_size: number of samples B in a batch of this rank.
        is_training: whether the share is for training (see above).
        rank, num_ranks: index of this rank, and number of ranks.
        group_size: number of consecutive positions whose images are mixed with each other. It divides `batch_size`.
            None means that nothing is mixed.
    """

    num_samples: int
    batch_size: int
    is_training: bool = False
    rank: int = 0
    num_ranks: int = 1
    group_size: Optional[int] = None

    def __len__(self) -> int:
        """Return the number of samples of this rank in an epoch."""
        return samples_per_rank(self.num_samples, rank=self.rank, num_ranks=self.num_ranks, pad=self.is_training)

    def num_batches(self, drop_remainder: bool) -> int:
        """Return the number of batches of this rank in an epoch.

        With `drop_remainder`, smaller last batches are left out. Batches that are full only because the order starts
        again count as smaller ones, so that the number of steps does not depend on the number of ranks.
        """
        if drop_remainder and self.is_training:
            return self.num_samples // (self.batch_size * self.num_ranks)
        return len(self) // self.batch_size if drop_remainder else -(-len(self) // self.batch_size)

    def batch(self, number: int) -> range:
        """Return the positions of batch `number` of this rank."""
        first = number * self.batch_size
        size = min(self.batch_size, len(self) - first)
        start = first * self.num_ranks
        if self.is_training:
            return range(start + self.rank * size, start + (self.rank + 1) * size)
        start += self.rank
        return range(start, start + size * self.num_ranks, self.num_ranks)

    def read(self, number: int) -> range:
        """Return the positions that must be read for batch `number`.

        They are the positions of the batch. If a group of a smaller last batch is divided between ranks, they are all
        positions of the group, because each rank needs the partners of its images.
        """
        batch, size = self.batch(number), self.group_size
        if size is None:
            return batch
        return range(batch.start // size * size, min(-(-batch.stop // size) * size, len(self) * self.num_ranks))

    def positions(self) -> np.ndarray:
        """Return the positions that this rank reads in an epoch, int64 [n].

        The positions to read for batch i begin at index i * B.
        """
        if not self.is_training:
            return np.arange(self.rank, self.num_samples, self.num_ranks)
        num_full, rest = divmod(len(self), self.batch_size)
        batches = self.rank + self.num_ranks * np.arange(num_full)
        full = batches[:, None] * self.batch_size + np.arange(self.batch_size)
        last = np.array(self.read(num_full) if rest else (), np.int64)
        return np.concatenate([full.reshape(-1), last])


def epoch_order(
    num_samples: int, positions: np.ndarray, *, seed: int, epoch: int, shuffle: bool, num_repeats: int
) -> np.ndarray:
    """Return the samples at some positions in the order of an epoch, which all ranks share.

    `num_repeats` R > 1 gives repeated augmentation (Hoffer et al., arXiv 1901.09335, as in the training of DeiT). Each
    sample then occurs R times in a row in the order, so its copies are in the same step. The order is truncated to
    `num_samples`, so an epoch keeps its length and contains 1/R of the samples.

    Args:
        num_samples: size of the data set.
        positions: positions in the order, from 0 (see `Share`). The order starts again at its end.
        seed, epoch: seed and epoch, which determine the shuffled order together with `num_samples`.
        shuffle: False keeps the order of the data set.
        num_repeats: R above. 0 and 1 both mean one appearance.

    Returns:
        int64 array [n, 2]: the index of the sample, and the number of its earlier appearances. Augmentation depends on
        both.

    Raises:
        ValueError: samples are repeated without shuffling. Every epoch would have the same 1/R of the data set.
    """
    repeats = max(num_repeats, 1)
    if repeats > 1 and not shuffle:
        raise ValueError("repeated augmentation is for training on a shuffled data set")
    order = stream(seed, Purpose.ORDER, epoch).permutation(num_samples) if shuffle else np.arange(num_samples)
    rounds, position = np.divmod(positions, num_samples * repeats)
    # A sample that occurs again after the end of the order has another augmentation, so `rounds`
    # counts too.
    return np.stack([order[position // repeats], rounds * repeats + position % repeats], axis=1)


def samples_per_rank(num_samples: int, *, rank: int, num_ranks: int, pad: bool) -> int:
    """Return the number of samples of a rank in an epoch, with or without padding to equal numbers for all ranks."""
    if pad:
        return -(-num_samples // num_ranks)
    return len(range(rank, num_samples, num_ranks))
