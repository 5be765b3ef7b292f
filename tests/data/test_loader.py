"""Tests of the loader: equal bits for any workers, the order of samples, and errors that name the file."""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from itertools import islice

import mindspore.dataset as ds
import numpy as np
import pytest
from PIL import Image

from mindcv.data import create_dataset, create_loader, create_transforms
from mindcv.data.batches import EpochView
from mindcv.data.loader import _log_clamped_workers, _num_workers
from mindcv.data.sampler import epoch_order
from mindcv.data.transform_base import Compose
from mindcv.data.transforms import Decode, RandomResizedCrop, ToArray
from mindcv.utils.errors import DataError, UserError
from mindcv.utils.logger import logger

CLASSES = {"num_classes": 10}
SPLIT = create_transforms("digits", 12, True, "rand-m9-mstd0.5-inc1", separate=True, in_channels=1, re_prob=0.5)


def pixels(array):
    return array.astype(np.float32)[None]


def raw_loader(dataset, batch_size=16, **options):
    """Return a loader of digits without augmentation."""
    return create_loader(dataset, batch_size, **{"transform": pixels, **CLASSES, **options})


def training_loader(workers=1, processes=False, num_shards=1, shard_id=0, repeats=0, seed=3, **options):
    dataset = create_dataset(
        "digits", num_samples=50, seed=seed, num_shards=num_shards, shard_id=shard_id, num_aug_repeats=repeats
    )
    transform = create_transforms("digits", 12, True, "rand-m9-mstd0.5-inc1", in_channels=1, re_prob=0.5)
    mixing = {"mixup": 0.8, "cutmix": 1.0, "cutmix_prob": 1.0}
    options = {"transform": transform, "is_training": True, **mixing, **CLASSES, **options}
    return create_loader(dataset, 8, num_parallel_workers=workers, python_multiprocessing=processes, **options)


def assert_same(batches, others):
    batches, others = list(batches), list(others)
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others):
        for array, expected in zip(batch, other):
            assert array.dtype == expected.dtype
            np.testing.assert_array_equal(array, expected)


@pytest.fixture
def log(caplog):
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, "mindcv"):
        yield caplog
    logger.removeHandler(caplog.handler)


def test_loader_keeps_the_order_in_evaluation():
    dataset = create_dataset("digits", split="val", shuffle=False)
    loader = raw_loader(dataset, 100)
    batches = list(loader.batches())
    assert [len(labels) for _, labels in batches] == [100, 100, 100, 59]
    assert loader.get_dataset_size() == 4 and loader.get_batch_size() == 100 and loader.num_classes() == 10
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches))
    assert images.dtype == np.float32 and labels.dtype == np.int32 and images.shape == (359, 1, 8, 8)
    for i in range(359):
        image, label = dataset.read(i)
        assert label == labels[i] and np.array_equal(image, images[i, 0])


def test_loader_leaves_out_a_smaller_batch_with_drop_remainder():
    dataset = create_dataset("digits", split="val")
    loader = raw_loader(dataset, 100, drop_remainder=True)
    assert [len(labels) for _, labels in loader.batches()] == [100, 100, 100] and loader.get_dataset_size() == 3
    advice = "give --batch_size {} or --drop_remainder False$"
    with pytest.raises(DataError, match="359 samples cannot fill one batch of 360, .*" + advice.format(359)):
        raw_loader(dataset, 360, drop_remainder=True)
    shard = create_dataset("digits", split="val", num_shards=2, shard_id=1)
    with pytest.raises(
        DataError, match="179 samples on this rank cannot fill one batch of 360, .*" + advice.format(179)
    ):
        raw_loader(shard, 360, drop_remainder=True)


def test_loader_gives_the_same_bits_for_any_workers_and_after_rebuilding(started_workers):
    expected = list(training_loader().batches(2))
    kinds = [(1, False), (2, False), (2, True)]
    for workers, processes in kinds:
        assert_same(training_loader(workers, processes).batches(2), expected)
    assert started_workers == [(1, False), *kinds]


