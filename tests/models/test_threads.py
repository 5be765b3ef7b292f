"""Networks refuse calls of several Python threads at once, which MindSpore does not support."""

import threading
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindcv.models.layers import BaseNetwork
from mindcv.utils.errors import UserError

ROOT = Path(__file__).parents[2]


class Waiting(BaseNetwork):
    """A network that stays inside its call until it is told to return."""

    in_channels, least_side = 3, 1

    def __init__(self):
        super().__init__()
        self.has_entered, self.may_leave = threading.Event(), threading.Event()

    def construct(self, x):
        self.has_entered.set()
        assert self.may_leave.wait(60)
        return x


class Nested(BaseNetwork):
    in_channels, least_side = 3, 1

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def construct(self, x):
        return self.inner(x)


def test_network_refuses_overlapping_calls_of_threads():
    """A network takes the next call of either thread. The call of a network inside another one is not a second call."""
    network, other = Waiting(), Waiting()
    images = Tensor(np.zeros((1, 3, 1, 1), np.float32))
    results = []
    thread = threading.Thread(target=lambda: results.append(network(images)))
    thread.start()
    assert network.has_entered.wait(60)
    other.may_leave.set()
    with pytest.raises(UserError, match="another Python thread is calling a network, .*docs/how-to/serving.md"):
        other(images)
    network.may_leave.set()
    thread.join()
    assert len(results) == 1
    assert Nested(other)(images).shape == (1, 3, 1, 1)


def test_network_can_be_called_again_after_an_error():
    network = Waiting()
    network.may_leave.set()
    with pytest.raises(UserError, match="at least one image"):
        network(Tensor(np.zeros((0, 3, 1, 1), np.float32)))
    assert network(Tensor(np.zeros((1, 3, 1, 1), np.float32))).dtype == ms.float32
