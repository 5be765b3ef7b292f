"""Fixtures for tests of networks."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor


@pytest.fixture(scope="session")
def images():
    """Two images for `small_network.build`."""
    return Tensor(np.random.default_rng(1).standard_normal((2, 3, 32, 32)).astype(np.float32))


@pytest.fixture(params=[ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
def each_mode(request):
    """A test runs once in each of MindSpore's modes."""
    ms.set_context(mode=request.param)
