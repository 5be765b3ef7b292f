"""pretrain.py trains, saves, resumes with the same bits, and draws what it reconstructs."""

import csv
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from run_here import run_here

from mindcv.config import PretrainConfig, TrainConfig, parse_args
from mindcv.convert import read_ckpt
from mindcv.engine.reconstruction import draw_reconstructions, join_patches, split_patches
from mindcv.engine.run_folder import REPORT, newest_checkpoint, remove_runs
from mindcv.engine.snapshot import SUFFIX, read_snapshot, write_snapshot
from mindcv.models import create_model, random_mask
from mindcv.recipe_pretraining import build_pretraining_loader
from mindcv.recipe_weights import build_model
from mindcv.utils.distributed import ALONE, Group
from mindcv.utils.errors import CheckpointError, ConfigError, DataError
from mindcv.utils.locks import release_folders

MODEL = "fcmae_convnextv2_atto"
OPTIONS = [
    *("--model", MODEL, "--image_resize", "64", "--batch_size", "4", "--drop_remainder", "False"),
    *("--epoch_size", "2", "--warmup_epochs", "1", "--decay_epochs", "1", "--opt", "adamw", "--lr", "0.001"),
    *("--gradient_accumulation_steps", "2", "--decoder_embed_dim", "16", "--train_split", "", "--log_interval", "1"),
    *("--save_every_steps", "1", "--picture_interval", "1"),
]
NO_PICTURES = ("--picture_interval", "0")
TIMINGS = ("images_per_s", "seconds")


@pytest.fixture(autouse=True)
def _release():
    yield
    release_folders()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return a folder of images without classes, some of them in a sub-folder."""
    root = tmp_path_factory.mktemp("photos")
    (root / "older").mkdir()
    rng = np.random.default_rng(0)
    for number in range(10):
        pixels = rng.integers(0, 256, (70, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / ("older" if number % 3 else ".") / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """Return the folder of a run that was not interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    run = run_here("pretrain", *OPTIONS, "--data_dir", photos, "--ckpt_save_dir", folder)
    release_folders()
    assert run.status == 0, run.err
    return folder


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in TIMINGS} for row in csv.DictReader(file)]


def test_pretraining_saves_weights_metrics_and_pictures(whole):
    names = {path.name for path in whole.iterdir() if not path.name.startswith(".")}
    assert {f"{MODEL}-1_2.ckpt", f"{MODEL}-2_2.ckpt", "metrics.csv"} <= names
    assert {"reconstruction-1.png", "reconstruction-2.png", f"{MODEL}-2_2{SUFFIX}"} <= names
    assert [row["epoch"] for row in rows(whole)] == ["1", "2"]
    assert list(rows(whole)[0]) == ["epoch", "step", "lr", "train_loss"], "pre-training validates nothing"
    first, last = (float(row["train_loss"]) for row in rows(whole))
    assert 0 < last < first
    arrays, metadata = read_ckpt(whole / f"{MODEL}-2_2.ckpt")
    assert {"encoder.feature.0.0.weight", "mask_token", "pred.weight"} <= set(arrays)
    assert metadata["options"]["model"] == MODEL and metadata["pretraining"]["mask_ratio"] == 0.6


