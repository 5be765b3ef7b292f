"""Tests of the checks of a run's data before the run begins, and of their messages."""

from __future__ import annotations

import logging
import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mindcv.config import TrainConfig, ValidateConfig, parse_args
from mindcv.data.loader import _log_clamped_workers
from mindcv.data.pixel_batches import PixelBatch
from mindcv.engine.progress import RunProgress
from mindcv.engine.snapshot import Snapshot
from mindcv.recipe import build_evaluation_loader, build_training_loader, checkpoint_metadata
from mindcv.recipe_data import (
    _say_once,
    counted_classes,
    find_class_numbers,
    hands_over_pixels,
    holdout_digest,
    open_dataset,
)
from mindcv.resume import check_classes, run_description
from mindcv.utils.distributed import Group
from mindcv.utils.errors import ConfigError, DataError, UserError
from mindcv.utils.logger import logger


@pytest.fixture
def log(caplog):
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, "mindcv"):
        yield lambda: [record.getMessage() for record in caplog.records]
    logger.removeHandler(caplog.handler)


@pytest.fixture
def root(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (30, 40), np.uint8)
    for split, counts in {"train": {"cat": 10, "dog": 6}, "val": {"cat": 2, "dog": 3}}.items():
        for name, count in counts.items():
            (tmp_path / split / name).mkdir(parents=True)
            for number in range(count):
                Image.fromarray(noise).save(tmp_path / split / name / f"{number}.jpg")
    return tmp_path


def train_config(root, *argv):
    small = ["--model", "convnext_atto", "--image_resize", "32", "--batch_size", "4", "--num_parallel_workers", "1"]
    return parse_args([*small, "--data_dir", str(root), *argv], TrainConfig)


def validate_config(root, *argv):
    return parse_args(["--ckpt_path", "x.ckpt", "--image_resize", "32", "--data_dir", str(root), *argv], ValidateConfig)


def paths(dataset):
    return {dataset.describe(index) for index in range(len(dataset))}


# Training images that are held out for validation


def test_val_fraction_trains_and_validates_on_different_images(root, log):
    config = train_config(root, "--val_fraction", "0.25", "--val_while_train", "--seed", "5")
    train, _ = build_training_loader(config, Group())
    val, loader = build_evaluation_loader(config, Group(), train.class_to_idx)
    assert len(val) == 5 and len(train) == 11 and not paths(train) & paths(val)
    assert sum(len(labels) for _, labels in loader.batches()) == 5
    told = f"5 of the 16 images in '{root}/train' are held out of training for validation (val_fraction 0.25, seed 5)"
    assert log().count(told) == 1


def test_validate_uses_the_images_that_training_held_out(root, log):
    config = train_config(root / "train", "--train_split", "", "--val_fraction", "0.25", "--seed", "5")
    train, _ = build_training_loader(config, Group())
    metadata = checkpoint_metadata(config, train)
    digest = metadata["held_out"]["digest"]

    def images(*argv):
        completed = validate_config(root / "train", *argv).completed(metadata["options"])
        return paths(build_evaluation_loader(completed, Group(), train.class_to_idx, digest)[0])

    every = {str(path) for path in (root / "train").rglob("*.jpg")}
    assert images() == every - paths(train)
    assert not any("other images are held out now" in line for line in log())
    # Another split on the command line is what is meant; so is another seed, with a warning.
    other = validate_config(root, "--val_split", "val").completed(metadata["options"])
    assert len(build_evaluation_loader(other, Group(), train.class_to_idx)[0]) == 5
    assert images("--seed", "6") != images()
    assert any("other images are held out now than in training" in line for line in log())


def test_validate_uses_a_folder_for_validation_where_the_training_images_are_not(root, log):
    """The checkpoint was trained on one folder and is measured on a data set with splits."""
    metadata = {"model": "convnext_atto", "val_fraction": 0.25, "seed": 5, "train_split": ""}
    for class_to_idx in ({"cat": 0, "dog": 1}, {"cat": 0, "dog": 1, "train": 2, "val": 3}):
        config = validate_config(root).completed(metadata)
        dataset, _ = build_evaluation_loader(config, Group(), class_to_idx, recorded_digest="of other images")
        assert paths(dataset) == {str(path) for path in (root / "val").rglob("*.jpg")}
        assert log()[-1 - (len(class_to_idx) > 2)].endswith(f"not in '{root}': validation uses its folder 'val'")
    with pytest.raises(DataError, match="training held out val_fraction 0.25 of them: give another folder"):
        config = validate_config(root, "--train_split", "gone").completed({**metadata, "val_split": "none"})
        build_evaluation_loader(config, Group(), {"cat": 0, "dog": 1}, "")


