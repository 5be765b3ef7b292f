"""Tests of checkpoints of any format: which file is read, which format it has, and which entries are the weights."""

import json
import os
import pickle
import shutil
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindcv.convert import open_checkpoint, read_checkpoint, write_ckpt, write_safetensors
from mindcv.utils.errors import CheckpointError

DATA = Path(__file__).parents[1] / "data" / "torch"
FIRST = np.arange(8, dtype="f4").reshape(2, 1, 2, 2) / 4  # the array 0.weight in the recorded files


def refusal(path, **options):
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def save(path, **arrays):
    """Write a `.ckpt` file as other software does."""
    entries = [{"name": name, "data": Tensor(np.asarray(array))} for name, array in arrays.items()]
    ms.save_checkpoint(entries, str(path))
    return path


def dump(path, tree):
    """Write `tree` in PyTorch's old format with Python's pickle. Its tensors are NumPy arrays.

    Protocol 2 refers to `numpy.core` for arrays, as the training states of PyTorch do.
    """
    header = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    path.write_bytes(b"".join(pickle.dumps(part, protocol=2) for part in (*header, tree, [])))
    return path


W, V = {"w": np.float32([1, 2])}, {"w": np.float32([3, 4])}


# Formats and paths.


@pytest.mark.parametrize(
    "file", ["state_dict.pth", "state_dict_old.pth", "state_dict.safetensors", "pytorch_model.bin.index.json"]
)
@pytest.mark.parametrize("called", ["", "misleading.ckpt", "no_suffix"])
def test_read_checkpoint_detects_the_format_by_content(tmp_path, file, called):
    for shard in DATA.glob("*.bin"):
        shutil.copy(shard, tmp_path)
    path = shutil.copy(DATA / file, tmp_path / (called or file))
    arrays = read_checkpoint(str(path))
    assert len(arrays) == 9 and all(isinstance(array, np.ndarray) for array in arrays.values())
    np.testing.assert_array_equal(arrays["0.weight"], FIRST)


def test_open_checkpoint_reads_the_metadata_of_a_file_of_this_library(tmp_path):
    write_ckpt(tmp_path / "a.ckpt", {"w": Tensor([1.0, 2.0])}, {"model": "x", "mean": [0.5]})
    contents = open_checkpoint(tmp_path / "a.ckpt")
    assert contents.metadata == {"model": "x", "mean": [0.5]} and contents.arrays["w"].tolist() == [1, 2]


@pytest.mark.parametrize("name", ["a.w", "a."])
def test_read_checkpoint_reads_a_ckpt_whose_bytes_look_like_another_format(tmp_path, name):
    # The lengths in MindSpore's file are arbitrary bytes, at byte 1 (entry) and byte 8 (tensor).
    # The byte 60 is '<', and 123 is '{'.
    seen = set()
    for size in range(20, 130):
        path = save(tmp_path / "a.ckpt", **{name: np.zeros(size, "i1")})
        seen |= {(at, path.read_bytes()[at : at + 1]) for at in (1, 8)}
        assert read_checkpoint(path)[name].shape == (size,)
        path.unlink()
    assert {(1, b"<"), (1, b"{")} <= seen if name == "a.w" else (8, b"{") in seen


def test_open_checkpoint_reads_the_metadata_of_safetensors_and_of_an_index():
    assert open_checkpoint(DATA / "state_dict.safetensors").metadata == {"format": "pt"}
    assert open_checkpoint(DATA / "pytorch_model.bin.index.json").metadata == {"total_size": 0}
    assert open_checkpoint(DATA / "state_dict.pth").metadata == {}


def test_read_checkpoint_converts_bfloat16_of_mindspore_to_float32(tmp_path):
    ms.save_checkpoint([{"name": "w", "data": Tensor([1.5, -2.0], ms.bfloat16)}], str(tmp_path / "a.ckpt"))
    array = read_checkpoint(tmp_path / "a.ckpt")["w"]
    assert array.dtype == np.float32 and array.tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    "content, says",
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (b"\n \n<!DOCTYPE html>", "is a web page"),
        (b"hello", "unknown format (known are: PyTorch, safetensors, MindSpore .ckpt"),
        (b"", "is empty"),
        (b'{"a": 1}', "without a weight_map"),
        (b"{", "not JSON"),
        (bytes(257) + b"ustar" + bytes(300), "tar file"),
        (b"PK\x03\x04 and no more", "zip archive"),
        (b"\x80\x02c", "name without an end"),
        (b"\x0a\x05 and no more", "cannot be read"),
    ],
)
def test_open_checkpoint_names_the_kind_of_a_file_that_is_not_a_checkpoint(tmp_path, content, says):
    path = tmp_path / "a.ckpt"
    path.write_bytes(content)
    message = refusal(path)
    assert says in message and message.startswith(f"checkpoint '{path}'") and message.count("checkpoint '") == 1


