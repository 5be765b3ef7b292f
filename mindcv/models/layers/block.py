"""The base of ConvNeXt's blocks: where there are kernels, a block is one of them."""

from __future__ import annotations

from typing import Optional

import mindspore as ms
from mindspore import nn

from mindcv.kernels.form import is_on_cpu, kernel_is_bf16, uses_kernels
from mindcv.models.layers.drop_path import DropPath, KeepPath
from mindcv.models.layers.layer import Layer

__all__ = ["Block"]

# The attributes of a block that hold the layers which its kernel stands in for.
_LAYERS = ("dwconv", "norm", "pwconv1", "act", "grn", "pwconv2", "drop_path")


class Block(Layer):
    """x [N, H, W, C] to the same shape: a convolution, a norm, a perceptron for each pixel, added to x.

    A block says what `perceptron` is, layer by layer, and in `weights` the parameters in the order in which they are
    used, the first four those of the convolution and the norm. On a CPU float32 has faster forms of the same function:
    `kernel` of the whole block, with products in float32 or (mixed precision) bfloat16, and without kernels
    `perceptron_form` of the perceptron. All else goes by layers, and so does a block in which a layer was replaced by
    one of another class or of other shapes: `is_whole` is then False.
    """

    def __init__(self, kernel: type[nn.Cell], perceptron_form: type[nn.Cell]):
        super().__init__()
        self.is_whole = True
        self.kinds = {}
        self.kernel = kernel() if uses_kernels() else None
        self.bf16_kernel = kernel(bf16=True) if uses_kernels() else None
        self.perceptron_form = perceptron_form() if is_on_cpu() and not uses_kernels() else None

    def __setattr__(self, name: str, value: object) -> None:
        """As `nn.Cell`. Only the layers that the block was made of, or their like, have the forms of the class."""
        super().__setattr__(name, value)
        if name in _LAYERS:
            self.kinds.setdefault(name, _kind(value))
            self.is_whole = all(_kind(getattr(self, name)) == kind for name, kind in self.kinds.items())

    def construct(self, x):
        kernel = self.chosen_kernel(x)
        if kernel is None:
            return self.forward(x)
        return kernel(x, *self.weights(), self.drop_path.scale(x.shape[0]))

    def forward(self, x):
        """The block without its kernel."""
        shortcut = x
        x = self.norm(self.dwconv(x))
        if self.perceptron_form is None or not self.is_whole or not self.is_float32(x):
            x = self.perceptron(x)
        else:
            x = self.perceptron_form(x, *self.weights()[4:])
        return shortcut + self.drop_path(x)

    def is_float32(self, x):
        """Whether the perceptron computes in float32."""
        return x.dtype == ms.float32 and self.pwconv1.compute_type is None and self.pwconv2.compute_type is None

    def chosen_kernel(self, x):
        """The kernel for x and for the number format that mixed precision set; None where the layers serve."""
        if not self.is_whole:
            return None
        compute_type = self.pwconv1.compute_type
        if compute_type != self.dwconv.compute_type or compute_type != self.pwconv2.compute_type:
            return None
        if x.dtype != ms.float32 or self.is_exported:
            return None
        if compute_type is None:
            return self.kernel
        return self.bf16_kernel if compute_type == ms.bfloat16 else None

    def perceptron(self, x):
        """What is done to each pixel after the norm."""
        raise NotImplementedError

    def weights(self) -> tuple:
        """Its parameters."""
        raise NotImplementedError

    def kernel_is_bf16(self) -> Optional[bool]:
        """Whether mixed precision set bfloat16 for the kernel, or float32; None where the layers serve."""
        if not self.is_whole:
            return None
        return kernel_is_bf16(self.kernel, self.pwconv1.compute_type)


def _kind(layer: Optional[nn.Cell]) -> tuple:
    """The class of a layer and the shapes of its parameters. The kernels take drop paths of both classes."""
    if isinstance(layer, (DropPath, KeepPath)):
        return ("drop path",)
    return (type(layer), *(parameter.shape for parameter in layer.get_parameters())) if layer is not None else (None,)