@pytest.mark.parametrize("workers, processes", [(1, False), (2, False), (2, True)])
def test_mindspore_iterators_give_the_same_bits_and_continue_with_the_next_epoch(workers, processes, monkeypatch):
    elsewhere, here, make = multiprocessing.Value("i", 0), os.getpid(), EpochView.make

    def counted(*args):
        with elsewhere.get_lock():
            elsewhere.value += os.getpid() != here
        return make(*args)

    monkeypatch.setattr(EpochView, "make", counted)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    loader = training_loader(workers, processes)
    loader.set_epoch(3)
    loader.output_shapes()  # this creates another pipeline, which must not count as an epoch
    iterator = loader.create_tuple_iterator(num_epochs=2, output_numpy=True)
    for epoch in (3, 4):
        assert_same((tuple(batch) for batch in iterator), training_loader().batches(epoch))
    assert (elsewhere.value > 0) == processes


def test_loader_reports_columns_and_sizes_to_mindspore():
    loader = training_loader()
    assert loader.get_col_names() == ["image", "label"] and loader.output_shapes() == [[8, 1, 12, 12], [8, 10]]
    assert loader.get_dataset_size() == 7 and isinstance(loader, ds.GeneratorDataset)


def test_loader_augments_epochs_differently_in_the_same_order():
    dataset = create_dataset("digits", num_samples=8, shuffle=False)
    loader = raw_loader(dataset, 8, transform=[Decode("L"), RandomResizedCrop(6), ToArray()])
    (first, labels), (second, again) = next(loader.batches(0)), next(loader.batches(1))
    assert labels.tolist() == again.tolist() and not np.array_equal(first, second)


def test_loader_orders_epochs_and_seeds_differently():
    loader = training_loader()
    first, second, other = next(loader.batches(0)), next(loader.batches(1)), next(training_loader(seed=4).batches(0))
    assert not np.array_equal(first[0], second[0]) and not np.array_equal(first[0], other[0])


@pytest.mark.parametrize("start", [1, 6, 7])
def test_batches_from_start_equal_the_tail_of_the_epoch(start):
    loader = training_loader(2)
    whole = list(loader.batches(1))
    tail = list(loader.batches(1, start))
    assert len(tail) == 7 - start
    if tail:
        assert_same(tail, whole[start:])


def test_batches_from_start_read_no_earlier_sample():
    dataset = create_dataset("digits", num_samples=48, shuffle=False)
    seen = []
    loader = raw_loader(dataset, transform=lambda image: seen.append(1) or pixels(image))
    list(loader.batches(0, start=2))
    assert len(seen) == 16


@pytest.mark.parametrize("num_shards", [1, 2, 3, 4])
def test_loader_gives_every_image_to_one_rank_in_evaluation(num_shards):
    seen = []
    for rank in range(num_shards):
        dataset = create_dataset("digits", num_samples=41, num_shards=num_shards, shard_id=rank)
        seen += [image.tobytes() for images, _ in raw_loader(dataset, 4).batches() for image in images]
    whole = create_dataset("digits", num_samples=41)
    assert sorted(seen) == sorted(pixels(whole.read(i)[0]).tobytes() for i in range(41))


def test_loader_mixes_ranks_differently():
    plain = [next(training_loader(num_shards=2, shard_id=rank).batches())[1] for rank in range(2)]
    ratios = [np.sort(labels[labels > 0])[0] for labels in plain]
    assert ratios[0] != ratios[1]


def test_loader_mixes_batches_and_epochs_differently():
    loader = training_loader(cutmix=0.0, drop_remainder=True)
    soft = [labels for epoch in (0, 1) for _, labels in loader.batches(epoch)]
    ratios = [labels[labels > 0].min() for labels in soft]
    assert len(ratios) == 12 and len(set(ratios)) == len(ratios)


def test_loader_stops_mixing_at_the_off_epoch():
    for mode in ("batch", "pair", "elem"):
        loader = training_loader(mixup_off_epoch=2, mixup_mode=mode)
        plain = training_loader(mixup=0, cutmix=0, cutmix_prob=0)
        assert any((labels % 1).any() for _, labels in loader.batches(1))
        for (images, soft), (unmixed, labels) in zip(loader.batches(2), plain.batches(2)):
            np.testing.assert_array_equal(images, unmixed)
            np.testing.assert_array_equal(soft, np.eye(10)[labels])
            assert soft.dtype == np.float32


