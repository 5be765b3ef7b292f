"""Depthwise convolution, in the form that suits the device."""

from mindspore import nn, ops

from mindcv.models.layers.dense import ProductCell
from mindcv.models.layers.form import is_on_cpu

__all__ = ["DepthwiseConv"]


def DepthwiseConv(channels: int, kernel_size: int = 7) -> nn.Cell:
    """A depthwise convolution of [N, H, W, C] with zero padding that keeps H and W.

    The device is MindSpore's current one; both forms have the same parameters, `weight` [C, 1, k, k] and `bias` [C],
    and give the same numbers up to the order of summation.
    """
    if is_on_cpu():
        return BandedDepthwiseConv(channels, kernel_size)
    return OperatorDepthwiseConv(channels, kernel_size)


class OperatorDepthwiseConv(ProductCell):
    """MindSpore's Conv2D operator, for Ascend and GPU; it wants channels first."""

    def __init__(self, channels: int, kernel_size: int):
        super().__init__((channels, 1, kernel_size, kernel_size))
        self.conv = ops.Conv2D(
            out_channel=channels, kernel_size=kernel_size, pad_mode="pad", pad=kernel_size // 2, group=channels
        )

    def product(self, x, weight, bias):
        x = ops.transpose(x, (0, 3, 1, 2))
        x = ops.bias_add(self.conv(x, weight), bias)
        return ops.transpose(x, (0, 2, 3, 1))


class BandedDepthwiseConv(ProductCell):
    """For CPU: a matrix product per channel with band matrices that hold the kernel's rows.

    Along an image row of width W, convolving with one row of the kernel is the product with a W x W matrix that has
    the k weights on its middle diagonals. The k kernel rows are stacked in the contracted axis, so one batched product
    does it all. Most of the matrix is zeros, and still it was 6 to 14 times faster than Conv2D for the stages of tiny
    at 224x224, and 4 to 9 times with gradients, since Conv2D runs a reference loop on CPU (docs/decisions.md).
    """

    def __init__(self, channels: int, kernel_size: int):
        super().__init__((channels, 1, kernel_size, kernel_size))
        self.channels = channels
        self.kernel_size = kernel_size

    def product(self, x, weight, bias):
        n, h, w, c = x.shape
        k, pad = self.kernel_size, self.kernel_size // 2
        x = ops.transpose(x, (3, 0, 1, 2))  # [C, N, H, W]
        zero_rows = ops.zeros((c, n, pad, w), x.dtype)
        x = ops.cat((zero_rows, x, zero_rows), 2)
        rows = []
        for i in range(k):
            rows.append(x[:, :, i : i + h, :])
        x = ops.reshape(ops.cat(rows, -1), (c, n * h, k * w))
        x = ops.bmm(x, self.band(weight, w))
        return ops.transpose(ops.reshape(x, (c, n, h, w)), (1, 2, 3, 0)) + bias

    def band(self, weight, width):
        """The kernel as band matrices [C, k * width, width]: entry (i, a), b is weight[i, a - b + k // 2]."""
        k = self.kernel_size
        place = ops.arange(width)
        offset = ops.reshape(place, (-1, 1)) - ops.reshape(place, (1, -1)) + k // 2
        select = ops.equal(ops.reshape(ops.arange(k), (k, 1)), ops.reshape(offset, (1, width * width)))
        band = ops.matmul(ops.reshape(weight, (self.channels * k, k)), ops.cast(select, weight.dtype))
        return ops.reshape(band, (self.channels, k * width, width))
