"""The two products of a block with what lies between them, in the form for CPU where there are no kernels.

Layer by layer, most of their time goes to operators that are slow on CPU (the error function, sums over pixels,
broadcasting), and a dozen wide maps are kept for the gradient. Here the same function is written with fast operators
and its gradient by hand; it keeps two maps, the wide one before GELU and its Phi (decision 0009).
"""

import mindspore as ms
from mindspore import Tensor, nn, ops

from mindcv.models.layers.cpu.normal_cdf import NormalCdf
from mindcv.models.layers.cpu.sums import (
    outer,
    spread_channels,
    spread_pixels,
    sum_channels,
    sum_pixels,
    sum_rows,
    times_vector,
)

__all__ = ["PerceptronV1", "PerceptronV2"]


class PerceptronV1(nn.Cell):
    """x [N, H, W, C] to (W2 gelu(W1 x + b1) + b2) * scale of the same shape; W1 [4C, C], W2 [C, 4C], scale [C].

    `weights` holds the parameters by their names in the block.
    """

    def __init__(self):
        super().__init__()
        self.saving = _SavingV1()

    def construct(self, x, weights):
        w1, b1 = weights["pwconv1.weight"], weights["pwconv1.bias"]
        w2, b2, scale = weights["pwconv2.weight"], weights["pwconv2.bias"], weights["gamma_"]
        y = self.saving(ops.reshape(x, (-1, x.shape[-1])), w1, b1, w2, b2, scale)[0]
        return ops.reshape(y, x.shape)


class PerceptronV2(nn.Cell):
    """x [N, H, W, C] to W2 grn(gelu(W1 x + b1)) + b2 of the same shape; W1 [4C, C], W2 [C, 4C].

    gamma and beta are those of GRN, [1, 1, 1, 4C]. `weights` holds the parameters by their names in the block.
    """

    def __init__(self):
        super().__init__()
        self.saving = _SavingV2()

    def construct(self, x, weights):
        w1, b1 = weights["pwconv1.weight"], weights["pwconv1.bias"]
        gamma, beta = weights["grn.gamma"], weights["grn.beta"]
        w2, b2 = weights["pwconv2.weight"], weights["pwconv2.bias"]
        flat = ops.reshape(x, (x.shape[0], -1, x.shape[-1]))
        y = self.saving(flat, w1, b1, ops.reshape(gamma, (1, -1)), ops.reshape(beta, (-1,)), w2, b2)[0]
        return ops.reshape(y, x.shape)


class _Perceptron(nn.Cell):
    """What the two have in common; all maps are rows, [R, C] and [R, 4C]."""

    def __init__(self):
        super().__init__()
        self.normal_cdf = NormalCdf()
        self.times_transposed = ops.MatMul(transpose_b=True)
        self.transposed_times = ops.MatMul(transpose_a=True)

    def widen(self, x, w1, b1):
        """z = W1 x + b1 and Phi(z)."""
        z = ops.bias_add(self.times_transposed(x, w1), b1)
        return z, self.normal_cdf(z)

    def widen_grads(self, dz, x, w1):
        """Of x, W1 and b1."""
        return ops.matmul(dz, w1), self.transposed_times(dz, x), sum_rows(dz)


class _SavingV1(_Perceptron):
    """x [R, C] to the result, z and Phi(z). LayerScale multiplies the second weight, not a map."""

    def construct(self, x, w1, b1, w2, b2, scale):
        z, cdf = self.widen(x, w1, b1)
        y = self.times_transposed(z * cdf, w2 * self.spread(scale))
        return ops.bias_add(y, b2 * scale), z, cdf

    def bprop(self, x, w1, b1, w2, b2, scale, out, dout):
        z, cdf, dy = out[1], out[2], dout[0]
        spread = self.spread(scale)
        dscaled = self.transposed_times(dy, z * cdf)  # of the scaled W2
        dbias = sum_rows(dy)
        dscale = ops.reshape(sum_channels(dscaled * w2), (-1,)) + dbias * b2
        dz = ops.matmul(dy, w2 * spread) * self.normal_cdf.gelu_slope(z, cdf)
        dx, dw1, db1 = self.widen_grads(dz, x, w1)
        return dx, dw1, db1, dscaled * spread, dbias * scale, dscale

    def spread(self, scale):
        """[C] to [C, 4C]."""
        return spread_channels(ops.reshape(scale, (-1, 1)), 4 * scale.shape[0])