def test_remove_runs_removes_all_that_a_run_and_its_report_leave(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    (folder / REPORT).write_text("<!DOCTYPE html>")
    remove_runs(folder)
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == []


def test_resumed_pretraining_has_the_bits_of_an_uninterrupted_run(whole, photos, tmp_path):
    middle = f"{MODEL}-2_1{SUFFIX}"
    shutil.copy(whole / middle, tmp_path)
    again = run_here("pretrain", "--data_dir", photos, "--ckpt_save_dir", tmp_path, "--resume", "auto", *NO_PICTURES)
    assert again.status == 0 and f"resuming '{tmp_path / middle}': epoch 2, step 1" in again.err
    assert "not as in the interrupted run" not in again.err, "pictures do not change the numbers"
    end = f"{MODEL}-2_2{SUFFIX}"
    expected, found = read_snapshot(whole / end).arrays, read_snapshot(tmp_path / end).arrays
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert rows(tmp_path) == rows(whole)
    (start,) = json.loads((tmp_path / "run.json").read_text())["starts"]
    assert start["command"][0] == "pretrain.py" and start["options"]["mask_ratio"] == 0.6
    assert start["resumed_at"] == {"epoch": 2, "step": 1, "global_step": 3}


def masks_of(photos, epoch, group=ALONE, **options):
    argv = [*OPTIONS, "--data_dir", str(photos), "--num_parallel_workers", "1"]
    for name, value in options.items():
        argv += [f"--{name}", str(value)]
    _, loader = build_pretraining_loader(parse_args(argv, PretrainConfig), group, 4)
    return [masks for _, masks in loader.batches(epoch)]


def test_masks_depend_on_seed_epoch_and_sample_only(photos):
    first = np.concatenate(masks_of(photos, 0))
    assert first.shape == (10, 4) and first.dtype == np.float32 and (first.sum(1) == 3).all()
    np.testing.assert_array_equal(np.concatenate(masks_of(photos, 0, batch_size=3)), first)
    assert (np.concatenate(masks_of(photos, 1)) != first).any()
    assert (np.concatenate(masks_of(photos, 0, seed=1)) != first).any()
    ranks = [masks_of(photos, 0, Group(rank, 2), batch_size=5) for rank in (0, 1)]
    in_turn = [batch for pair in zip(*ranks) for batch in pair]  # ranks read whole batches in turn
    np.testing.assert_array_equal(np.concatenate(in_turn), first)


def test_pretraining_loader_takes_images_without_classes(photos, tmp_path):
    config = parse_args([*OPTIONS, "--data_dir", str(photos)], PretrainConfig)
    dataset, _ = build_pretraining_loader(config, Group(), 4)
    assert len(dataset) == 10
    empty = parse_args([*OPTIONS, "--data_dir", str(tmp_path)], PretrainConfig)
    with pytest.raises(DataError, match="has no image files .*, also in its sub-folders"):
        build_pretraining_loader(empty, Group(), 4)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model", "convnextv2_atto"], "'convnextv2_atto' is a classifier: .* such as 'fcmae_convnextv2_atto'"),
        (["--image_resize", "100"], "image_resize: must be a multiple of 32, which is mask_patch_size, got 100"),
        (["--mask_ratio", "1.2"], "mask_ratio"),
        (
            ["--mask_ratio", "0.9", "--opt", "adan_"],
            r"--opt: .* got 'adan_'.*\n.*mask_ratio: 0.9 leaves none of the 4 patches visible: ",
        ),
        (["--mask_patch_size", "64"], "mask_ratio: has no use for images of one patch: give larger images"),
        (["--mixup", "0.8"], "it belongs to train.py"),
        (["--mask_patch_size", "48"], r"mask_patch_size: must be a multiple of 32, the encoder's reduction .*, got 48"),
        (["--patch_size", "2", "--mask_patch_size", "24"], r"a multiple of 16, .* \(8 \* patch_size\), got 24"),
    ],
)
def test_wrong_option_of_pretraining_is_one_sentence(argv, message, photos, tmp_path):
    run = run_here("pretrain", *OPTIONS, "--data_dir", photos, "--ckpt_save_dir", tmp_path / "new", *argv)
    assert run.status == 1 or run.status == 2
    assert "Traceback" not in run.err
    assert re.search(message, run.err), run.err
    assert not (tmp_path / "new").exists()


