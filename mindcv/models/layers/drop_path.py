"""Random dropping that a run can repeat, stop and take up again.

MindSpore's Dropout and its kin cannot be repeated from a seed (docs/decisions.md). Here each decision is an integer
hash of what it is for: (seed, layer, training step, position). The only state is the step, one integer.
"""

import zlib

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

__all__ = ["DropPath", "Dropout", "KeepPath", "RandomStep"]


class RandomStep(nn.Cell):
    """Counts training steps: passes x on and, in training, moves `step` (int32, not trained) up by one.

    A network runs it once at the start of its forward pass and shares `step` with its random layers. These only read
    it, so that gradient checkpointing, which runs a layer twice in one step, sees the same drops both times.
    """

    def __init__(self):
        super().__init__()
        self.step = Parameter(Tensor(0, ms.int32), name="step", requires_grad=False)

    def construct(self, x):
        if self.training:
            ops.assign_add(self.step, Tensor(1, ms.int32))
        return x


class DropPath(nn.Cell):
    """Stochastic depth per sample: x or 0 with probability `rate`, scaled by 1 / (1 - rate); x in evaluation.

    Args:
        rate: probability of dropping, in [0, 1).
        layer: a number that no other random layer of the network has.
        seed: another seed gives other drops.
        step: the network's `RandomStep.step`.

    Source: "Deep Networks with Stochastic Depth", arXiv 1603.09382.
    """

    def __init__(self, rate: float, layer: int, seed: int, step: Parameter):
        super().__init__()
        self.keep = _Keep(rate, layer, seed, step)

    def construct(self, x):
        if not self.training:
            return x
        n = x.shape[0]
        scale = ops.reshape(self.keep(n), (n,) + (1,) * (x.ndim - 1))
        return x * ops.cast(scale, x.dtype)

    def scale(self, n):
        """What each of `n` samples is multiplied by: float32 [n]."""
        return self.keep(n) if self.training else ops.ones((n,), ms.float32)


class KeepPath(nn.Cell):
    """`DropPath` of rate 0."""

    def construct(self, x):
        return x

    def scale(self, n):
        """1 for each of `n` samples: float32 [n]."""
        return ops.ones((n,), ms.float32)


class Dropout(nn.Cell):
    """Dropout of single elements of [N, C]; arguments as for `DropPath`."""

    def __init__(self, rate: float, layer: int, seed: int, step: Parameter):
        super().__init__()
        self.keep = _Keep(rate, layer, seed, step)

    def construct(self, x):
        if not self.training:
            return x
        return x * ops.cast(ops.reshape(self.keep(x.size), x.shape), x.dtype)


class _Keep(nn.Cell):
    """A float32 vector [count] of 0 (dropped) and 1 / (1 - rate) (kept)."""

    def __init__(self, rate: float, layer: int, seed: int, step: Parameter):
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"a drop rate must be in [0, 1), not {rate}")
        self.step = step
        self.key = Tensor(_int32(zlib.crc32(f"{seed}:{layer}".encode())), ms.int32)
        # Uniform 24-bit integers are compared, not floats: what a decision is cannot depend on rounding.
        self.threshold = Tensor(round(rate * 2**24), ms.int32)
        self.scale = 1.0 / (1.0 - rate)

    def construct(self, count):
        x = ops.cast(ops.arange(count), ms.int32)
        # Two rounds, so that (step, position) = (a, b) and (b, a) part ways.
        x = _mix(x + self.key)
        x = _mix(ops.bitwise_xor(x, self.step))
        bits = ops.bitwise_and(ops.bitwise_right_shift(x, _const(8)), _const(0xFFFFFF))
        return ops.cast(ops.greater_equal(bits, self.threshold), ms.float32) * self.scale


def _int32(value: int) -> int:
    """`value` modulo 2**32 as a signed number."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


def _const(value):
    return Tensor(value, ms.int32)


def _mix(x):
    """A bijection of int32 that spreads every bit; the constants are those of C. Wellons' "lowbias32"."""
    x = _xor_shift(x, 16, 0xFFFF)
    x = x * _const(2146121005)  # 0x7feb352d; products wrap
    x = _xor_shift(x, 15, 0x1FFFF)
    x = x * _const(-2073254261)  # 0x846ca68b as a signed number
    return _xor_shift(x, 16, 0xFFFF)


def _xor_shift(x, bits, mask):
    # The shift of a signed integer repeats the sign; the mask takes that off again.
    return ops.bitwise_xor(x, ops.bitwise_and(ops.bitwise_right_shift(x, _const(bits)), _const(mask)))
