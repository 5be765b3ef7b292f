"""Every argument of a kernel is checked in Python and again at the C boundary."""

import inspect
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import c_boundary
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mindcv.kernels import BlockV1Kernel, BlockV2Kernel, LayerNormKernel, PatchConvKernel, operators
from mindcv.kernels.library import library_path
from mindcv.kernels.signature_table import SIGNATURES
from mindcv.kernels.signatures import signature_of

OPERATORS = list(SIGNATURES)
RESTS = {"Norm": [(2, 7)], "NormGrad": [(2, 7)], "AdamW": [(3,), (2, 4)]}


@pytest.fixture(scope="module")
def boundary():
    return c_boundary.Library(library_path())


def shapes_of(boundary, name):
    return boundary.shapes(name, c_boundary.SYMBOLS, RESTS.get(name, [()]))


def wrong_shapes(shape):
    """Yield shapes of another rank, and shapes with one dimension that is changed, empty or negative."""
    yield (*shape, 1)
    if shape:
        yield shape[1:]
    for axis, size in enumerate(shape):
        for wrong in (size + 64, 0, -3):  # packed weights of nearly the same size may have the same length
            yield (*shape[:axis], wrong, *shape[axis + 1 :])


def test_signatures_in_python_and_cpp_are_the_same(boundary):
    for name in OPERATORS:
        assert boundary.signature(name) == SIGNATURES[name], name
    assert boundary.signature("NoSuchOperator") is None


@pytest.mark.parametrize("name", OPERATORS)
def test_signature_gives_output_shapes(boundary, name):
    inputs, outputs = shapes_of(boundary, name)
    found = signature_of(name).output_shapes(tuple(shape for _, shape in inputs))
    assert list(found) == [shape for _, shape in outputs]


@pytest.mark.parametrize("name", OPERATORS)
def test_signature_leaves_unknown_dimensions_open(boundary, name):
    """A graph may be compiled for any batch size or any rank."""
    inputs, outputs = shapes_of(boundary, name)
    signature = signature_of(name)
    found = signature.output_shapes(tuple((-1,) * len(shape) for _, shape in inputs))
    assert all(given in ((-2,), given) and len(given) in (1, len(shape)) for given, (_, shape) in zip(found, outputs))
    for given, (_, shape) in zip(found, outputs):
        assert given == (-2,) or len(given) == len(shape) and all(g in (-1, s) for g, s in zip(given, shape))
    first = (-1, *inputs[0][1][1:]) if inputs[0][1] else (-2,)
    found = signature.output_shapes((first, *((-2,) for _ in inputs[1:])))
    assert len(found) == len(outputs)


@pytest.mark.parametrize("name", OPERATORS)
def test_kernel_refuses_every_wrong_argument_by_its_name(boundary, name):
    """The C boundary refuses every wrong argument. Python refuses those that the inputs alone show to be wrong."""
    inputs, outputs = shapes_of(boundary, name)
    labels, shapes = zip(*inputs, *outputs)
    arrays = c_boundary.arrays_for([(math.prod(shape) + 64,) for shape in shapes], labels=labels)
    types = ["float32"] * len(shapes)
    assert boundary.call(name, arrays, shapes, types) is None
    sentence = f"the kernel {name} got "
    for i, shape in enumerate(shapes):
        for wrong in wrong_shapes(shape):
            given = [*shapes[:i], wrong, *shapes[i + 1 :]]
            reason = boundary.call(name, arrays, given, types)
            assert reason is not None and reason.startswith(sentence) and "; it expects " in reason, (labels[i], wrong)
            if i < len(inputs) and min(wrong, default=0) >= 0:
                assert python_refuses(name, given, len(inputs)), (labels[i], wrong)
        reason = boundary.call(name, arrays, shapes, [*types[:i], "float16", *types[i + 1 :]])
        assert reason.startswith(f"{sentence}{labels[i]}") and "of type float16; it expects float32" in reason
        reason = boundary.call(name, [*arrays[:i], None, *arrays[i + 1 :]], shapes, types)
        assert reason.startswith(f"{sentence}{labels[i]}") and "an address" in reason


def python_refuses(name, shapes, num_inputs):
    """Return whether the inputs raise an error, or give other output shapes, which MindSpore then allocates."""
    try:
        found = signature_of(name).output_shapes(tuple(shapes[:num_inputs]))
    except ValueError as error:
        return str(error).startswith(f"the kernel {name} got ")
    return list(found) != list(shapes[num_inputs:])