def test_create_loader_passes_the_options_of_mixing():
    options = {"mixup_switch_prob": 0.3, "mixup_mode": "elem", "cutmix_minmax": [0.2, 0.4], "mixup_off_epoch": 5}
    shown = repr(training_loader(mixup=0.7, cutmix=0.9, cutmix_prob=0.6, **options).source.maker.mixup)
    assert shown == (
        "Mixup(mixup_alpha=0.7, cutmix_alpha=0.9, prob=0.6, switch_prob=0.3, num_classes=10, mode='elem', "
        "cutmix_minmax=(0.2, 0.4), correct_lam=True, off_epoch=5)"
    )


def test_loader_augments_repeated_images_differently():
    options = {"mixup": 0, "cutmix": 0, "cutmix_prob": 0}
    images = np.concatenate([images for images, _ in training_loader(repeats=3, **options).batches()])
    assert len(images) == 50 and len(np.unique(images.reshape(50, -1), axis=0)) == 50
    dataset = create_dataset("digits", num_samples=50, seed=3, num_aug_repeats=3)
    untouched = np.concatenate([images for images, _ in raw_loader(dataset, is_training=True).batches()])
    order = epoch_order(50, np.arange(50), seed=3, epoch=0, shuffle=True, num_repeats=3)
    np.testing.assert_array_equal(untouched[:, 0], [dataset.read(i)[0] for i in order[:, 0]])


def test_loader_mixes_labels():
    for _, labels in training_loader().batches():
        assert labels.dtype == np.float32 and labels.shape[1] == 10
        np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)
        assert ((labels > 0).sum(1) <= 2).all()


def test_loader_applies_target_transforms():
    dataset = create_dataset("digits", split="val", shuffle=False)
    one_hot = ds.transforms.OneHot(10)
    (_, labels), (_, plain) = (next(raw_loader(dataset, target_transform=t).batches()) for t in ([one_hot], None))
    np.testing.assert_array_equal(labels, np.eye(10)[plain])
    _, doubled = next(raw_loader(dataset, target_transform=[lambda x: 2 * x, lambda x: x + 0.5]).batches())
    np.testing.assert_array_equal(doubled, 2 * plain + 0.5)
    assert doubled.dtype == np.float32


