"""Sums and spreads over an axis as matrix products: on CPU ReduceSum and broadcasting take several times as long.

A factor of ones leaves infinities and NaN in the row or column where they are.
"""

from mindspore import ops

__all__ = ["outer", "spread_channels", "spread_pixels", "sum_channels", "sum_pixels", "sum_rows", "times_vector"]


def sum_rows(x):
    """[R, C] to [C]."""
    return ops.reshape(ops.matmul(ops.ones((1, x.shape[0]), x.dtype), x), (-1,))


def sum_channels(x):
    """[R, C] to [R, 1]."""
    return ops.matmul(x, ops.ones((x.shape[1], 1), x.dtype))


def times_vector(x, vector):
    """[R, C] times [C] to [R, 1]."""
    return ops.matmul(x, ops.reshape(vector, (-1, 1)))


def outer(x, y):
    """Any shapes of R and C elements to [R, C]."""
    return ops.matmul(ops.reshape(x, (-1, 1)), ops.reshape(y, (1, -1)))


def spread_channels(x, channels):
    """[R, 1] to [R, channels]."""
    return ops.matmul(x, ops.ones((1, channels), x.dtype))


def sum_pixels(x):
    """[N, P, C] to [N, 1, C]."""
    return ops.bmm(ops.ones((x.shape[0], 1, x.shape[1]), x.dtype), x)


def spread_pixels(x, pixels):
    """[N, 1, C] to [N, pixels, C]."""
    return ops.bmm(ops.ones((x.shape[0], pixels, 1), x.dtype), x)