def test_kernel_refuses_a_wrong_number_of_arguments(boundary):
    for name in OPERATORS:
        inputs, outputs = shapes_of(boundary, name)
        arrays = c_boundary.arrays_for([shape for _, shape in (*inputs, *outputs)])
        for wrong in ([], arrays[:-1], [*arrays, arrays[0]]):
            reason = boundary.call(name, wrong)
            assert reason.startswith(f"the kernel {name} got {len(wrong)} inputs and outputs; it expects "), name
        with pytest.raises(ValueError, match=f"got {len(inputs) - 1} inputs; it expects"):
            signature_of(name).output_shapes(tuple(shape for _, shape in inputs[:-1]))


def test_kernel_refuses_sizes_that_overflow(boundary):
    """The C boundary refuses non-negative sizes whose product overflows, before it reads any array."""
    for name in OPERATORS:
        inputs, outputs = shapes_of(boundary, name)
        shapes = [shape for _, shape in (*inputs, *outputs)]
        arrays = c_boundary.arrays_for(shapes)
        for i, shape in enumerate(shapes):
            for huge in (2**31, 2**62, 2**63 - 1):
                wrong = (huge,) * max(len(shape), 1)
                given = [*shapes[:i], wrong, *shapes[i + 1 :]]
                assert boundary.call(name, arrays, given) is not None, (name, i, huge)
    # These sizes agree with each other, and their number of bytes is 0 modulo 2^64.
    shapes = [(2**62, 4), (2**62,), (4,), (2**62, 4), (2**62, 4), (4,), (4,)]
    reason = boundary.call("NormGrad", c_boundary.arrays_for([(64,)] * 7), shapes)
    assert reason == f"the kernel NormGrad got xhat of shape [{2**62}, 4]; it expects sizes from 0 to what memory holds"