def test_corrupt_image_ends_pretraining_by_name_or_is_replaced(photos, tmp_path):
    shutil.copytree(photos, tmp_path / "photos")
    corrupt = sorted((tmp_path / "photos").rglob("*.png"))[5]
    corrupt.write_bytes(corrupt.read_bytes()[:300])
    argv = [*OPTIONS, "--data_dir", tmp_path / "photos", "--epoch_size", "1", "--warmup_epochs", "0"]
    run = run_here("pretrain", *argv, "--ckpt_save_dir", tmp_path / "first")
    assert run.status != 0 and str(corrupt) in run.err and "Traceback" not in run.err
    argv += ["--skip_corrupt", "True", "--drop_remainder", "True"]
    run = run_here("pretrain", *argv, "--ckpt_save_dir", tmp_path / "second")
    assert run.status == 0 and (tmp_path / "second" / "reconstruction-1.png").exists()
    assert "images left out of each epoch, because they do not fill a step: 2" in run.err


def test_train_refuses_a_masked_autoencoder(photos):
    run = run_here("train", "--model", MODEL, "--data_dir", photos)
    assert run.status != 0 and "pretrain.py trains" in run.err and "Traceback" not in run.err


def test_each_script_refuses_to_resume_a_run_of_the_other(whole, photos, tmp_path):
    run = run_here("train", "--resume", whole, "--data_dir", photos)
    assert run.status == 1 and "Traceback" not in run.err
    assert f"is a run of pretrain.py: resume it with pretrain.py --resume {whole}, or train" in run.err
    run = run_here("pretrain", "--resume", whole / "metrics.csv", "--data_dir", photos)
    assert (
        run.status == 1
        and f"'{whole}/metrics.csv' is no saved run, and there is none beside it: 'metrics{SUFFIX}'" in run.err
    )
    saved = read_snapshot(whole / f"{MODEL}-2_2{SUFFIX}")
    config = {**saved.description.config, "model": "convnextv2_atto"}
    write_snapshot(tmp_path / f"a-2_2{SUFFIX}", replace(saved, description=replace(saved.description, config=config)))
    run = run_here("pretrain", "--resume", tmp_path, "--data_dir", photos)
    assert run.status == 1 and f"is a run of train.py: resume it with train.py --resume {tmp_path}" in run.err


@pytest.mark.parametrize(
    ("option", "value", "before"), [("decoder_embed_dim", 24, 16), ("decoder_depth", 2, 1), ("mask_patch_size", 64, 32)]
)
def test_pretrain_refuses_to_resume_with_another_decoder_before_it_builds_one(
    whole, photos, monkeypatch, option, value, before
):
    monkeypatch.setattr("mindcv.recipe_pretraining.create_model", None)
    run = run_here("pretrain", "--resume", whole, "--data_dir", photos, "--image_resize", 128, f"--{option}", value)
    assert run.status == 1 and run.err == (
        f"error: the saved run '{whole}/{MODEL}-2_2{SUFFIX}' has other weights: {option} is {before} there "
        f"and {value} here; leave this option out, or begin a new run in another --ckpt_save_dir\n"
    )


def test_create_model_loads_a_checkpoint_of_pretraining(whole, tmp_path):
    path = whole / f"{MODEL}-2_2.ckpt"
    network = create_model(MODEL, checkpoint_path=str(path), img_size=64, decoder_embed_dim=16)
    arrays, _ = read_ckpt(path)
    assert {parameter.name for parameter in network.get_parameters()} == arrays.keys()
    for parameter in network.get_parameters():
        np.testing.assert_array_equal(parameter.asnumpy(), arrays[parameter.name], err_msg=parameter.name)
    with pytest.raises(CheckpointError, match="does not fit the masked autoencoder: .* misshaped: mask_token has the"):
        create_model(MODEL, checkpoint_path=str(path), img_size=64, decoder_embed_dim=24)


