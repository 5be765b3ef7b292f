"""Layer normalisation with matrix products, for CPU. See decision 0009."""

from mindspore import nn, ops

from mindcv.models.layers.cpu.sums import outer, spread_channels, sum_channels, sum_rows, times_vector
from mindcv.models.layers.epsilon import EPSILON

__all__ = ["ProductLayerNorm"]


class ProductLayerNorm(nn.Cell):
    """Layer normalisation of x [..., C] whose sums and broadcasts are matrix products.

    On CPU, the gradient of MindSpore's own operator is much slower.
    """

    def __init__(self):
        super().__init__()
        self.saving = _SavingLayerNorm()

    def construct(self, x, gamma, beta):
        y = self.saving(ops.reshape(x, (-1, x.shape[-1])), gamma, beta)[0]
        return ops.reshape(y, x.shape)


class _SavingLayerNorm(nn.Cell):
    """Normalises x [R, C]. It also returns two values for the gradient.

    They are x minus its mean [R, C] and 1 / standard deviation [R, 1].
    """

    def construct(self, x, gamma, beta):
        share = 1.0 / x.shape[1]
        centred = x - spread_channels(sum_channels(x) * share, x.shape[1])
        variance = sum_channels(ops.square(centred)) * share
        factor = 1.0 / ops.sqrt(variance + EPSILON)
        return ops.bias_add(centred * outer(factor, gamma), beta), centred, factor

    def bprop(self, x, gamma, beta, out, dout):
        centred, factor = out[1], out[2]
        dy = dout[0]
        channels = x.shape[1]
        share = 1.0 / channels
        product = dy * centred
        of_mean = times_vector(dy, gamma) * factor * share
        of_deviation = times_vector(product, gamma) * factor * factor * factor * share
        dx = dy * outer(factor, gamma)
        dx = dx - centred * spread_channels(of_deviation, channels) - spread_channels(of_mean, channels)
        dgamma = ops.reshape(ops.matmul(ops.reshape(factor, (1, -1)), product), (-1,))
        return dx, dgamma, sum_rows(dy)
