"""Tests of augmentation splits: a clean version of every image, and others that differ from it and each other."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mindcv.data import SplitTransforms, create_dataset, create_loader, create_transforms
from mindcv.data.constants import Purpose
from mindcv.data.sampler import epoch_order
from mindcv.data.splits import Splitter
from mindcv.data.transform_base import Compose
from mindcv.utils.random import stream

OPTIONS = {"in_channels": 1, "hflip": 0.5, "re_prob": 1.0, "re_value": "pixel"}


def make(num_splits=3, batch_size=8, auto_augment="rand-m9-n3-p1-inc1", num_samples=20, seed=3, **options):
    dataset = create_dataset("digits", num_samples=num_samples, seed=seed)
    transform = create_transforms("digits", 12, True, auto_augment, separate=True, **OPTIONS)
    return create_loader(
        dataset,
        batch_size,
        is_training=True,
        num_classes=10,
        transform=transform,
        separate=True,
        num_aug_splits=num_splits,
        **options,
    )


def plain(num_samples=20, batch_size=8, seed=3):
    """Return a loader of the same samples, with crop and flip only."""
    dataset = create_dataset("digits", num_samples=num_samples, seed=seed)
    transform = create_transforms("digits", 12, True, in_channels=1, hflip=0.5)
    return create_loader(dataset, batch_size, is_training=True, num_classes=10, transform=transform)


def names(transforms):
    return [type(transform).__name__ for transform in transforms]


def test_create_transforms_separates_shared_clean_and_augmented():
    parts = create_transforms("", 32, True, "augmix", separate=True, vflip=0.1, re_prob=0.5)
    assert isinstance(parts, SplitTransforms) and len(parts) == 3
    shared, clean, augmented = parts
    assert names(shared) == ["Decode", "RandomResizedCrop", "RandomHorizontalFlip", "RandomVerticalFlip"]
    assert names(clean) == ["ToArray", "Normalize"]
    assert names(augmented) == ["AugMix", "ToArray", "Normalize", "RandomErasing"]
    together = create_transforms("", 32, True, "augmix", vflip=0.1, re_prob=0.5)
    assert repr(shared + augmented) == repr(together)
    assert names(create_transforms("", 32, True, separate=True, color_jitter=0.4).augmented)[0] == "ColorJitter"


@pytest.mark.parametrize("num_splits", [2, 3, 5])
def test_loader_orders_batches_by_split(num_splits):
    loader = make(num_splits)
    assert loader.get_batch_size() == 8 and loader.get_dataset_size() == 3 and loader.num_aug_splits == num_splits
    for (images, labels), (clean, single), size in zip(loader.batches(), plain().batches(), (8, 8, 4)):
        assert images.shape == (num_splits * size, 1, 12, 12) and images.dtype == np.float32
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels, np.tile(single, num_splits))
        np.testing.assert_array_equal(images[:size], clean)
        assert len(np.unique(images.reshape(len(images), -1), axis=0)) == num_splits * size


def test_create_loader_makes_three_splits_by_default():
    assert make(0).num_aug_splits == 3 and plain().num_aug_splits == 1


def test_splitter_uses_one_crop_for_all_versions():
    """With random erasing as the only augmentation, pixels that are not erased equal those of the clean version."""
    dataset = create_dataset("digits", num_samples=8)
    transform = create_transforms("", 24, True, separate=True, in_channels=1, re_prob=1.0, re_value=77)
    loader = create_loader(dataset, 8, is_training=True, transform=transform, separate=True, num_classes=10)
    images = next(loader.batches())[0].reshape(3, 8, 24, 24)
    assert not (images[0] == 77).any()
    for version in images[1:]:
        assert (version == 77).any(axis=(1, 2)).all()
        np.testing.assert_array_equal(version[version != 77], images[0][version != 77])
    assert ((images[1] == 77) != (images[2] == 77)).any(axis=(1, 2)).all()


def test_splitter_versions_do_not_depend_on_their_number():
    few, many = (next(make(splits).batches())[0].reshape(splits, 8, -1) for splits in (2, 4))
    np.testing.assert_array_equal(few, many[:2])


def test_splitter_allocates_the_versions_without_outs():
    parts = create_transforms("digits", 12, True, "rand-m9-n3-p1-inc1", separate=True, **OPTIONS)
    image = create_dataset("digits", num_samples=1, seed=3).read(0)[0]
    splitter = Splitter(parts, 3)
    versions = splitter(image, stream(1), (1,))
    outs = np.zeros((3, 1, 12, 12), np.float32)
    splitter(image, stream(1), (1,), outs)
    assert len(versions) == 3
    np.testing.assert_array_equal(np.stack(versions), outs)


def test_splitter_gives_each_version_its_own_random_stream():
    dataset = create_dataset("digits", num_samples=20, seed=3)
    shared, _, augmented = create_transforms("digits", 12, True, "rand-m9-n3-p1-inc1", separate=True, **OPTIONS)
    images = next(make(3).batches(1))[0].reshape(3, 8, 1, 12, 12)
    order = epoch_order(20, np.arange(20), seed=3, epoch=1, shuffle=True, num_repeats=0)
    for row, (index, repeat) in enumerate(order[:8].tolist()):
        key = (3, Purpose.AUGMENT, 1, index, repeat)
        image = Compose(shared)(dataset.read(index)[0], stream(*key))
        for split in (1, 2):
            np.testing.assert_array_equal(images[split, row], Compose(augmented)(image, stream(*key, split)))


def test_splitter_augments_epochs_differently():
    loader = make()
    first, second = (next(loader.batches(epoch))[0] for epoch in (0, 1))
    assert not np.array_equal(first, second)


def test_loader_gives_splits_to_mindspore():
    loader = make()
    assert loader.output_shapes()[0][1:] == [1, 12, 12]
    for batch, expected in zip(loader.create_tuple_iterator(num_epochs=1, output_numpy=True), make().batches()):
        for array, other in zip(batch, expected):
            np.testing.assert_array_equal(array, other)


def test_loader_repeats_transformed_targets_for_splits():
    images, labels = next(make(3, target_transform=lambda label: np.eye(10)[label]).batches())
    assert labels.shape == (24, 10)
    np.testing.assert_array_equal(labels.argmax(1), next(make().batches())[1])


def test_skip_corrupt_replaces_all_versions_of_an_image(tmp_path):
    (tmp_path / "train/a").mkdir(parents=True)
    for i in range(4):
        Image.new("RGB", (8, 8), (60 * i, 0, 0)).save(tmp_path / f"train/a/{i}.png")
    (tmp_path / "train/a/1.png").write_bytes(b"")
    dataset = create_dataset("", tmp_path, shuffle=False)
    transform = create_transforms("", 32, True, separate=True, re_prob=1.0)
    options = {"is_training": True, "separate": True, "transform": transform, "skip_corrupt": True}
    loader = create_loader(dataset, 4, num_aug_splits=2, **options)
    images = next(loader.batches())[0]
    assert images.shape == (8, 3, 32, 32) and loader.num_corrupt == 1
    np.testing.assert_allclose(images[1], images[2], atol=1e-5)


def test_split_transforms_compose_to_the_plain_pipeline():
    shared, clean, _ = create_transforms("", 16, True, "augmix", separate=True)
    rng = np.random.default_rng(0)
    image = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    by_parts = Compose(clean)(Compose(shared)(image, rng), rng)
    at_once = Compose(create_transforms("", 16, True))(image, np.random.default_rng(0))
    np.testing.assert_array_equal(by_parts, at_once)
