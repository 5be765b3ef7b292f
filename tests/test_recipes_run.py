"""Recipes build their networks and train some steps on made images."""

import gc
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from mindcv.config import PretrainConfig, TrainConfig, parse_args
from mindcv.engine import steps_per_epoch
from mindcv.recipe import build_lr_table, build_trainer, build_training_loader
from mindcv.recipe_pretraining import (
    build_masked_autoencoder,
    build_pretraining_loader,
    build_pretraining_trainer,
)
from mindcv.recipe_weights import build_model
from mindcv.utils.distributed import Group

ROOT = Path(__file__).parents[1]
RECIPES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.yaml"))
PRETRAINING = [recipe for recipe in RECIPES if Path(recipe).name.startswith("fcmae_")]
# `make test` runs these recipes only. Half precision takes more than a minute on CPU, whatever the size of the model.
QUICK = ("configs/convnext/convnext_atto_scratch.yaml", "configs/convnextv2/fcmae_convnextv2_atto_digits.yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder of three classes, each with eight noisy images for training and for validation."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for name in ("a", "b", "c"):
            (root / split / name).mkdir(parents=True)
            for number in range(8):
                pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}.png")
    return root


def small(recipe, folder, config_class=TrainConfig, side="32"):
    """Return the configuration of a recipe with other data and smaller sizes."""
    classes = ["--num_classes", "3"] if config_class is TrainConfig else []
    data = ["--dataset", "folder", "--data_dir", str(folder), *classes, "--in_channels", "3"]
    size = ["--image_resize", side, "--batch_size", "8", "--epoch_size", "1"]
    here = ["--mode", "1", "--distribute", "False", "--device_target", "auto", "--num_parallel_workers", "2"]
    grey = ["--mean", "128,128,128", "--std", "64,64,64"]
    return parse_args(["--config", str(ROOT / recipe), *data, *size, *here, *grey], config_class)


@pytest.mark.parametrize("recipe", [pytest.param(r, marks=[] if r in QUICK else pytest.mark.slow) for r in RECIPES])
def test_two_steps(recipe, folder):
    if recipe in PRETRAINING:
        config = small(recipe, folder, PretrainConfig, "96")
        network = build_masked_autoencoder(config)
        _, loader = build_pretraining_loader(config, Group(), network.num_patches)
    else:
        config = small(recipe, folder)
        dataset, loader = build_training_loader(config, Group())
        network = build_model(config, dataset.num_classes())
    before = {p.name: p.asnumpy().copy() for p in network.trainable_params() if p.name.endswith("pwconv2.weight")}
    num_steps = steps_per_epoch(loader, config.gradient_accumulation_steps)
    build = build_pretraining_trainer if recipe in PRETRAINING else build_trainer
    trainer = build(config, network, build_lr_table(config, num_steps, Group()), Group())
    trainer.step.set_train(True)
    batches = [batch for batch, _ in zip(loader.batches(), range(2))]
    # A dynamic loss scale skips steps until it has come down, and the first step of a warm-up from 0 moves nothing.
    is_finite = []
    while sum(is_finite) < 3 and len(is_finite) < 12:
        images, labels = batches[len(is_finite) % 2]
        loss, was_finite = trainer.step(ms.Tensor(images), ms.Tensor(labels))
        assert np.isfinite(loss.asnumpy())
        is_finite.append(bool(was_finite.asnumpy()))
    assert sum(is_finite) == 3
    after = {p.name: p.asnumpy() for p in network.trainable_params()}
    assert all((before[name] != after[name]).any() for name in before)
    del trainer, network
    gc.collect()


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_schedule_spans_the_run(recipe):
    config = parse_args(["--config", str(ROOT / recipe)])
    config.lr_base_batch_size = None  # do not scale lr by the batch size
    table = build_lr_table(config, 10, Group())
    assert len(table) == 10 * config.epoch_size
    assert max(table) == pytest.approx(config.lr, rel=0.02)
    assert 0 <= table[-1] - config.min_lr < 0.01 * config.lr


def test_build_lr_table_scales_the_rate_by_the_batch_size():
    """The rate is for 256 images in a step. A step has two batches of 8 images from each of 3 processes."""
    argv = ["--model", "convnext_atto", "--batch_size", "8", "--gradient_accumulation_steps", "2", "--lr", "0.4"]
    rest = ["--scheduler", "constant", "--warmup_epochs", "0", "--epoch_size", "1"]
    plain = build_lr_table(parse_args([*argv, *rest]), 2, Group(1, 3))
    scaled = build_lr_table(parse_args([*argv, *rest, "--lr_base_batch_size", "256"]), 2, Group(1, 3))
    assert plain == [0.4, 0.4] and scaled == pytest.approx([0.4 * 48 / 256] * 2)


def test_recipes_cover_every_variant_with_published_weights():
    from mindcv import list_models

    models = {parse_args(["--config", str(ROOT / recipe)]).model for recipe in RECIPES}
    assert set(list_models(pretrained=True)) <= models <= set(list_models())
