"""Order and shares of samples: counted."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from mindcv.data.sampler import epoch_order, samples_per_rank


def order(num_samples=10, seed=1, epoch=0, shuffle=True, num_repeats=0, rank=0, num_ranks=1, pad=True):
    return epoch_order(
        num_samples,
        seed=seed,
        epoch=epoch,
        shuffle=shuffle,
        num_repeats=num_repeats,
        rank=rank,
        num_ranks=num_ranks,
        pad=pad,
    )


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("num_samples", [1, 3, 10, 12])
@pytest.mark.parametrize("shuffle", [True, False])
def test_evaluation_sees_every_sample_once(num_samples, num_ranks, shuffle):
    shares = [
        order(num_samples, rank=rank, num_ranks=num_ranks, pad=False, shuffle=shuffle) for rank in range(num_ranks)
    ]
    assert sorted(np.concatenate(shares)[:, 0]) == list(range(num_samples))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for rank, share in enumerate(shares):
        assert len(share) == samples_per_rank(num_samples, rank=rank, num_ranks=num_ranks, pad=False)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 7])
def test_training_pads_by_beginning_anew(num_ranks):
    whole = order()[:, 0]
    shares = [order(rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    assert {len(share) for share in shares} == {-(-10 // num_ranks)}
    dealt = np.stack(shares, axis=1).reshape(-1, 2)
    np.testing.assert_array_equal(dealt[:, 0], np.resize(whole, len(dealt)))
    # what is seen a second time in the epoch is augmented a second time
    assert dealt[:, 1].tolist() == [0] * 10 + [1] * (len(dealt) - 10)


def test_more_ranks_than_samples():
    shares = [order(2, rank=rank, num_ranks=5)[0] for rank in range(5)]
    assert [tuple(share) for share in shares] == [
        (index, number) for number, index in zip((0, 0, 1, 1, 2), np.resize(order(2)[:, 0], 5))
    ]


def test_order_depends_on_seed_and_epoch_alone():
    assert np.array_equal(order(50), order(50))
    assert not np.array_equal(order(50), order(50, epoch=1))
    assert not np.array_equal(order(50), order(50, seed=2))
    assert order(5, shuffle=False).tolist() == [[i, 0] for i in range(5)]
    assert order().dtype == np.int64


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
@pytest.mark.parametrize("repeats", [2, 3])
def test_repeated_augmentation(repeats, num_ranks):
    shares = [order(24, num_repeats=repeats, rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    together = np.stack(shares, axis=1).reshape(-1, 2)
    assert len(together) == 24  # an epoch is as long as without
    counts = Counter(together[:, 0].tolist())
    assert len(counts) == 24 // repeats and set(counts.values()) == {repeats}
    assert len(set(map(tuple, together.tolist()))) == 24  # no copy is augmented like another
    # copies meet in one step: they stand in a row before the dealing
    np.testing.assert_array_equal(together[:, 0], np.repeat(order(24)[: 24 // repeats, 0], repeats))


def test_repeated_augmentation_changes_with_the_epoch():
    first, second = (order(24, num_repeats=3, epoch=epoch) for epoch in (0, 1))
    assert set(first[:, 0]) != set(second[:, 0])
    assert np.array_equal(first, order(24, num_repeats=3))


@pytest.mark.parametrize("options", [{"pad": False}, {"shuffle": False}])
def test_repeats_need_training_and_shuffling(options):
    for repeats in (2, 3):
        with pytest.raises(ValueError, match="repeated augmentation"):
            order(num_repeats=repeats, **options)
    for once in (0, 1):
        assert len(order(num_repeats=once, **options)) == 10


def test_appearances_are_counted_on_when_repeated_samples_run_out():
    """Two samples, twice each, for six ranks: the first sample comes again and is not augmented as before."""
    dealt = [tuple(order(2, num_repeats=2, rank=rank, num_ranks=6)[0]) for rank in range(6)]
    first, second = order(2)[:, 0]
    assert dealt == [(first, 0), (first, 1), (second, 0), (second, 1), (first, 2), (first, 3)]