def test_val_fraction_warns_of_classes_with_one_image(root, log):
    Image.new("RGB", (9, 9)).save(root / "train" / "emu.png")
    (root / "train" / "emu").mkdir()
    (root / "train" / "emu.png").rename(root / "train" / "emu" / "0.png")
    config = train_config(root, "--val_fraction", "0.25")
    train, _ = build_training_loader(config, Group())
    build_evaluation_loader(config, Group(), train.class_to_idx)
    (line,) = [line for line in log() if "held out" in line]
    assert line.startswith("5 of the 17 images") and line.endswith(
        "but none of class(es) 'emu', which have one image each"
    )


def test_metadata_holds_no_val_fraction_when_no_images_are_held_out(root):
    config = train_config(root)
    train, _ = build_training_loader(config, Group())
    metadata = checkpoint_metadata(config, train)
    assert "held_out" not in metadata and not {"val_fraction", "seed"} & set(metadata["options"])
    assert holdout_digest(train) == ""


def test_val_fraction_and_val_split_exclude_each_other_on_the_command_line(root):
    with pytest.raises(ConfigError, match="val_fraction: holds out training images .* val_split has no use"):
        train_config(root, "--val_fraction", "0.1", "--val_split", "val")


# Images and classes that validation uses


@pytest.mark.parametrize("splits", [["", ""], ["train", "train"], ["train", "./train/"]])
def test_training_warns_when_it_validates_on_the_training_images(root, log, splits):
    folder = root if splits[0] else root / "train"
    argv = ["--train_split", splits[0], "--val_split", splits[1]]
    build_training_loader(train_config(folder, *argv, "--val_while_train"), Group())
    assert any("validation uses the training images" in line and "--val_fraction 0.1" in line for line in log())


def test_training_does_not_warn_when_it_validates_on_other_images(root, log):
    held_out = ["--train_split", "val", "--val_while_train", "--val_fraction", "0.1", "--drop_remainder", "False"]
    for argv in (["--val_while_train"], ["--val_split", "train"], held_out):
        build_training_loader(train_config(root, *argv), Group())
    assert not any("validation uses the training images" in line for line in log())


def test_validation_warns_of_classes_without_images(root, log):
    (root / "val" / "dog").rename(root / "dog")
    train, _ = build_training_loader(train_config(root), Group())
    build_evaluation_loader(train_config(root), Group(), train.class_to_idx)
    assert "class(es) with training images but no validation images: 'dog'" in log()
    build_evaluation_loader(validate_config(root), Group(), train.class_to_idx)
    assert "the images are of 1 of the checkpoint's 2 classes, and none is of 'dog'" in log()[-1]
    with pytest.raises(UserError, match="restrict_classes needs images of two classes or more, and all are of 'cat'"):
        config = validate_config(root, "--restrict_classes")
        counted_classes(config, build_evaluation_loader(config, Group(), train.class_to_idx)[0])


def test_training_without_a_folder_for_validation_says_what_to_do(root):
    (root / "val").rename(root / "holdout")
    with pytest.raises(
        DataError, match="has no folder 'val'.*--val_split.*--val_fraction 0.1.*--val_while_train False"
    ):
        build_evaluation_loader(train_config(root), Group(), {"cat": 0, "dog": 1})


def test_data_folder_without_splits_is_refused_with_the_option_to_give(root):
    flat = root / "train"
    train, validate, advice = (
        train_config(flat),
        validate_config(flat),
        "class folders are in '{}' itself, give --{} ''$",
    )
    with pytest.raises(DataError, match=advice.format(flat, "train_split")):
        build_training_loader(train, Group())
    with pytest.raises(DataError, match=advice.format(flat, "val_split")):
        build_evaluation_loader(validate, Group(), {"cat": 0, "dog": 1})


# Folders that are not classes


@pytest.mark.parametrize(
    ("folder", "split", "message"),
    [
        (".", "", r"'.*/d/\.' holds the folder\(s\) 'images', and a classifier needs two .*"
                  r"'.*images/train' has the folders 'cat', 'dog': try --data_dir .*images --train_split train"),
        ("images", "", r"'train', 'val', which are splits and not classes.*--data_dir .*images --train_split train"),
        ("images/train/cat", "", "has no class folders"),
    ],
)  # fmt: skip
def test_data_folders_that_are_not_classes_are_refused(root, folder, split, message):
    (root / "d" / "images").mkdir(parents=True)
    for name in ("train", "val"):
        (root / name).rename(root / "d" / "images" / name)
    with pytest.raises(DataError, match=message):
        build_training_loader(train_config(os.path.join(root / "d", folder), "--train_split", split), Group())


