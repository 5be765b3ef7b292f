"""Tests of tools/convert.py: it converts files, and reports each mistake in one line."""

import importlib.util
import json
import sys
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from mindcv.convert import open_checkpoint, read_ckpt, read_safetensors, write_ckpt, write_safetensors
from mindcv.utils.cli import run_script

ROOT = Path(__file__).parents[2]


def load_tool():
    spec = importlib.util.spec_from_file_location("convert_tool", ROOT / "tools" / "convert.py")
    tool = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "tools")  # as when the script is run
        spec.loader.exec_module(tool)
    return tool


tool = load_tool()


@pytest.fixture
def run(monkeypatch, capsys):
    """Return a function from options to (exit status, standard output, standard error) of the script."""

    def call(**options):
        words = []
        for name, value in options.items():
            words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
        monkeypatch.setattr(sys, "argv", ["convert.py", *words])
        with pytest.raises(SystemExit) as ended:
            run_script(tool.main)
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return call


@pytest.fixture(scope="module")
def official(reference, tmp_path_factory):
    """Return (path, arrays) of a V2 atto with the reference implementation's names."""
    path = tmp_path_factory.mktemp("official") / "a.safetensors"
    arrays = reference.weights("convnextv2_atto")
    write_safetensors(path, arrays)
    return path, arrays


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_convert_to_ckpt_and_back_keeps_every_value(run, tmp_path, official):
    source, arrays = official
    target = tmp_path / "new" / "a.ckpt"
    status, out, err = run(model="convnextv2_atto", src=source, dst=target)
    assert (status, err) == (0, "")
    assert out == f"{target}: convnextv2_atto, 1000 classes, 140 arrays, layout official to mindcv\n"
    found, metadata = read_ckpt(target)
    options = {"model": "convnextv2_atto", "num_classes": 1000, "in_channels": 3, "patch_size": 4}
    assert metadata == {"options": options}
    assert found["feature.5.5.grn.gamma"].shape == (1, 1, 1, 640)
    np.testing.assert_array_equal(found["feature.2.0.gamma"], arrays["downsample_layers.1.0.weight"])

    assert run(model="convnextv2_atto", src=target, dst=tmp_path / "b.safetensors", layout="official")[0] == 0
    back, texts = read_safetensors(tmp_path / "b.safetensors")
    assert_same(back, arrays)
    assert texts["format"] == "pt"
    assert open_checkpoint(tmp_path / "b.safetensors").metadata == metadata


@pytest.mark.parametrize("layout", ["timm", "transformers", "fcmae"])
def test_convert_writes_other_layouts(run, tmp_path, official, as_layout, layout):
    source, arrays = official
    if layout == "fcmae":
        arrays = {name: array for name, array in arrays.items() if name.startswith(("downsample", "stages"))}
    status, out, err = run(model="convnextv2_atto", src=source, dst=tmp_path / "b.safetensors", layout=layout)
    assert status == 0 and f"layout official to {layout}" in out
    assert ("left out: classifier.bias" in err) == (layout == "fcmae")
    assert_same(open_checkpoint(tmp_path / "b.safetensors").arrays, as_layout(layout, "convnextv2_atto", arrays))


def test_convert_accepts_an_encoder_without_a_head(run, tmp_path, official, as_layout):
    _, arrays = official
    encoder = {name: array for name, array in arrays.items() if name.startswith(("downsample", "stages"))}
    sparse = {**as_layout("fcmae", "convnextv2_atto", encoder), "mask_token": np.zeros((1, 512, 1, 1), np.float32)}
    write_safetensors(tmp_path / "a.safetensors", sparse)
    status, out, err = run(model="convnextv2_atto", src=tmp_path / "a.safetensors", dst=tmp_path / "b.ckpt")
    assert status == 0 and "no head, 136 arrays, layout fcmae to mindcv" in out
    assert "has no last norm and no head" in err and "the decoder is left out: mask_token" in err
    found, metadata = read_ckpt(tmp_path / "b.ckpt")
    assert metadata["options"]["num_classes"] == 0
    np.testing.assert_array_equal(found["feature.7.1.dwconv.weight"], arrays["stages.3.1.dwconv.weight"])


