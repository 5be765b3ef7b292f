"""Convolutions whose stride equals their kernel size: the stem and the downsampling layers."""

from __future__ import annotations

from mindspore import ops

from mindcv.models.layers.cpu.select import patch_conv_forms
from mindcv.models.layers.dense import ProductCell

__all__ = ["PatchConv", "StemConv"]


class PatchConv(ProductCell):
    """A convolution from [N, H, W, I] to [N, H // k, W // k, O] with kernel size and stride k and no padding.

    It is a matrix product over the patches. On CPU that is faster than MindSpore's Conv2d (decision 0007). Like the
    convolution, it ignores rows and columns that do not fill a patch.

    Parameters: `weight` [O, I, k, k], `bias` [O].

    Args:
        in_channels: I.
        out_channels: O.
        kernel_size: k.
    """

    takes_images = False

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        super().__init__(shape, forms=patch_conv_forms(images=self.takes_images))
        self.kernel_size = kernel_size

    def channels_last(self, x):
        """Return the input as [N, H, W, I]."""
        return x

    def product(self, x, weight, bias):
        x = self.channels_last(x)
        n, h, w, c = x.shape
        k = self.kernel_size
        rows, cols = h // k, w // k
        if (rows * k, cols * k) != (h, w):  # On CPU, a slice of the whole map makes a copy, too.
            x = x[:, : rows * k, : cols * k, :]
        x = ops.reshape(x, (n * rows, k, cols, k * c))
        x = ops.transpose(x, (0, 2, 1, 3))
        x = ops.reshape(x, (n * rows * cols, k * k * c))
        weight = ops.reshape(ops.transpose(weight, (2, 3, 1, 0)), (k * k * c, -1))
        x = ops.bias_add(ops.matmul(x, weight), bias)
        return ops.reshape(x, (n, rows, cols, -1))


class StemConv(PatchConv):
    """`PatchConv` on channels-first images: from [N, I, H, W] to [N, H // k, W // k, O]."""

    takes_images = True

    def channels_last(self, x):
        return ops.transpose(x, (0, 2, 3, 1))
