"""Layer normalisation over channels."""

import mindspore as ms
from mindspore import Parameter, ops
from mindspore.common.initializer import initializer

from mindcv.kernels import LayerNormKernel
from mindcv.kernels.form import is_on_cpu, uses_kernels
from mindcv.models.layers.cpu.layer_norm import ProductLayerNorm
from mindcv.models.layers.layer import Layer

__all__ = ["LayerNorm"]

_EPSILON = 1e-6


class LayerNorm(Layer):
    """Normalises the last axis of [..., C] with eps 1e-6; statistics in float32 whatever the input's type.

    Parameters: `gamma` [C], `beta` [C].
    """

    def __init__(self, channels: int):
        super().__init__()
        self.gamma = Parameter(initializer("ones", (channels,), ms.float32), name="gamma")
        self.beta = Parameter(initializer("zeros", (channels,), ms.float32), name="beta")
        self.layer_norm = ops.LayerNorm(begin_norm_axis=-1, begin_params_axis=-1, epsilon=_EPSILON)
        self.float32_form = None
        if uses_kernels():
            self.float32_form = LayerNormKernel()
        elif is_on_cpu():
            self.float32_form = ProductLayerNorm()

    def extend_repr(self) -> str:
        """For `repr`."""
        return f"channels={self.gamma.shape[0]}"

    def construct(self, x):
        if self.float32_form is not None and x.dtype == ms.float32 and not self.is_exported:
            return self.float32_form(x, self.gamma, self.beta)
        y, _, _ = self.layer_norm(ops.cast(x, ms.float32), self.gamma, self.beta)
        return ops.cast(y, x.dtype)
