"""Tests of the steps that all scripts take before they build anything."""

import pytest

from mindcv.config import TrainConfig, ValidateConfig, parse_args
from mindcv.models.pretrained import pretrained_options, pretrained_weights
from mindcv.recipe import open_weights, prepare_device
from mindcv.utils.errors import UserError

TRAIN = ["--model", "convnext_atto", "--mode", "1"]
VALIDATE = ["--ckpt_path", "a.ckpt", "--mode", "1"]


@pytest.mark.parametrize(
    ("config_class", "argv", "slow"),
    [
        (TrainConfig, [*TRAIN, "--amp_level", "O2"], "--amp_level O0"),
        (TrainConfig, [*TRAIN, "--amp_level", "O2", "--val_amp_level", "O2"], "--amp_level O0"),
        (
            TrainConfig,
            [*TRAIN, "--amp_level", "O2", "--val_amp_level", "O3", "--val_while_train", "True"],
            "--amp_level O0 --val_amp_level O0",
        ),
        (TrainConfig, [*TRAIN, "--val_amp_level", "O2"], None),
        (TrainConfig, [*TRAIN, "--amp_level", "O1", "--amp_dtype", "bfloat16"], None),
        (ValidateConfig, [*VALIDATE, "--val_amp_level", "O2"], "--val_amp_level O0"),
        (ValidateConfig, VALIDATE, None),
    ],
)
def test_prepare_device_warns_once_of_float16_on_cpu(monkeypatch, capsys, config_class, argv, slow):
    monkeypatch.setattr("mindcv.recipe.set_device", lambda target: "CPU")
    prepare_device(parse_args(argv, config_class))
    lines = [line for line in capsys.readouterr().err.splitlines() if "float16" in line]
    assert len(lines) == (slow is not None) and all(line.endswith(f": give {slow}") for line in lines)


def test_prepare_device_does_not_warn_of_float16_on_ascend(monkeypatch, capsys):
    monkeypatch.setattr("mindcv.recipe.set_device", lambda target: "Ascend")
    assert prepare_device(parse_args([*TRAIN, "--amp_level", "O2"], TrainConfig)) == "Ascend"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--num_classes", "3"], "num_classes is 3, but the checkpoint has 1000 classes"),
        (["--mean", "1"], "mean: needs one number for each of in_channels"),
        (["--class_names_file", "names.txt"], "names.txt' has 1 class names for the checkpoint's 1000 classes"),
    ],
)
def test_open_weights_checks_options_before_it_downloads(monkeypatch, tmp_path, argv, message):
    def download(weights):
        raise AssertionError("the weights were downloaded")

    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("a\n")
    monkeypatch.setattr("mindcv.recipe.fetch_pretrained", download)
    name = "convnext_tiny"
    assert pretrained_options(pretrained_weights(name))["num_classes"] == 1000
    config = parse_args(["--model", name, "--pretrained", "--mode", "1", *argv], ValidateConfig)
    with pytest.raises(UserError, match=message):
        open_weights(config)
