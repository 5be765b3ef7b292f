"""Tests of wrong arguments of data sets, transforms and loaders: one sentence names the argument and the value."""

import re

import pytest

from mindcv.data import ImageDataset, create_dataset, create_loader, create_transforms
from mindcv.data.mixup import Mixup
from mindcv.data.transforms import ColorJitter, Normalize
from mindcv.utils.errors import UserError

NAN = float("nan")


def refused(sentence):
    return pytest.raises(UserError, match=f"^{re.escape(sentence)}[^\n]*$")


@pytest.fixture(scope="module")
def dataset():
    return create_dataset("digits")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"name": None}, "dataset must be one of the strings 'cifar10', 'cifar100', 'digits', "),
        ({"split": None}, "split must be a string, got None"),
        ({"name": "folder", "root": 3}, "root must be a path (a string or a pathlib.Path), got 3"),
        ({"shuffle": "False"}, "shuffle must be True or False, got 'False'"),
        ({"download": "no"}, "download must be True or False, got 'no'"),
        (
            {"num_samples": 2.5},
            "num_samples must be a whole number of at least 1 and at most 1438, the size of the data set, got 2.5",
        ),
        (
            {"num_samples": "10"},
            "num_samples must be a whole number of at least 1 and at most 1438, the size of the data set, got '10'",
        ),
        ({"num_shards": "2", "shard_id": 0}, "num_shards must be a whole number of at least 1, got '2'"),
        (
            {"num_shards": 2, "shard_id": 0.5},
            "shard_id must be a whole number of at least 0 and at most 1 (num_shards - 1), got 0.5",
        ),
        ({"num_parallel_workers": "8"}, "num_parallel_workers must be a whole number of at least 0, got '8'"),
        ({"num_aug_repeats": 1.5}, "num_aug_repeats must be a whole number of at least 0, got 1.5"),
        ({"seed": None}, "seed must be a whole number of at least 0, got None"),
        ({"class_indexing": ["a"]}, "class_indexing must be a dictionary of class names and their labels, got ['a']"),
        ({"val_fraction": "0.1"}, "val_fraction must be a number of at least 0 and below 1, got '0.1'"),
        ({"val_fraction": NAN}, "val_fraction must be a number of at least 0 and below 1, got nan"),
    ],
)
def test_create_dataset_names_a_wrong_argument(wrong, sentence):
    with refused(sentence):
        create_dataset(**{"name": "digits", **wrong})


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"dataset_name": None}, "dataset must be one of the strings 'cifar10', "),
        ({"image_resize": "224"}, "image_resize must be a whole number of at least 1, got '224'"),
        ({"image_resize": 224.0}, "image_resize must be a whole number of at least 1, got 224.0"),
        ({"is_training": "False"}, "is_training must be True or False, got 'False'"),
        ({"auto_augment": 3}, "auto_augment must be a string, got 3"),
        ({"crop_pct": "0.9"}, "crop_pct must be a number above 0 and at most 1, got '0.9'"),
        ({"mean": 127}, "mean must be a list of numbers, got 127"),
        ({"mean": [NAN, 1, 1]}, "mean must be a list of numbers, got [nan, 1, 1]"),
        ({"std": [1, 1, 0]}, "std must be a list of numbers, each above 0, got [1, 1, 0]"),
        ({"interpolation": 3}, "interpolation must be one of the strings 'bicubic', "),
        ({"in_channels": "3"}, "in_channels must be 3 (colour) or 1 (grey), got '3'"),
        (
            {"is_training": True, "hflip": "a"},
            "prob of RandomHorizontalFlip must be a number of at least 0 and at most 1, got 'a'",
        ),
        ({"is_training": True, "scale": 0.5}, "scale must be two numbers, 0 < low <= high <= 1, got 0.5"),
        ({"is_training": True, "ratio": ("a", "b")}, "ratio must be two numbers, 0 < low <= high, got ('a', 'b')"),
        (
            {"is_training": True, "color_jitter": "a"},
            "color_jitter must be one number or a list of 3 or 4 numbers, got 'a'",
        ),
        (
            {"is_training": True, "re_prob": 0.5, "re_count": 1.5},
            "count of random erasing must be a whole number",
        ),
    ],
)
def test_create_transforms_names_a_wrong_argument(wrong, sentence):
    with refused(sentence):
        create_transforms(**wrong)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1, got 2.5"),
        ({"batch_size": "8"}, "batch_size must be a whole number of at least 1, got '8'"),
        ({"batch_size": -8}, "batch_size must be a whole number of at least 1, got -8"),
        ({"num_classes": None}, "num_classes must be a whole number of at least 1, got None"),
        ({"drop_remainder": "False"}, "drop_remainder must be True or False, got 'False'"),
        ({"mixup": "0.2"}, "mixup must be a number of at least 0, got '0.2'"),
        ({"cutmix": NAN}, "cutmix must be a number of at least 0, got nan"),
        ({"transform": 3}, "transform must be a function of one image or label, or a list of such functions, got 3"),
        (
            {"target_transform": ["a"]},
            "target_transform must be a function of one image or label, or a list of such functions",
        ),
        ({"num_parallel_workers": "2"}, "num_parallel_workers must be a whole number of at least 1, got '2'"),
        ({"num_aug_splits": 2.5}, "num_aug_splits must be a whole number of at least 0, got 2.5"),
    ],
)
def test_create_loader_names_a_wrong_argument(wrong, sentence, dataset):
    with refused(sentence):
        create_loader(dataset, **{"batch_size": 8, **wrong})


@pytest.mark.parametrize("given", [None, "images", {"a": 1}])
def test_create_loader_refuses_an_object_that_is_no_data_set(given):
    with pytest.raises(UserError, match="^the data set.* create_loader accepts a data set of create_dataset[^\n]*$"):
        create_loader(given, 8)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Mixup("a"), "mixup_alpha must be a number, got 'a'"),
        (lambda: Mixup(NAN), "mixup_alpha must be a number, got nan"),
        (
            lambda: Mixup(prob="a"),
            "the probability of mixing (cutmix_prob) must be a number of at least 0 and at most 1, got 'a'",
        ),
        (lambda: Mixup(mode=None), "mixup mode must be one of the strings 'batch', 'elem', 'pair', got None"),
        (lambda: Mixup(num_classes=2.5), "num_classes must be a whole number of at least 1, got 2.5"),
        (
            lambda: Mixup(off_epoch=1.5),
            "the epoch in which mixing ends (off_epoch) must be a whole number",
        ),
        (lambda: Mixup(cutmix_minmax=0.5), "cutmix_minmax must be two numbers, 0 < low <= high <= 1, got 0.5"),
        (lambda: ColorJitter("a"), "color jitter must be at least 0 for brightness, "),
        (lambda: ColorJitter(NAN), "color jitter must be at least 0 for brightness, "),
        (lambda: Normalize([1, 2], 3), "mean and std must be lists of equal length, and std positive, got [1, 2]"),
        (lambda: ImageDataset([], seed="a"), "seed must be a whole number of at least 0, got 'a'"),
    ],
)
def test_classes_of_data_name_a_wrong_argument(call, sentence):
    with refused(sentence):
        call()