def random(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def wrong_calls():
    """Yield kernels, wrong inputs and the expected message."""
    conv = PatchConvKernel(images=True)
    weight, bias = Tensor(random(8, 3, 4, 4)), Tensor(random(8))
    yield conv, (Tensor(random(1, 4, 8, 8)), weight, bias), "Stem got weight of shape .*beside x of shape"
    yield conv, (Tensor(random(1, 3, 8, 2)), weight, bias), r"W/k to be at least 1 \(W = 2, k = 4\)"
    yield conv, (Tensor(random(3, 8, 8)), weight, bias), "Stem got x of shape .*expects 4 dimensions"
    yield conv, (Tensor(random(0, 3, 8, 8)), weight, bias), "every dimension at least 1"
    yield LayerNormKernel(), (Tensor(random(2, 5)), bias, bias), "Norm got gamma of shape .*8.*5"
    weights = {"dwconv.weight": random(8, 1, 7, 7), "dwconv.bias": random(8), "norm.gamma": random(8)}
    weights |= {"norm.beta": random(8), "pwconv1.weight": random(16, 8), "pwconv1.bias": random(32)}
    weights |= {"pwconv2.weight": random(8, 32), "pwconv2.bias": random(8), "gamma_": random(8)}
    block = (Tensor(random(1, 4, 4, 8)), {name: Tensor(value) for name, value in weights.items()}, Tensor(random(1)))
    yield BlockV1Kernel(), block, "BlockV1(Saving)? got pwconv1.weight of shape .*16, 8"


@pytest.mark.parametrize(
    ("name", "shapes", "message"),
    [
        (
            "PackPatch",
            [(8, 3, 4, 5)],
            "the kernel PackPatch got weight of shape [8, 3, 4, 5]; it expects [O, I, k, k], which is [8, 3, 4, 4]",
        ),
        (
            "Patch",
            [(1, 8, 8, 3), (8, 3, 4, 4), (7,)],
            "the kernel Patch got bias of shape [7]; it expects [O], which is [8] beside x of shape [1, 8, 8, 3]",
        ),
        (
            "AdamW",
            [(5,), (5,), (5,), (6,), (1,), (1,), (4,)],
            "the kernel AdamW got gradient (1 of 1) of shape [6]; it expects [...], which is [5]",
        ),
    ],
)
def test_kernel_error_for_a_wrong_shape_names_the_first_argument_only_when_it_helps(name, shapes, message):
    with pytest.raises(ValueError) as caught:
        signature_of(name).output_shapes(tuple(shapes))
    assert str(caught.value) == message


@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, ms.GRAPH_MODE], ids=["pynative", "graph"])
def test_kernels_refuse_wrong_inputs_before_they_run(mode, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MindSpore leaves a folder where a graph cannot be compiled
    ms.set_context(mode=mode)
    for kernel, inputs, message in wrong_calls():
        with pytest.raises(ValueError, match=message):
            kernel(*inputs)
    half = Tensor(random(2, 8).astype(np.float16))
    with pytest.raises(TypeError, match="the kernel Norm got x of type float16; it expects float32"):
        LayerNormKernel()(half, Tensor(random(8)), Tensor(random(8)))


@pytest.mark.parametrize("kernel", [BlockV1Kernel, BlockV2Kernel])
def test_block_kernel_reads_its_weights_by_name(kernel):
    """The order of the weights in the dictionary has no effect, on values or on gradients."""
    rng = np.random.default_rng(0)
    cell, sizes = kernel(), {"C": 5, "4*C": 20, "N": 2, "H": 3, "W": 4}
    name = "BlockV1" if kernel is BlockV1Kernel else "BlockV2"
    shapes = {
        argument: [int(sizes.get(size, size)) for size in dims.split(",")]
        for argument, dims in re.findall(r"(\S+)\[(.*?)\]", SIGNATURES[name].split(" -> ")[0])
    }
    given = {argument: Tensor(rng.standard_normal(shape).astype(np.float32)) for argument, shape in shapes.items()}
    x, keep = given.pop("x"), given.pop("keep")

    def run(names):
        def loss(x, *weights):
            return (cell(x, dict(zip(names, weights)), keep) ** 2).sum()

        value, grads = ms.value_and_grad(loss, tuple(range(1 + len(names))))(x, *(given[name] for name in names))
        return value.asnumpy(), dict(zip(["x", *names], grads))

    names = list(given)
    assert {"norm.gamma", "norm.beta"} <= {*names}  # both have the same shape
    (value, grads), (other_value, other_grads) = run(names), run(names[::-1])
    np.testing.assert_array_equal(value, other_value)
    assert grads.keys() == other_grads.keys()
    for name in grads:
        np.testing.assert_array_equal(grads[name].asnumpy(), other_grads[name].asnumpy(), err_msg=name)


def test_order_of_a_gradient_in_python_is_compared_with_the_table():
    names = operators._BLOCK_V1[False]
    right = operators._block_v1_bprop(names, saves=True)
    operators._check_orders(names, right)
    order = ["norm_beta" if name == "norm_gamma" else "norm_gamma" if name == "norm_beta" else name
             for name in inspect.signature(right).parameters]  # fmt: skip
    swapped = eval(f"lambda {', '.join(order)}: None")
    with pytest.raises(AssertionError, match="the gradient of BlockV1 takes"):
        operators._check_orders(names, swapped)


class Lying(nn.Cell):
    """An operator that calls a kernel without the checks in Python."""

    def __init__(self, name, shape):
        super().__init__()
        self.operator = ops.Custom(f"{library_path()}:{name}", lambda *_: shape, lambda *_: ms.float32, func_type="aot")

    def construct(self, *inputs):
        return self.operator(*inputs)


@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, ms.GRAPH_MODE], ids=["pynative", "graph"])
def test_reason_of_the_c_boundary_reaches_the_user(mode):
    ms.set_context(mode=mode)
    lying = Lying("Stem", [1, 2, 2, 8])
    images, weight, bias = (Tensor(random(*shape)) for shape in ((1, 3, 8, 8), (8, 3, 4, 4), (8,)))
    assert lying(images, weight, bias).asnumpy().shape == (1, 2, 2, 8)
    with pytest.raises(RuntimeError, match="the kernel Stem got weight of shape .*8, 3, 4, 4.*beside x of shape"):
        lying(Tensor(random(1, 64, 8, 8)), weight, bias).asnumpy()
    # The next call works after the error.
    assert np.isfinite(lying(images, weight, bias).asnumpy()).all()


def test_kernel_reports_lack_of_memory_and_can_be_called_again():
    """The error is reported from one thread and from worker threads. Afterwards a small call gives its usual result."""
    code = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import c_boundary, numpy as np
library = c_boundary.Library(sys.argv[2])
library.use_threads(int(sys.argv[3]))
def block(n, c):
    inputs, outputs = library.shapes("BlockV1", {"N": n, "H": 14, "W": 14, "C": c})
    return c_boundary.arrays_for([shape for _, shape in (*inputs, *outputs)])
small, large = block(1, 8), block(1, 1536)
assert library.call("BlockV1", small) is None
expected = small[-1].copy()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (4 << 20), resource.RLIM_INFINITY))
reason = library.call("BlockV1", large)
assert reason.startswith("the kernels need ") and "MiB of memory" in reason, reason
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert library.call("BlockV1", large) is None
assert library.call("BlockV1", small) is None and (small[-1] == expected).all()
"""
    for threads in ("1", "3"):
        command = [sys.executable, "-c", code, Path(__file__).parent, library_path(), threads]
        run = subprocess.run(command, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr


def test_kernel_gives_the_same_bits_when_several_threads_call_it(loadable_library):
    command = [sys.executable, Path(__file__).with_name("run_threads.py"), loadable_library.path, "4", "40"]
    environment = {**os.environ, "MINDCV_KERNELS_ISA": loadable_library.isa}
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "160"
