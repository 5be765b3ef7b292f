"""Counts are compared with loops over single images."""

import math

import numpy as np
import pytest

from mindcv.engine.metrics import ClassificationCounts
from mindcv.utils.distributed import Group
from mindcv.utils.errors import UserError


def batch(count, num_classes, seed=0):
    rng = np.random.default_rng(seed)
    # There are few distinct values, so that ties are common.
    return rng.integers(-2, 3, (count, num_classes)).astype(np.float32), rng.integers(0, num_classes, count)


def brute_force(logits, labels):
    """Return (top-1 hits, top-5 hits, sum of the cross-entropy, confusion matrix as a dictionary)."""
    top1 = top5 = 0
    loss, confusion = 0.0, {}
    for row, label in zip(logits.tolist(), labels.tolist()):
        ranking = sorted(range(len(row)), key=lambda k: (-row[k], k))
        top1 += ranking[0] == label
        top5 += label in ranking[:5]
        loss -= math.log(math.exp(row[label]) / sum(math.exp(v) for v in row))
        confusion[label, ranking[0]] = confusion.get((label, ranking[0]), 0) + 1
    return top1, top5, loss, confusion


@pytest.mark.parametrize("num_classes", [2, 3, 5, 6, 40])
def test_classification_counts_agree_with_a_loop_over_single_images(num_classes):
    counts = ClassificationCounts(num_classes)
    logits, labels = batch(200, num_classes)
    for start in (0, 70, 71, 200):
        end = {0: 70, 70: 71, 71: 200, 200: 200}[start]
        counts.update(logits[start:end], labels[start:end])
    top1, top5, loss, confusion = brute_force(logits, labels)
    assert (counts.num_images, counts.num_top1, counts.num_top5) == (200, top1, top5)
    assert counts.loss_sum == pytest.approx(loss, rel=1e-12)
    assert {(t, p): n for (t, p), n in np.ndenumerate(counts.confusion) if n} == confusion
    assert (counts.top1, counts.top5, counts.loss) == (top1 / 200, top5 / 200, pytest.approx(loss / 200))
    if num_classes <= 5:
        assert counts.top5 == 1


def test_classification_counts_rank_equal_logits_by_class_number():
    counts = ClassificationCounts(7)
    counts.update(np.zeros((7, 7), np.float32), np.arange(7))
    assert (counts.num_top1, counts.num_top5) == (1, 5)  # class 0; classes 0 to 4
    assert counts.confusion[:, 0].tolist() == [1] * 7


def test_classification_counts_neither_overflow_nor_round_large_logits():
    counts = ClassificationCounts(2)
    counts.update(np.float16([[60000, -60000], [1, 1]]), np.array([1, 0]))
    assert counts.loss_sum == pytest.approx(120000 - 32 * 0 + math.log(2), abs=64)  # float16 has 60000 only nearly
    assert counts.num_top1 == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_classification_counts_refuse_logits_that_are_not_finite(bad):
    counts = ClassificationCounts(3)
    with pytest.raises(UserError, match="logits are not finite"):
        counts.update(np.float32([[0, 1, 2], [0, bad, 2]]), np.array([0, 1]))
    assert counts.num_images == 0 and not counts.confusion.any()


def test_classification_counts_of_several_processes_add_up_to_those_of_one(processes):
    logits, labels = batch(101, 6)
    one = ClassificationCounts(6)
    one.update(logits, labels)
    shares = []
    for part in (slice(0, 50), slice(50, 51), slice(51, 101)):
        shares.append(ClassificationCounts(6))
        shares[-1].update(logits[part], labels[part])
    for found in processes.run(lambda rank: shares[rank].summed(Group(rank, 3)), 3):
        assert (found.num_images, found.num_top1, found.num_top5) == (one.num_images, one.num_top1, one.num_top5)
        np.testing.assert_array_equal(found.confusion, one.confusion)
        assert found.loss_sum == pytest.approx(one.loss_sum, abs=3 * 2**-21)


def test_classification_counts_are_summed_exactly_beyond_float32(processes):
    shares = []
    for rank in range(4):
        share = ClassificationCounts(2, 2**24 + rank, 2**24 - 1, 2**24 + 1, 1e7 + 2**-10)
        share.confusion[:] = [[2**24 + 1, rank], [0, 2**33 + 1]]
        shares.append(share)
    (found, *_) = processes.run(lambda rank: shares[rank].summed(Group(rank, 4)), 4)
    assert (found.num_images, found.num_top1, found.num_top5) == (2**26 + 6, 2**26 - 4, 2**26 + 4)
    assert found.confusion.tolist() == [[2**26 + 4, 6], [0, 2**35 + 4]]
    assert found.loss_sum == 4e7 + 2**-8


def test_classification_counts_send_nothing_when_there_is_one_process(processes):
    counts = ClassificationCounts(2)
    assert counts.summed(Group()) is counts and not processes.sent