def test_loader_combines_random_transforms_and_plain_callables():
    dataset = create_dataset("digits", num_samples=20)
    transform = [Decode("L"), lambda image: image.rotate(90), RandomResizedCrop(6), ToArray()]
    first, again = (next(raw_loader(dataset, transform=transform).batches())[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_create_loader_uses_default_transforms_of_training_or_evaluation():
    dataset = create_dataset("digits", num_samples=2)
    for is_training in (True, False):
        maker = create_loader(dataset, 2, is_training=is_training).source.maker
        assert repr(maker.reader.transform) == repr(Compose(create_transforms(is_training=is_training)))


@pytest.fixture
def folder(tmp_path):
    """Return a folder of twelve images. The fourth, fifth and twelfth are damaged."""
    (tmp_path / "train/a").mkdir(parents=True)
    for i in range(12):
        path = tmp_path / f"train/a/{i:02d}.png"
        Image.new("RGB", (8, 8), (10 * i, 0, 0)).save(path)
        if i in (3, 4, 11):
            path.write_bytes(path.read_bytes()[:40])
    return tmp_path


def folder_loader(folder, workers=1, processes=False, **options):
    dataset = create_dataset("", folder, shuffle=False)
    options = {"transform": [Decode(), ToArray()], "num_parallel_workers": workers, **options}
    return create_loader(dataset, 4, python_multiprocessing=processes, **options)


@pytest.mark.parametrize("workers, processes", [(1, False), (2, False), (2, True)])
def test_loader_names_a_corrupt_image(folder, workers, processes, capfd):
    with pytest.raises(
        DataError, match="^cannot decode '.*/train/a/03.png': .*skip_corrupt True replaces such"
    ) as caught:
        list(folder_loader(folder, workers, processes).batches())
    assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value.__cause__ or "")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("workers, processes", [(1, False), (2, False), (2, True)])
def test_skip_corrupt_replaces_by_the_next_image_and_counts(folder, workers, processes, log):
    loader = folder_loader(folder, workers, processes, is_training=True, skip_corrupt=True)
    for epoch in range(2):
        images = np.concatenate([images for images, _ in loader.batches(epoch)])
        assert (images[:, 0, 0, 0] / 10).tolist() == [0, 1, 2, 5, 5, 5, 6, 7, 8, 9, 10, 0]
        assert loader.num_corrupt == 3 * (epoch + 1)
    assert sorted(r.getMessage().split("'")[1][-6:] for r in log.records) == ["03.png", "04.png", "11.png"]


def test_skip_corrupt_refuses_a_data_set_without_readable_images(folder):
    for path in (folder / "train/a").iterdir():
        path.write_bytes(b"")
    loader = folder_loader(folder, is_training=True, skip_corrupt=True)
    with pytest.raises(DataError, match="none of the 12 images can be read"):
        next(loader.batches())


def test_loader_raises_the_error_of_a_transform():
    def fail(image):
        raise KeyError("of the user's code")

    with pytest.raises(KeyError, match="of the user's code"):
        next(raw_loader(create_dataset("digits"), transform=fail).batches())


@pytest.mark.parametrize(
    "transform, message",
    [
        ([Decode("L")], "'digits sample .*gives Image"),
        (lambda image: np.zeros((1, 8, 8 + int(image[2, 2]) % 2)), "arrays of one shape"),
    ],
)
def test_loader_refuses_transforms_without_arrays_of_one_shape(transform, message):
    with pytest.raises(UserError, match="arrays of one shape") as caught:
        next(raw_loader(create_dataset("digits"), 64, transform=transform).batches())
    assert caught.match(message)


def test_loader_stops_the_workers_when_an_epoch_is_left_early():
    before = threading.active_count()
    batches = training_loader(2).batches()
    list(islice(batches, 2))
    batches.close()
    assert threading.active_count() == before


def test_loader_prefetches_a_limited_number_of_batches():
    dataset = create_dataset("digits")
    made = []
    loader = raw_loader(dataset, 1, transform=lambda image: made.append(1) or pixels(image), num_parallel_workers=2)
    batches = loader.batches()
    for taken in range(1, 40):
        next(batches)
        assert len(made) <= taken + 4
    batches.close()


def test_create_loader_limits_workers_to_the_cores_and_logs_it_once(log, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    _log_clamped_workers.cache_clear()
    assert [_num_workers(n) for n in (1, 2, 16, 16, None)] == [1, 2, 2, 2, 2]
    assert [record.getMessage() for record in log.records] == [
        "num_parallel_workers=16 is more than the 2 cores of this machine; 2 are used"
    ]
    dataset = create_dataset("digits", num_parallel_workers=1)
    assert raw_loader(dataset).num_parallel_workers == 1
    with pytest.raises(UserError, match="num_parallel_workers must be a whole number of at least 1"):
        _num_workers(-1)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_classes": 9}, "num_classes must be at least 10, .*, got 9"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"separate": True}, "is for training"),
        ({"separate": True, "is_training": True}, r"needs transform=create_transforms\("),
        ({"separate": True, "is_training": True, "transform": SPLIT, "num_aug_splits": 1}, "at least 2, or 0 for 3"),
        (
            {"separate": True, "is_training": True, "transform": SPLIT, "num_aug_splits": -2},
            "num_aug_splits must be a whole number of at least 0",
        ),
        ({"num_aug_splits": 2, "is_training": True, "transform": SPLIT}, "need separate=True in create_loader too"),
        ({"is_training": True, "transform": SPLIT}, "need separate=True in create_loader too"),
        ({"separate": True, "is_training": True, "transform": SPLIT, "mixup": 1, "cutmix_prob": 1}, "versions of one"),
        ({"mixup": 1, "cutmix_prob": 1, "is_training": True, "mixup_mode": "half"}, "mixup mode 'half' is not known"),
        ({"skip_corrupt": True}, "skip_corrupt is for training only"),
        (
            {"mixup": 0.2, "is_training": True, "cutmix_prob": 1.5},
            r"\(cutmix_prob\) must be a number of at least 0 and at most 1",
        ),
        ({"mixup": -0.2, "cutmix_prob": 1}, "mixup must be a number of at least 0"),
    ],
)
def test_create_loader_refuses_wrong_arguments(options, message):
    with pytest.raises(UserError, match=message):
        create_loader(create_dataset("digits"), **{"batch_size": 4, **options})


