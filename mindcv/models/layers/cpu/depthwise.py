"""Depthwise convolution by Fourier transforms, for CPU."""

import mindspore as ms
from mindspore import ops

from mindcv.models.layers.cpu.fourier import FourierConvolution
from mindcv.models.layers.dense import ProductCell

__all__ = ["FourierDepthwiseConv"]


class FourierDepthwiseConv(ProductCell):
    """For CPU: the product of Fourier transforms (fourier.py), which is matrix products all through.

    Conv2D runs a reference loop on CPU (decision 0008). The sums are float32 whatever the input's type: those over
    a map pass float16's 65504.
    """

    def __init__(self, channels: int, kernel_size: int):
        super().__init__((channels, 1, kernel_size, kernel_size))
        self.convolution = FourierConvolution()

    def extend_repr(self) -> str:
        """For `repr`."""
        return f"channels={self.weight.shape[0]}, kernel_size={self.weight.shape[-1]}"

    def product(self, x, weight, bias):
        y = self.convolution(ops.cast(x, ms.float32), ops.cast(weight, ms.float32))
        y = ops.bias_add(ops.reshape(y, (-1, y.shape[-1])), ops.cast(bias, ms.float32))
        return ops.cast(ops.reshape(y, x.shape), x.dtype)