def test_data_folder_with_a_single_class_is_refused(root):
    (root / "train" / "dog").rename(root / "dog")
    with pytest.raises(DataError, match="needs two classes or more; there are no other folders of classes below it"):
        build_training_loader(train_config(root), Group())
    # ... but not of images to measure a network of several classes with.
    assert len(build_evaluation_loader(validate_config(root, "--val_split", "train"), Group(), {"cat": 0, "x": 1})[0])


def test_data_dir_that_is_a_file_is_refused(root):
    with pytest.raises(DataError, match="0.jpg' is a file, but the data set needs a folder"):
        build_training_loader(train_config(root / "train" / "cat" / "0.jpg"), Group())


# Checkpoints of other classes than the images


def imagenet_config(root, *argv):
    return validate_config(root, *argv).completed({"model": "convnext_atto", "num_classes": 1000})


def test_class_folders_of_some_imagenet_classes_keep_their_labels(root, log):
    (root / "val" / "cat").rename(root / "val" / "n02123045")
    (root / "val" / "dog").rename(root / "val" / "golden_retriever")
    for argv, told in (
        (["--restrict_classes"], "among these 2 only"),
        ([], "--restrict_classes True restricts them to"),
    ):
        config = imagenet_config(root, *argv)
        dataset, _ = build_evaluation_loader(config, Group(), find_class_numbers(config, {}))
        assert dataset.num_classes() == 1000 and np.bincount(dataset.labels)[[281, 207]].tolist() == [2, 3]
        assert any("2 of the checkpoint's 1000 classes" in line and told in line for line in log())
    assert counted_classes(config, dataset) is None
    assert counted_classes(imagenet_config(root, "--restrict_classes"), dataset).tolist() == [207, 281]


def test_class_folders_named_by_numbers_are_labels_of_imagenet(root, log):
    (root / "val" / "cat").rename(root / "val" / "10")
    (root / "val" / "dog").rename(root / "val" / "9")
    config = imagenet_config(root)
    dataset, _ = build_evaluation_loader(config, Group(), find_class_numbers(config, {}))
    assert np.bincount(dataset.labels)[[9, 10]].tolist() == [3, 2] and dataset.class_names[9:12] == [
        "9",
        "10",
        "n01531178",
    ]
    assert find_class_numbers(imagenet_config(root, "--class_names_file", ""), {"class_to_idx": {"a": 0}}) == {"a": 0}


def test_class_folders_that_are_no_imagenet_classes_are_refused(root):
    config = imagenet_config(root)
    assert find_class_numbers(config, {}) is None, "'cat' and 'dog' are no classes of ImageNet-1k"
    with pytest.raises(DataError, match="1000 classes without names.*has 2 classes: 'cat', 'dog'.*--class_names_file"):
        build_evaluation_loader(config, Group(), None)
    (root / "val" / "cat").rename(root / "val" / "tabby")
    with pytest.raises(DataError, match="1 class folder.* none of the checkpoint's 1000 classes: 'dog'"):
        build_evaluation_loader(config, Group(), find_class_numbers(config, {}))


