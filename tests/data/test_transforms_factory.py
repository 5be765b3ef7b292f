"""Tests of the pipelines: their transforms, and evaluation compared with Pillow."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from mindcv.data import create_transforms, transforms_imagenet_eval, transforms_imagenet_train
from mindcv.data.transform_base import RandomTransform
from mindcv.utils.errors import UserError


def kinds(transforms):
    return [type(transform).__name__ for transform in transforms]


def run(transforms, encoded, seed=0):
    rng = np.random.default_rng(seed)
    for transform in transforms:
        encoded = transform(encoded, rng) if isinstance(transform, RandomTransform) else transform(encoded)
    return encoded


@pytest.mark.parametrize("size", [(17, 90), (300, 211), (224, 224), (225, 223), (500, 375), (41, 40), (640, 97)])
@pytest.mark.parametrize("resize, crop_pct", [(224, 0.875), (224, 0.95), (56, 1.0), (64, 0.9)])
def test_transforms_imagenet_eval_equals_pillow(size, resize, crop_pct):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    mean, std = [100.0, 110.0, 120.0], [50.0, 60.0, 70.0]
    transforms = transforms_imagenet_eval(resize, crop_pct, mean, std, "bicubic")
    result = run(transforms, buffer.getvalue())
    assert result.shape == (3, resize, resize) and result.dtype == np.float32

    scale = int(resize / crop_pct)
    width, height = size
    new = (scale, int(scale * height / width)) if width < height else (int(scale * width / height), scale)
    resized = np.asarray(Image.fromarray(pixels).resize(new, Image.Resampling.BICUBIC))
    top, left = round((new[1] - resize) / 2), round((new[0] - resize) / 2)
    cropped = resized[top : top + resize, left : left + resize].transpose(2, 0, 1).astype(float)
    levels = result * np.reshape(std, (3, 1, 1)) + np.reshape(mean, (3, 1, 1))
    assert np.abs(levels - cropped).max() < 1e-3


@pytest.mark.parametrize("size", [383, 384, 512])
def test_transforms_imagenet_eval_resizes_to_the_square_when_crop_pct_is_1_at_384(size):
    expected = ["Resize", "CenterCrop"] if size < 384 else ["Resize"]
    transforms = transforms_imagenet_eval(size, 1.0)
    assert kinds(transforms)[1:-2] == expected
    assert transforms[1].target(500, 375) == ((size, size) if size >= 384 else (int(size * 500 / 375), size))


def test_transforms_imagenet_train_has_the_transforms_of_its_options():
    plain = transforms_imagenet_train(32)
    assert kinds(plain) == ["Decode", "RandomResizedCrop", "RandomHorizontalFlip", "ToArray", "Normalize"]
    full = transforms_imagenet_train(
        32,
        scale=(0.2, 1.0),
        ratio=(0.5, 2.0),
        hflip=0.3,
        vflip=0.1,
        color_jitter=0.4,
        auto_augment="rand-m9",
        interpolation="bicubic",
        re_prob=0.25,
        re_value="random",
        re_scale=(0.1, 0.2),
        re_ratio=(0.5, 2),
        re_max_attempts=3,
        re_count=2,
    )
    middle = ["RandomHorizontalFlip", "RandomVerticalFlip", "RandAugment", "ToArray", "Normalize", "RandomErasing"]
    assert kinds(full) == ["Decode", "RandomResizedCrop", *middle]
    assert (full[1].scale, full[1].ratio, full[1].interpolation) == ((0.2, 1.0), (0.5, 2.0), "bicubic")
    assert (full[2].prob, full[3].prob) == (0.3, 0.1)
    assert (
        repr(full[7]) == "RandomErasing(prob=0.25, scale=(0.1, 0.2), ratio=(0.5, 2.0), value='random', max_attempts=3, "
        "count=2)"
    )
    assert kinds(transforms_imagenet_train(32, hflip=0)) == ["Decode", "RandomResizedCrop", "ToArray", "Normalize"]
    encoded = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    assert run(full, encoded).shape == (3, 32, 32)
    np.testing.assert_array_equal(run(full, encoded), run(full, encoded))


@pytest.mark.parametrize(
    "jitter, expected", [(0.4, (0.4, 0.4, 0.4, 0.0)), ([0.1, 0.2, 0.3], (0.1, 0.2, 0.3, 0.0)), ([0.1] * 4, (0.1,) * 4)]
)
def test_transforms_imagenet_train_reads_color_jitter(jitter, expected):
    transform = transforms_imagenet_train(32, color_jitter=jitter)[3]
    assert (transform.brightness, transform.contrast, transform.saturation, transform.hue) == expected


def test_create_transforms_makes_pipelines_for_grey_images():
    encoded = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    for is_training in (True, False):
        transforms = create_transforms("digits", 16, is_training, in_channels=1)
        assert run(transforms, encoded).shape == (1, 16, 16)
        normalize = next(t for t in transforms if type(t).__name__ == "Normalize")
        np.testing.assert_allclose(normalize.mean, (0.485 + 0.456 + 0.406) * 85, rtol=1e-9)
        np.testing.assert_allclose(normalize.std, (0.229 + 0.224 + 0.225) * 85, rtol=1e-9)
    assert create_transforms("mnist", 16, mean=[9], std=[3], in_channels=1)[-1].mean == [9]


def test_create_transforms_ignores_the_name_of_the_data_set():
    expected = repr(create_transforms("", 32, True, vflip=0.2))
    for name in ("imagenet", "folder", "digits", "MNIST", "fashion_mnist", "cifar10", "CIFAR100"):
        assert repr(create_transforms(name, 32, True, vflip=0.2)) == expected


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"dataset_name": "cifar11"}, UserError, "'cifar11' is not known; did you mean 'cifar1"),
        ({"separate": True}, UserError, r"separate=True \(augmentation splits\) is for training"),
        ({"separate": True, "is_training": True}, UserError, "needs something to augment with"),
        ({"is_training": True, "hlfip": 0.5}, TypeError, "'hlfip' is not known; did you mean 'hflip'"),
        ({"crop_pctt": 0.9}, TypeError, "did you mean 'crop_pct'"),
        ({"auto_augment": "rand-m9"}, UserError, "is for training"),
        (
            {"is_training": True, "auto_augment": "augmix-m50"},
            UserError,
            "m must be a number of at least 0 and at most 10, got 50",
        ),
        ({"crop_pct": 1.1}, UserError, "crop_pct must be a number above 0 and at most 1"),
        ({"image_resize": 0}, UserError, "image_resize must be"),
        ({"interpolation": "area"}, UserError, "interpolation 'area' is not known"),
        ({"in_channels": 4}, UserError, "in_channels must be 3"),
        ({"mean": [1, 2]}, UserError, r"mean must have 3 number\(s\)"),
        ({"std": [1], "in_channels": 3}, UserError, "std must have 3"),
        ({"mean": [1, 2, 3], "in_channels": 1}, UserError, "mean must have 1"),
        ({"is_training": True, "color_jitter": [0.1, 0.2]}, UserError, "color_jitter must be one number"),
        ({"is_training": True, "scale": (0.5, 1.5)}, UserError, "scale must be two numbers"),
    ],
)
def test_create_transforms_refuses_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        create_transforms(**options)
