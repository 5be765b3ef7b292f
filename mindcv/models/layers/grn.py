"""Global response normalisation (ConvNeXt V2, arXiv 2301.00808, section 3.2)."""

import mindspore as ms
from mindspore import Parameter, Tensor, ops

from mindcv.models.layers.layer import Layer

__all__ = ["GRN"]


class GRN(Layer):
    """gamma * (x * n) + beta + x on [N, H, W, C], where n compares each channel's energy with the mean channel's.

    g is the L2 norm of a channel over H and W, n = g / (mean of g over C + 1e-6). Parameters: `gamma` and `beta`
    [1, 1, 1, C], both starting at 0, so that the layer starts as the identity.

    The sums are float32 whatever the input's type: the sum of squares over a 56x56 map passes float16's 65504.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.gamma = Parameter(ops.zeros((1, 1, 1, channels), ms.float32), name="gamma")
        # d sqrt(s)/ds is infinite at s = 0 (a dead or wholly masked channel). A floor that no live channel comes near
        # makes the gradient there 0, and changes no value that float32 can tell from 0. A Tensor, since graph mode
        # takes Python floats less than 2.2e-16 apart for one constant (decision 0014).
        self.energy_floor = Tensor(1e-30, ms.float32)
        self.beta = Parameter(ops.zeros((1, 1, 1, channels), ms.float32), name="beta")

    def extend_repr(self) -> str:
        """For `repr`."""
        return f"channels={self.gamma.shape[-1]}"

    def construct(self, x):
        x32 = ops.cast(x, ms.float32)
        energy = ops.ReduceSum(True)(x32 * x32, (1, 2))
        g = ops.sqrt(ops.maximum(energy, self.energy_floor))
        n = g / (ops.ReduceMean(True)(g, -1) + 1e-6)
        return ops.cast(x32 * (self.gamma * n + 1.0) + self.beta, x.dtype)
