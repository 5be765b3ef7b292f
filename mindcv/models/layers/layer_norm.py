"""Layer normalisation over channels."""

import mindspore as ms
from mindspore import nn, ops

from mindcv.kernels import LayerNormKernel
from mindcv.models.layers.form import uses_kernels

__all__ = ["LayerNorm"]


class LayerNorm(nn.LayerNorm):
    """Normalises the last axis of [..., C] with eps 1e-6; statistics in float32 whatever the input's type.

    Parameters: `gamma` [C], `beta` [C].
    """

    def __init__(self, channels: int):
        super().__init__((channels,), epsilon=1e-6)
        self.kernel = LayerNormKernel() if uses_kernels() else None

    def construct(self, x):
        if self.kernel is not None and x.dtype == ms.float32:
            return self.kernel(x, self.gamma, self.beta)
        return ops.cast(super().construct(ops.cast(x, ms.float32)), x.dtype)
