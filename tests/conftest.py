"""Fixtures that tests of several packages share."""

import contextlib
import gc
import os
import shutil
import sys
import zlib
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
import run_here
from mindspore import ops
from parity import Reference

from mindcv.kernels import status

ROOT = Path(__file__).parents[1]

# A test process grows to about 4 GB, because MindSpore keeps compiled graphs.
MEMORY_OF_A_WORKER = 4 << 30


@pytest.hookimpl(optionalhook=True)  # pytest calls it only when xdist is installed
def pytest_xdist_auto_num_workers(config):
    """Return how many processes `pytest -n auto` starts: one for each processor if there is enough memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(len(os.sched_getaffinity(0)), memory // MEMORY_OF_A_WORKER))


@pytest.fixture(autouse=True)
def mode():
    """Set PyNative mode before and after each test. A test that needs graph mode calls `ms.set_context`."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    yield
    ms.set_context(mode=ms.PYNATIVE_MODE)


MODES = [
    pytest.param(ms.PYNATIVE_MODE, id="pynative"),
    pytest.param(ms.GRAPH_MODE, id="graph", marks=pytest.mark.slow),
]


@pytest.fixture(params=MODES)
def both_modes(request):
    """Run a test in PyNative mode, and in `make test-slow` in graph mode too, because compiling takes most of the time.

    For each family of operators, one test runs in graph mode in `make test` as well.
    """
    ms.set_context(mode=request.param)
    return request.param


def seed_of(*names):
    """Return a seed that depends on the names alone."""
    return zlib.crc32("::".join(names).encode())


@pytest.hookimpl(hookwrapper=True)
def pytest_fixture_setup(fixturedef):
    """Seed each shared fixture by its name, so that it draws the same numbers whichever test needs it first."""
    if fixturedef.scope != "function":
        ms.set_seed(seed_of(fixturedef.baseid, fixturedef.argname))
    yield


def seed_of_test(request):
    """Return one seed for all parameters of a test, so that every instruction set computes with the same inputs."""
    return seed_of(request.path.name, request.node.originalname)


@pytest.fixture(autouse=True)
def _seed(request):
    """Seed MindSpore and NumPy, which draw initial weights, by the name of the test."""
    ms.set_seed(seed_of_test(request))


@pytest.fixture
def rng(request):
    """Return a generator of random numbers that depend on the name of the test and not on other tests."""
    return np.random.default_rng(seed_of_test(request))


@pytest.fixture
def kernel_calls(monkeypatch):
    """Record the library's functions that the network calls (PyNative mode) or compiles (graph mode).

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
    """Delete cells before the interpreter ends, because MindSpore would print hundreds of lines for them."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def tools():
    """Let Python find modules in the folder of the tools, as it does when a tool runs."""
    folder = str(ROOT / "tools")
    sys.path.insert(0, folder)
    yield
    sys.path.remove(folder)
    for name in [name for name in sys.modules if name.split(".")[0] == "benchmarks"]:
        del sys.modules[name]


@pytest.fixture
def run_main(tools):
    """Return a function that runs a script in this process and gives its status, its output and its messages."""

    def run(script, *argv):
        outcome = run_here.run_main(script, *argv)
        return outcome.status, outcome.out, outcome.err

    return run


@pytest.fixture(params=["on", "off"])
def kernels(request, monkeypatch):
    """Run a test twice: with the C++ kernels and without them."""
    monkeypatch.setenv("MINDCV_KERNELS", request.param)
    if request.param == "on" and shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler, so there are no kernels")
    assert status().is_used == (request.param == "on")
    return request.param


@pytest.fixture(scope="session")
def reference():
    """Return the recorded outputs of the reference implementation and the weights that they belong to."""
    return Reference()


class FakeProcesses:
    """A stand-in for `ops` with an AllReduce that adds up the arrays of all ranks in float32, as on CPU.

    `sent` holds the arrays that the current rank has sent. `answers` holds the known sums of the calls. Outside of
    `run` it is None, and a rank gets back what it sent.
    """

    class NextAnswer(BaseException):
        """Ends a rank that needs a sum which is not known yet."""

    def __init__(self):
        self.sent = []
        self.answers = None

    def AllReduce(self):
        return self._reduce

    def _reduce(self, tensor):
        assert tensor.dtype == ms.float32
        if self.answers is None:
            return tensor
        self.sent.append(tensor.asnumpy())
        if len(self.sent) > len(self.answers):
            raise self.NextAnswer
        return ms.Tensor(self.answers[len(self.sent) - 1])

    def run(self, of_rank, size):
        """Call `of_rank(rank)` for every rank, again and again, until the answers to all of their calls are known."""
        self.answers = []
        while True:
            calls, found = [], []
            for rank in range(size):
                self.sent = []
                with contextlib.suppress(self.NextAnswer):
                    found.append(of_rank(rank))
                calls.append(self.sent)
            if len(found) == size:
                return found
            arrays = [sent[len(self.answers)] for sent in calls]
            self.answers.append(sum(arrays, np.float32(0)).astype(np.float32))


@pytest.fixture
def processes(monkeypatch):
    fake = FakeProcesses()
    monkeypatch.setattr("mindcv.utils.distributed.ops", fake)
    return fake
