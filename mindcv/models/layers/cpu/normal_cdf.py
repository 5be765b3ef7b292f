"""The normal distribution function in GELU, for CPU. See decision 0010."""

import math

from mindspore import nn, ops

__all__ = ["NormalCdf"]

# Phi(x) is sigmoid(x * (ROOT * sqrt(x^2 + SHIFT) + BUMP * exp(-DECAY * x^2) + REST)). The five numbers are a minimax
# fit of x * Phi(x) with an error of at most 1.6e-7.
_ROOT = 0.48811734
_SHIFT = 6.7659444
_BUMP = 0.06573244
_DECAY = 0.32218397
_REST = 0.26038304


class NormalCdf(nn.Cell):
    """Phi(x), the distribution function of the normal distribution, for float32 x of any shape.

    x * Phi(x) differs from the exact GELU by at most 6e-7. MindSpore's Erf is slow on CPU, and its fast Tanh and Exp
    are inexact, so Phi is computed with Sigmoid. For y <= 0, Elu(y) is exp(y) - 1 and faster than Exp.
    """

    def __init__(self):
        super().__init__()
        self.elu = nn.ELU()

    def construct(self, x):
        square = ops.square(x)
        growth = ops.sqrt(square + _SHIFT) * _ROOT
        bump = self.elu(square * -_DECAY) * _BUMP
        return ops.sigmoid((growth + bump + (_REST + _BUMP)) * x)

    def gelu_slope(self, x, cdf):
        """Return the derivative of x * Phi(x), which is Phi(x) + x * Phi'(x), from x and cdf = Phi(x)."""
        density = (self.elu(ops.square(x) * -0.5) + 1.0) * (1.0 / math.sqrt(2.0 * math.pi))
        return cdf + x * density
