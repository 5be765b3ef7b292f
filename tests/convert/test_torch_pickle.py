"""Tests of reading pickles built by hand, opcode by opcode: they give the values described, and run no code.

The names of opcodes are those of Python's `pickletools`.
"""

import struct
import tracemalloc

import numpy as np
import pytest

from mindcv.convert.torch_pickle import read_pickle
from mindcv.convert.torch_values import NumpyArray, Storage, TorchTensor
from mindcv.utils.errors import CheckpointError


def name(module, attribute):  # GLOBAL
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def text(value):  # BINUNICODE
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value):  # LONG1
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def row(*items):  # MARK ... TUPLE
    return b"(" + b"".join(items) + b"t"


def numbers(*values):
    return row(*map(number, values))


def call(function, *args):  # REDUCE
    return function + row(*args) + b"R"


def table(**items):  # EMPTY_DICT MARK ... SETITEMS
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def storage(kind="FloatStorage", key="0", numel=6, module="torch"):  # BINPERSID
    return row(text("storage"), name(module, kind), text(key), text("cpu"), number(numel)) + b"Q"


NO_HOOKS = call(name("collections", "OrderedDict"))
TENSOR = name("torch._utils", "_rebuild_tensor_v2")


def tensor(of=None, offset=0, shape=(2, 3), strides=(3, 1)):
    of = storage() if of is None else of
    return call(TENSOR, of, number(offset), numbers(*shape), numbers(*strides), b"\x89", NO_HOOKS)


def pickled(body):
    return b"\x80\x02" + body + b"."


BYTES = np.arange(6, dtype="<f4").tobytes()


def read(body, data=BYTES):
    """Return the value of a pickle of `body`, with `data` as the storage '0'."""

    def find_storage(key, nbytes):
        if (key, nbytes) != ("0", len(data)):
            raise CheckpointError(f"no storage {key} of {nbytes} bytes")
        return Storage(nbytes, memoryview(data))

    content = pickled(body)
    value, end = read_pickle(memoryview(b"before" + content + b"after"), find_storage, 6)
    assert end == 6 + len(content)
    return value


def refusal(body):
    """Return the message of the refusal, which must be one line."""
    with pytest.raises(CheckpointError) as caught:
        read(body)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_read_pickle_reads_a_tensor():
    np.testing.assert_array_equal(read(table(w=tensor()))["w"].array(), [[0, 1, 2], [3, 4, 5]])


def test_read_pickle_converts_bfloat16_to_float32_exactly():
    values = np.float32([1.5, -(2.0**-130), np.inf, 3e38, 0.0, -0.0])
    upper = (values.view("<u4") >> 16).astype("<u2")
    array = read(tensor(storage("BFloat16Storage")), upper.tobytes()).array()
    assert array.dtype == np.float32 and (array.view("u4").ravel() == upper.astype("<u4") << 16).all()


def test_read_pickle_reads_any_nonzero_bool_as_true():
    array = read(tensor(storage("BoolStorage")), bytes([0, 1, 2, 255, 0, 1])).array()
    assert array.dtype == bool and array.view(np.uint8).tolist() == [[0, 1, 1], [1, 0, 1]]


@pytest.mark.parametrize("shape, strides", [((0, 7), (1, 1)), ((1, 6), (2**61, 1)), ((), ())])
def test_read_pickle_accepts_empty_shapes_and_axes_of_length_one(shape, strides):
    assert read(tensor(shape=shape, strides=strides)).array().shape == shape


def numpy_array(data, shape=(2,), kind="f4", order="<"):
    core = "numpy.core.multiarray"
    made = call(name(core, "_reconstruct"), name("numpy", "ndarray"), numbers(0), text("b"))
    dtype = call(name("numpy", "dtype"), text(kind), b"\x89", b"\x88")
    dtype += row(number(3), text(order), b"N", b"N", b"N", number(-1), number(-1), number(0)) + b"b"
    return made + row(number(1), numbers(*shape), dtype, b"\x89", data) + b"b"


def test_read_pickle_reads_numpy_arrays():
    data = call(name("_codecs", "encode"), text("\x3f\x80\0\0\xc0\0\0\0"), text("latin1"))
    found = read(numpy_array(data, order=">"))
    assert isinstance(found, NumpyArray) and found.array().tolist() == [1.0, -2.0]


def test_read_pickle_reads_containers_and_the_memo():
    # The value is {"a": [1, (2, 3)], "b": the same list, "c": a list that contains itself}.
    body = table(a=b"]q\x05(K\x01K\x02K\x03\x86e", b=b"h\x05", c=b"]q\x06h\x06a")
    found = read(body)
    assert found["a"] == [1, (2, 3)] and found["b"] is found["a"] and found["c"][0] is found["c"]


