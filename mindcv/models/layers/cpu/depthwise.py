"""Depthwise convolution with Fourier transforms, for CPU. See decision 0008."""

import mindspore as ms
from mindspore import ops

from mindcv.models.layers.cpu.fourier import FourierConvolution
from mindcv.models.layers.dense import ProductCell

__all__ = ["FourierDepthwiseConv"]


class FourierDepthwiseConv(ProductCell):
    """Depthwise convolution with Fourier transforms, which are matrix products (see `FourierConvolution`).

    MindSpore's Conv2D runs a slow reference loop on CPU. The sums are always float32, since sums over a map can
    overflow in float16.

    Args:
        channels: number of channels C.
        kernel_size: odd kernel size k.
    """

    def __init__(self, channels: int, kernel_size: int):
        super().__init__((channels, 1, kernel_size, kernel_size))
        self.convolution = FourierConvolution()

    def extend_repr(self) -> str:
        """Return the number of channels and the kernel size for `repr`."""
        return f"channels={self.weight.shape[0]}, kernel_size={self.weight.shape[-1]}"

    def product(self, x, weight, bias):
        y = self.convolution(ops.cast(x, ms.float32), ops.cast(weight, ms.float32))
        y = ops.bias_add(ops.reshape(y, (-1, y.shape[-1])), ops.cast(bias, ms.float32))
        return ops.cast(ops.reshape(y, x.shape), x.dtype)
