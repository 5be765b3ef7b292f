"""Tests of random streams, against NumPy's own generator."""

import itertools

import numpy as np

from mindcv.utils.random import stream


def test_stream_gives_equal_numbers_for_equal_keys():
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence([3, 42, 0, 7]))).random(5)
    np.testing.assert_array_equal(stream(42, 0, 7).random(5), expected)
    np.testing.assert_array_equal(stream(42, 0, 7).random(5), expected)


def test_stream_gives_other_numbers_for_any_other_key():
    # A careless hash of the key would ignore zeros at the end, or the order.
    keys = [(1,), (1, 0), (1, 0, 0), (0, 1), (0,), (0, 0), (2**32 + 1,), (1, 1), (2,), (3, 1)]
    draws = [tuple(stream(*key).integers(2**62, size=2)) for key in keys]
    assert all(a != b for a, b in itertools.combinations(draws, 2))


def test_stream_gives_uncorrelated_numbers_for_different_keys():
    draws = np.array([stream(5, i).standard_normal(2000) for i in range(8)])
    assert np.abs(np.corrcoef(draws) - np.eye(8)).max() < 0.1
