"""The perceptron of a block on CPU without kernels: two pointwise layers with GELU, and GRN in V2, between them.

The layers themselves use operators that are slow on CPU, such as the error function, sums over pixels and broadcasts.
They also keep a dozen wide maps for the gradient. This form uses fast operators and a hand-written gradient, which
keeps two wide maps: z, the input of GELU, and Phi(z). See decision 0009.
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
from mindcv.models.layers.epsilon import EPSILON

__all__ = ["PerceptronV1", "PerceptronV2"]


class PerceptronV1(nn.Cell):
    """Computes (W2 gelu(W1 x + b1) + b2) * scale for x [N, H, W, C], in the same shape.

    `weights` holds the parameters by their names in the block: W1 [4C, C], b1 [4C], W2 [C, 4C], b2 [C], scale [C].
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
    """Computes W2 grn(gelu(W1 x + b1)) + b2 for x [N, H, W, C], in the same shape.

    `weights` holds the parameters by their names in the block: W1 [4C, C], b1 [4C], GRN's gamma and beta
    [1, 1, 1, 4C], W2 [C, 4C], b2 [C].
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
    """The first pointwise layer of both perceptrons. Maps are flattened to rows, [R, C] and [R, 4C]."""

    def __init__(self):
        super().__init__()
        self.normal_cdf = NormalCdf()
        self.times_transposed = ops.MatMul(transpose_b=True)
        self.transposed_times = ops.MatMul(transpose_a=True)

    def widen(self, x, w1, b1):
        """Return z = W1 x + b1 and Phi(z), both [R, 4C]."""
        z = ops.bias_add(self.times_transposed(x, w1), b1)
        return z, self.normal_cdf(z)

    def widen_grads(self, dz, x, w1):
        """Return the gradients of x, W1 and b1 from the gradient of z."""
        return ops.matmul(dz, w1), self.transposed_times(dz, x), sum_rows(dz)


class _SavingV1(_Perceptron):
    """Returns the result for x [R, C], and z and Phi(z) for the gradient. LayerScale is multiplied into W2."""

    def construct(self, x, w1, b1, w2, b2, scale):
        z, cdf = self.widen(x, w1, b1)
        y = self.times_transposed(z * cdf, w2 * self.spread(scale))
        return ops.bias_add(y, b2 * scale), z, cdf

    def bprop(self, x, w1, b1, w2, b2, scale, out, dout):
        z, cdf, dy = out[1], out[2], dout[0]
        spread = self.spread(scale)
        dscaled = self.transposed_times(dy, z * cdf)  # the gradient of the scaled W2
        dbias = sum_rows(dy)
        dscale = ops.reshape(sum_channels(dscaled * w2), (-1,)) + dbias * b2
        dz = ops.matmul(dy, w2 * spread) * self.normal_cdf.gelu_slope(z, cdf)
        dx, dw1, db1 = self.widen_grads(dz, x, w1)
        return dx, dw1, db1, dscaled * spread, dbias * scale, dscale

    def spread(self, scale):
        """Repeat scale [C] to [C, 4C]."""
        return spread_channels(ops.reshape(scale, (-1, 1)), 4 * scale.shape[0])


class _SavingV2(_Perceptron):
    """Returns the result for x [N, P, C] and, for the gradient, z and Phi(z) [N * P, 4C] and GRN's norms g [N, 1, 4C].

    With h = gelu(z), GRN is h * s + beta. The factor s = 1 + gamma * n has one value for each image and channel. W2
    times beta is added to the bias. s is multiplied into W2 if W2 is small compared with the map, and into h otherwise.
    """

    def __init__(self):
        super().__init__()
        self.batch_times_transposed = ops.BatchMatMul(transpose_b=True)
        self.batch_transposed_times = ops.BatchMatMul(transpose_a=True)
        self.mean = ops.ReduceMean(True)
        self.sum = ops.ReduceSum()
        # The floor keeps the gradient of the root finite, as in `GRN`. See decision 0014.
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
        """Return whether s is multiplied into W2 [C, 4C] and not into h [N, P, 4C]. This needs enough pixels."""
        return 2 * h.shape[1] >= h.shape[2]

    def repeated(self, w2, n):
        """Repeat W2 [C, 4C] to [n, C, 4C]."""
        return ops.reshape(outer(ops.ones((n,), ms.float32), w2), (n,) + w2.shape)

    def scaled(self, w2, s):
        """Return W2 times s [N, 1, 4C] for each image, [N, C, 4C]."""
        return self.repeated(w2, s.shape[0]) * spread_pixels(s, w2.shape[0])

    def response(self, g):
        """Return n = g / (mean of g over the channels + 1e-6)."""
        return g / (self.mean(g, -1) + EPSILON)

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
        """Return the gradients of h [N, P, 4C], W2 and s [N, 1, 4C] in W2 (h * s). h and s count as independent."""
        n, pixels, channels = dy.shape
        if self.scales_weight(h):
            dh = ops.bmm(dy, self.scaled(w2, s))
            dscaled = self.batch_transposed_times(dy, h)  # the gradient of W2 * s of each image
            dw2 = sum_rows(ops.reshape(dscaled * spread_pixels(s, channels), (n, -1)))
            return dh, ops.reshape(dw2, w2.shape), sum_pixels(dscaled * self.repeated(w2, n))
        spread = spread_pixels(s, pixels)
        rows = ops.reshape(dy, (-1, channels))
        dw2 = self.transposed_times(rows, ops.reshape(h * spread, (n * pixels, -1)))
        dq = ops.reshape(ops.matmul(rows, w2), h.shape)
        return dq * spread, dw2, sum_pixels(dq * h)

    def energy_grad(self, dn, g):
        """Return the factor [N, 1, 4C] on h in the part of its gradient that goes through g.

        Args:
            dn: gradient of the response n.
            g: GRN's norms [N, 1, 4C].
        """
        mean = self.mean(g, -1) + EPSILON
        dg = (dn - self.mean(dn * g, -1) / mean) / mean
        return dg / g  # g = sqrt(sum of h^2), so dg / dh = h / g.
