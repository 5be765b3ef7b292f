"""Convolution with stride equal to its kernel: the stem and the downsampling."""

from __future__ import annotations

from mindspore import ops

from mindcv.models.layers.cpu.select import patch_conv_forms
from mindcv.models.layers.dense import ProductCell

__all__ = ["PatchConv", "StemConv"]


class PatchConv(ProductCell):
    """Cuts [N, H, W, I] into k x k patches and maps each to O channels: [N, H // k, W // k, O].

    The same numbers as a convolution with kernel and stride k and no padding; rows and columns that do not fill a
    patch are left out, as there. It is a matrix product over patches because MindSpore's Conv2d on CPU runs oneDNN's
    reference loop for every kernel above 1x1, here 9 to 11 times slower (decision 0007); on Ascend and GPU the
    product is what such a convolution becomes anyway.

    Parameters: `weight` [O, I, k, k], `bias` [O].
    """

    takes_images = False

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int):
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        super().__init__(shape, forms=patch_conv_forms(images=self.takes_images))
        self.kernel_size = kernel_size

    def channels_last(self, x):
        """[N, H, W, I], from the form that the layer takes."""
        return x

    def product(self, x, weight, bias):
        x = self.channels_last(x)
        n, h, w, c = x.shape
        k = self.kernel_size
        rows, cols = h // k, w // k
        if (rows * k, cols * k) != (h, w):  # on CPU a slice costs a copy, even of all there is
            x = x[:, : rows * k, : cols * k, :]
        x = ops.reshape(x, (n * rows, k, cols, k * c))
        x = ops.transpose(x, (0, 2, 1, 3))
        x = ops.reshape(x, (n * rows * cols, k * k * c))
        weight = ops.reshape(ops.transpose(weight, (2, 3, 1, 0)), (k * k * c, -1))
        x = ops.bias_add(ops.matmul(x, weight), bias)
        return ops.reshape(x, (n, rows, cols, -1))


class StemConv(PatchConv):
    """`PatchConv` of images, whose channels come first: [N, I, H, W] to [N, H // k, W // k, O]."""

    takes_images = True

    def channels_last(self, x):
        return ops.transpose(x, (0, 2, 3, 1))
