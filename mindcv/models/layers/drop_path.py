"""Random dropping that a run can repeat, stop and take up again.

MindSpore's Dropout and its kin cannot be repeated from a seed (decision 0012). Here each decision is an integer
hash of what it is for: (seed, layer, number of the sample in the run). The only state is how many samples there
were, one integer, so that a sample's drops do not depend on how a batch is split over processes, or accumulated.
"""

import zlib

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from mindcv.models.layers.layer import Layer

__all__ = ["DropPath", "Dropout", "KeepPath", "SampleCounter", "number_samples"]


class SampleCounter(Layer):
    """Counts samples: passes x [N, ...] on and, in training, moves `count` (int32, not trained) up by those of all
    processes.

    A network runs it once at the start of its forward pass and shares `count` with its random layers. These only read
    it, so that gradient checkpointing, which runs a layer twice in one step, sees the same drops both times.
    """

    holds_state = True  # its parameter is no weight: checkpoints of weights leave it out

    def __init__(self):
        super().__init__()
        self.count = Parameter(Tensor(0, ms.int32), name="count", requires_grad=False)
        self.num_ranks = 1

    def construct(self, x):
        if self.training:
            ops.assign_add(self.count, Tensor(x.shape[0] * self.num_ranks, ms.int32))
        return x


def number_samples(network: nn.Cell, rank: int, num_ranks: int) -> None:
    """Tell the random layers of `network`, before it is compiled, that sample i of its batch is number
    i * num_ranks + rank of the whole: samples are dealt to processes like cards."""
    for _, cell in network.cells_and_names():
        if isinstance(cell, (SampleCounter, _Keep)):
            cell.num_ranks = num_ranks
        if isinstance(cell, _Keep):
            cell.rank = rank


class DropPath(Layer):
    """Stochastic depth per sample: x or 0 with probability `rate`, scaled by 1 / (1 - rate); x in evaluation.

    Args:
        rate: probability of dropping, in [0, 1).
        layer: a number that no other random layer of the network has.
        seed: another seed gives other drops.
        count: the network's `SampleCounter.count`.

    Source: "Deep Networks with Stochastic Depth", arXiv 1603.09382.
    """

    def __init__(self, rate: float, layer: int, seed: int, count: Parameter):
        super().__init__()
        self.keep = _Keep(rate, layer, seed, count)

    def construct(self, x):
        if not self.training:
            return x
        n = x.shape[0]
        scale = ops.reshape(self.keep(n, 1), (n,) + (1,) * (x.ndim - 1))
        return x * ops.cast(scale, x.dtype)

    def scale(self, n):
        """What each of `n` samples is multiplied by: float32 [n]."""
        return self.keep(n, 1) if self.training else ops.ones((n,), ms.float32)


class KeepPath(Layer):
    """`DropPath` of rate 0."""

    def construct(self, x):
        return x

    def scale(self, n):
        """1 for each of `n` samples: float32 [n]."""
        return ops.ones((n,), ms.float32)


class Dropout(Layer):
    """Dropout of single elements of [N, C]; arguments as for `DropPath`."""

    def __init__(self, rate: float, layer: int, seed: int, count: Parameter):
        super().__init__()
        self.keep = _Keep(rate, layer, seed, count)

    def construct(self, x):
        if not self.training:
            return x
        return x * ops.cast(ops.reshape(self.keep(x.shape[0], x.shape[1]), x.shape), x.dtype)


class _Keep(Layer):
    """float32 [n * width] of 0 (dropped) and 1 / (1 - rate) (kept): `width` decisions for each of n samples."""

    def __init__(self, rate: float, layer: int, seed: int, count: Parameter):
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"a drop rate must be in [0, 1), not {rate}")
        self.count = count
        self.rank, self.num_ranks = 0, 1
        self.key = Tensor(_int32(zlib.crc32(f"{seed}:{layer}".encode())), ms.int32)
        # Uniform 24-bit integers are compared, not floats: what a decision is cannot depend on rounding.
        self.threshold = Tensor(round(rate * 2**24), ms.int32)
        self.scale = 1.0 / (1.0 - rate)

    def extend_repr(self) -> str:
        """For `repr`."""
        return f"rate={1.0 - 1.0 / self.scale:.4g}"

    def construct(self, n, width):
        # The counter stands behind this batch, so its samples have numbers counted down from there.
        first = self.count + _const(self.rank - n * self.num_ranks)
        sample = first + ops.cast(ops.arange(n), ms.int32) * _const(self.num_ranks)  # [n]
        x = _mix(sample + self.key)
        if width > 1:
            # A second round for the place in the sample, so that (sample, place) = (a, b) and (b, a) part ways.
            place = ops.cast(ops.arange(width), ms.int32)
            x = ops.reshape(ops.bitwise_xor(ops.reshape(x, (n, 1)), ops.reshape(place, (1, width))), (n * width,))
        x = _mix(ops.bitwise_xor(x, self.key))
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