# Hostile pickles. If any code ran, the file `marker` would exist.


@pytest.fixture
def marker(tmp_path):
    path = tmp_path / "ran"
    yield path
    assert not path.exists()


CODE = {
    "os.system": lambda cmd: call(name("os", "system"), cmd),
    "posix.system": lambda cmd: call(name("posix", "system"), cmd),
    "subprocess.Popen": lambda cmd: name("subprocess", "Popen") + row(cmd) + b"\x81",
    "builtins.eval": lambda cmd: call(name("__builtin__", "eval"), cmd),
    "builtins.exec": lambda cmd: call(name("builtins", "exec"), cmd),
    "builtins.getattr": lambda cmd: call(name("builtins", "getattr"), name("os", "system"), cmd),
    "operator.attrgetter": lambda cmd: call(call(name("operator", "attrgetter"), text("system")), cmd),
    "torch.load": lambda cmd: call(name("torch", "load"), cmd),
    "torch.hub.load": lambda cmd: call(name("torch.hub", "load"), cmd),
    "torch.storage._load_from_bytes": lambda cmd: call(name("torch.storage", "_load_from_bytes"), cmd),
    "copyreg._reconstructor": lambda cmd: call(name("copyreg", "_reconstructor"), cmd),
    "functools.partial": lambda cmd: call(name("functools", "partial"), name("os", "system"), cmd),
    "torch._utils._rebuild_tensor_v2.__globals__": lambda cmd: name("torch._utils", "_rebuild_tensor_v2.__globals__"),
    "torch._utils.os.system": lambda cmd: call(text("torch._utils") + text("os.system") + b"\x93", cmd),
    "numpy.f2py.crackfortran.myeval": lambda cmd: call(name("numpy.f2py.crackfortran", "myeval"), cmd),
    "argparse.Namespace.__init__": lambda cmd: name("argparse", "Namespace.__init__"),
    "builtins.type": lambda cmd: call(name("__builtin__", "type"), cmd),
    "mindcv.convert.torch_names._bytes": lambda cmd: name("mindcv.convert.torch_names", "_bytes"),
}


@pytest.mark.parametrize("function", CODE)
def test_read_pickle_refuses_code_by_name(marker, function):
    assert f"'{function}'" in refusal(table(w=tensor(), x=CODE[function](text(f"touch {marker}"))))


@pytest.mark.parametrize(
    "opcode, body",
    [
        ("the opcode INST", b"(X\x02\0\0\0idiposix\nsystem\n"),
        ("the opcode OBJ", b"(" + name("collections", "OrderedDict") + b"o"),
        ("the opcode NEWOBJ_EX", name("argparse", "Namespace") + b")}\x92"),
        ("the opcode EXT1", b"\x82\x01"),
        ("the opcode EXT4", b"\x84\x01\x00\x00\x00"),
        ("the opcode PERSID", b"Pstorage\n"),
        ("the opcode DUP", b"N2"),
        ("the opcode STRING", b"S'os'\n"),
        ("the opcode NEXT_BUFFER", b"\x97"),
        ("byte 255", b"\xff"),
    ],
)
def test_read_pickle_refuses_opcodes_that_pytorch_does_not_write(opcode, body):
    message = refusal(body)
    assert f"its pickle has {opcode} at byte " in message and message.endswith(", which PyTorch does not write")


BUILDS = {
    "of a Name": name("torch._utils", "_rebuild_tensor_v2") + table(__code__=b"N") + b"b",
    "of a TorchTensor": tensor() + table(storage=b"N") + b"b",
    "of a list": b"]" + table(append=b"N") + b"b",
    "of a str": text("x") + b"}b",
}


@pytest.mark.parametrize("target", BUILDS)
def test_read_pickle_refuses_to_set_attributes(target):
    assert refusal(BUILDS[target]) == f"its pickle sets attributes {target}, which is refused"


def test_read_pickle_stores_namespace_attributes_as_entries():
    body = name("argparse", "Namespace") + b")\x81" + table(__class__=number(1), update=number(2)) + b"b"
    found = read(body)
    assert isinstance(found, dict) and found == {"__class__": 1, "update": 2} and callable(found.update)


