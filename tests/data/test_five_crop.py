"""Five crops are compared with slices of the resized image."""

import numpy as np
import pytest
from PIL import Image

from mindcv.data import create_dataset, create_loader, create_transforms
from mindcv.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from mindcv.data.five_crop import FiveCrop, five_crop_problem
from mindcv.data.transform_base import Compose
from mindcv.utils.errors import UserError


@pytest.mark.parametrize(("width", "height"), [(70, 50), (50, 70), (64, 64), (63, 129)])
@pytest.mark.parametrize("channels", [3, 1])
def test_five_crop_transforms_cut_corners_and_centre_of_the_resized_image(rng, width, height, channels):
    mode = "RGB" if channels == 3 else "L"
    pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
    options = {"crop_pct": 0.8, "interpolation": "bicubic", "in_channels": channels}
    transform = Compose(create_transforms("folder", 48, five_crop=True, **options))
    out = np.empty((5, channels, 48, 48), np.float32)
    found = transform(pixels, out=out)
    assert found is out
    shorter = int(48 / 0.8)
    size = (shorter, int(shorter * height / width)) if width <= height else (int(shorter * width / height), shorter)
    resized = np.asarray(Image.fromarray(pixels).convert(mode).resize(size, Image.Resampling.BICUBIC), np.float64)
    mean, std = np.array(IMAGENET_DEFAULT_MEAN), np.array(IMAGENET_DEFAULT_STD)
    if channels == 1:
        resized, mean, std = resized[..., None], mean.mean(keepdims=True), std.mean(keepdims=True)
    normalized = ((resized - mean) / std).transpose(2, 0, 1)
    corners = [normalized[:, :48, :48], normalized[:, :48, -48:], normalized[:, -48:, :48], normalized[:, -48:, -48:]]
    for crop, expected in zip(found, corners):
        np.testing.assert_allclose(crop, expected, atol=1e-5)
    centre = Compose(create_transforms("folder", 48, **options))(pixels)
    np.testing.assert_array_equal(found[4], centre)


@pytest.mark.parametrize("as_processes", [False, True])
def test_loader_makes_batches_of_five_crops_of_grey_images(as_processes):
    dataset = create_dataset("digits", "", "test", shuffle=False)
    transform = create_transforms("digits", 32, in_channels=1, five_crop=True)
    options = {"num_classes": 10, "transform": transform, "num_parallel_workers": 2}
    loader = create_loader(dataset, 100, python_multiprocessing=as_processes, **options)
    batches = [images for images, _ in loader.batches()]
    assert [batch.shape for batch in batches[:1] + batches[-1:]] == [
        (100, 5, 1, 32, 32),
        (len(dataset) % 100, 5, 1, 32, 32),
    ]
    np.testing.assert_array_equal(batches[1][7], Compose(transform)(dataset.read(107)[0]))


@pytest.mark.parametrize(("size", "crop_pct", "is_wrong"), [(224, 0.875, False), (224, 1.0, True), (32, 0.99, True)])
def test_five_crop_is_refused_when_all_crops_would_be_the_same(size, crop_pct, is_wrong):
    assert bool(five_crop_problem(size, crop_pct)) == is_wrong
    if is_wrong:
        with pytest.raises(UserError, match="five crops need a resized image that is larger than a crop"):
            create_transforms("folder", size, crop_pct=crop_pct, five_crop=True)


def test_five_crop_accepts_transforms_that_return_another_array(rng):
    image = Image.fromarray(rng.integers(0, 256, (9, 8, 3), np.uint8))
    found = FiveCrop(6, [lambda crop: np.asarray(crop, np.float64).transpose(2, 0, 1)])(image)
    np.testing.assert_array_equal(found[3], np.asarray(image)[3:, 2:].transpose(2, 0, 1))


def test_loader_sample_order_is_that_of_all_ranks_in_turn():
    options = {"split": "test", "shuffle": True, "seed": 3}
    order = create_loader(create_dataset("digits", "", **options), 8, num_classes=10).sample_order()
    assert sorted(order.tolist()) == list(range(len(order))) and order.tolist() != sorted(order.tolist())
    for rank in range(3):
        dataset = create_dataset("digits", "", num_shards=3, shard_id=rank, **options)
        loader = create_loader(dataset, 8, num_classes=10)
        np.testing.assert_array_equal(loader.sample_order(), order)
        labels = np.concatenate([labels for _, labels in loader.batches()])
        np.testing.assert_array_equal(labels, dataset.labels[order[rank::3]])
