"""Tests of files of torch.save: real files give their known values, and damaged ones only a CheckpointError."""

import random
import struct
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mindcv.convert.torch_file import read_torch_file
from mindcv.convert.torch_values import TorchTensor
from mindcv.utils.errors import CheckpointError

DATA = Path(__file__).parents[1] / "data" / "torch"
SHAPES = {
    "0.weight": (2, 1, 2, 2),
    "0.bias": (2,),
    "1.weight": (2,),
    "1.bias": (2,),
    "3.weight": (3, 8),
    "3.bias": (3,),
}
WEIGHTS = {name: start + np.arange(np.prod(s)).reshape(s) / 4 for start, (name, s) in enumerate(SHAPES.items())}
BUFFERS = {"1.running_mean": np.zeros(2), "1.running_var": np.ones(2), "1.num_batches_tracked": np.int64(0)}


# Pickles built by hand.


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    return b"J" + struct.pack("<i", value)


def storage(kind="FloatStorage", key="0", numel=6):
    return b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(numel) + b"tQ"


def tensor(of=None, shape=(2, 3), strides=(3, 1)):
    rows = (b"(" + b"".join(map(number, values)) + b"t" for values in (shape, strides))
    return b"ctorch._utils\n_rebuild_tensor\n(" + (of or storage()) + number(0) + b"".join(rows) + b"tR"


def table(**items):
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def pickled(body):
    return b"\x80\x02" + body + b"."


SIX = np.arange(6, dtype="<f4")


