"""Tests that all augmentations together give the same bits, for any worker, start position and process."""

from __future__ import annotations

from collections import Counter

import pytest

from mindcv.data import create_dataset, create_loader, create_transforms

MIXED = {"mixup": 0.8, "cutmix": 1.0, "cutmix_prob": 0.9, "mixup_mode": "elem"}
STACKS = {
    "randaug": ("rand-m9-mstd0.5-inc1", MIXED),
    "autoaug": ("autoaug-mstd0.5", {**MIXED, "mixup_mode": "pair", "cutmix_minmax": (0.2, 0.8)}),
    "trivial": ("trivialaugwide", MIXED),
    "splits": ("augmix-m5", {"separate": True, "num_aug_splits": 3}),
}


def stacked(name, workers=1, processes=False, seed=3, rank=0, num_ranks=1):
    policy, options = STACKS[name]
    dataset = create_dataset("digits", num_samples=44, seed=seed, num_shards=num_ranks, shard_id=rank)
    separate = "separate" in options
    transform = create_transforms(
        "digits", 14, True, policy, separate=separate, in_channels=1, re_prob=0.6, re_value="pixel", re_count=3
    )
    return create_loader(
        dataset,
        8,
        is_training=True,
        num_classes=10,
        transform=transform,
        num_parallel_workers=workers,
        python_multiprocessing=processes,
        **options,
    )


def bits(batches):
    return [(images.tobytes(), labels.tobytes()) for images, labels in batches]


@pytest.mark.parametrize("name", sorted(STACKS))
def test_loader_gives_the_same_bits_for_any_workers(name, started_workers):
    expected = bits(stacked(name).batches(2))
    assert len(expected) == 6 and len(set(expected)) == 6
    for workers, processes in ((1, False), (2, False), (2, True)):
        assert bits(stacked(name, workers, processes).batches(2)) == expected
        assert started_workers[-1] == (workers, processes)
        assert bits(stacked(name, workers, processes).batches(2, start=4)) == expected[4:]
    loader = stacked(name, 2)
    list(loader.batches(0))  # an epoch that was read before has no influence
    assert bits(loader.batches(2, start=1)) == expected[1:]


@pytest.mark.parametrize("name", sorted(STACKS))
def test_loader_gives_other_bits_for_another_seed_epoch_or_rank(name):
    runs = [bits(stacked(name).batches(0)), bits(stacked(name).batches(1)), bits(stacked(name, seed=4).batches(0))]
    assert not set(runs[0]) & set(runs[1]) and not set(runs[0]) & set(runs[2])
    shares = [bits(stacked(name, rank=rank, num_ranks=2).batches(0)) for rank in range(2)]
    assert not set(shares[0]) & set(shares[1])


def read_ranks(num_ranks, augmented, seed=3, epoch=0):
    """Return the images of all ranks in each step, with 3 repeats and 12 images per global step."""
    steps = {}
    for rank in range(num_ranks):
        dataset = create_dataset(
            "digits", num_samples=48, seed=seed, num_shards=num_ranks, shard_id=rank, num_aug_repeats=3
        )
        if (
            augmented
        ):  # noise differs between any two random streams; crops and colours of such small images may be equal
            options = {"auto_augment": "trivialaugwide", "re_prob": 1.0, "re_value": "pixel"}
        else:
            options = {"scale": (1, 1), "ratio": (1, 1), "hflip": 0}
        transform = create_transforms("", 8, True, in_channels=1, **options)
        loader = create_loader(dataset, 12 // num_ranks, is_training=True, num_classes=10, transform=transform)
        for step, (images, _) in enumerate(loader.batches(epoch)):
            steps.setdefault(step, []).extend(image.tobytes() for image in images)
    return steps


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_repeated_samples_are_in_one_step_and_differ(num_ranks):
    untouched, augmented = (read_ranks(num_ranks, is_augmented) for is_augmented in (False, True))
    assert len(untouched) == 4  # 48 images in steps of 12
    for step, images in untouched.items():
        assert set(Counter(images).values()) == {3}, "the three copies of each image are in this step"
        assert len(set(augmented[step])) == 12, "and no two of them have the same augmentation"
    assert len(set(sum(untouched.values(), []))) == 16


def test_repeated_samples_of_all_ranks_equal_those_of_one_process():
    alone = read_ranks(1, True)
    for num_ranks in (2, 3):
        assert {step: sorted(images) for step, images in read_ranks(num_ranks, True).items()} == {
            step: sorted(images) for step, images in alone.items()
        }


def test_repeated_samples_depend_on_seed_and_epoch():
    runs = [read_ranks(2, True), read_ranks(2, True, seed=4), read_ranks(2, True, epoch=1)]
    assert runs[0] == read_ranks(2, True)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        shown = [set(sum(run.values(), [])) for run in (runs[first], runs[second])]
        assert not shown[0] & shown[1]
