"""Depthwise convolution, in the form that suits the device."""

from mindspore import nn, ops

from mindcv.models.layers.cpu.select import depthwise_class
from mindcv.models.layers.dense import ProductCell

__all__ = ["DepthwiseConv"]


def DepthwiseConv(channels: int, kernel_size: int = 7) -> nn.Cell:
    """A depthwise convolution of [N, H, W, C] with zero padding that keeps H and W.

    Its form is that of MindSpore's current device. All forms have the same parameters, `weight` [C, 1, k, k] and `bias`
    [C], and give the same numbers up to the order of summation.
    """
    return depthwise_class(OperatorDepthwiseConv)(channels, kernel_size)


class OperatorDepthwiseConv(ProductCell):
    """MindSpore's Conv2D operator, for Ascend and GPU; it wants channels first."""

    def __init__(self, channels: int, kernel_size: int):
        super().__init__((channels, 1, kernel_size, kernel_size))
        self.conv = ops.Conv2D(
            out_channel=channels, kernel_size=kernel_size, pad_mode="pad", pad=kernel_size // 2, group=channels
        )

    def extend_repr(self) -> str:
        """For `repr`."""
        return f"channels={self.weight.shape[0]}, kernel_size={self.weight.shape[-1]}"

    def product(self, x, weight, bias):
        x = ops.transpose(x, (0, 3, 1, 2))
        x = ops.bias_add(self.conv(x, weight), bias)
        return ops.transpose(x, (0, 2, 3, 1))
