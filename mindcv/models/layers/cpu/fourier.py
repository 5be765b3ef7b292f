"""Depthwise convolution with Fourier transforms that are matrix products, for CPU. See decision 0008.

The convolution of a zero-padded map of height H with k taps equals a circular convolution of length H + k // 2. A
circular convolution is a product of Fourier transforms. The output y for an input x and a kernel w is

    y = back (forward x * of_kernel w)

The real matrices `forward`, `of_kernel` and `back` are constant.

The complex product of a frequency takes three real products: (a + ib)(c + id) has the real part c(a + b) - b(c + d) and
the imaginary part c(a + b) + a(d - c). So `forward` computes a, b and a + b, and `of_kernel` computes d - c, c + d and
c. Columns and rows are transformed in turn. The columns need only half of the frequencies, since the map is real.
"""

from __future__ import annotations

from functools import lru_cache

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops
from mindspore.ops import constexpr

from mindcv.models.layers.cpu.sums import outer, sum_rows
from mindcv.models.layers.layer import Layer

__all__ = ["FourierConvolution"]


class FourierConvolution(Layer):
    """Depthwise convolution of x [N, H, W, C] with a weight [C, 1, k, k], both float32, and zero padding k // 2."""

    def __init__(self):
        super().__init__()
        self.saving = _SavingConvolution()

    def construct(self, x, weight):
        return self.saving(x, weight, *_matrices(x.shape[1], x.shape[2], weight.shape[2]))[0]


class _SavingConvolution(Layer):
    """Returns the convolution and, for the gradient, the transforms of x and of the weight.

    The constant matrices of `_arrays` are arguments, because graph mode supports no constants in a hand-written
    gradient.
    """

    def __init__(self):
        super().__init__()
        self.batch_times = ops.BatchMatMul()
        self.batch_transposed_times = ops.BatchMatMul(transpose_a=True)
        self.times_transposed = ops.MatMul(transpose_b=True)
        self.transposed_times = ops.MatMul(transpose_a=True)

    def construct(self, x, weight, columns, rows, rows_back, columns_back, of_kernel):
        n, height, width, channels = x.shape
        x_hat = self.times(columns, ops.reshape(x, (n * height, width, channels)))
        x_hat = self.times(rows, ops.reshape(x_hat, (n, 2 * height, -1)))  # [N, 3 * frequencies of rows, ... * C]
        w_hat = self.times_transposed(of_kernel, ops.reshape(weight, (channels, -1)))  # [3 * frequencies, C]
        y = self.times(rows_back, x_hat * self.repeated(w_hat, x_hat))
        y = self.times(columns_back, ops.reshape(y, (n * height, -1, channels)))
        return ops.reshape(y, x.shape), x_hat, w_hat

    def bprop(self, x, weight, columns, rows, rows_back, columns_back, of_kernel, out, dout):
        n, height, width, channels = x.shape
        x_hat, w_hat = out[1], out[2]
        dy = ops.reshape(dout[0], (n * height, width, channels))
        dy_hat = self.transposed(columns_back, dy)
        dy_hat = self.transposed(rows_back, ops.reshape(dy_hat, (n, 2 * height, -1)))
        dw_hat = ops.reshape(sum_rows(ops.reshape(dy_hat * x_hat, (n, -1))), w_hat.shape)
        dweight = ops.reshape(self.transposed_times(dw_hat, of_kernel), weight.shape)
        dx = self.transposed(rows, dy_hat * self.repeated(w_hat, x_hat))
        dx = self.transposed(columns, ops.reshape(dx, (n * height, -1, channels)))
        return ops.reshape(dx, x.shape), dweight, columns, rows, rows_back, columns_back, of_kernel

    def times(self, matrix, x):
        """Return matrix [I, J] times each of x [B, J, C]. The operator does not broadcast the batch."""
        return self.batch_times(_repeat(matrix, x.shape[0]), x)

    def transposed(self, matrix, x):
        """Return the transposed matrix [I, J] times each of x [B, I, C]."""
        return self.batch_transposed_times(_repeat(matrix, x.shape[0]), x)

    def repeated(self, w_hat, x_hat):
        """Repeat the transform of the weight for each image."""
        return ops.reshape(_repeat(w_hat, x_hat.shape[0]), x_hat.shape)


def _repeat(matrix, count):
    """Repeat a matrix [I, J] to [count, I, J]."""
    return ops.reshape(outer(ops.ones((count,), ms.float32), matrix), (count,) + matrix.shape)


@constexpr
def _matrices(height, width, kernel_size):
    return tuple(Tensor(array) for array in _arrays(height, width, kernel_size))


@lru_cache(maxsize=32)
def _arrays(height: int, width: int, kernel_size: int) -> tuple[np.ndarray, ...]:
    """Return the constant matrices for maps of one size, float32. U is the number of row frequencies, F of column ones.

    Returns:
        columns, [2 F, W]: transforms along W. Its result has F real parts and then F imaginary parts.
        rows, [3 U, 2 H]: transforms along H, where real and imaginary parts alternate. Its result has the three factors
            of the complex products one after the other.
        rows_back, [2 H, 3 U]: inverse of `rows`, with the sums of the complex products.
        columns_back, [W, 2 F]: inverse of `columns`.
        of_kernel, [3 U F, k k]: transforms the kernel.
    """
    pad = kernel_size // 2
    num_rows, num_columns = height + pad, (width + pad) | 1  # An even length would need one frequency more.
    u, f = np.arange(num_rows), np.arange(num_columns // 2 + 1)
    angle = 2 * np.pi * np.outer(f, np.arange(width)) / num_columns
    cos, sin = np.cos(angle), np.sin(angle)
    # Each frequency but 0 also stands for its conjugate in the other half.
    share = np.where(f == 0, 1, 2) / (num_rows * num_columns)
    columns = np.concatenate([cos, -sin])
    columns_back = np.concatenate([cos.T * share, -sin.T * share], 1)

    angle = 2 * np.pi * np.outer(u, np.arange(height)) / num_rows
    cos, sin = np.cos(angle), np.sin(angle)
    real, imag = _interleave(cos, sin), _interleave(-sin, cos)
    rows = np.concatenate([real, imag, real + imag])
    # The back transforms combine the three products a(d - c), b(c + d) and c(a + b).
    real = np.concatenate([-sin.T, -cos.T, cos.T - sin.T], 1)
    imag = np.concatenate([cos.T, -sin.T, cos.T + sin.T], 1)
    rows_back = _interleave(real.T, imag.T).T

    taps = np.arange(kernel_size) - pad
    of_rows = np.exp(2j * np.pi * np.outer(u, taps) / num_rows)
    of_columns = np.exp(2j * np.pi * np.outer(f, taps) / num_columns)
    kernel = np.kron(of_rows, of_columns)
    of_kernel = np.concatenate([kernel.imag - kernel.real, kernel.real + kernel.imag, kernel.real])
    return tuple(array.astype(np.float32) for array in (columns, rows, rows_back, columns_back, of_kernel))


def _interleave(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Interleave the columns of two matrices [I, J] to [I, 2 J]."""
    return np.stack([a, b], -1).reshape(len(a), -1)