def test_open_checkpoint_rejects_a_mindspore_file_with_another_suffix(tmp_path):
    path = save(tmp_path / "a.ckpt", w=[1.0]).rename(tmp_path / "a.pth")
    assert refusal(path).endswith("because MindSpore reads no other: rename it to 'a.ckpt'")


def test_open_checkpoint_lists_the_best_checkpoint_of_a_folder_first(tmp_path):
    for name in ("convnext-1_3", "convnext-2_3", "convnext_best"):
        save(tmp_path / f"{name}.ckpt", w=[1.0])
        (tmp_path / f"{name}.resume.safetensors").write_bytes(b"state of a run")
    told = f"such as '{tmp_path / 'convnext_best.ckpt'}'; the others are convnext-1_3.ckpt, convnext-2_3.ckpt"
    assert refusal(tmp_path).endswith(told)
    for name in ("convnext-1_3", "convnext_best"):
        (tmp_path / f"{name}.ckpt").unlink()
    assert list(read_checkpoint(tmp_path)) == ["w"]


def test_open_checkpoint_suggests_the_file_with_the_closest_name(tmp_path):
    save(tmp_path / "convnext_best.ckpt", w=[1.0])
    assert refusal(tmp_path / "convnext_bets.ckpt").endswith("; did you mean 'convnext_best.ckpt'?")
    assert refusal(tmp_path / "convnext_best.pth").endswith("; did you mean 'convnext_best.ckpt'?")


def test_open_checkpoint_suggests_no_file_that_shares_only_the_suffix(tmp_path):
    save(tmp_path / "flip.ckpt", w=[1.0])
    for name in ("nope.ckpt", "missing.ckpt", "x.ckpt"):
        assert refusal(tmp_path / name).endswith("exists)")


def test_open_checkpoint_names_a_missing_file(tmp_path):
    assert f"checkpoint '{tmp_path / 'a.pth'}' does not exist" in refusal(tmp_path / "a.pth")


def test_read_checkpoint_of_a_folder_needs_one_checkpoint_or_a_standard_name(tmp_path):
    (tmp_path / "convnext-1_3.resume.safetensors").write_bytes(b"state of a run")
    assert (
        "holds no checkpoint: no file name matches *.index.json, *.safetensors, *.bin, *.ckpt, *.pth, *.pt; give the "
        "path of a checkpoint file" in refusal(tmp_path)
    )
    (tmp_path / "a.onnx").write_bytes(b"an exported file")
    assert f"or to classify or validate that of an exported file, such as '{tmp_path}/a.onnx'" in refusal(tmp_path)
    bins = [shutil.copy(shard, tmp_path) for shard in sorted(DATA.glob("*.bin"))]
    told = f"give the path of one, such as '{bins[0]}'; the others are pytorch_model-1.bin"
    assert told in refusal(tmp_path)
    shutil.copy(DATA / "pytorch_model.bin.index.json", tmp_path)
    assert len(read_checkpoint(tmp_path)) == 9
    os.remove(tmp_path / "pytorch_model.bin.index.json")
    os.remove(bins[1])
    assert len(read_checkpoint(tmp_path)) == 3
    write_safetensors(tmp_path / "model.safetensors", W)  # both exist: the standard name decides
    assert read_checkpoint(tmp_path).keys() == {"w"}


# Shards.


def shards(folder, weight_map, **files):
    for name, arrays in files.items():
        write_safetensors(folder / name, {key: np.float32([ord(key)]) for key in arrays})
    path = folder / "model.safetensors.index.json"
    path.write_text(weight_map if isinstance(weight_map, str) else json.dumps({"weight_map": weight_map}))
    return path


def test_read_checkpoint_joins_the_shards_of_safetensors(tmp_path):
    path = shards(tmp_path, {"a": "1", "b": "2", "c": "1"}, **{"1": "ac", "2": "b"})
    for given in (path, tmp_path):
        assert {k: v.tolist() for k, v in read_checkpoint(given).items()} == {"a": [97], "b": [98], "c": [99]}


