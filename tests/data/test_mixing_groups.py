"""The batches of several ranks are compared with the batches of one process, with mixing on."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from mindcv.data import create_dataset, create_loader, create_transforms
from mindcv.data.constants import Purpose
from mindcv.data.mixup import Mixup
from mindcv.utils.errors import DataError, UserError
from mindcv.utils.random import stream

MIXING = {"mixup": 0.8, "cutmix": 1.0, "cutmix_prob": 0.8}


def loader_of(batch_size, rank=0, num_ranks=1, *, num_samples=42, repeats=0, **options):
    dataset = create_dataset(
        "digits", num_samples=num_samples, seed=3, num_shards=num_ranks, shard_id=rank, num_aug_repeats=repeats
    )
    transform = create_transforms("digits", 8, True, in_channels=1, re_prob=0.5, re_value="pixel")
    options = {"num_parallel_workers": 1, **MIXING, **options}
    return create_loader(dataset, batch_size, is_training=True, num_classes=10, transform=transform, **options)


def joined(batches):
    return tuple(np.concatenate(arrays) for arrays in zip(*batches))


def steps_of_one(batch_size, accumulation, start=0, **options):
    """Return the images and labels of each step of one process that accumulates batches."""
    batches = list(loader_of(batch_size, **options).batches(1, start * accumulation))
    return [joined(batches[i : i + accumulation]) for i in range(0, len(batches), accumulation)]


def steps_of_ranks(batch_size, num_ranks, start=0, **options):
    """Return the images and labels of each step of several ranks, one rank after the other."""
    ranks = [list(loader_of(batch_size, rank, num_ranks, **options).batches(1, start)) for rank in range(num_ranks)]
    assert len(set(map(len, ranks))) == 1
    return [joined(batches) for batches in zip(*ranks)]


def assert_same(steps, expected):
    assert len(steps) == len(expected) > 0
    for step, other in zip(steps, expected):
        for array, wanted in zip(step, other):
            assert array.dtype == wanted.dtype
            np.testing.assert_array_equal(array, wanted)


def is_mixed(steps):
    return any((labels % 1).any() for _, labels in steps)


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("group_size", [None, 4, 1])
def test_ranks_give_the_steps_of_one_process_that_accumulates(num_ranks, mode, group_size):
    """42 images are equal numbers for all ranks, and the last step divides groups between the ranks."""
    options = {"mixup_mode": mode, "mixup_group_size": group_size}
    expected = steps_of_one(8, num_ranks, **options)
    assert_same(steps_of_ranks(8, num_ranks, **options), expected)
    assert is_mixed(expected) == (group_size != 1)


@pytest.mark.parametrize("options", [{"cutmix_minmax": (0.2, 0.8)}, {"repeats": 3}, {"mixup_off_epoch": 1}])
def test_ranks_give_the_steps_of_one_process_with_other_options(options):
    for num_ranks in (2, 3):
        assert_same(steps_of_ranks(8, num_ranks, **options), steps_of_one(8, num_ranks, **options))


@pytest.mark.parametrize("num_ranks", [2, 3])
@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_ranks_give_the_batches_of_one_process_with_their_groups(num_ranks, mode):
    expected = steps_of_one(6 * num_ranks, 1, mixup_mode=mode, mixup_group_size=6)
    assert_same(steps_of_ranks(6, num_ranks, mixup_mode=mode), expected)
    assert is_mixed(expected)
    whole = steps_of_one(6 * num_ranks, 1, mixup_mode=mode)
    assert not np.array_equal(whole[0][0], expected[0][0]), "without groups, one process mixes other images"


def test_ranks_and_accumulation_together_give_the_steps_of_one_process():
    """Two ranks accumulate two batches of 4 in a step."""
    ranks = [list(loader_of(4, rank, 2).batches(1)) for rank in range(2)]
    expected = steps_of_one(16, 1, mixup_group_size=4)
    for number, step in enumerate(expected):
        batches = [batch for pair in zip(*(rank[2 * number : 2 * number + 2] for rank in ranks)) for batch in pair]
        assert_same([joined(batches)], [step])


@pytest.mark.parametrize("start", [1, 2])
@pytest.mark.parametrize("workers", [(1, False), (2, False), (2, True)])
def test_ranks_continue_an_epoch_with_the_bits_of_one_process(start, workers):
    options = dict(zip(("num_parallel_workers", "python_multiprocessing"), workers))
    expected = steps_of_one(8, 2)[start:]
    assert_same(steps_of_ranks(8, 2, start=start, **options), expected)
    assert_same(steps_of_one(8, 2, start=start), expected)


def test_ranks_pad_the_last_step_with_the_first_images_of_the_epoch():
    """41 images are 42 for two ranks. The copy has another augmentation. All other images are those of one process."""
    plain = {"mixup": 0, "cutmix": 0, "num_samples": 41}
    (images, labels), (expected, own) = (
        steps[-1] for steps in (steps_of_ranks(8, 2, **plain), steps_of_one(8, 2, **plain))
    )
    assert len(labels) == 10 and len(own) == 9
    np.testing.assert_array_equal(images[:9], expected)
    assert labels[9] == steps_of_one(8, 2, **plain)[0][1][0]
    mixed = steps_of_ranks(8, 2, num_samples=41)
    assert Counter(len(labels) for _, labels in mixed) == {16: 2, 10: 1}
    assert_same(mixed[:2], steps_of_one(8, 2, num_samples=41)[:2])


@pytest.mark.parametrize("num_samples", [47, 48, 50])
def test_ranks_leave_out_the_images_that_one_process_leaves_out(num_samples):
    options = {"num_samples": num_samples, "drop_remainder": True}
    expected = steps_of_one(12, 1, mixup_group_size=4, **options)
    assert len(expected) == num_samples // 12
    assert_same(steps_of_ranks(4, 3, **options), expected)


def test_loader_refuses_a_step_that_ranks_fill_only_with_copies():
    with pytest.raises(DataError, match=r"3 samples on this rank cannot fill one batch of 4, .*--batch_size 3 or"):
        loader_of(4, 1, 3, num_samples=11, drop_remainder=True)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_loader_mixes_each_group_by_its_number_in_the_epoch(mode):
    plain, mixed = (list(loader_of(8, **options).batches(1)) for options in ({"mixup": 0, "cutmix": 0}, {}))
    images, labels = joined(plain)
    mixed = joined(loader_of(8, mixup_group_size=4, mixup_mode=mode).batches(1))
    mixup = Mixup(0.8, 1.0, prob=0.8, num_classes=10, mode=mode)
    for number in range(11):
        group = slice(4 * number, 4 * number + 4)
        wanted = mixup(images[group], labels[group], stream(3, Purpose.MIX, 1, number, 0), 1)
        for array, expected in zip(mixed, wanted):
            np.testing.assert_array_equal(array[group], expected)


def test_loader_mixes_groups_and_ranks_differently():
    labels = joined(loader_of(8, mixup_group_size=4, cutmix=0, cutmix_prob=1).batches())[1]
    ratios = [own[own > 0].min() for own in (labels[i : i + 4] for i in range(0, 40, 4))]
    assert len(set(ratios)) == 10
    ranks = [next(loader_of(8, rank, 2, cutmix=0, cutmix_prob=1).batches())[1] for rank in range(2)]
    assert len({own[own > 0].min() for own in ranks}) == 2


@pytest.mark.parametrize("group_size", [3, 5, 16])
def test_create_loader_refuses_a_group_size_that_does_not_divide_the_batch(group_size):
    expected = (
        f"^mixup_group_size must divide batch_size, which is 8, got {group_size}: images are mixed within one batch"
    )
    with pytest.raises(UserError, match=expected):
        loader_of(8, mixup_group_size=group_size)
