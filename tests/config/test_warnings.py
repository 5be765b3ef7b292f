"""An option that is allowed but probably a mistake gives one line of warning. Usual options give none."""

from pathlib import Path

import pytest

from mindcv import recipe_weights
from mindcv.config import InferConfig, RunConfig, TrainConfig, ValidateConfig, parse_args
from mindcv.config.parsing import options_of
from mindcv.config.warnings import _HAS_EFFECT, _SUSPICIOUS
from mindcv.convert import CheckpointContents

ROOT = Path(__file__).parents[2]
MODEL = ["--model", "convnext_tiny", "--decay_epochs", "87"]


def warned(*argv, config_class=TrainConfig):
    return list(parse_args([*MODEL, *map(str, argv)], config_class).warnings)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (
            ["--mean", 0.5, 0.5, 0.5],
            "mean: 0.5 0.5 0.5 seems to be on the scale from 0 to 1, but pixels are on the scale from 0 to 255; "
            "you may have meant --mean 127.5 127.5 127.5",
        ),
        (["--std", 0.229, 0.224, 0.225], "you may have meant --std 58.395 57.12 57.375"),
        (["--mean", 0.485, 0, 0.406], "you may have meant --mean 123.675 0 103.53"),
        (["--scale", 0.5, 2], "scale: no crop is larger than the image, so numbers above 1 (2) act as 1"),
        (["--color_jitter", 40], "color_jitter: 40 is very strong"),
        (["--color_jitter", 0.4, 4, 0.4], "color_jitter: 4 is very strong"),
        (["--mixup", 0.8, "--batch_size", 1], "have no effect with batch_size 1"),
        (["--mixup", 0.8, "--mixup_group_size", 1], "have no effect with mixup_group_size 1"),
        (["--mixup", 0.8, "--mixup_off_epoch", 90], "mixup_off_epoch: 90 is never reached in 90 epochs"),
        (
            ["--val_while_train", "--early_stopping_patience", 18, "--val_interval", 5],
            "early_stopping_patience: 18 validations without improvement cannot happen, because the run has 18",
        ),
        (["--val_while_train", "--val_interval", 91], "val_interval: 91 is more than the run has epochs (90)"),
        (["--ema", "--ema_decay", 1], "ema_decay: with 1 the averaged weights stay"),
        (["--warmup_lr", 0.01], "warmup_lr: 0.01 is above lr (0.001)"),
        (["--warmup_factor", 10], "warmup_factor: 10 is above 1"),
        (["--warmup_epochs", 90], "the run has 90 epochs and the warm-up takes 90,"),
        (["--epoch_size", 1, "--warmup_epochs", 3], "the run has 1 epoch and the warm-up takes 3,"),
        (["--cutmix", 80], "cutmix: 80 is an unusual alpha"),
        (["--decay_epochs", 50], "decay_epochs: warm-up and decay end after 53 epochs of 90"),
        (
            ["--scheduler", "multi_step_decay", "--multi_step_decay_milestones", 87, 100],
            "ends before the first milestone",
        ),
        (["--scheduler", "step_decay", "--decay_epochs", 87], "ends before the first decay"),
        (["--scheduler", "exponential_decay", "--decay_rate", 1.1], "decay_rate: 1.1 is above 1"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_parse_args_warns_of_suspicious_options(argv, told):
    assert any(told in line for line in warned(*argv)), warned(*argv)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--mean", 0, 0, 0, "--std", 255, 255, 255],
        ["--lr", 0.1, "--opt", "adamw"],
        ["--scale", 0.35, 1],
        ["--mixup", 0.8, "--cutmix", 1, "--mixup_switch_prob", 0.3, "--mixup_mode", "elem", "--mixup_off_epoch", 89],
        ["--val_while_train", "--early_stopping_patience", 17, "--val_interval", 5],
        ["--scheduler", "multi_step_decay", "--decay_rate", 0.1, "--multi_step_decay_milestones", 30, 100, "--lr", 1],
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_parse_args_warns_of_no_usual_options(argv):
    assert [line for line in warned(*argv) if "decay_epochs: has no effect" not in line] == []


def test_parse_args_warns_of_suspicious_preprocessing_in_every_script():
    argv = ["--pretrained", "--std", 0.5, 0.5, 0.5]
    assert "--std 127.5 127.5 127.5" in parse_args(["--model", "a", *map(str, argv)], ValidateConfig).warnings[0]
    argv += ["--image_path", "cats"]
    assert "--std 127.5 127.5 127.5" in parse_args(["--model", "a", *map(str, argv)], InferConfig).warnings[0]


def test_parse_args_warns_of_a_flag_that_is_given_twice():
    assert warned("--lr", 0.25, "--seed", 1, "--lr=0.125") == [
        "--lr is given twice: the last value, '0.125', is used and not '0.25'"
    ]
    assert parse_args([*MODEL, "--lr", "0.25", "--lr=0.125"]).lr == 0.125
    assert warned("--ema", "--ema", "False", "--scale", 1, 1, "--scale", 0.5, 1) == [
        "--ema is given twice: the last value, 'False', is used and not 'True'",
        "--scale is given twice: the last value, '0.5 1', is used and not '1 1'",
    ]


# Options without an effect


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--clip_value", 5], "clip_value: has no effect unless clip_grad is on"),
        (["--val_interval", 5], "val_interval: has no effect unless val_while_train is on"),
        (["--momentum", 0.9], "momentum: has no effect unless opt is sgd or momentum or rmsprop"),
        (["--re_value", "random"], "re_value: has no effect unless re_prob is above 0"),
        (["--auto_augment", "autoaug", "--color_jitter", 0.4], "color_jitter: has no effect unless auto_augment is off"),  # noqa: E501
        (["--mixup", 0.8, "--mixup_switch_prob", 0.1], "unless mixup and cutmix are both on"),
        (["--distillation_tau", 2], "unless teacher_model is given"),
        (["--amp_dtype", "bfloat16"], "unless amp_level or val_amp_level is not O0"),
        (["--dataset", "digits", "--data_dir", "images"], "data_dir: has no effect unless dataset is not digits"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)  # fmt: skip
def test_parse_args_warns_of_an_option_without_effect_on_the_command_line(argv, told, tmp_path):
    (line,) = warned(*argv)
    assert line.endswith(told)
    path = tmp_path / "recipe.yaml"
    words = list(map(str, argv))
    path.write_text("".join(f"{name[2:]}: {value}\n" for name, value in zip(words[::2], words[1::2])))
    assert warned("-c", path) == []


def test_warning_tables_name_existing_options():
    options = options_of(RunConfig)
    for looked_at, _, _ in _SUSPICIOUS:
        assert set(looked_at) <= options.keys()
    assert _HAS_EFFECT.keys() <= options.keys()


def test_default_options_give_no_warning():
    assert parse_args(["--model", "a", "--seed", "1"], TrainConfig).warnings == ()


@pytest.mark.parametrize("path", sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("configs/*/*.yaml")))
def test_recipes_give_no_warning(path):
    assert parse_args(["--config", str(ROOT / path)], TrainConfig).warnings == ()


