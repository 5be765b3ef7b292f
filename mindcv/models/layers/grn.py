"""Global response normalisation."""

import mindspore as ms
from mindspore import Parameter, Tensor, ops

from mindcv.models.layers.epsilon import EPSILON
from mindcv.models.layers.layer import Layer

__all__ = ["GRN"]


class GRN(Layer):
    """Global response normalisation, gamma * (x * n) + beta + x, on [N, H, W, C].

    Here n = g / (mean of g over C + 1e-6), and g is the L2 norm of each channel over H and W. The parameters `gamma`
    and `beta` [1, 1, 1, C] start at 0, so the layer starts as the identity.

    The sums are always float32. In float16 the sum of squares over a 56x56 map can overflow.

    Source: "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders", arXiv 2301.00808, section 4,
    algorithm 1.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.gamma = Parameter(ops.zeros((1, 1, 1, channels), ms.float32), name="gamma")
        # The derivative of sqrt(s) is infinite at s = 0, in a dead or masked channel. With the floor the gradient is 0
        # there. The floor is a Tensor because graph mode confuses tiny Python floats. See decision 0014.
        self.energy_floor = Tensor(1e-30, ms.float32)
        self.beta = Parameter(ops.zeros((1, 1, 1, channels), ms.float32), name="beta")

    def extend_repr(self) -> str:
        """Return the number of channels for `repr`."""
        return f"channels={self.gamma.shape[-1]}"

    def construct(self, x):
        x32 = ops.cast(x, ms.float32)
        energy = ops.ReduceSum(True)(x32 * x32, (1, 2))
        g = ops.sqrt(ops.maximum(energy, self.energy_floor))
        n = g / (ops.ReduceMean(True)(g, -1) + EPSILON)
        return ops.cast(x32 * (self.gamma * n + 1.0) + self.beta, x.dtype)
