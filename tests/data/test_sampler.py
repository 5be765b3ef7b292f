"""Tests of the order of samples and of the shares of ranks, by counting."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from mindcv.data.sampler import Share, epoch_order, samples_per_rank


def order(num_samples=10, seed=1, epoch=0, shuffle=True, num_repeats=0, rank=0, num_ranks=1, pad=True):
    """Return the samples of a rank whose batches have one sample."""
    positions = Share(num_samples, 1, pad, rank, num_ranks).positions()
    return epoch_order(num_samples, positions, seed=seed, epoch=epoch, shuffle=shuffle, num_repeats=num_repeats)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 5])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 50])
def test_share_of_training_is_one_part_of_each_step(num_ranks, batch_size):
    num_samples = 41
    shares = [Share(num_samples, batch_size, True, rank, num_ranks) for rank in range(num_ranks)]
    padded = list(range(-(-num_samples // num_ranks) * num_ranks))
    steps = [padded[i : i + batch_size * num_ranks] for i in range(0, len(padded), batch_size * num_ranks)]
    assert {share.num_batches(drop_remainder=False) for share in shares} == {len(steps)}
    for number, step in enumerate(steps):
        parts = [list(share.batch(number)) for share in shares]
        assert sum(parts, []) == step and len(set(map(len, parts))) == 1
    for share in shares:
        batches = [list(share.batch(number)) for number in range(len(steps))]
        assert share.positions().tolist() == sum(batches, []) and len(share) == sum(map(len, batches))


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_share_of_evaluation_takes_positions_in_turn(num_ranks):
    for rank in range(num_ranks):
        share = Share(41, 4, False, rank, num_ranks)
        expected = list(range(rank, 41, num_ranks))
        assert share.positions().tolist() == expected and len(share) == len(expected)
        batches = [list(share.batch(number)) for number in range(share.num_batches(drop_remainder=False))]
        assert batches == [expected[i : i + 4] for i in range(0, len(expected), 4)]
        assert share.num_batches(drop_remainder=True) == len(expected) // 4


def test_share_reads_whole_groups_of_a_smaller_last_batch():
    """The last step has the positions 32 to 41, and the groups 32 to 35, 36 to 39, and 40 to 41."""
    shares = [Share(42, 8, True, rank, 2, group_size=4) for rank in range(2)]
    assert [list(share.batch(2)) for share in shares] == [list(range(32, 37)), list(range(37, 42))]
    assert [share.read(2) for share in shares] == [range(32, 40), range(36, 42)]
    for share in shares:
        assert [share.read(number) for number in (0, 1)] == [share.batch(number) for number in (0, 1)]
        assert share.positions()[16:].tolist() == list(share.read(2))


@pytest.mark.parametrize("num_samples", [45, 47, 48, 50])
def test_share_drops_the_same_images_for_any_number_of_ranks(num_samples):
    """Steps have 12 images. 47 images would be four full steps of three ranks if the shares were padded first."""
    sizes = {1: 12, 2: 6, 3: 4, 4: 3, 6: 2}
    found = [Share(num_samples, size, True, 0, ranks).num_batches(drop_remainder=True) for ranks, size in sizes.items()]
    assert found == [num_samples // 12] * 5


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("num_samples", [1, 3, 10, 12])
@pytest.mark.parametrize("shuffle", [True, False])
def test_epoch_order_has_every_sample_once_in_evaluation(num_samples, num_ranks, shuffle):
    shares = [
        order(num_samples, rank=rank, num_ranks=num_ranks, pad=False, shuffle=shuffle) for rank in range(num_ranks)
    ]
    assert sorted(np.concatenate(shares)[:, 0]) == list(range(num_samples))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for rank, share in enumerate(shares):
        assert len(share) == samples_per_rank(num_samples, rank=rank, num_ranks=num_ranks, pad=False)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4, 7])
def test_epoch_order_pads_with_its_first_samples_in_training(num_ranks):
    whole = order()[:, 0]
    shares = [order(rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    assert {len(share) for share in shares} == {-(-10 // num_ranks)}
    dealt = np.stack(shares, axis=1).reshape(-1, 2)
    np.testing.assert_array_equal(dealt[:, 0], np.resize(whole, len(dealt)))
    # a sample that occurs a second time in the epoch has another augmentation
    assert dealt[:, 1].tolist() == [0] * 10 + [1] * (len(dealt) - 10)


def test_epoch_order_accepts_more_ranks_than_samples():
    shares = [order(2, rank=rank, num_ranks=5)[0] for rank in range(5)]
    assert [tuple(share) for share in shares] == [
        (index, number) for number, index in zip((0, 0, 1, 1, 2), np.resize(order(2)[:, 0], 5))
    ]


def test_epoch_order_depends_only_on_seed_and_epoch():
    assert np.array_equal(order(50), order(50))
    assert not np.array_equal(order(50), order(50, epoch=1))
    assert not np.array_equal(order(50), order(50, seed=2))
    assert order(5, shuffle=False).tolist() == [[i, 0] for i in range(5)]
    assert order().dtype == np.int64


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
@pytest.mark.parametrize("repeats", [2, 3])
def test_epoch_order_repeats_samples_within_a_step(repeats, num_ranks):
    shares = [order(24, num_repeats=repeats, rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    together = np.stack(shares, axis=1).reshape(-1, 2)
    assert len(together) == 24  # the length of an epoch does not depend on repeats
    counts = Counter(together[:, 0].tolist())
    assert len(counts) == 24 // repeats and set(counts.values()) == {repeats}
    assert len(set(map(tuple, together.tolist()))) == 24  # each copy has its own augmentation
    # copies are in one step, because they are neighbours in the order
    np.testing.assert_array_equal(together[:, 0], np.repeat(order(24)[: 24 // repeats, 0], repeats))


def test_epoch_order_repeats_other_samples_in_another_epoch():
    first, second = (order(24, num_repeats=3, epoch=epoch) for epoch in (0, 1))
    assert set(first[:, 0]) != set(second[:, 0])
    assert np.array_equal(first, order(24, num_repeats=3))


def test_epoch_order_refuses_repeats_without_shuffling():
    for repeats in (2, 3):
        with pytest.raises(ValueError, match="repeated augmentation"):
            order(num_repeats=repeats, shuffle=False)
    for once in (0, 1):
        assert len(order(num_repeats=once, shuffle=False)) == 10


def test_epoch_order_continues_to_count_appearances_when_samples_run_out():
    """Six ranks share two samples, twice each. The first sample occurs again with another augmentation."""
    dealt = [tuple(order(2, num_repeats=2, rank=rank, num_ranks=6)[0]) for rank in range(6)]
    first, second = order(2)[:, 0]
    assert dealt == [(first, 0), (first, 1), (second, 0), (second, 1), (first, 2), (first, 3)]