MALFORMED = {
    "a value from an empty stack": b"R",
    "takes a mark, but the stack has none": b"t",
    "reads entry 7 of the memo before it is set": b"h\x07",
    "not a dict": b"]K\x01K\x02s",
    "not a list": b"}K\x01a",
    "key without a value": b"}(K\x01u",
    "not valid UTF-8": b"X\x01\0\0\0\xff",
    "name without an end": b"c" + b"a" * 5000,
    "name that is not a string": b"K\x01K\x01\x93",
    "key of type list": b"}]K\x01s",
    "key of type TorchTensor": b"}" + tensor() + b"K\x01s",
    "key of type int": b"}\x8a\x20" + b"\x01" * 32 + b"K\x01s",
    "not a known function": call(text("print")),
    "attributes of a Namespace are not a dictionary": name("argparse", "Namespace") + b")\x81K\x01b",
    "arguments that PyTorch does not use": call(name("torch", "Size")),
    "ends too early": b"\x8e" + b"\xff" * 7 + b"\x7f",
    "does not describe a storage": row(text("module"), text("a"), text("b"), text("c"), text("d")) + b"Q",
    "no known element type": row(text("storage"), text("FloatStorage"), text("0"), text("cpu"), number(6)) + b"Q",
    "no valid key or size": storage(numel=-1),
    "view of another": row(text("storage"), name("torch", "FloatStorage"), text("0"), b"N", number(6), b")") + b"Q",
    "no storage 1 of 24 bytes": storage(key="1"),
    "no storage 0 of 20 bytes": storage(numel=5),
    "no storage 0 of 48 bytes": storage("DoubleStorage"),
    "'O8' is not supported": numpy_array(b"C\x08" + bytes(8), kind="O8", shape=(1,)),
    "type 'S8'": numpy_array(b"C\x08" + bytes(8), kind="S8", shape=(1,)),
    "does not fit its 8 bytes": numpy_array(b"C\x08" + bytes(8), shape=(3,)),
    "more state than a byte order": call(name("numpy", "dtype"), text("f4")) + row(number(3), text("<")) + b"b",
    "bytes, type, shape and order": numpy_array(b"](K\x01K\x02e"),
    "class that is not supported": call(
        name("torch._tensor", "_rebuild_from_type_v2"),
        name("torch._tensor", "_rebuild_from_type_v2"),
        name("torch", "Tensor"),
        row(),
        b"N",
    ),
}


@pytest.mark.parametrize("says", MALFORMED)
def test_read_pickle_rejects_malformed_pickles(says):
    assert says in refusal(MALFORMED[says])


@pytest.mark.parametrize(
    "offset, shape, strides, says",
    [
        (0, (2, 4), (4, 1), "reaches element 7 of a storage of 6"),
        (1, (2, 3), (3, 1), "reaches element 6"),
        (0, (2,), (6,), "reaches element 6"),
        (6, (), (), "reaches element 6"),
        (0, (2**61, 2**61), (1, 1), "reaches element"),
        (-1, (2,), (1,), "must be integers from 0 up"),
        (5, (2,), (-1,), "must be integers from 0 up"),
        (0, (-2,), (1,), "must be integers from 0 up"),
        (0, (2**63,), (0,), "must be integers from 0 up"),
        (0, (2, 3), (1,), "do not have the same length, or are too long"),
        (0, (1,) * 40, (1,) * 40, "do not have the same length, or are too long"),
        (0, (2**20, 2**20), (0, 0), "expands 6 elements to 1099511627776"),
        (0, (0, 2**61), (1, 1), "too large"),
    ],
)
def test_read_pickle_rejects_a_tensor_that_exceeds_its_storage(offset, shape, strides, says):
    assert says in refusal(tensor(None, offset, shape, strides))


def test_read_pickle_rejects_a_lazy_negation():
    args = (storage(), number(0), numbers(6), numbers(1), b"\x89", NO_HOOKS)
    assert "lazy negation" in refusal(call(TENSOR, *args, table(neg=b"\x88")))
    assert isinstance(read(call(TENSOR, *args, b"}")), TorchTensor)


HUNGRY = {
    "memo": b"Nr\xff\xff\xff\xff",  # an array as long as the largest index would take 32 GB
    "nested": b"]" * 60_000 + b"a" * 59_999,
    "nested_key": b"})" + b"\x85" * 60_000 + b"Ns",  # hashing it recursively would crash the process
    "doubling_key": b"})" + b"q\x00h\x00\x86" * 60 + b"Ns",  # hashing it takes 2**60 steps
    "long_integer": b"\x8b\xff\xff\xff\x7f",
    "copies": text("x" * 100_000)
    + b"q\x01"
    + text("latin1")
    + b"q\x020]("
    + (name("_codecs", "encode") + b"h\x01h\x02\x86R") * 5000
    + b"e",
}


@pytest.mark.parametrize("case", HUNGRY)
def test_read_pickle_needs_little_memory_for_a_small_file(case):
    tracemalloc.start()
    try:
        read(HUNGRY[case])
    except CheckpointError:
        pass
    else:
        assert case in ("memo", "nested")  # these are harmless
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 50e6
