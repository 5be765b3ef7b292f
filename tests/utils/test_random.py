"""Random streams against NumPy's own generator."""

import itertools

import numpy as np

from mindcv.utils.random import stream


def test_equal_keys_give_equal_numbers():
    expected = np.random.Generator(np.random.PCG64(np.random.SeedSequence([3, 42, 0, 7]))).random(5)
    np.testing.assert_array_equal(stream(42, 0, 7).random(5), expected)
    np.testing.assert_array_equal(stream(42, 0, 7).random(5), expected)


def test_any_difference_gives_other_numbers():
    # Zeros at the end and the order are what a careless hash of the key loses.
    keys = [(1,), (1, 0), (1, 0, 0), (0, 1), (0,), (0, 0), (2**32 + 1,), (1, 1), (2,), (3, 1)]
    draws = [tuple(stream(*key).integers(2**62, size=2)) for key in keys]
    assert all(a != b for a, b in itertools.combinations(draws, 2))


def test_streams_are_independent():
    draws = np.array([stream(5, i).standard_normal(2000) for i in range(8)])
    assert np.abs(np.corrcoef(draws) - np.eye(8)).max() < 0.1
