"""The softmax against values worked out by hand."""

import numpy as np

from mindcv.utils.softmax import softmax


def test_softmax_gives_shares_that_can_be_worked_out_by_hand():
    logits = np.log(np.array([[1, 2, 5], [4, 4, 8]], np.float32)) + np.float32(3)
    found = softmax(logits)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [[0.125, 0.25, 0.625], [0.25, 0.25, 0.5]], rtol=1e-6)


def test_softmax_does_not_overflow_with_large_logits():
    np.testing.assert_array_equal(softmax(np.float32([[3e38, 0], [-3e38, 3e38]])), [[1, 0], [0, 1]])