def test_convert_keeps_the_metadata_of_the_source(run, tmp_path, official):
    _, arrays = official
    own = {name: ms.Tensor(array + 1) for name, array in tool.rename(arrays).arrays.items()}
    own.update({f"ema.{name}": ms.Tensor(array) for name, array in tool.rename(arrays).arrays.items()})
    said = {"options": {"model": "x", "crop_pct": 0.9}, "class_to_idx": {"a": 0}, "epoch": 3}
    write_ckpt(tmp_path / "a.ckpt", own, said)
    assert run(model="convnextv2_atto", src=tmp_path / "a.ckpt", dst=tmp_path / "b.ckpt", ema=True)[0] == 0
    found, metadata = read_ckpt(tmp_path / "b.ckpt")
    np.testing.assert_array_equal(found["norm.gamma"], arrays["norm.weight"])
    options = {"model": "convnextv2_atto", "crop_pct": 0.9, "num_classes": 1000, "in_channels": 3, "patch_size": 4}
    assert metadata == {"options": options, "class_to_idx": {"a": 0}}


def test_convert_keeps_a_stem_of_another_size(run, tmp_path, official):
    _, arrays = official
    finer = {**arrays, "downsample_layers.0.0.weight": arrays["downsample_layers.0.0.weight"][:, :, :2, :2].copy()}
    write_safetensors(tmp_path / "finer.safetensors", finer)
    assert run(model="convnextv2_atto", src=tmp_path / "finer.safetensors", dst=tmp_path / "b.ckpt")[0] == 0
    found, metadata = read_ckpt(tmp_path / "b.ckpt")
    np.testing.assert_array_equal(found["feature.0.0.weight"], finer["downsample_layers.0.0.weight"])
    assert metadata["options"]["patch_size"] == 2


WRONG = {
    "model": ({"model": "convnextv2_ato"}, 2, "--model 'convnextv2_ato' is not known; did you mean 'convnextv2_atto'?"),
    "layout": ({"layout": "tim"}, 2, "--layout 'tim' is not known; did you mean 'timm'?"),
    "suffix": ({"dst": "b.pth"}, 2, "--dst must end in .ckpt or .safetensors, got 'b.pth'"),
    "both": ({"dst": "b.ckpt", "layout": "timm"}, 2, "--layout timm needs a --dst that ends in .safetensors"),
    "file": ({"src": "nothing.pth"}, 1, "nothing.pth' does not exist"),
    "other model": ({"model": "convnextv2_femto"}, 1, "a.safetensors': the weights (layout: official) do not fit"),
    "classes": (
        {"num_classes": 10},
        1,
        "(here classifier.weight) has the shape [1000, 320], the model's has [10, 320]",
    ),
    "no average": ({"ema": True}, 1, "a.safetensors': it holds no moving average"),
    "no place": (
        {"layout": "torchvision"},
        1,
        "the layout torchvision does not support these arrays: feature.1.0.grn.gamma",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_convert_reports_a_mistake_in_one_line(run, tmp_path, monkeypatch, official, case):
    monkeypatch.chdir(tmp_path)
    options, expected_status, sentence = WRONG[case]
    given = {"model": "convnextv2_atto", "src": official[0], "dst": "b.safetensors", **options}
    status, out, err = run(**given)
    assert (status, out) == (expected_status, "")
    assert err.startswith("error: ") and err.count("\n") == 1 and sentence in err
    assert not list(tmp_path.iterdir())


def test_convert_rejects_a_file_that_is_not_a_checkpoint(run, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"a": 1}))
    status, _, err = run(model="convnextv2_atto", src=tmp_path / "a.json", dst=tmp_path / "b.ckpt")
    assert status == 1 and err.count("\n") == 1 and "a.json" in err
