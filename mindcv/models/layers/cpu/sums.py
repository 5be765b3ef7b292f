"""Sums and broadcasts over an axis as matrix products. On CPU, ReduceSum and broadcasting are several times slower.

Infinities and NaN stay in their row or column, because one factor of each product holds only ones. See decision 0009.
"""

from mindspore import ops

__all__ = ["outer", "spread_channels", "spread_pixels", "sum_channels", "sum_pixels", "sum_rows", "times_vector"]


def sum_rows(x):
    """Sum x [R, C] over the rows to [C]."""
    return ops.reshape(ops.matmul(ops.ones((1, x.shape[0]), x.dtype), x), (-1,))


def sum_channels(x):
    """Sum x [R, C] over the channels to [R, 1]."""
    return ops.matmul(x, ops.ones((x.shape[1], 1), x.dtype))


def times_vector(x, vector):
    """Return the product [R, 1] of x [R, C] and a vector of C elements."""
    return ops.matmul(x, ops.reshape(vector, (-1, 1)))


def outer(x, y):
    """Return the outer product [R, C] of x with R elements and y with C elements, of any shapes."""
    return ops.matmul(ops.reshape(x, (-1, 1)), ops.reshape(y, (1, -1)))


def spread_channels(x, channels):
    """Repeat x [R, 1] over the channels to [R, channels]."""
    return ops.matmul(x, ops.ones((1, channels), x.dtype))


def sum_pixels(x):
    """Sum x [N, P, C] over the pixels to [N, 1, C]."""
    return ops.bmm(ops.ones((x.shape[0], 1, x.shape[1]), x.dtype), x)


def spread_pixels(x, pixels):
    """Repeat x [N, 1, C] over the pixels to [N, pixels, C]."""
    return ops.bmm(ops.ones((x.shape[0], pixels, 1), x.dtype), x)
