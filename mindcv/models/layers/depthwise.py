"""Depthwise convolution. Its implementation depends on the device."""

from mindspore import nn, ops

from mindcv.models.layers.cpu.select import depthwise_class
from mindcv.models.layers.dense import ProductCell

__all__ = ["DepthwiseConv"]


def DepthwiseConv(channels: int, kernel_size: int = 7) -> nn.Cell:
    """Create a depthwise convolution of [N, H, W, C] with zero padding that keeps H and W.

    MindSpore's current device selects the implementation (decision 0008). All implementations have the parameters
    `weight` [C, 1, k, k] and `bias` [C]. Their results are equal up to rounding.

    Args:
        channels: number of channels C.
        kernel_size: odd kernel size k.
    """
    return depthwise_class(OperatorDepthwiseConv)(channels, kernel_size)


class OperatorDepthwiseConv(ProductCell):
    """Depthwise convolution with MindSpore's Conv2D, for Ascend and GPU. Conv2D needs channels-first maps."""

    def __init__(self, channels: int, kernel_size: int):
        super().__init__((channels, 1, kernel_size, kernel_size))
        self.conv = ops.Conv2D(
            out_channel=channels, kernel_size=kernel_size, pad_mode="pad", pad=kernel_size // 2, group=channels
        )

    def extend_repr(self) -> str:
        """Return the number of channels and the kernel size for `repr`."""
        return f"channels={self.weight.shape[0]}, kernel_size={self.weight.shape[-1]}"

    def product(self, x, weight, bias):
        x = ops.transpose(x, (0, 3, 1, 2))
        x = ops.bias_add(self.conv(x, weight), bias)
        return ops.transpose(x, (0, 2, 3, 1))
