"""Chooses and orders the samples of a rank in an epoch, as a pure function of seed, epoch and rank."""

from __future__ import annotations

import numpy as np

from mindcv.data.constants import Purpose
from mindcv.utils.random import stream

__all__ = ["epoch_order", "samples_per_rank"]


def epoch_order(
    num_samples: int,
    *,
    seed: int,
    epoch: int,
    shuffle: bool,
    num_repeats: int,
    rank: int,
    num_ranks: int,
    pad: bool,
) -> np.ndarray:
    """Return the samples of one rank in one epoch, in order.

    All ranks share one order, and its samples go to the ranks in turn. So the first B samples of each of N ranks are
    the first N * B samples of the order. N processes together see the same samples as one process.

    `num_repeats` R > 1 gives repeated augmentation (Hoffer et al., arXiv 1901.09335, as in the training of DeiT). Each
    sample then occurs R times in a row in the order, so its copies are in the same step. The order is truncated to
    `num_samples`, so an epoch keeps its length and contains 1/R of the samples.

    Args:
        num_samples: size of the data set.
        seed, epoch: seed and epoch, which determine the shuffled order together with `num_samples`.
        shuffle: False keeps the order of the data set.
        num_repeats: R above. 0 and 1 both mean one appearance.
        rank, num_ranks: index of the rank, and number of ranks.
        pad: with True (training), all ranks have the same number of samples, and the order starts again at its end.
            With False (evaluation), each sample goes to exactly one rank, so ranks may differ by one sample.

    Returns:
        int64 array [n, 2]: the index of the sample, and the number of its earlier appearances. Augmentation depends on
        both.

    Raises:
        ValueError: samples are repeated without padding or without shuffling. Without shuffling, every epoch would
            have the same 1/R of the data set.
    """
    repeats = max(num_repeats, 1)
    if repeats > 1 and not (pad and shuffle):
        raise ValueError("repeated augmentation is for training on a shuffled data set")
    order = stream(seed, Purpose.ORDER, epoch).permutation(num_samples) if shuffle else np.arange(num_samples)
    count = samples_per_rank(num_samples, rank=rank, num_ranks=num_ranks, pad=pad)
    rounds, position = np.divmod(rank + num_ranks * np.arange(count), num_samples * repeats)
    # A sample that occurs again after the end of the order has another augmentation, so `rounds`
    # counts too.
    return np.stack([order[position // repeats], rounds * repeats + position % repeats], axis=1)


def samples_per_rank(num_samples: int, *, rank: int, num_ranks: int, pad: bool) -> int:
    """Return the number of samples that `epoch_order` gives to a rank."""
    if pad:
        return -(-num_samples // num_ranks)
    return len(range(rank, num_samples, num_ranks))