@pytest.mark.parametrize("is_training", [False, True])
def test_create_loader_refuses_repeats_without_shuffling(is_training):
    dataset = create_dataset("digits", num_aug_repeats=3, shuffle=False)
    with pytest.raises(UserError, match="num_aug_repeats needs shuffle"):
        create_loader(dataset, 4, is_training=is_training)


def test_create_loader_warns_of_repeats_without_training(log):
    """MindCV's data set repeats its images for any loader."""
    options = {"num_samples": 30, "seed": 3, "num_shards": 4, "shard_id": 1, "num_aug_repeats": 3}
    of_training, other = (
        raw_loader(create_dataset("digits", **options), 4, is_training=is_training) for is_training in (True, False)
    )
    assert_same(other.batches(1), of_training.batches(1))
    assert [record.getMessage()[:17] for record in log.records] == ["num_aug_repeats=3"]


def test_create_loader_changes_only_the_labels_when_cutmix_prob_is_0(log):
    dataset = create_dataset("digits", num_samples=20)
    plain = raw_loader(dataset, is_training=True)
    assert not log.records
    loader = raw_loader(dataset, is_training=True, mixup=1.0, cutmix=1.0)
    assert [record.levelname for record in log.records] == ["WARNING"] and "is 0: nothing" in log.text
    for (images, targets), (expected, labels) in zip(loader.batches(), plain.batches()):
        np.testing.assert_array_equal(images, expected)
        np.testing.assert_array_equal(targets, np.eye(10)[labels])
        assert targets.dtype == np.float32


def test_create_loader_warns_of_mixing_in_evaluation(log):
    dataset = create_dataset("digits", split="val", shuffle=False)
    plain = raw_loader(dataset, 100)
    assert not log.records
    assert_same(raw_loader(dataset, 100, mixup=1.0, cutmix_prob=1.0).batches(), plain.batches())
    assert [record.levelname for record in log.records] == ["WARNING"] and "is_training=False" in log.text


def test_loader_mixes_labels_of_target_transforms():
    mixing = {"is_training": True, "mixup": 0.8, "cutmix": 1.0, "cutmix_prob": 1.0}
    dataset = create_dataset("digits", num_samples=40)
    expected = list(raw_loader(dataset, **mixing).batches())
    one_hot = ds.transforms.OneHot(10)
    for transform in (one_hot, [one_hot, lambda row: row.astype(np.float64)], lambda label: np.int64(label)):
        assert_same(raw_loader(dataset, target_transform=transform, **mixing).batches(), expected)

    smooth = [one_hot, lambda row: 0.9 * row + 0.01]
    for (_, labels), (_, hard) in zip(raw_loader(dataset, target_transform=smooth, **mixing).batches(), expected):
        np.testing.assert_allclose(labels, 0.9 * hard + 0.01, atol=1e-6)


@pytest.mark.parametrize("transform", [lambda label: label + 0.5, lambda label: np.eye(11)[label]])
def test_loader_refuses_labels_that_cannot_be_mixed(transform):
    loader = raw_loader(
        create_dataset("digits"), is_training=True, mixup=1.0, cutmix_prob=1.0, target_transform=transform
    )
    with pytest.raises(UserError, match=r"class numbers, or rows of 10 probabilities.*float32 of shape \(16"):
        next(loader.batches())


def test_repr_of_data_sets_and_loaders_shows_sizes():
    dataset = create_dataset("digits", split="val", num_samples=10, num_shards=2, shard_id=1)
    images = repr(dataset.images)
    assert images.startswith("ArrayImages('digits', ") and "10 classes" in images
    assert repr(dataset) == f"ImageDataset(10 samples, 10 classes, shard 1 of 2, images={images})"
    loader = create_loader(dataset, 2, num_parallel_workers=1)
    assert repr(loader) == f"ImageLoader(3 batches of 2, 1 workers, dataset={dataset!r})"