@pytest.mark.parametrize(
    "weight_map, says",
    [
        ({"a": "1", "b": "3"}, "3' does not exist"),
        ({"a": "1", "b": "1"}, "its shard '1' lacks arrays that the index lists for it: b"),
        ({"a": "2"}, "its shard '2' holds arrays that the index does not list for it: b"),
        ({"a": "1", "b": "2"}, "its shard '2' repeats arrays of another shard: a"),
        ({"a": "../1"}, "'../1' must be the name of a file in the same folder"),
        ({"a": "/1"}, "must be the name of a file"),
        ({"a": ".."}, "must be the name of a file"),
        ({"a": 1}, "'1' must be the name of a file"),
        ({"a": "model.safetensors.index.json"}, "unknown format"),  # the index itself: a shard must not be an index
        ({}, "without a weight_map"),
        ([1], "without a weight_map"),
        ('{"weight_map": {"a": "1", "a": "2"}}', "'a' occurs twice"),
    ],
)
def test_open_checkpoint_rejects_shards_that_do_not_match_the_index(tmp_path, weight_map, says):
    path = shards(tmp_path, weight_map, **{"1": "a", "2": "ab"})
    assert says in refusal(path) and str(path) in refusal(path)


# Which entries are the weights.


def test_read_checkpoint_extracts_the_weights_of_a_real_training_state(capsys):
    path = DATA / "training_state.pth"
    np.testing.assert_array_equal(read_checkpoint(path)["0.weight"], FIRST)
    others = "optimizer, lr_scheduler, epoch, scaler, args, model_ema, best, when and 4 more"
    assert capsys.readouterr().err == f"{path}: left out: {others}\n"
    np.testing.assert_array_equal(read_checkpoint(path, ema=True)["0.weight"], FIRST + 1)
    assert f"{path}: left out: model, optimizer" in capsys.readouterr().err


@pytest.mark.parametrize(
    "tree, ema, left_out",
    [
        (W, False, ""),
        ({"model": W}, False, ""),
        ({"state_dict": W, "epoch": 3}, False, "epoch"),
        ({"module": W, "model_ema": V}, False, "model_ema"),
        ({"model": V, "model_ema": W, "optimizer": {"state": V}}, True, "model, optimizer"),
        ({"state_dict": V, "state_dict_ema": W}, True, "state_dict"),
        ({"ema": W}, True, ""),
        ({"model": V, "ema": {"module": W, "decay": 0.9}}, True, "model, decay"),
        ({"state_dict": {"model": W, "ema": V}}, False, "ema"),
        ({"state_dict": {"model": V, "ema": W}, "epoch": 1}, True, "epoch, model"),
        ({"module.w": W["w"]}, False, ""),
        ({"_orig_mod.module.w": W["w"]}, False, ""),
        ({"module._orig_mod.w": W["w"]}, False, ""),
        ({"w": W["w"], "version": 3, "note": "text", "none": None}, False, "version, note, none"),
        ({"model": "convnext_tiny", "w": W["w"]}, False, "model"),
    ],
)
def test_read_checkpoint_finds_the_weights_in_a_training_state(tmp_path, capsys, tree, ema, left_out):
    path = dump(tmp_path / "a.pth", tree)
    arrays = read_checkpoint(path, ema)
    assert arrays.keys() == {"w"} and arrays["w"].tolist() == [1, 2]
    assert capsys.readouterr().err == (f"{path}: left out: {left_out}\n" if left_out else "")


def test_read_checkpoint_keeps_a_prefix_that_some_names_lack(tmp_path):
    path = dump(tmp_path / "a.pth", {"module.w": W["w"], "b": W["w"]})
    assert read_checkpoint(path).keys() == {"module.w", "b"}


@pytest.mark.parametrize(
    "tree, ema, says",
    [
        (W, True, "holds no moving average of its weights (w)"),
        ({"model": W, "epoch": 1}, True, "holds no moving average of its weights (model, epoch)"),
        ({"model_ema": W, "epoch": 1}, False, "only a moving average of weights (model_ema): set ema to read it"),
        ({"ema.w": W["w"]}, False, "only a moving average of weights (ema.*)"),
        ({"model": W, "state_dict": V}, False, "several sets of weights (model, state_dict)"),
        ({"ema": W, "model_ema": V, "model": V}, True, "several sets of weights (model_ema, ema)"),
        ({"epoch": 1, "model": {}}, False, "holds no weights (epoch, model)"),
        ([1, 2], False, "holds no weights (it has no names)"),
        ({0: W["w"]}, False, "names are not strings"),
        ({"learning_rate": W["w"]}, False, "a training state without weights"),
    ],
)
def test_open_checkpoint_rejects_a_file_with_no_weights_or_several_sets(tmp_path, tree, ema, says):
    assert says in refusal(dump(tmp_path / "a.pth", tree), ema=ema)


