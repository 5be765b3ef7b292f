"""Fixtures that tests of several packages share."""

import gc
import json
import os
import shutil
import sys
import zlib
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import ops

from mindcv.kernels import status

DATA = Path(__file__).parent / "data"
SIZES = {
    "atto": ((2, 2, 6, 2), 40),
    "femto": ((2, 2, 6, 2), 48),
    "pico": ((2, 2, 6, 2), 64),
    "nano": ((2, 2, 8, 2), 80),
    "tiny": ((3, 3, 9, 3), 96),
    "small": ((3, 3, 27, 3), 96),
    "base": ((3, 3, 27, 3), 128),
    "large": ((3, 3, 27, 3), 192),
    "xlarge": ((3, 3, 27, 3), 256),
    "huge": ((3, 3, 27, 3), 352),
}


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


class Reference:
    """The recorded outputs of the reference implementation, and the weights they were made with.

    Weights follow a rule (tests/data/parity/README.md), written down here from the official names and shapes, which are
    those of the papers' code: nothing of this comes from mindcv.
    """

    def __init__(self):
        description = json.loads((DATA / "parity" / "convnext.json").read_text())
        self.seed = description["seed"]
        self.cases = [(case["model"], tuple(case["input"]), case["params"]) for case in description["cases"]]
        self.arrays = np.load(DATA / "parity" / "convnext.npz")

    def draw(self, name, shape):
        key = zlib.crc32(f"{self.seed}:{name}".encode())
        return np.random.default_rng(key).standard_normal(shape).astype(np.float32)

    def image(self, shape):
        return self.draw("input", shape)

    def weights(self, model):
        return {name: self._weight(name, shape) for name, shape in official_shapes(model).items()}

    def _weight(self, name, shape):
        n = self.draw(name, shape)
        module, kind = name.rsplit(".", 1)
        is_norm = (
            module.endswith("norm")
            or module == "downsample_layers.0.1"
            or module.endswith(".0")
            and module[-3] in "123"
        )
        if "grn" in module:
            return 0.3 * n
        if kind == "gamma":
            return 0.3 + 0.2 * n
        if kind == "bias":
            return 0.1 * n
        return 1 + 0.1 * n if is_norm else n / np.sqrt(np.prod(shape[1:])).astype(np.float32)


def official_shapes(model):
    """Name -> shape of the official code's parameters, 3 channels in and 1000 classes out."""
    family, size = model.split("_")
    depths, width = SIZES[size]
    dims = [width * 2**stage for stage in range(4)]
    shapes = {"downsample_layers.0.0": (dims[0], 3, 4, 4), "downsample_layers.0.1": (dims[0],)}
    for stage in (1, 2, 3):
        shapes[f"downsample_layers.{stage}.0"] = (dims[stage - 1],)
        shapes[f"downsample_layers.{stage}.1"] = (dims[stage], dims[stage - 1], 2, 2)
    extra = {}
    for stage, (depth, dim) in enumerate(zip(depths, dims)):
        for block in range(depth):
            at = f"stages.{stage}.{block}"
            shapes[f"{at}.dwconv"] = (dim, 1, 7, 7)
            shapes[f"{at}.norm"] = (dim,)
            shapes[f"{at}.pwconv1"] = (4 * dim, dim)
            shapes[f"{at}.pwconv2"] = (dim, 4 * dim)
            if family == "convnextv2":
                extra[f"{at}.grn.gamma"] = extra[f"{at}.grn.beta"] = (1, 1, 1, 4 * dim)
            else:
                extra[f"{at}.gamma"] = (dim,)
    shapes["norm"] = (dims[3],)
    shapes["head"] = (1000, dims[3])
    named = {f"{name}.weight": shape for name, shape in shapes.items()}
    named.update({f"{name}.bias": shape[:1] for name, shape in shapes.items()})
    return {**named, **extra}


@pytest.fixture(scope="session")
def reference():
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
