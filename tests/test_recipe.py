"""Tests of the steps that all scripts take before they build anything."""

import os
import runpy
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from mindcv.config import AnalyzeConfig, InferConfig, TrainConfig, ValidateConfig, parse_args
from mindcv.convert import CheckpointContents
from mindcv.models import create_model
from mindcv.recipe import parse_command_line, prepare_device
from mindcv.recipe_weights import build_model, check_weights, open_weights
from mindcv.utils.errors import ConfigError, UserError

TRAIN = ["--model", "convnext_atto", "--mode", "1"]
ROOT = Path(__file__).parents[1]
PUBLISHED = ["--model", "convnext_tiny", "--pretrained", "--mode", "1"]
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
        (["--num_classes", "3"], "num_classes is 3, but 'convnext_tiny.*' has 1000 classes"),
        (["--mean", "1"], "mean: needs one number for each of in_channels"),
    ],
)
def test_open_weights_refuses_options_that_do_not_fit_published_weights(argv, message):
    with pytest.raises(UserError, match=message):
        open_weights(parse_args([*PUBLISHED, *argv], ValidateConfig))


def test_open_weights_downloads_published_weights_when_they_are_read(monkeypatch):
    downloaded = []
    monkeypatch.setattr("mindcv.recipe_weights.fetch_pretrained", lambda weights: downloaded.append(weights.name))
    monkeypatch.setattr("mindcv.recipe_weights.open_checkpoint", lambda path, ema: CheckpointContents({}, {}))
    config, metadata, read_weights = open_weights(parse_args(PUBLISHED, ValidateConfig))
    assert config.num_classes == metadata["options"]["num_classes"] == 1000
    assert downloaded == []
    read_weights()
    (name,) = downloaded
    assert name.startswith("convnext_tiny.")


@pytest.mark.parametrize(
    ("config_class", "argv", "expected"),
    [
        (
            ValidateConfig,
            *(["--reliability_plot", "file/z.png", "--results_json", "folder.onnx", "--per_class_csv", "a.csv"],),
            [
                "results_json: cannot write to 'folder.onnx': it is a folder",
                "reliability_plot: cannot write to folder '{here}/file': '{here}/file' is a file, and a",
            ],
        ),
        (
            InferConfig,
            *(["--picture", "file/x.png", "--results_file", "r.xls", "--explain_picture", "k.txt", "--explain"],),
            [
                "results_file: its name must end in .csv or .json",
                "explain_picture: must end in .png",
                "picture: cannot write to folder '{here}/file': '{here}/file' is a file, and a folder is expected",
            ],
        ),
        (
            InferConfig,
            *(["--results_file", "a/r.csv", "--picture", "./a/../a/r.csv", "--explain_stage", "0", "--explain"],),
            ["picture: must end in .png", "picture: './a/../a/r.csv' is given for two results"],
        ),
        (
            InferConfig,
            *(["--results_file", "a.csv", "--class_names_file", "./a.csv"],),
            ["results_file: 'a.csv' is read as class_names_file, and would be overwritten: give another path"],
        ),
        (
            InferConfig,
            *(["--picture", "a.png", "--image_path", "b.png", "a.png"],),
            ["picture: 'a.png' is read as image_path, and would be overwritten: give another path"],
        ),
        (
            AnalyzeConfig,
            *(["--output_dir", "file", "--lr", "1"],),
            ["--lr: ", "output_dir: cannot write to folder 'file': 'file' is a file, and a folder is expected"],
        ),
    ],
)
def test_parse_command_line_reports_outputs_with_all_other_wrong_options(
    monkeypatch, tmp_path, config_class, argv, expected
):
    monkeypatch.chdir(tmp_path)
    for name in ("file", "a.csv", "a.png", "b.png"):
        (tmp_path / name).write_text("")
    (tmp_path / "folder.onnx").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    argv = [*argv, "eigencam"] if argv[-1] == "--explain" else argv
    images = [] if config_class is ValidateConfig else ["--image_path", "."]
    monkeypatch.setattr("sys.argv", ["a script", *PUBLISHED, *images, *argv])
    with pytest.raises(ConfigError) as raised:
        parse_command_line(config_class)
    problems = raised.value.problems
    assert len(problems) == len(expected)
    for problem, start in zip(problems, expected):
        assert problem.startswith(start.format(here=tmp_path))
    assert sorted(os.listdir(tmp_path)) == before, "nothing is created"


