"""Which samples a rank sees in an epoch, and in what order: a pure function of seed, epoch and rank."""

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
    """The samples of one rank in one epoch.

    All ranks cut the same order, which is dealt out like cards, sample by sample: so the first B samples of each of N
    ranks are the first N * B of the order, and what one process sees in an epoch, N see together.

    With `num_repeats` R > 1 (repeated augmentation: Hoffer et al., arXiv 1901.09335, as DeiT trains with it) every
    sample stands R times in a row before the dealing, so that its copies meet in one step, and the order is then cut
    to `num_samples`: an epoch stays as long as it was and holds 1/R of the samples.

    Args:
        num_samples: size of the data set.
        seed, epoch: what the shuffled order depends on, besides `num_samples`.
        shuffle: False keeps the order of the data set.
        num_repeats: R above; 0 and 1 both mean once.
        rank, num_ranks: which share, of how many.
        pad: True (training): all ranks get equally many samples, the order beginning anew where it runs out. False
            (evaluation): each sample goes to exactly one rank, once, and ranks may differ by one sample.

    Returns:
        int64 array of shape (n, 2): the index of the sample, and which of its appearances this is, counted from 0
        (augmentation depends on both).

    Raises:
        ValueError: repeats without padding, or without shuffling (the same 1/R of the data set would come every epoch).
    """
    repeats = max(num_repeats, 1)
    if repeats > 1 and not (pad and shuffle):
        raise ValueError("repeated augmentation is for training on a shuffled data set")
    order = stream(seed, Purpose.ORDER, epoch).permutation(num_samples) if shuffle else np.arange(num_samples)
    count = samples_per_rank(num_samples, rank=rank, num_ranks=num_ranks, pad=pad)
    rounds, place = np.divmod(rank + num_ranks * np.arange(count), num_samples * repeats)
    # A sample that comes again because the order ran out is augmented anew, hence rounds.
    return np.stack([order[place // repeats], rounds * repeats + place % repeats], axis=1)


def samples_per_rank(num_samples: int, *, rank: int, num_ranks: int, pad: bool) -> int:
    """How many samples `epoch_order` gives to a rank."""
    if pad:
        return -(-num_samples // num_ranks)
    return len(range(rank, num_samples, num_ranks))
