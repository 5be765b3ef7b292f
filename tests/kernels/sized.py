"""Arithmetic in float64 that also follows how large a rounding error may become."""

from __future__ import annotations

import math

import numpy as np
from scipy import special

__all__ = ["Sized", "gelu", "gelu_slope", "pad", "sqrt"]


class Sized:
    """An array and the size of its rounding error, which have the same shape.

    Where every operation is rounded with the relative error eps, the values are wrong by about eps * size: sizes follow
    the errors to first order, and errors of different terms are independent, so that their squares add up. A sum whose
    terms cancel is small, and its size is not.
    """

    __array_ufunc__ = None  # NumPy leaves `array * Sized` to this class

    def __init__(self, value, size=0.0):
        self.value = np.asarray(value, np.float64)
        self.size = np.maximum(np.abs(self.value), size)

    def error_of(self, found):
        """Return the largest error of `found` in units of eps * size, with eps of float32."""
        assert found.shape == self.shape
        errors = np.abs(found - self.value) / np.maximum(self.size, 1e-30)
        return errors.max(initial=0) * 2.0**24

    @property
    def shape(self):
        return self.value.shape

    @property
    def T(self):
        return Sized(self.value.T, self.size.T)

    def __getitem__(self, key):
        return Sized(self.value[key], self.size[key])

    def transpose(self, *axes):
        return Sized(self.value.transpose(*axes), self.size.transpose(*axes))

    def reshape(self, *shape):
        return Sized(self.value.reshape(*shape), self.size.reshape(*shape))

    def sum(self, axis, keepdims=False):
        size = np.sqrt(np.square(self.size).sum(axis, keepdims=keepdims))
        return Sized(self.value.sum(axis, keepdims=keepdims), size)

    def mean(self, axis, keepdims=False):
        total = self.sum(axis, keepdims)
        return total * (total.value.size / max(self.value.size, 1))

    def __neg__(self):
        return Sized(-self.value, self.size)

    def __add__(self, other):
        other = _sized(other)
        return Sized(self.value + other.value, np.hypot(self.size, other.size))

    def __sub__(self, other):
        return self + -_sized(other)

    def __rsub__(self, other):
        return _sized(other) - self

    def __mul__(self, other):
        other = _sized(other)
        size = np.hypot(self.value * other.size, self.size * other.value)
        return Sized(self.value * other.value, size)

    def __truediv__(self, other):
        other = _sized(other)
        value = self.value / other.value
        return Sized(value, np.hypot(self.size, value * other.size) / np.abs(other.value))

    def __rtruediv__(self, other):
        return _sized(other) / self

    def __matmul__(self, other):
        other = _sized(other)
        size = np.square(self.value) @ np.square(other.size) + np.square(self.size) @ np.square(other.value)
        return Sized(self.value @ other.value, np.sqrt(size))

    __radd__, __rmul__ = __add__, __mul__


def _sized(a):
    return a if isinstance(a, Sized) else Sized(a)


def _mapped(function, slope, a, least_size=lambda v: 0.0):
    """Return function(a), where `slope` is its derivative and `least_size` the size of its own terms."""
    if not isinstance(a, Sized):
        return function(a)
    return Sized(function(a.value), np.hypot(slope(a.value) * a.size, least_size(a.value)))


def sqrt(a):
    return _mapped(np.sqrt, lambda v: 0.5 / np.sqrt(v), a)


def gelu(a):
    """Compute v / 2 + v / 2 * erf(v / sqrt(2)). Below 0 the two terms cancel."""
    return _mapped(lambda v: v * _cdf(v), _gelu_slope, a, np.abs)


def gelu_slope(a):
    """The derivative of GELU, with the terms 1 / 2 and erf / 2."""
    return _mapped(_gelu_slope, lambda v: (2 - v * v) * _density(v), a, np.ones_like)


def pad(a, widths):
    """Pad the array with zeros."""
    if not isinstance(a, Sized):
        return np.pad(a, widths)
    return Sized(np.pad(a.value, widths), np.pad(a.size, widths))


def _cdf(v):
    return 0.5 * special.erfc(-v / math.sqrt(2))


def _density(v):
    return np.exp(-0.5 * v * v) / math.sqrt(2 * math.pi)


def _gelu_slope(v):
    return _cdf(v) + v * _density(v)