def write_zip(path, body, storages=None, folder="archive", compression=zipfile.ZIP_STORED, **members):
    """Write a zip archive with the layout of torch.save, without its alignment."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(f"{folder}/data.pkl", pickled(body))
        for member, content in members.items():
            archive.writestr(f"{folder}/{member}", content)
        for key, content in ({"0": SIX.tobytes()} if storages is None else storages).items():
            archive.writestr(f"{folder}/data/{key}", content)
    return path


def write_old(path, body, storages=None, little_endian=b"\x88", keys=None):
    """Write the sequence of pickles and raw storages of PyTorch before 1.6."""
    storages = {"0": SIX} if storages is None else storages
    keys = storages if keys is None else keys
    magic = b"\x8a\x0a" + 0x1950A86A20F9469CFC6C.to_bytes(10, "little")
    pickles = (magic, b"M\xe9\x03", table(little_endian=little_endian), body, b"](" + b"".join(map(text, keys)) + b"e")
    raw = b"".join(struct.pack("<q", array.size) + array.tobytes() for array in storages.values())
    path.write_bytes(b"".join(map(pickled, pickles)) + raw)
    return path


def refusal(path):
    """Return the message of the refusal, which must be one line and name the file."""
    with pytest.raises(CheckpointError) as caught:
        read_torch_file(path)
    message = str(caught.value)
    assert message.startswith(f"checkpoint '{path}': ") and "\n" not in message
    return message[len(f"checkpoint '{path}': ") :]


# Files that PyTorch itself wrote.


def check_weights(found, add=0):
    assert found.keys() == {*WEIGHTS, *BUFFERS}
    for key, expected in {**WEIGHTS, **BUFFERS}.items():
        array = found[key].array()
        assert array.dtype == (np.int64 if key.endswith("tracked") else np.float32) and array.shape == expected.shape
        np.testing.assert_array_equal(array, expected + add, err_msg=key)


@pytest.mark.parametrize("file", ["state_dict.pth", "state_dict_old.pth", "state_dict_protocol5.pth"])
def test_read_torch_file_reads_a_state_dict(file):
    check_weights(read_torch_file(DATA / file))


@pytest.mark.parametrize("file", ["training_state.pth", "training_state_old.pth"])
def test_read_torch_file_reads_a_training_state(file):
    state = read_torch_file(str(DATA / file))
    check_weights(state["model"])
    check_weights(state["model_ema"], add=1)
    assert state["epoch"] == 7 and state["scaler"] == {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 0}
    assert state["args"] == {"lr": 4e-3, "output_dir": "out/run", "betas": (0.9, 0.999), "resume": ""}
    assert state["best"] == 81.5 and sorted(state["seen"]) == [1, 3] and state["raw"] == b"\x00\xff"
    assert state["counts"] == {"a": 1} and state["lr_scheduler"]["milestones"] == {1: 1, 2: 1}
    assert state["optimizer"]["param_groups"][0]["lr"] == 0.5
    # After one step of AdamW with gradients of 1, the first moment is 1 - beta1.
    np.testing.assert_allclose(state["optimizer"]["state"][5]["exp_avg"].array(), np.full(3, 0.1), rtol=1e-6)
    kind, words, position, *_ = state["rng"]["numpy"]
    assert kind == "MT19937" and position == 624
    np.testing.assert_array_equal(words.array(), np.random.RandomState(0).get_state()[1])
    np.testing.assert_array_equal(state["rng"]["torch"].array(), np.arange(9))


def test_read_torch_file_supports_every_element_type():
    found = read_torch_file(DATA / "dtypes.pth")
    np.testing.assert_array_equal(found.pop("bool").array(), [True, False, True])
    assert len(found) == 14
    for kind, value in found.items():
        array = value.array()
        assert array.dtype == (np.float32 if kind == "bfloat16" else np.dtype(kind))
        np.testing.assert_array_equal(array, [[8, 10, 12], [14, 16, 18]], err_msg=kind)


@pytest.mark.parametrize("file", ["views.pth", "views_old.pth"])
def test_read_torch_file_returns_views_of_one_storage(file):
    found = {key: value.array() for key, value in read_torch_file(DATA / file).items()}
    base = np.arange(24).reshape(4, 6) / 4
    expected = {
        "base": base,
        "transposed": base.T,
        "column": base[1:, 2],
        "every_other": base[::2, 1::3],
        "expanded": np.repeat([[5.0], [5.25], [5.5]], 4, axis=1),
        "scalar": 2.5,
        "empty": np.zeros((0, 3)),
        "parameter": [[0, 0.25], [0.5, 0.75]],
        "with_attribute": [0, 0.25],
    }
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_array_equal(found[key], values, err_msg=key)
        assert found[key].shape == np.shape(values)
    assert np.shares_memory(found["base"], found["column"])


@pytest.mark.parametrize(
    "file, says",
    [
        ("refused_module.pth", "'torch.nn.modules.container.Sequential', part of a whole pickled module"),
        ("refused_quantised.pth", "'torch._utils._rebuild_qtensor', a quantised tensor"),
        ("refused_sparse.pth", "'torch._utils._rebuild_sparse_tensor', a sparse tensor"),
        ("refused_float8.pth", "'torch.float8_e4m3fn', an element type that is not supported"),
        ("refused_script.pt", "it is a TorchScript program"),
    ],
)
def test_read_torch_file_names_unsupported_content(file, says):
    assert says in refusal(DATA / file)


def test_read_torch_file_does_not_import_torch():
    assert "torch" not in sys.modules


# Files built by hand.


def test_read_torch_file_reads_both_formats_built_by_hand(tmp_path):
    for path in (write_zip(tmp_path / "a", table(w=tensor())), write_old(tmp_path / "b", table(w=tensor()))):
        np.testing.assert_array_equal(read_torch_file(path)["w"].array(), [[0, 1, 2], [3, 4, 5]])


def test_read_torch_file_returns_read_only_views_of_the_file(tmp_path):
    path = tmp_path / "a.pth"
    write_zip(path, table(w=tensor(storage(numel=10**7), (10**7,), (1,))), {"0": np.zeros(10**7, "<f4").tobytes()})
    tracemalloc.start()
    array = read_torch_file(path)["w"].array()
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert array.size == 10**7 and used < 10**6 and not array.flags.writeable
    path.unlink()  # the mapped memory stays valid
    assert array[-1] == 0


@pytest.mark.parametrize("kind, stored", [("DoubleStorage", ">f8"), ("FloatStorage", ">f4"), ("ShortStorage", ">i2")])
def test_read_torch_file_converts_big_endian_values(tmp_path, kind, stored):
    path = tmp_path / "a.pth"
    write_zip(path, tensor(storage(kind)), {"0": np.arange(6, dtype=stored).tobytes()}, byteorder="big")
    array = read_torch_file(path).array()
    assert array.dtype == np.dtype(stored).newbyteorder("=")
    np.testing.assert_array_equal(array, [[0, 1, 2], [3, 4, 5]])


def test_read_torch_file_refuses_code_in_any_pickle_of_the_old_format(tmp_path):
    path = write_old(tmp_path / "a", table(w=tensor()))
    whole = path.read_bytes()
    evil = pickled(b"cposix\nsystem\n(" + text(f"touch {tmp_path}/ran") + b"tR")
    for at in (0, whole.index(b"\x80\x02M"), whole.index(b"\x80\x02}"), whole.rindex(b"\x80\x02](")):
        path.write_bytes(whole[:at] + evil + whole[at:])
        assert "'posix.system'" in refusal(path)
    assert not (tmp_path / "ran").exists()


def test_read_torch_file_rejects_missing_and_misfitting_storages(tmp_path):
    for body, says in [
        (storage(key="1"), "'archive/data/1' is missing"),
        (storage(key="../data.pkl"), "'archive/data/../data.pkl' is missing"),
        (storage(numel=5), "storage '0' has 24 bytes, but its tensors need 20"),
    ]:
        assert says in refusal(write_zip(tmp_path / "a", body))


def test_read_torch_file_rejects_zip_archives_that_torch_does_not_write(tmp_path):
    body, path = table(w=tensor()), tmp_path / "a.pth"
    write_zip(path, body, compression=zipfile.ZIP_DEFLATED)
    assert "data.pkl' is compressed" in refusal(path)
    write_zip(path, body, {"0": SIX.tobytes(), "../../evil": b""})
    assert "'archive/data/../../evil' lies outside its folder" in refusal(path)
    with pytest.warns(UserWarning, match="Duplicate name"):
        write_zip(path, body, {"0": SIX.tobytes()}, **{"data/0": bytes(24)})
    assert "'archive/data/0' occurs twice" in refusal(path)
    write_zip(path, body, byteorder="middle")
    assert "which is neither little nor big" in refusal(path)
    write_zip(path, body, **{"constants.pkl": b""})
    assert "TorchScript" in refusal(path)
    np.savez(tmp_path / "a.npz", w=SIX)
    assert "a zip archive with 0 files data.pkl" in refusal(tmp_path / "a.npz")


def test_read_torch_file_accepts_any_folder_name_in_the_archive(tmp_path):
    path = write_zip(tmp_path / "a", table(w=tensor()), folder="some model v1.0")
    assert read_torch_file(path)["w"].shape == (2, 3)


def test_read_torch_file_rejects_a_member_larger_than_the_file(tmp_path):
    path = write_zip(tmp_path / "a", table(w=tensor(storage(numel=6 + 2**20))))
    content = path.read_bytes()
    # The directory at the end of the archive holds the size of data/0 twice, compressed and plain.
    at = content.rindex(b"PK\x01\x02") + 20
    size = struct.pack("<I", 24 + 4 * 2**20)
    path.write_bytes(content[:at] + size * 2 + content[at + 8 :])
    assert "extends beyond the end of the file" in refusal(path)


def test_read_torch_file_rejects_inconsistent_files_of_the_old_format(tmp_path):
    body, path = table(w=tensor()), tmp_path / "a.pth"
    write_old(path, body, little_endian=b"\x89")
    assert "big-endian machine" in refusal(path)
    for keys in ([], ["1"], ["0", "0"], ["0", "1"]):
        write_old(path, body, keys=keys)
        assert "list of storages" in refusal(path)
    write_old(path, body, {"0": SIX[:5]})
    assert "is truncated" in refusal(path)
    write_old(path, body, {"0": SIX.astype("f8")})
    assert "bytes after its last storage" in refusal(path)
    write_old(path, table(w=tensor(), x=tensor(storage(numel=4), (2,), (1,))))
    assert "two sizes" in refusal(path)
    path.write_bytes(pickled(b"K\x01") * 5)
    assert "not written by torch.save" in refusal(path)
    write_old(path, body)
    path.write_bytes(struct.pack("<q", 7).join(path.read_bytes().rsplit(struct.pack("<q", 6), 1)))
    assert "24 bytes and 7 elements" in refusal(path)


def test_read_torch_file_rejects_other_files(tmp_path):
    path = tmp_path / "a.pth"
    for content, says in [
        (b"hello", "not written by torch.save"),
        (bytes(257) + b"ustar", "tar file of PyTorch before"),
    ]:
        path.write_bytes(content)
        assert says in refusal(path)
    path.write_bytes(b"")
    with pytest.raises(CheckpointError, match="is empty"):
        read_torch_file(path)
    with pytest.raises(CheckpointError, match="does not exist"):
        read_torch_file(tmp_path / "gone.pth")


@pytest.mark.parametrize("file", ["views.pth", "views_old.pth"])
def test_read_torch_file_rejects_a_file_truncated_at_any_byte(tmp_path, file):
    whole, path = (DATA / file).read_bytes(), tmp_path / "a.pth"
    for end in range(1, len(whole), 13):
        path.write_bytes(whole[:end])
        refusal(path)


def test_read_torch_file_rejects_damage_or_reads_arrays(tmp_path):
    # Bits are flipped and pieces are copied. The result is either a CheckpointError or arrays that
    # can be copied.
    rng, path, outcomes = random.Random(0), tmp_path / "a.pth", set()
    for round_ in range(400):
        file = ("views.pth", "views_old.pth", "state_dict_old.pth", "state_dict_protocol5.pth")[round_ % 4]
        content = bytearray((DATA / file).read_bytes())
        for _ in range(rng.choice((1, 1, 2, 8))):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        if round_ % 3 == 0:
            at, piece = rng.randrange(len(content)), rng.randrange(len(content))
            content[at:at] = content[piece : piece + rng.randrange(99)]
        path.write_bytes(content)
        try:
            found = read_torch_file(path)
            arrays = [value.array().copy() for value in found.values() if isinstance(value, TorchTensor)]
            outcomes.add("read" if arrays else "nothing")
        except CheckpointError:
            outcomes.add("refused")
    assert {"read", "refused"} <= outcomes
