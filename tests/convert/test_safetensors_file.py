"""Tests of safetensors files: real ones, ones built by hand from the format's description, and invalid ones."""

import json
import os
import re
import struct
from pathlib import Path

import numpy as np
import pytest

from mindcv.convert import read_safetensors, write_safetensors
from mindcv.utils.errors import CheckpointError

DATA = Path(__file__).parents[1] / "data" / "torch"


def entry(dtype="F32", shape=(2,), offsets=(0, 8)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def write(path, header, data=b"", pad=0):
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    content += b" " * pad
    path.write_bytes(struct.pack("<Q", len(content)) + content + data)
    return path


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        read_safetensors(path)
    assert str(caught.value).startswith(f"checkpoint '{path}': ") and "\n" not in str(caught.value)
    return str(caught.value)


def parse(path):
    """Return the header, the data and the header's length, read without mindcv."""
    content = path.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8 : 8 + size]), content[8 + size :], size


def test_read_safetensors_reads_a_file_of_the_reference_implementation():
    arrays, metadata = read_safetensors(str(DATA / "state_dict.safetensors"))
    assert metadata == {"format": "pt"} and len(arrays) == 9
    np.testing.assert_array_equal(arrays["3.weight"], 4 + np.arange(24, dtype="f4").reshape(3, 8) / 4)
    assert arrays["1.num_batches_tracked"].shape == () and arrays["1.num_batches_tracked"].dtype == np.int64


def test_read_safetensors_supports_every_element_type():
    arrays, metadata = read_safetensors(DATA / "dtypes.safetensors")
    assert metadata == {} and arrays.pop("bool").tolist() == [True, False, True] and len(arrays) == 13
    for kind, array in arrays.items():
        assert array.dtype == (np.float32 if kind == "bfloat16" else np.dtype(kind))
        np.testing.assert_array_equal(array, [[8, 10, 12], [14, 16, 18]], err_msg=kind)


@pytest.mark.parametrize("pad", range(8))
def test_read_safetensors_accepts_any_alignment(tmp_path, pad):
    values = np.float32([1.5, -2.0])
    arrays, _ = read_safetensors(write(tmp_path / "a", {"w": entry()}, values.tobytes(), pad))
    assert arrays["w"].flags.aligned and not arrays["w"].flags.writeable
    np.testing.assert_array_equal(arrays["w"], values)


def test_read_safetensors_accepts_entries_in_any_order_and_empty_arrays(tmp_path):
    header = {"b": entry("U8", (1,), (8, 9)), "e": entry("F64", (0, 3), (8, 8)), "a": entry()}
    arrays, _ = read_safetensors(write(tmp_path / "a", header, np.float32([1, 2]).tobytes() + b"\x07"))
    assert list(arrays) == ["b", "e", "a"] and arrays["e"].shape == (0, 3)
    assert arrays["a"].tolist() == [1, 2] and arrays["b"].tolist() == [7]
    assert read_safetensors(write(tmp_path / "b", {})) == ({}, {})


