"""Stochastic depth and dropout that are reproducible, also in a resumed run.

MindSpore's Dropout cannot be repeated from a seed. Here each decision is an integer hash of the seed, the layer and the
number of the sample in the run. The only state is the number of samples so far. A sample's drops therefore do not
depend on how a mini-batch is split over processes or accumulated. See decision 0012.
"""

import zlib

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from mindcv.models.layers.layer import Layer

__all__ = ["DropPath", "Dropout", "KeepPath", "SampleCounter", "number_samples"]


class SampleCounter(Layer):
    """Counts the samples of all processes and returns its input x [N, ...] unchanged.

    It changes `count` (int32, not trainable) in training only. A network runs it once at the start of its forward pass
    and shares `count` with its random layers. These layers only read it. Gradient checkpointing runs a layer twice in
    one step and therefore gets the same drops both times.
    """

    holds_state = True  # The parameter is not a weight. Checkpoints of weights leave it out.

    def __init__(self):
        super().__init__()
        self.count = Parameter(Tensor(0, ms.int32), name="count", requires_grad=False)
        self.num_ranks = 1

    def construct(self, x):
        if self.training:
            ops.assign_add(self.count, Tensor(x.shape[0] * self.num_ranks, ms.int32))
        return x


def number_samples(network: nn.Cell, rank: int, num_ranks: int, num_splits: int = 1) -> None:
    """Set the numbers of a process's samples for the random layers. Call it before `network` is compiled.

    The batches of the processes are consecutive parts of the mini-batch of all processes: sample i of the n samples of
    this process gets the number rank * n + i. With several splits, this holds for each split.

    Args:
        network: network with random layers.
        rank: rank of this process.
        num_ranks: number of processes.
        num_splits: number of versions of each image in a batch. All first versions come first, then all second ones.
    """
    for _, cell in network.cells_and_names():
        if isinstance(cell, (SampleCounter, _Keep)):
            cell.num_ranks = num_ranks
        if isinstance(cell, _Keep):
            cell.rank, cell.num_splits = rank, num_splits


class DropPath(Layer):
    """Stochastic depth per sample. In training, x becomes 0 with probability `rate` and x / (1 - rate) otherwise.

    In evaluation, the output is x.

    Args:
        rate: probability of dropping, in [0, 1).
        layer: number of this layer. Each random layer of a network needs a number of its own.
        seed: seed of the drops.
        count: `SampleCounter.count` of the network.

    Raises:
        ValueError: `rate` is out of its range.

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
        """Return the factor on each of `n` samples, float32 [n]."""
        return self.keep(n, 1) if self.training else ops.ones((n,), ms.float32)


class KeepPath(Layer):
    """`DropPath` with rate 0. It returns its input."""

    def construct(self, x):
        return x

    def scale(self, n):
        """Return 1 for each of `n` samples, float32 [n]."""
        return ops.ones((n,), ms.float32)


class Dropout(Layer):
    """Dropout of single elements of [N, C]. `DropPath` describes the arguments."""

    def __init__(self, rate: float, layer: int, seed: int, count: Parameter):
        super().__init__()
        self.keep = _Keep(rate, layer, seed, count)

    def construct(self, x):
        if not self.training:
            return x
        return x * ops.cast(ops.reshape(self.keep(x.shape[0], x.shape[1]), x.shape), x.dtype)


class _Keep(Layer):
    """Returns factors float32 [n * width]: 0 for dropped values and 1 / (1 - rate) for kept ones.

    It makes `width` decisions for each of n samples.
    """

    def __init__(self, rate: float, layer: int, seed: int, count: Parameter):
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"the drop rate must be at least 0 and below 1, got {rate}")
        self.count = count
        self.rank, self.num_ranks, self.num_splits = 0, 1, 1
        self.key = Tensor(_int32(zlib.crc32(f"{seed}:{layer}".encode())), ms.int32)
        # The layer compares 24-bit integers and not floats, so no decision depends on rounding.
        self.threshold = Tensor(round(rate * 2**24), ms.int32)
        self.scale = 1.0 / (1.0 - rate)

    def extend_repr(self) -> str:
        """Return the drop rate for `repr`."""
        return f"rate={1.0 - 1.0 / self.scale:.4g}"

    def construct(self, n, width):
        # The counter already includes the mini-batch of all processes, which has n * num_ranks samples.
        size = n // self.num_splits
        first = self.count + _const(self.rank * size - n * self.num_ranks)
        place = ops.cast(ops.arange(n), ms.int32)
        if self.num_splits > 1 and self.num_ranks > 1:  # between two splits of this process are those of the others
            place = place + ops.floor_divide(place, _const(size)) * _const((self.num_ranks - 1) * size)
        x = _mix(first + place + self.key)
        if width > 1:
            # Mix the sample and the column in separate rounds, so that (a, b) and (b, a) get different hashes.
            column = ops.cast(ops.arange(width), ms.int32)
            x = ops.reshape(ops.bitwise_xor(ops.reshape(x, (n, 1)), ops.reshape(column, (1, width))), (n * width,))
        x = _mix(ops.bitwise_xor(x, self.key))
        bits = ops.bitwise_and(ops.bitwise_right_shift(x, _const(8)), _const(0xFFFFFF))
        return ops.cast(ops.greater_equal(bits, self.threshold), ms.float32) * self.scale


def _int32(value: int) -> int:
    """Return `value` modulo 2**32 as a signed number."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


def _const(value):
    return Tensor(value, ms.int32)


def _mix(x):
    """Hash int32 values with a bijection. The constants are from the hash function "lowbias32" by C. Wellons."""
    x = _xor_shift(x, 16, 0xFFFF)
    x = x * _const(2146121005)  # 0x7feb352d. Products wrap around.
    x = _xor_shift(x, 15, 0x1FFFF)
    x = x * _const(-2073254261)  # 0x846ca68b as a signed number
    return _xor_shift(x, 16, 0xFFFF)


def _xor_shift(x, bits, mask):
    # The right shift of a signed integer copies the sign bit. The mask clears the copies.
    return ops.bitwise_xor(x, ops.bitwise_and(ops.bitwise_right_shift(x, _const(bits)), _const(mask)))
