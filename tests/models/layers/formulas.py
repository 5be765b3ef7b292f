"""Layers as formulas in NumPy, and random parameters for the layers."""

import math

import numpy as np
from mindspore import Tensor


def random(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def fill(rng, cell):
    """Set random parameters and return them as float64 arrays by name."""
    for parameter in cell.get_parameters():
        parameter.set_data(Tensor(random(rng, *parameter.shape)))
    return {
        parameter.name.split(".")[-1]: parameter.asnumpy().astype(np.float64) for parameter in cell.get_parameters()
    }


def convolve(x, weight, bias, stride, pad, groups):
    """Compute the convolution of [N, H, W, C] by its definition."""
    x = np.pad(x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    out, inner, k, _ = weight.shape
    n, h, w, c = x.shape
    rows, cols = (h - k) // stride + 1, (w - k) // stride + 1
    y = np.zeros((n, rows, cols, out))
    for i in range(rows):
        for j in range(cols):
            patch = x[:, i * stride : i * stride + k, j * stride : j * stride + k]
            if groups == 1:
                y[:, i, j] = np.einsum("nabc,ocab->no", patch, weight)
            else:
                y[:, i, j] = np.einsum("nabc,cab->nc", patch, weight[:, 0])
    return y + bias


def grn(x, gamma, beta):
    x = x.astype(np.float64)
    g = np.sqrt((x**2).sum((1, 2), keepdims=True))
    n = g / (g.mean(-1, keepdims=True) + 1e-6)
    return gamma * (x * n) + beta + x


def phi(x):
    """Compute the normal distribution function by the C library's erfc, which is exact in the tail."""
    return np.vectorize(lambda v: 0.5 * math.erfc(-v / math.sqrt(2)))(x.astype(np.float64))


def norm(x, gamma, beta):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-6) * gamma + beta