def test_class_names_come_from_the_file_before_the_checkpoint(root, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("emu\ndog\ncat\n\n", encoding="utf-8")
    config = validate_config(root, "--class_names_file", str(names))
    assert find_class_numbers(config, {"class_to_idx": {"cat": 0}}) == {"emu": 0, "dog": 1, "cat": 2}
    assert find_class_numbers(validate_config(root), {"class_to_idx": {"cat": 0}}) == {"cat": 0}
    with pytest.raises(UserError, match="names.txt' has 3 class names for the model's 5 classes"):
        find_class_numbers(config.completed({"model": "convnext_atto", "num_classes": 5}), {})
    with pytest.raises(UserError, match="names.txt' holds the model's class names in another order"):
        find_class_numbers(config, {"class_to_idx": {"cat": 0, "dog": 1, "emu": 2}})
    names.write_text("dog\ndog\n", encoding="utf-8")
    with pytest.raises(UserError, match="repeats the name.* 'dog'"):
        find_class_numbers(config, {})


# Workers


@pytest.mark.parametrize("given", [[], ["--num_parallel_workers", "8"]])
def test_loader_warns_of_more_workers_than_cores_only_when_the_number_is_given(root, log, monkeypatch, given):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    _log_clamped_workers.cache_clear()
    small = ["--model", "convnext_atto", "--image_resize", "32", "--batch_size", "4", "--data_dir", str(root)]
    config = parse_args([*small, *given], TrainConfig)
    for loader in (build_training_loader(config, Group())[1], build_evaluation_loader(config, Group())[1]):
        assert loader.num_parallel_workers == 2
    told = ["num_parallel_workers=8 is more than the 2 cores of this machine; 2 are used"]
    assert [line for line in log() if "num_parallel_workers" in line] == (told if given else [])


# Pixels that the device normalises


@pytest.mark.parametrize(
    ("on_cpu", "same_bits", "argv", "expected"),
    [
        (False, True, [], True),
        (True, True, [], False),
        (False, True, ["--dataset_sink_mode", "False"], False),
        (False, False, [], False),
    ],
)
def test_pixels_are_handed_over_to_a_device_with_the_bits_of_the_host(
    root, log, monkeypatch, on_cpu, same_bits, argv, expected
):
    _say_once.cache_clear()
    monkeypatch.setattr("mindcv.recipe_data.runs_on_cpu", lambda: on_cpu)
    monkeypatch.setattr("mindcv.recipe_data.gives_host_bits", lambda mean, std: same_bits)
    assert hands_over_pixels(train_config(root, *argv)) is expected
    assert log() == ([] if same_bits else ["the host normalises the images, because this device rounds in another way"])


def test_training_loader_makes_pixels_unless_images_have_several_versions(root):
    for argv, has_pixels in ([[], True], [["--aug_splits", "2", "--auto_augment", "rand-m9", "--loss", "JSD"], False]):
        _, loader = build_training_loader(train_config(root, *argv), Group(), as_pixels=True)
        assert isinstance(next(iter(loader.batches())), PixelBatch) is has_pixels


# A resumed run


def test_check_classes_warns_when_the_number_of_training_images_changed(root, log):
    config = train_config(root)
    dataset, _ = build_training_loader(config, Group())
    description = run_description(config, dataset, started=0.0)
    snapshot = Snapshot({}, description, RunProgress(1, 2, 4))
    of_version_0_1_0 = replace(snapshot, description=replace(description, num_images=None))
    (root / "train" / "cat" / "0.jpg").unlink()
    fewer, _ = build_training_loader(config, Group())
    before = len(log())
    check_classes(snapshot, dataset)
    check_classes(of_version_0_1_0, fewer)
    assert len(log()) == before
    check_classes(snapshot, fewer)
    assert log()[before:] == [
        "the training data had 16 images, and has 15 now: the resumed run will not be bit-identical to the original one"
    ]


# Images that cannot be read


def damage(root):
    (root / "val" / "cat" / "1.jpg").write_bytes(b"")
    truncated = root / "val" / "dog" / "0.jpg"
    truncated.write_bytes(truncated.read_bytes()[:-200])


def test_validation_refuses_unreadable_images_before_it_begins(root):
    damage(root)
    for level, count, names in (("header", 1, "cat/1.jpg': the file is empty"), ("full", 2, "cat/1.jpg.*dog/0.jpg")):
        with pytest.raises(DataError, match=f"{count} of the 5 validation images cannot be read: .*{names}"):
            build_evaluation_loader(train_config(root, "--check_val_images", level), Group())
    build_evaluation_loader(train_config(root, "--check_val_images", "off"), Group())


def test_validation_leaves_out_unreadable_images_when_skip_corrupt(root, log):
    damage(root)
    dataset, loader = build_evaluation_loader(validate_config(root, "--skip_corrupt"), Group())
    assert len(dataset) == 3 and sum(len(labels) for _, labels in loader.batches()) == 3
    assert dataset.num_left_out == 2
    assert any("2 of the 5 validation images cannot be read" in line and "leaves them out" in line for line in log())


# The folder of Fashion-MNIST


def opened_root(monkeypatch, config):
    """Return the folder that `open_dataset` gives to `create_dataset`."""
    roots = []
    monkeypatch.setattr("mindcv.recipe_data.create_dataset", lambda name, root, *args, **options: roots.append(root))
    open_dataset(config, Group(), "val_split")
    return roots[0]


def test_open_dataset_leaves_the_folder_of_fashion_mnist_to_its_default(monkeypatch, tmp_path):
    argv = ["--model", "convnext_atto", "--dataset", "fashion_mnist"]
    assert opened_root(monkeypatch, parse_args(argv, TrainConfig)) is None
    assert opened_root(monkeypatch, parse_args([*argv, "--data_dir", str(tmp_path)], TrainConfig)) == str(tmp_path)
    assert opened_root(monkeypatch, parse_args([*argv, "--data_dir", "./"], TrainConfig)) == "./"
    resumed = parse_args([*argv, "--resume", "auto"], TrainConfig)
    assert opened_root(monkeypatch, resumed.completed({"data_dir": "./"})) is None
    assert opened_root(monkeypatch, resumed.completed({"data_dir": "mine"})) == "mine"
    assert opened_root(monkeypatch, parse_args([*argv[:3], "mnist"], TrainConfig)) == "./"
