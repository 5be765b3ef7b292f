"""Every recipe of the repository is a valid configuration, and its header says how to run it."""

from pathlib import Path

import pytest

from mindcv.config import parse_args

ROOT = Path(__file__).parents[1]
RECIPES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.yaml"))
ASCEND = {
    # model: (drop path, weight decay, batch of a process, repeats, loss scaling)
    "convnext_tiny": (0.1, 0.05, 16, 0, "dynamic"),
    "convnext_small": (0.4, 0.05, 16, 0, "auto"),
    "convnext_base": (0.5, 0.05, 16, 0, "auto"),
    "convnextv2_tiny": (0.1, 0.049, 128, 3, "auto"),
}


def test_recipes_are_found():
    assert len(RECIPES) >= len(ASCEND)


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_is_accepted_by_parse_args(recipe):
    config = parse_args(["--config", str(ROOT / recipe)])
    assert config.model in recipe


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_header_has_command_devices_and_expected_results(recipe):
    header = (ROOT / recipe).read_text(encoding="utf-8").split("\n\n")[0]
    assert recipe in header, "the command names another file"
    for part in ("# Command:", "# Devices:", "# Expected:"):
        assert part in header


@pytest.mark.parametrize("model", ASCEND)
def test_ascend_recipes_keep_the_published_settings(model):
    family = model.split("_")[0]
    config = parse_args(["-c", str(ROOT / "configs" / family / f"{model}_ascend.yaml")])
    assert config.model == model
    assert (
        config.drop_path_rate,
        config.weight_decay,
        config.batch_size,
        config.aug_repeats,
        config.loss_scale_type,
    ) == ASCEND[model]
    assert (config.mode, config.distribute, config.amp_level, config.num_parallel_workers) == (0, True, "O2", 16)
    assert (config.opt, config.lr, config.min_lr, config.scheduler) == ("adamw", 0.002, 3e-7, "cosine_decay")
    assert (config.epoch_size, config.warmup_epochs, config.decay_epochs, config.warmup_factor) == (
        450,
        20,
        430,
        1.75e-5,
    )
    assert (config.mixup, config.cutmix, config.label_smoothing, config.re_prob) == (0.8, 1.0, 0.1, 0.25)
    assert (config.interpolation, config.crop_pct, config.image_resize) == ("bicubic", 0.95, 224)
    assert config.weight_decay_filter == "auto"


# Settings of MindSpore's page for its ConvNeXt, with the names of this library.
MODEL_PAGE = {
    "model": "convnext_tiny",
    "dataset": "imagenet",
    "num_classes": 1000,
    "image_resize": 224,
    "mixup": 0.8,
    "cutmix": 1.0,
    "cutmix_prob": 1.0,  # the page calls it mixup_prob, the probability of mixing by either
    "mixup_switch_prob": 0.5,
    "mixup_mode": "batch",
    "auto_augment": "rand-m9-mstd0.5-inc1",
    "interpolation": "bicubic",
    "re_prob": 0.0,
    "re_value": "pixel",
    "re_count": 1,
    "opt": "adamw",
    "betas": [0.9, 0.999],
    "momentum": 0.9,
    "weight_decay": 0.05,
    "lr": 0.0005,
    "warmup_lr": 7e-8,
    "min_lr": 6e-6,
    "scheduler": "cosine_decay",
    "warmup_epochs": 20,
    "epoch_size": 300,
    "batch_size": 300,
    "label_smoothing": 0.1,
    "amp_level": "O1",
    "clip_grad": True,
    "clip_value": 5.0,
    "loss_scale_type": "dynamic",
    "ema": False,
    "ema_decay": 0.9999,
    "num_parallel_workers": 16,
    "device_target": "Ascend",
}


def test_mindspore_recipe_keeps_the_settings_of_the_model_page():
    config = parse_args(["-c", str(ROOT / "configs/convnext/convnext_tiny_mindspore_ascend.yaml")])
    found = {name: getattr(config, name) for name in MODEL_PAGE}
    assert {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()} == MODEL_PAGE
    assert {name for name in MODEL_PAGE if config.given.get(name, "default") == "default"} == set(), (
        "said in the recipe"
    )