@pytest.mark.parametrize(
    "header, says",
    [
        ({"w": entry("F8_E5M2", (8,))}, "the element type of 'w', 'F8_E5M2' is not known (there are: BF16,"),
        ({"w": entry(shape=(3,))}, "needs 12 bytes and has 8"),
        ({"w": entry(shape=(-2,))}, "must be lists of integers from 0 up"),
        ({"w": entry(shape=(2.0,))}, "must be lists of integers from 0 up"),
        ({"w": entry(shape=(True, 2))}, "must be lists of integers from 0 up"),
        ({"w": entry(shape=(2**40, 2**40, 0), offsets=(0, 0))}, "the shape of 'w' is too large"),
        ({"w": entry(shape=(1,) * 40, offsets=(0, 4))}, "the shape of 'w' is too large"),
        ({"w": entry(offsets=(8, 0))}, "needs 8 bytes and has -8"),
        ({"w": entry(offsets=(0, 8, 16))}, "must be lists of integers from 0 up"),
        ({"w": entry(offsets=(8, 16))}, "'w' follows a gap at byte 8"),
        ({"w": entry(shape=(1,), offsets=(0, 4))}, "its arrays end at byte 4 of the data, but the file ends at byte 8"),
        ({"w": entry(shape=(4,), offsets=(0, 16))}, "its arrays end at byte 16"),
        ({"v": entry(), "w": entry(shape=(1,), offsets=(4, 8))}, "'w' overlaps another array at byte 4"),
        ({"v": entry(), "w": entry()}, "'w' overlaps another array at byte 0"),
        ({"w": {**entry(), "more": 1}}, "the header of 'w' must have exactly dtype, shape and data_offsets"),
        ({"w": [1]}, "the header of 'w' must have exactly dtype, shape and data_offsets"),
        ({"w": entry(), "__metadata__": {"a": 1}}, "__metadata__ must map strings to strings"),
        ([1], "not a JSON object"),
        (b'{"w": 1, "w": 2}', "'w' occurs twice"),
        (b'{"w": {"dtype": "F32", "dtype": "F32"}}', "'dtype' occurs twice"),
        (b'{"w": ', "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        (b'{"w":' * 100_000, "not JSON"),
        (
            b'{"w":{"dtype":"F32","shape":[' + b"9" * 500_000 + b'],"data_offsets":[0,8]}}',
            "must be lists of integers from 0 up",
        ),
    ],
)
def test_read_safetensors_rejects_an_invalid_header(tmp_path, header, says):
    assert says in refusal(write(tmp_path / "a.safetensors", header, bytes(8)))


def test_read_safetensors_rejects_a_header_longer_than_the_file_or_the_limit(tmp_path):
    path = tmp_path / "a.safetensors"
    for size in (3, 2**31, 2**64 - 1):
        path.write_bytes(struct.pack("<Q", size) + b"{}")
        assert f"a header of {size} bytes in a file of 10" in refusal(path)
    path.write_bytes(b"abc")
    assert "is truncated" in refusal(path)
    with open(path, "wb") as file:  # a sparse file takes no disk space
        file.write(struct.pack("<Q", 100_000_001))
        file.truncate(100_000_100)
    assert "a header of 100000001 bytes" in refusal(path)


def test_read_safetensors_rejects_a_file_truncated_anywhere(tmp_path):
    whole, path = (DATA / "state_dict.safetensors").read_bytes(), tmp_path / "a.safetensors"
    for end in range(1, len(whole), 7):
        path.write_bytes(whole[:end])
        refusal(path)


def test_write_safetensors_follows_the_format(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "a/byte": np.uint8([1, 2, 3]),
        "wide": np.float64([0.1]),
        "transposed": rng.standard_normal((3, 4)).astype("f4").T,
        "big": np.arange(3, dtype=">i2"),
        "flag": np.array([True, False]),
        "scalar": np.float16(1.5).reshape(()),
        "empty": np.zeros((0, 2), "f4"),
        "ü": np.int64([7]),
    }
    path = tmp_path / "new" / "a.safetensors"
    write_safetensors(path, arrays, {"format": "np", "ü": "ö"})
    assert os.listdir(path.parent) == ["a.safetensors"]
    header, data, size = parse(path)
    texts = header.pop("__metadata__")
    assert re.fullmatch("[0-9a-f]{64}", texts.pop("mindcv_sha256"))
    assert size % 8 == 0 and texts == {"format": "np", "ü": "ö"} and header.keys() == arrays.keys()
    codes = {"a/byte": "U8", "wide": "F64", "transposed": "F32", "big": "I16", "flag": "BOOL", "scalar": "F16"}
    at = 0
    for name, described in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = described["data_offsets"]
        kind = arrays[name].dtype.newbyteorder("<")
        assert begin == at and begin % kind.itemsize == 0 and described["dtype"] == codes.get(name, described["dtype"])
        found = np.frombuffer(data[begin:end], kind).reshape(described["shape"])
        np.testing.assert_array_equal(found, arrays[name], err_msg=name)
        at = end
    assert at == len(data)
    again, metadata = read_safetensors(path)
    assert metadata == {"format": "np", "ü": "ö"}
    for name, array in arrays.items():
        assert again[name].dtype == array.dtype.newbyteorder("=") and again[name].shape == array.shape
        np.testing.assert_array_equal(again[name], array)


def test_write_safetensors_gives_the_same_bytes_for_any_order_of_arrays(tmp_path):
    arrays = {"b": np.float32([1]), "a": np.float32([2])}
    write_safetensors(tmp_path / "1", arrays)
    write_safetensors(tmp_path / "2", dict(reversed(arrays.items())))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert parse(tmp_path / "1")[0]["__metadata__"].keys() == {"mindcv_sha256"}


def test_write_safetensors_keeps_the_order_of_the_metadata(tmp_path):
    # The writer of the safetensors package shuffles the entries anew in each call.
    texts = {name: name.upper() for name in "hgfedcba"}
    for name in ("1", "2"):
        write_safetensors(tmp_path / name, {"w": np.float32([1])}, texts)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert list(parse(tmp_path / "1")[0]["__metadata__"]) == [*texts, "mindcv_sha256"]


def test_write_safetensors_rejects_unsupported_values_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")
    for array in (np.array(["text"]), np.array([None]), np.zeros(2, "c16")):
        with pytest.raises(CheckpointError, match="the element type of 'w'"):
            write_safetensors(path, {"v": np.zeros(1), "w": array})
    with pytest.raises(CheckpointError, match="must map strings to strings"):
        write_safetensors(path, {}, {"epoch": 3})
    with pytest.raises(CheckpointError, match="'__metadata__'"):
        write_safetensors(path, {"__metadata__": np.zeros(1)})
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.safetensors"]


def test_read_safetensors_detects_a_flipped_bit_by_the_digest(tmp_path):
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"w": np.arange(6, dtype=np.float32)}, {"format": "np"})
    whole = path.read_bytes()
    for changed in (whole[:-1] + b"x", whole.replace(b'"np"', b'"nq"')):
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match=f"'{path}' is damaged: its digest does not match its contents"):
            read_safetensors(path)


def test_digest_does_not_depend_on_byte_order_in_memory(tmp_path):
    for name, order in (("1", "<f4"), ("2", ">f4")):
        write_safetensors(tmp_path / name, {"w": np.arange(3).astype(order)})
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
