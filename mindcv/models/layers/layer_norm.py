"""Layer normalisation over channels."""

import mindspore as ms
from mindspore import Parameter, ops
from mindspore.common.initializer import initializer

from mindcv.models.layers.cpu.select import layer_norm_forms
from mindcv.models.layers.epsilon import EPSILON
from mindcv.models.layers.layer_with_forms import LayerWithForms

__all__ = ["LayerNorm"]


class LayerNorm(LayerWithForms):
    """Layer normalisation of the last axis of [..., C] with eps 1e-6.

    The statistics are always float32. The output has the type of the input. Parameters: `gamma` [C], `beta` [C].

    Source: "Layer Normalization", arXiv 1607.06450.
    """

    def __init__(self, channels: int):
        super().__init__(layer_norm_forms())
        self.gamma = Parameter(initializer("ones", (channels,), ms.float32), name="gamma")
        self.beta = Parameter(initializer("zeros", (channels,), ms.float32), name="beta")
        self.layer_norm = ops.LayerNorm(begin_norm_axis=-1, begin_params_axis=-1, epsilon=EPSILON)

    def extend_repr(self) -> str:
        """Return the number of channels for `repr`."""
        return f"channels={self.gamma.shape[0]}"

    def forward(self, x):  # [..., C]
        y, _, _ = self.layer_norm(ops.cast(x, ms.float32), self.gamma, self.beta)
        return ops.cast(y, x.dtype)

    def weights(self) -> tuple:
        """Return `gamma` and `beta`."""
        return self.gamma, self.beta