# Options that a checkpoint or a saved run sets are checked when these are known


def test_completed_checks_an_option_that_the_saved_run_decides():
    config = parse_args(["--resume", "auto", "--early_stopping_patience", "3"], TrainConfig)
    assert config.completed({"model": "a", "val_while_train": True}).early_stopping_patience == 3
    with pytest.raises(ValueError, match="early_stopping_patience: needs val_while_train"):
        config.completed({"model": "a", "val_while_train": False})


def test_completed_checks_an_option_that_the_checkpoint_decides():
    config = parse_args(["--ckpt_path", "a.ckpt", "--mean", "128", "--std", "64"], ValidateConfig)
    assert config.completed({"model": "a", "in_channels": 1}).in_channels == 1
    with pytest.raises(ValueError, match="mean: needs one number for each of in_channels"):
        config.completed({"model": "a", "in_channels": 3})


def test_open_weights_warns_when_a_recipe_replaces_the_preprocessing_of_a_checkpoint(tmp_path, monkeypatch, capsys):
    held = {"model": "convnext_atto", "image_resize": 160, "crop_pct": 0.9, "mean": [1.0, 2.0, 3.0]}
    contents = CheckpointContents({}, {"options": held})
    monkeypatch.setattr(recipe_weights, "open_checkpoint", lambda *args, **keywords: contents)
    path = tmp_path / "recipe.yaml"
    path.write_text("image_resize: 224\nmean: [1, 2, 3]\n")
    config = parse_args(["-c", str(path), "--ckpt_path", "a.ckpt", "--crop_pct", "1"], ValidateConfig)
    completed, *_ = recipe_weights.open_weights(config)
    assert (completed.image_resize, completed.crop_pct) == (224, 1)
    assert capsys.readouterr().err == (
        f"warning: image_resize: 224 of {path}:1 is used, and not 160, which the weights were trained with\n"
    )
