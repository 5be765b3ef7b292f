"""Exponential moving average of the weights, which often validates better than the weights themselves."""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from mindcv.convert import weight_parameters
from mindcv.utils.checks import check_network, check_number

__all__ = ["WeightAverage"]

_average = ops.MultitypeFuncGraph("average")


@_average.register("Tensor", "Tensor", "Tensor")
def _average_one(share, average, weight):  # noqa: ANN001, ANN202
    return ops.assign(average, average + (weight - average) * share)


class WeightAverage(nn.Cell):
    """`average = d * average + (1 - d) * weight` of each weight, once a call; averages start at the weights.

    Call t, from 1, has `d = decay * (1 - exp(-t / warmup))`, as in MindCV: the averages follow closely at first. The
    papers' runs have no warm-up.

    Args:
        network: whose weights are averaged; those that are frozen, too.
        decay: in [0, 1].
        warmup: calls; 0 for `d = decay` throughout.

    Attributes:
        averages: name of a weight -> its average, a float32 Parameter called `ema.<name>`.
        num_updates: calls so far, int32.
    """

    def __init__(self, network: nn.Cell, decay: float = 0.9999, warmup: int = 2000):
        super().__init__(auto_prefix=False)
        check_network("network", network)
        check_number("ema_decay", decay, low=0, high=1)
        check_number("ema_warmup", warmup, low=0)
        weights = weight_parameters(network)
        self.averages = {name: _copy_of(weight, f"ema.{name}") for name, weight in weights.items()}
        self._weights = ParameterTuple(list(weights.values()))
        self._averages = ParameterTuple(list(self.averages.values()))
        self.num_updates = Parameter(Tensor(0, ms.int32), name="ema_updates", requires_grad=False)
        self.decay = float(decay)
        self.warmup = float(warmup)
        self.hyper_map = ops.HyperMap()

    def construct(self) -> Tensor:
        """Update the averages with the current weights."""
        ops.assign_add(self.num_updates, Tensor(1, ms.int32))
        decay = Tensor(self.decay, ms.float32)
        if self.warmup > 0:
            decay = decay * (1.0 - ops.exp(ops.cast(self.num_updates, ms.float32) / -self.warmup))
        self.hyper_map(ops.partial(_average, 1.0 - decay), self._averages, self._weights)
        return self.num_updates


def _copy_of(weight: Parameter, name: str) -> Parameter:
    return Parameter(Tensor(weight.asnumpy().copy()), name=name, requires_grad=False)