def test_parse_command_line_refuses_to_overwrite_the_checkpoint(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.ckpt").write_text("weights")
    argv = ["--ckpt_path", "w.ckpt", "--results_json", "./w.ckpt", "--data_dir", "."]
    monkeypatch.setattr("sys.argv", ["validate.py", *argv])
    with pytest.raises(ConfigError) as raised:
        parse_command_line(ValidateConfig)
    told = "results_json: './w.ckpt' is read as ckpt_path, and would be overwritten: give another path"
    assert raised.value.problems == [told]


@pytest.mark.parametrize(
    ("script", "argv", "message"),
    [
        ("validate", ["--val_split", "tset"], "tset"),
        ("infer", ["--image_path", "0.png", "--class_names_file", "names.txt"], "has 1 class names"),
        ("infer", ["--image_path", "gone.png"], "image 'gone.png' does not exist"),
    ],
)
def test_scripts_check_their_data_before_they_download_weights(monkeypatch, tmp_path, script, argv, message):
    def download(weights):
        raise AssertionError("the weights were downloaded")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mindcv.recipe_weights.fetch_pretrained", download)
    monkeypatch.setattr("sys.argv", [f"{script}.py", *PUBLISHED, *argv])
    Image.new("RGB", (8, 8)).save("0.png")
    (tmp_path / "names.txt").write_text("a\n")
    (tmp_path / "val" / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match=message):
        runpy.run_path(str(ROOT / f"{script}.py"))["main"]()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([*PUBLISHED, "--freeze", "featur.*"], "freeze: no parameter matches 'featur.\\*'; did you mean 'feature"),
        ([*PUBLISHED, "--freeze", "*"], "freeze: .* would leave no parameter to train"),
        ([*PUBLISHED, "--teacher_model", "convnext_atto", "--teacher_ckpt_path", "gone.ckpt"], "'gone.ckpt' does not"),
        ([*TRAIN, "--ckpt_path", "gone.ckpt"], "'gone.ckpt' does not exist"),
        ([*TRAIN, "--pretrained_encoder", "gone.ckpt"], "'gone.ckpt' does not exist"),
        ([*TRAIN, "--pretrained_encoder", "train"], "folder 'train' holds no checkpoint"),
    ],
)
def test_train_checks_freeze_and_files_of_weights_before_it_opens_the_data(monkeypatch, tmp_path, argv, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train").mkdir()
    argv = [*argv, "--dataset", "cifar10", "--dataset_download", "True", "--data_dir", "new"]
    monkeypatch.setattr("sys.argv", ["train.py", *argv])
    monkeypatch.setattr("mindcv.recipe_data.open_dataset", None)
    with pytest.raises(UserError, match=message):
        runpy.run_path(str(ROOT / "train.py"))["main"]()
    assert not (tmp_path / "new").exists()


def test_check_weights_changes_no_bit_of_the_network_that_is_built_after_it():
    config = parse_args([*TRAIN, "--freeze", "feature.0.*"], TrainConfig)
    networks = []
    for is_checked in (False, True):
        ms.set_seed(3)
        if is_checked:
            check_weights(config, with_weights=True)
        networks.append(build_model(config, 5))
    for first, second in zip(*(network.get_parameters() for network in networks)):
        np.testing.assert_array_equal(first.asnumpy(), second.asnumpy(), err_msg=first.name)
    frozen = [weight.name for weight in networks[1].get_parameters() if not weight.requires_grad]
    assert frozen and all(name.startswith("feature.0.") for name in frozen)


def test_train_opens_the_validation_images_before_it_downloads_weights(monkeypatch, tmp_path):
    def download(weights):
        raise AssertionError("the weights were downloaded")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mindcv.models.model_factory.fetch_pretrained", download)
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "train" / name / "0.png")
    argv = [*PUBLISHED, "--batch_size", "1", "--val_while_train", "True", "--val_split", "tset"]
    monkeypatch.setattr("sys.argv", ["train.py", *argv, "--data_dir", "."])
    with pytest.raises(UserError, match="tset"):
        runpy.run_path(str(ROOT / "train.py"))["main"]()


def test_create_model_checks_all_arguments_before_it_downloads_weights(monkeypatch):
    monkeypatch.setattr("mindcv.models.model_factory.fetch_pretrained", None)
    with pytest.raises(UserError, match="drop_path_rat"):
        create_model("convnext_atto", pretrained=True, drop_path_rat=0.1)
