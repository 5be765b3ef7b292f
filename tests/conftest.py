"""Fixtures that tests of several packages share."""

import gc
import os
import shutil
import sys
import zlib
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import ops
from parity import Reference

from mindcv.kernels import status

# A process of the tests grows to some 4 GB: MindSpore keeps what it has compiled.
MEMORY_OF_A_WORKER = 4 << 30


@pytest.hookimpl(optionalhook=True)  # without xdist nobody calls it
def pytest_xdist_auto_num_workers(config):
    """How many processes `pytest -n auto` starts: one for each processor, if memory allows."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(len(os.sched_getaffinity(0)), memory // MEMORY_OF_A_WORKER))


@pytest.fixture(autouse=True)
def mode():
    """PyNative unless a test asks for graph mode with `ms.set_context`; put back after each test."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    yield
    ms.set_context(mode=ms.PYNATIVE_MODE)


MODES = [
    pytest.param(ms.PYNATIVE_MODE, id="pynative"),
    pytest.param(ms.GRAPH_MODE, id="graph", marks=pytest.mark.slow),
]


@pytest.fixture(params=MODES)
def both_modes(request):
    """PyNative mode, and graph mode in `make test-slow`: compiling is most of the time that such tests take.

    What a test of a family of operators shows in graph mode, one test of that family shows in `make test` as well.
    """
    ms.set_context(mode=request.param)
    return request.param


def seed_of(*names):
    """A seed that is a function of the names alone."""
    return zlib.crc32("::".join(names).encode())


@pytest.hookimpl(hookwrapper=True)
def pytest_fixture_setup(fixturedef):
    """A fixture that several tests share draws the same numbers whichever test needs it first."""
    if fixturedef.scope != "function":
        ms.set_seed(seed_of(fixturedef.baseid, fixturedef.argname))
    yield


def seed_of_test(request):
    """All parameters of a test share a seed, so that every instruction set computes with the same inputs."""
    return seed_of(request.path.name, request.node.originalname)


@pytest.fixture(autouse=True)
def _seed(request):
    """Seeds MindSpore and NumPy (from which initial weights come) by the test's name, whatever ran before it."""
    ms.set_seed(seed_of_test(request))


@pytest.fixture
def rng(request):
    """Random numbers of the test's own: they depend on its name, and not on other tests or their order."""
    return np.random.default_rng(seed_of_test(request))


@pytest.fixture
def kernel_calls(monkeypatch):
    """Names of the library's functions that the network calls (PyNative mode) or compiles (graph mode).

    A test that compares a kernel with other operators uses it to show that both forms ran.
    """
    names, infer = set(), ops.Custom.__infer__

    def recorded(self, *inputs):
        names.add(self.func.rsplit(":", 1)[-1])
        return infer(self, *inputs)

    monkeypatch.setattr(ops.Custom, "__infer__", recorded)
    return names


@pytest.fixture(scope="session", autouse=True)
def no_cells_at_exit():
    """Cells that live until the interpreter ends print hundreds of lines."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def tools():
    """The folder of the tools where Python looks for modules, as it is when one is run."""
    folder = str(Path(__file__).parents[1] / "tools")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        del sys.modules[name]


@pytest.fixture(params=["on", "off"])
def kernels(request, monkeypatch):
    """With the C++ kernels and without: a test runs twice."""
    monkeypatch.setenv("MINDCV_KERNELS", request.param)
    if request.param == "on" and shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler, so there are no kernels")
    assert status().is_used == (request.param == "on")
    return request.param


@pytest.fixture(scope="session")
def reference():
    """The recorded outputs of the reference implementation, and the weights they were made with."""
    return Reference()


class FakeProcesses:
    """Stands in for `ops` where AllReduce is used: what each rank sends is added up in float32, as on CPU.

    `sent` holds the arrays that the rank under way has sent; `answers` the sum for each of its calls, None at first.
    """

    def __init__(self):
        self.sent = []
        self.answers = None

    def AllReduce(self):
        return self._reduce

    def _reduce(self, tensor):
        assert tensor.dtype == ms.float32
        self.sent.append(tensor.asnumpy())
        return tensor if self.answers is None else ms.Tensor(self.answers[len(self.sent) - 1])

    def run(self, of_rank, size):
        """`of_rank(rank)` for every rank: once to learn what is sent, once more with the sum as the answer."""
        calls = []
        for rank in range(size):
            self.sent = []
            of_rank(rank)
            calls.append(self.sent)
        self.answers = [sum(arrays, np.float32(0)).astype(np.float32) for arrays in zip(*calls)]
        found = []
        for rank in range(size):
            self.sent = []
            found.append(of_rank(rank))
        return found


@pytest.fixture
def processes(monkeypatch):
    fake = FakeProcesses()
    monkeypatch.setattr("mindcv.utils.distributed.ops", fake)
    return fake
