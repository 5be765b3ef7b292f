"""Tests of the steps that all scripts take before they build anything."""

import pytest

from mindcv.config import TrainConfig, ValidateConfig, parse_args
from mindcv.recipe import prepare_device

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