class _SavingV2(_Perceptron):
    """x [N, P, C] to the result, z and Phi(z) [N * P, 4C], and GRN's norms g [N, 1, 4C].

    GRN is q = h * s + beta with one factor s = 1 + gamma * n for each image and channel. beta goes through W2 as a
    bias, and s multiplies W2 where an image has many more pixels than channels, else the map.
    """

    def __init__(self):
        super().__init__()
        self.batch_times_transposed = ops.BatchMatMul(transpose_b=True)
        self.batch_transposed_times = ops.BatchMatMul(transpose_a=True)
        self.mean = ops.ReduceMean(True)
        self.sum = ops.ReduceSum()
        # The floor under the root: see `GRN`.
        self.energy_floor = Tensor(1e-30, ms.float32)

    def construct(self, x, w1, b1, gamma, beta, w2, b2):
        n, pixels, channels = x.shape
        z, cdf = self.widen(ops.reshape(x, (-1, channels)), w1, b1)
        h = ops.reshape(z * cdf, (n, pixels, -1))
        g = ops.sqrt(ops.maximum(sum_pixels(ops.square(h)), self.energy_floor))
        s = self.response(g) * gamma + 1.0
        if self.scales_weight(h):
            y = ops.reshape(self.batch_times_transposed(h, self.scaled(w2, s)), (-1, channels))
        else:
            y = self.times_transposed(ops.reshape(h * spread_pixels(s, pixels), (n * pixels, -1)), w2)
        y = ops.bias_add(y, b2 + ops.reshape(times_vector(w2, beta), (-1,)))
        return ops.reshape(y, x.shape), z, cdf, g

    def scales_weight(self, h):
        """Whether s multiplies W2 and not the map h [N, P, 4C]: where that is the smaller of the two by far."""
        return 2 * h.shape[1] >= h.shape[2]

    def repeated(self, w2, n):
        """[C, 4C] to [n, C, 4C]."""
        return ops.reshape(outer(ops.ones((n,), ms.float32), w2), (n,) + w2.shape)

    def scaled(self, w2, s):
        """W2 times s [N, 1, 4C] for each image: [N, C, 4C]."""
        return self.repeated(w2, s.shape[0]) * spread_pixels(s, w2.shape[0])

    def response(self, g):
        """n = g / (mean of g over channels + 1e-6)."""
        return g / (self.mean(g, -1) + 1e-6)

    def bprop(self, x, w1, b1, gamma, beta, w2, b2, out, dout):
        z, cdf, g = out[1], out[2], out[3]
        n, pixels, channels = x.shape
        h = ops.reshape(z * cdf, (n, pixels, -1))
        response = self.response(g)
        s = response * gamma + 1.0
        dy = dout[0]
        db2 = sum_rows(ops.reshape(dy, (-1, channels)))
        dh, dw2, ds = self.second_grads(dy, h, w2, s)
        dgamma = self.sum(ds * response, 0)
        dh = dh + h * spread_pixels(self.energy_grad(ds * gamma, g), pixels)
        dz = ops.reshape(dh, (n * pixels, -1)) * self.normal_cdf.gelu_slope(z, cdf)
        dx, dw1, db1 = self.widen_grads(dz, ops.reshape(x, (-1, channels)), w1)
        dw2 = dw2 + outer(db2, beta)
        dbeta = ops.reshape(ops.matmul(ops.reshape(db2, (1, -1)), w2), (-1,))
        return ops.reshape(dx, x.shape), dw1, db1, dgamma, dbeta, dw2, db2

    def second_grads(self, dy, h, w2, s):
        """Of h * s W2, with s held for h: the gradients of h [N, P, 4C], W2 and s [N, 1, 4C]."""
        n, pixels, channels = dy.shape
        if self.scales_weight(h):
            dh = ops.bmm(dy, self.scaled(w2, s))
            dscaled = self.batch_transposed_times(dy, h)  # of each image's W2 * s
            dw2 = sum_rows(ops.reshape(dscaled * spread_pixels(s, channels), (n, -1)))
            return dh, ops.reshape(dw2, w2.shape), sum_pixels(dscaled * self.repeated(w2, n))
        spread = spread_pixels(s, pixels)
        rows = ops.reshape(dy, (-1, channels))
        dw2 = self.transposed_times(rows, ops.reshape(h * spread, (n * pixels, -1)))
        dq = ops.reshape(ops.matmul(rows, w2), h.shape)
        return dq * spread, dw2, sum_pixels(dq * h)

    def energy_grad(self, dn, g):
        """What h is multiplied by in its gradient through g, from the gradient of the response: [N, 1, 4C]."""
        mean = self.mean(g, -1) + 1e-6
        dg = (dn - self.mean(dn * g, -1) / mean) / mean
        return dg / g  # g = sqrt(sum of h^2): dg / dh = h / g