def test_open_checkpoint_rejects_a_training_state_that_contains_itself(tmp_path):
    tree = {"epoch": 1}
    tree["model"] = tree
    assert "holds no weights" in refusal(dump(tmp_path / "a.pth", tree))


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda weights: nn.Momentum(weights, 0.1, 0.9),
        lambda weights: nn.SGD(weights, 0.1, momentum=0.9),
        lambda weights: nn.AdamWeightDecay(weights, 0.1),
        lambda weights: nn.Adam(weights, 0.1, use_amsgrad=True),
        lambda weights: nn.RMSProp(weights, [0.1, 0.2], centered=True),
        lambda weights: nn.Lamb(weights, 0.1),
        lambda weights: nn.Adagrad(weights),
    ],
)
def test_read_checkpoint_leaves_out_the_state_of_mindspore_optimizers(tmp_path, capsys, optimizer):
    network = nn.Dense(3, 2)
    cell = nn.TrainOneStepWithLossScaleCell(
        nn.WithLossCell(network, nn.MSELoss()), optimizer(network.trainable_params()), Tensor(1.0)
    )
    entries = [{"name": p.name.replace("network._backbone.", ""), "data": p} for p in cell.get_parameters()]
    ms.save_checkpoint(entries, str(tmp_path / "a.ckpt"), append_dict={"epoch_num": 3, "step_num": 5, "lr": 0.1})
    assert len(entries) > 3
    arrays = read_checkpoint(tmp_path / "a.ckpt")
    assert arrays.keys() == {"weight", "bias"}
    np.testing.assert_array_equal(arrays["weight"], network.weight.asnumpy())
    line = capsys.readouterr().err
    assert line.startswith(f"{tmp_path / 'a.ckpt'}: left out: ") and line.count("\n") == 1 and "epoch_num" in line


def test_read_checkpoint_leaves_out_moments_and_averages_of_a_ckpt(tmp_path, capsys):
    path = save(tmp_path / "a.ckpt", **{"b.w": [1.0], "adam_m.b.w": [2.0], "adam_v.b.w": [3.0], "ema.b.w": [4.0]})
    assert read_checkpoint(path) == {"b.w": [1.0]}
    assert capsys.readouterr().err == f"{path}: left out: adam_m.* (1), adam_v.* (1), ema.* (1)\n"
    assert read_checkpoint(path, ema=True) == {"b.w": [4.0]}
    assert (
        capsys.readouterr().err == f"{path}: left out: adam_m.* (1), adam_v.* (1), the weights of the last step (1)\n"
    )


def test_read_checkpoint_keeps_a_moment_when_its_weight_is_missing(tmp_path):
    # A network may have a weight of this name. Loading the file into a model reports it otherwise.
    path = save(tmp_path / "a.ckpt", **{"stat.w": [1.0], "b": [2.0]})
    assert read_checkpoint(path).keys() == {"stat.w", "b"}


def test_open_checkpoint_reads_the_weights_of_a_saved_run(tmp_path, capsys):
    weights = {"feature.0.0.weight": np.ones((4, 3, 4, 4), np.float32)}
    averages = {f"ema.{name}": 2 * array for name, array in weights.items()}
    state = {"optimizer.global_step": np.ones(1, np.int32), "optimizer.adam_m.x": np.ones(2, np.float32)}
    state["network_state.sample_counter.count"] = np.int32(7) * np.ones((), np.int32)
    texts = {"mindcv_metadata": '{"options": {"model": "convnext_atto"}}', "mindcv_run": "{}"}
    write_safetensors(tmp_path / "a.resume.safetensors", {**weights, **averages, **state}, texts)
    for ema, expected in ((False, 1), (True, 2)):
        contents = open_checkpoint(tmp_path / "a.resume.safetensors", ema=ema)
        assert contents.metadata == {"options": {"model": "convnext_atto"}}
        assert contents.arrays.keys() == weights.keys()
        assert (contents.arrays["feature.0.0.weight"] == expected).all()
    assert "network_state.* (1), optimizer.* (2), " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("validated", "ema", "expected"),
    [("ema", None, 2), ("ema", False, 1), ("online", None, 1), ("online", True, 2), (None, None, 1)],
)
def test_read_checkpoint_returns_the_validated_weights_by_default(tmp_path, capsys, validated, ema, expected):
    path, metadata = tmp_path / "a.ckpt", {"validated_weights": validated} if validated else {}
    write_ckpt(path, {"w": Tensor([1.0]), "ema.w": Tensor([2.0])}, metadata)
    assert read_checkpoint(path, ema)["w"] == expected
    says = f"{path}: the averaged weights (ema) are used, because training validated them"
    assert (says in capsys.readouterr().err.splitlines()) == (validated == "ema" and ema is None)


def test_read_checkpoint_returns_the_weights_when_the_validated_average_is_missing(tmp_path):
    write_ckpt(tmp_path / "a.ckpt", {"w": Tensor([1.0])}, {"validated_weights": "ema"})
    assert read_checkpoint(tmp_path / "a.ckpt")["w"] == 1
