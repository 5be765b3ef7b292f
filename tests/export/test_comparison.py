"""The comparison of an exported file with its network, on outputs written by hand."""

import numpy as np
import pytest

from mindcv.export.comparison import Comparison
from mindcv.utils.errors import UserError


def arrays(*rows):
    return [np.array(rows, np.float32)]


def test_comparison_adds_up_the_batches():
    comparison = Comparison()
    comparison.add(arrays([0, 1], [1, 0], [2, 0]), arrays([0, 1], [0, 1], [0, 2]), "logits")
    comparison.add(arrays([3, 0]), arrays([0, 3]), "logits")
    comparison.add(arrays([1, 0]), arrays([1, 0.5]), "logits")
    assert (comparison.num_images, comparison.num_other_top1) == (5, 3)
    assert comparison.largest_difference == 1, "3 of at most 3, and 2 of at most 2"
    sure = 1 / (1 + np.exp(-3))
    assert comparison.largest_probability_difference == pytest.approx(2 * sure - 1, rel=1e-12)


def test_comparison_is_relative_to_outputs_above_one_only():
    for size, difference, expected in ((100, 0.5, 0.005), (0.125, 0.0625, 0.0625)):
        comparison = Comparison()
        comparison.add(arrays([size, 0]), arrays([size, difference]), "features")
        assert comparison.largest_difference == expected
        assert (comparison.num_other_top1, comparison.largest_probability_difference) == (0, 0)
        comparison.check(expected)
        with pytest.raises(UserError, match="at most 0.001 is allowed: the file was not kept"):
            comparison.check(0.001)


def test_comparison_refuses_outputs_of_other_shapes_and_values_that_are_not_finite():
    with pytest.raises(UserError, match=r"outputs of the shapes \[\(1, 3\)\], and the network \[\(1, 2\)\]"):
        Comparison().add(arrays([0, 1]), arrays([0, 1, 2]), "logits")
    with pytest.raises(UserError, match="outputs of the exported file are not finite"):
        Comparison().add(arrays([0, 1]), arrays([0, np.nan]), "logits")
    with pytest.raises(UserError, match="outputs of the network are not finite"):
        Comparison().add(arrays([0, np.inf]), arrays([0, np.inf]), "logits")
