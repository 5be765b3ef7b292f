"""Tests of holding out training images: their choice, their number, and that the choice is equal everywhere."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from mindcv.data import ImageDataset, create_dataset, find_unreadable
from mindcv.data.dataset import ArrayImages
from mindcv.data.holdout import hold_out
from mindcv.utils.distributed import Group
from mindcv.utils.errors import DataError, UserError

COUNTS = {"ant": 1, "bee": 2, "cat": 3, "dog": 10, "eel": 25}


def make(root, counts, order=1):
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for number in range(count)[::order]:
            (root / name / f"{number:02d}.jpg").write_bytes(b"x")
    return root


def paths(dataset, root):
    return [os.path.relpath(dataset.describe(index), root) for index in range(len(dataset))]


def parts(root, split="", **options):
    options = {"val_fraction": 0.1, "seed": 3, **options}
    return [create_dataset("", root, split, is_held_out=is_held_out, **options) for is_held_out in (False, True)]


@pytest.mark.parametrize(
    ("fraction", "held_out"), [(0.1, [0, 1, 1, 1, 3]), (0.3, [0, 1, 1, 3, 8]), (0.99, [0, 1, 2, 9, 24])]
)
def test_hold_out_takes_a_fraction_of_each_class_and_leaves_one_image(tmp_path, fraction, held_out):
    train, val = parts(make(tmp_path / "d", COUNTS), val_fraction=fraction)
    assert np.bincount(val.labels, minlength=5).tolist() == held_out
    assert np.bincount(train.labels, minlength=5).tolist() == [n - k for n, k in zip(COUNTS.values(), held_out)]
    every = paths(create_dataset("", tmp_path / "d", ""), tmp_path / "d")
    assert sorted(paths(train, tmp_path / "d") + paths(val, tmp_path / "d")) == every
    for dataset in (train, val):
        for index in range(len(dataset)):
            label = dataset.read(index)[1]
            assert label == dataset.labels[index] and dataset.class_names[label] in dataset.describe(index)


def test_hold_out_depends_only_on_seed_and_relative_paths(tmp_path):
    here = make(tmp_path / "d" / "train", COUNTS)
    there = make(tmp_path / "elsewhere", COUNTS, order=-1)
    chosen = paths(parts(here)[1], here)
    assert chosen == paths(parts(there)[1], there) == paths(parts(tmp_path / "d", "train")[1], here)
    for rank in range(3):
        assert chosen == paths(parts(here, num_shards=3, shard_id=rank)[1], here)
    assert chosen != paths(parts(here, seed=4)[1], here)


def test_hold_out_keeps_most_images_in_their_part_when_others_are_added(tmp_path):
    root = make(tmp_path / "d", {"cat": 200, "dog": 200})
    before = set(paths(parts(root)[1], root))
    for number in range(200, 220):
        (root / "cat" / f"{number}.jpg").write_bytes(b"x")
    after = set(paths(parts(root)[1], root))
    assert len(after) == len(before) + 2 and len(before - after) <= 4


def test_hold_out_needs_a_class_of_two_images(tmp_path):
    with pytest.raises(
        DataError, match=r"val_fraction 0\.1 cannot hold out images .*, because each class has only one image"
    ):
        parts(make(tmp_path / "single", {"ant": 1, "bee": 1}))


@pytest.mark.parametrize("fraction", [-0.1, 1.0])
def test_hold_out_refuses_a_fraction_out_of_range(tmp_path, fraction):
    with pytest.raises(UserError, match="val_fraction must be a number of at least 0 and below 1"):
        parts(make(tmp_path / "d", COUNTS), val_fraction=fraction)


def test_hold_out_digest_differs_between_splits():
    images = ArrayImages("digits", np.zeros((30, 2, 2), np.uint8), np.arange(30) % 3, ["a", "b", "c"])
    splits = [hold_out(images, fraction, seed) for fraction, seed in ((0.2, 1), (0.2, 1), (0.2, 2), (0.4, 1))]
    digests = [val.digest for _, val in splits]
    assert digests == [train.digest for train, _ in splits]
    assert digests[0] == digests[1] and len(set(digests)) == 3
    assert len(splits[0][1]) == 6 and splits[0][1].describe(0).startswith("digits sample ")


def test_num_samples_chooses_among_the_remaining_images(tmp_path):
    root = make(tmp_path / "d", COUNTS)
    train, val = parts(root)
    few = create_dataset("", root, "", val_fraction=0.1, seed=3, num_samples=20)
    assert len(few) == 20 and not set(paths(few, root)) & set(paths(val, root)) and len(train) == 35


def test_find_unreadable_returns_the_same_in_all_processes(tmp_path, processes):
    root = make(tmp_path / "d", {"cat": 5, "dog": 4})
    noise = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    for path in root.rglob("*.jpg"):
        Image.fromarray(noise).save(path)
    good = (root / "dog" / "00.jpg").read_bytes()
    (root / "cat" / "01.jpg").write_bytes(b"")
    (root / "dog" / "00.jpg").write_bytes(good[:-100])
    (root / "dog" / "03.jpg").unlink()
    (root / "dog" / "03.jpg").symlink_to("gone")

    checked = {0: [], 1: []}

    def find(rank, whole=False):
        dataset = create_dataset("", root, "", num_shards=2, shard_id=rank)
        check = dataset.check
        dataset.check = lambda index: (checked[rank].append(index), check(index))
        return find_unreadable(dataset, Group(rank, 2), whole)

    assert processes.run(find, 2) == [[1, 8], [1, 8]], "headers alone"
    shares = {0: {0, 2, 4, 6, 8}, 1: {1, 3, 5, 7}}
    assert {rank: set(indices) for rank, indices in checked.items()} == shares, "each process checks only its share"
    processes.sent.clear()
    assert processes.run(lambda rank: find(rank, whole=True), 2) == [[1, 5, 8], [1, 5, 8]]


def test_leave_out_removes_samples():
    images = ArrayImages("x", np.zeros((6, 1, 1), np.uint8), np.arange(6), list("abcdef"))
    dataset = ImageDataset(images)
    dataset.leave_out([1, 4])
    dataset.leave_out([0])
    assert dataset.labels.tolist() == [2, 3, 5] and len(dataset) == 3 and dataset.read(2)[1] == 5
