"""The base of ConvNeXt's blocks: where there are kernels, a block is one of them."""

from __future__ import annotations

import mindspore as ms
from mindspore import nn

from mindcv.models.layers.form import uses_kernels

__all__ = ["Block"]


class Block(nn.Cell):
    """x [N, H, W, C] to the same shape, by `forward`, layer by layer, or by one kernel that computes the same.

    A block says what `forward` is, and in `weights` the parameters in the order in which `forward` uses them. The
    kernel serves float32 on a CPU; mixed precision goes layer by layer.
    """

    def __init__(self, kernel: type[nn.Cell]):
        super().__init__()
        self.kernel = kernel() if uses_kernels() else None

    def construct(self, x):
        if self.kernel is None or x.dtype != ms.float32 or self.pwconv1.compute_type is not None:
            return self.forward(x)
        return self.kernel(x, *self.weights(), self.drop_path.scale(x.shape[0]))

    def forward(self, x):
        """The block's arithmetic."""
        raise NotImplementedError

    def weights(self) -> tuple:
        """Its parameters."""
        raise NotImplementedError
