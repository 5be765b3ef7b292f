"""Sums over processes, with the AllReduce of several processes played by the test."""

import logging

import numpy as np
import pytest

from mindcv.utils import distributed
from mindcv.utils.distributed import Group, join_group


def test_a_group_of_one_sums_nothing(processes):
    values = np.array([[1, 2**59]])
    np.testing.assert_array_equal(Group().sum_integers(values), values)
    assert not processes.sent and Group().is_main and not Group(1, 2).is_main


@pytest.mark.parametrize("size", [2, 3, 64])
def test_sums_are_exact_beyond_float32(processes, size):
    # 2**24 + 1 is the first integer that float32 does not have.
    own = [np.array([[0, 1, 2**24 + 1], [2**36 - 1, 2**48 + rank, 2**52 + 3]]) for rank in range(size)]
    sums = processes.run(lambda rank: Group(rank, size).sum_integers(own[rank]), size)
    expected = [[sum(int(o[i, j]) for o in own) for j in range(3)] for i in range(2)]
    for found in sums:
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, expected)


def test_the_largest_integer_survives(processes):
    (found, _) = processes.run(lambda rank: Group(rank, 2).sum_integers([2**60 - 1]), 2)
    assert found.tolist() == [2 * (2**60 - 1)]


def test_a_process_without_launcher_is_alone(monkeypatch, caplog):
    for name in distributed._LAUNCHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert join_group(False) == Group(0, 1)
    distributed.logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, "mindcv"):
        assert join_group(True) == Group(0, 1)
    distributed.logger.removeHandler(caplog.handler)
    assert "it runs alone" in caplog.text
