"""The base of ConvNeXt's blocks: where there are kernels, a block is one of them."""

from __future__ import annotations

import mindspore as ms
from mindspore import nn

from mindcv.kernels import PackedBlockKernel
from mindcv.models.layers.form import uses_kernels

__all__ = ["Block"]


class Block(nn.Cell):
    """x [N, H, W, C] to the same shape, by `forward`, layer by layer, or by one kernel that computes the same.

    A block says what `forward` is, and in `weights` the parameters in the order in which `forward` uses them. The
    kernel serves float32 on a CPU, with products in float32 or (mixed precision) bfloat16; all else goes by layers.
    """

    def __init__(self, kernel: type[nn.Cell]):
        super().__init__()
        self.kernel = kernel() if uses_kernels() else None
        self.bf16_kernel = kernel(bf16=True) if uses_kernels() else None

    def construct(self, x):
        kernel = self.chosen_kernel(x)
        if kernel is None:
            return self.forward(x)
        return kernel(x, *self.weights(), self.drop_path.scale(x.shape[0]))

    def chosen_kernel(self, x):
        """The kernel for x and for the number format that mixed precision set; None where the layers serve."""
        compute_type = self.pwconv1.compute_type
        if compute_type != self.dwconv.compute_type or compute_type != self.pwconv2.compute_type:
            return None
        if x.dtype != ms.float32:
            return None
        if compute_type is None:
            return self.kernel
        return self.bf16_kernel if compute_type == ms.bfloat16 else None

    def forward(self, x):
        """The block's arithmetic."""
        raise NotImplementedError

    def weights(self) -> tuple:
        """Its parameters."""
        raise NotImplementedError

    def packed(self) -> nn.Cell:
        """The block for inference alone, with its weights in the kernel's form; the block itself without kernels."""
        compute_type = self.pwconv1.compute_type
        if self.kernel is None or compute_type not in (None, ms.bfloat16):
            return self
        return PackedBlockKernel(self.weights(), bf16=compute_type == ms.bfloat16)