@pytest.mark.parametrize("place", [f"{MODEL}-2_2.ckpt", ""], ids=["file", "folder"])
def test_training_starts_from_a_pretrained_encoder(whole, place):
    path = whole / f"{MODEL}-2_2.ckpt"
    config = parse_args(["--model", "convnextv2_atto", "--pretrained_encoder", str(whole / place)], TrainConfig)
    found = {p.name: p.asnumpy() for p in build_model(config, 3, with_weights=True).get_parameters()}
    arrays, _ = read_ckpt(path)
    encoder = {name.removeprefix("encoder."): array for name, array in arrays.items() if name.startswith("encoder.")}
    assert found.keys() - encoder.keys() == {"norm.gamma", "norm.beta", "classifier.weight", "classifier.bias"}
    for name, array in encoder.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    assert (found["norm.gamma"] == 1).all() and found["classifier.weight"].std() > 0


def test_training_refuses_the_encoder_of_another_model_and_a_second_source_of_weights(whole):
    path = str(whole / f"{MODEL}-2_2.ckpt")
    config = parse_args(["--model", "convnextv2_pico", "--pretrained_encoder", path], TrainConfig)
    with pytest.raises(CheckpointError, match="is the encoder of convnextv2_atto, and the model is convnextv2_pico"):
        build_model(config, 3, with_weights=True)
    with pytest.raises(ConfigError, match="pretrained_encoder: give either pretrained_encoder or pretrained"):
        parse_args(["--model", "convnextv2_atto", "--pretrained_encoder", path, "--pretrained", "True"], TrainConfig)


def test_newest_checkpoint_is_that_of_the_last_epoch(tmp_path):
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        newest_checkpoint(tmp_path)
    for name in ("a-9_3.ckpt", "a-10_1.ckpt", "a-10_2.ckpt", "a_best.ckpt"):
        (tmp_path / name).touch()
    assert newest_checkpoint(tmp_path).name == "a-10_2.ckpt"
    (tmp_path / "b-1_1.ckpt").touch()
    with pytest.raises(CheckpointError, match="holds checkpoints of a and b"):
        newest_checkpoint(tmp_path)


def test_split_patches_orders_values_by_row_column_and_channel():
    images = np.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    patches = split_patches(images, 2)
    assert patches.shape == (2, 6, 12)
    np.testing.assert_array_equal(patches[1, 4].reshape(2, 2, 3), images[1, :, 2:4, 2:4].transpose(1, 2, 0))
    np.testing.assert_array_equal(join_patches(patches, images.shape), images)


def test_picture_shows_the_image_the_visible_patches_and_the_prediction(tmp_path):
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (1, 3, 128, 128)).astype(np.float32)
    mean, std = [120.0, 110.0, 100.0], [60.0, 50.0, 40.0]
    images = (pixels - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    masks = random_mask(1, 4, 0.6, 0)
    predicted = split_patches(images, 64).astype(np.float32)
    draw_reconstructions(images, masks, predicted, mean, std, False, tmp_path / "a.png")
    sheet = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    tiles = [sheet[22:150, 4 + 132 * i : 132 + 132 * i] for i in range(4)]
    original = pixels[0].transpose(1, 2, 0)
    for tile in (tiles[0], tiles[2], tiles[3]):  # the prediction is the image itself
        np.testing.assert_array_equal(tile, original)
    removed = np.kron(masks.reshape(2, 2), np.ones((64, 64))) > 0
    assert (tiles[1][removed] == 128).all()
    np.testing.assert_array_equal(tiles[1][~removed], original[~removed])


def test_picture_takes_mean_and_deviation_of_normalised_patches_from_the_image(tmp_path):
    rng = np.random.default_rng(2)
    images = rng.standard_normal((1, 1, 128, 128)).astype(np.float32)
    patches = split_patches(images, 64)
    normalised = (patches - patches.mean(-1, keepdims=True)) / np.sqrt(patches.var(-1, ddof=1, keepdims=True) + 1e-6)
    draw_reconstructions(images, np.ones((1, 4), np.float32), normalised, [128], [40], True, tmp_path / "a.png")
    sheet = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    difference = np.abs(sheet[22:150, 4:132] - sheet[22:150, 4 + 264 : 132 + 264])
    assert difference.max() <= 1
