"""Tests of `.ckpt` files: they keep their contents exactly, MindSpore reads them, and damage is reported."""

import os
import stat

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindcv.convert import read_ckpt, write_ckpt
from mindcv.utils.errors import CheckpointError, UserError

METADATA = {"options": {"mean": [0.5, 1e-30], "num_classes": 3, "model": None}, "class_to_idx": {"Grün": 0}, "x": True}


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {"feature.weight": rng.standard_normal((30, 4)).astype(np.float32), "feature.bias": np.float32([0, 1e-38])}


@pytest.fixture
def path(tmp_path, arrays):
    write_ckpt(tmp_path / "a.ckpt", {name: Tensor(array) for name, array in arrays.items()}, METADATA)
    return tmp_path / "a.ckpt"


def test_read_ckpt_returns_exactly_what_write_ckpt_wrote(path, arrays):
    found, metadata = read_ckpt(str(path))
    assert metadata == METADATA and found.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], array)


def test_write_ckpt_leaves_one_file_with_the_usual_permissions(path):
    assert os.listdir(path.parent) == ["a.ckpt"]
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask


def test_write_ckpt_writes_a_file_that_mindspore_reads(tmp_path):
    source, target = nn.Dense(4, 3), nn.Dense(4, 3)
    write_ckpt(tmp_path / "a.ckpt", {p.name: p for p in source.get_parameters()}, METADATA)
    not_loaded, _ = ms.load_param_into_net(target, ms.load_checkpoint(str(tmp_path / "a.ckpt")))
    assert not_loaded == []
    np.testing.assert_array_equal(target.weight.asnumpy(), source.weight.asnumpy())


def test_read_ckpt_returns_no_metadata_for_a_file_of_other_software(tmp_path):
    network = nn.Dense(4, 3)
    ms.save_checkpoint(network, str(tmp_path / "a.ckpt"), append_dict={"epoch": 7})
    arrays, metadata = read_ckpt(tmp_path / "a.ckpt")
    assert metadata == {} and {"weight", "bias"} <= arrays.keys()
    np.testing.assert_array_equal(arrays["weight"], network.weight.asnumpy())


def test_read_ckpt_names_a_missing_file_and_folder(tmp_path):
    with pytest.raises(CheckpointError, match=r"checkpoint '.*no\.ckpt' does not exist \(the folder '.*' exists\)"):
        read_ckpt(tmp_path / "no.ckpt")
    with pytest.raises(CheckpointError, match=r"does not exist \(the folder '.*gone' does not exist either\)"):
        read_ckpt(tmp_path / "gone" / "no.ckpt")
    with pytest.raises(CheckpointError, match="does not exist"):
        read_ckpt(tmp_path)


def test_read_ckpt_rejects_damaged_files(path):
    whole = path.read_bytes()
    for content, says in [
        (b"", "is empty"),
        (whole[: len(whole) // 2], "cannot be read"),
        (b"text " * 99, "cannot be"),
    ]:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"checkpoint '.*a\.ckpt' {says}") as caught:
            read_ckpt(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", [1, 5, 20])
def test_read_ckpt_reports_a_damaged_header_in_one_sentence_without_mindspores_log(path, capfd, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_ckpt(path)
    assert str(caught.value).startswith(
        f"checkpoint '{path}' cannot be read: it is damaged, or no MindSpore checkpoint"
    )
    output = capfd.readouterr()
    assert output.out == output.err == ""


def test_read_ckpt_rejects_another_suffix(path):
    other = path.rename(path.with_suffix(".pth"))
    with pytest.raises(CheckpointError, match=r"a\.pth' must have a name that ends in \.ckpt"):
        read_ckpt(other)


def test_write_ckpt_keeps_the_old_file_when_writing_fails(path, monkeypatch):
    before = path.read_bytes()

    def half(entries, name, **kwargs):
        with open(name, "wb") as file:
            file.write(before[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ms, "save_checkpoint", half)
    with pytest.raises(UserError, match="cannot save '.*a.ckpt': No space left on device"):
        write_ckpt(path, {"w": Tensor([1.0])}, {})
    assert path.read_bytes() == before and os.listdir(path.parent) == ["a.ckpt"]


def test_read_ckpt_detects_a_flipped_bit_in_an_array(path):
    """MindSpore itself reads such a file without an error."""
    whole = path.read_bytes()
    start = whole.index(np.ascontiguousarray(ms.load_checkpoint(str(path))["feature.weight"].asnumpy()).tobytes())
    for place in (start, start + 77, start + 30 * 4 * 4 - 1):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        ms.load_checkpoint(str(path))
        with pytest.raises(CheckpointError, match=f"'{path}' is damaged: its digest does not match its contents"):
            read_ckpt(path)


def test_read_ckpt_detects_a_flipped_bit_in_the_metadata(path):
    before, after = (f'"num_classes": {number}'.encode("utf-32-le") for number in (3, 1))
    assert before in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(before, after))
    with pytest.raises(CheckpointError, match="is damaged: its digest"):
        read_ckpt(path)


def test_read_ckpt_reads_a_file_without_a_digest(tmp_path):
    ms.save_checkpoint(nn.Dense(2, 2), str(tmp_path / "a.ckpt"), append_dict={"mindcv_metadata": '{"x": 1}'})
    assert read_ckpt(tmp_path / "a.ckpt")[1] == {"x": 1}


def test_digest_covers_bfloat16_as_it_is_stored(tmp_path):
    write_ckpt(tmp_path / "a.ckpt", {"w": Tensor([[1.5, -2.0]], ms.bfloat16), "n": Tensor(3, ms.int32)}, {})
    arrays, _ = read_ckpt(tmp_path / "a.ckpt")
    assert arrays["w"].tolist() == [[1.5, -2.0]] and arrays["n"] == 3
