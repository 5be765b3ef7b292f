"""Tests that kernels and Pillow give the same bits, in transforms, pipelines and worker processes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from mindcv.data import create_dataset, create_loader, create_transforms, pixels, tone
from mindcv.data.mixup import Mixup
from mindcv.data.random_erasing import RandomErasing
from mindcv.data.transform_base import Compose, RandomTransform
from mindcv.data.transforms import (
    CenterCrop,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomVerticalFlip,
    Resize,
    ToArray,
)
from mindcv.kernels import images
from mindcv.utils.logger import logger

FILTERS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
BICUBIC = Image.Resampling.BICUBIC
MEAN, STD = [123.7, 116.3, 103.5], [58.4, 57.1, 57.4]


pytestmark = pytest.mark.usefixtures("kernels")


def picture(rng, width, height, mode="RGB"):
    return Image.frombytes(mode, (width, height), rng.bytes(width * height * len(mode)))


def assert_same(image, expected):
    assert (image.mode, image.size, image.info) == (expected.mode, expected.size, expected.info)
    np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "CMYK"])
def test_resized_equals_the_separate_steps_of_pillow(mode, rng):
    for number in range(60):
        width, height, new_width, new_height = rng.integers(1, (12, 90)[number % 2], 4).tolist()
        image = picture(rng, width + 2, height + 3, mode)
        image.info["comment"] = b"kept"
        resample = Image.Resampling[FILTERS[number % 6].upper()]
        box = (1, 2, width + 1, height + 2)
        left, top = int(rng.integers(new_width)), int(rng.integers(new_height))
        keep = (left, top, int(rng.integers(left, new_width)) + 1, int(rng.integers(top, new_height)) + 1)
        flips = (bool(number & 4), bool(number & 8))
        expected = image.crop(box).resize((new_width, new_height), resample)
        assert_same(pixels.resized(image, (new_width, new_height), resample, box=box), expected)
        expected = expected.crop(keep)
        for is_flipped, method in zip(flips, (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM)):
            expected = expected.transpose(method) if is_flipped else expected
        result = pixels.resized(image, (new_width, new_height), resample, box=box, keep=keep, flips=flips)
        assert_same(result, expected)


# Widths and heights on both sides of the thresholds at which Pillow changes the order of its
# passes, and so the bits.
@pytest.mark.parametrize("by", [-1, 0, 1, 2])
@pytest.mark.parametrize("size, new_size", [((225, 300), (224, 298)), ((90, 300), (60, 240)), ((3, 300), (5, 290))])
def test_resized_uses_the_order_of_passes_of_pillow(size, new_size, by, rng):
    image = picture(rng, size[0], size[1] + by)
    for resample in (Image.Resampling.LANCZOS, Image.Resampling.BILINEAR):
        assert_same(pixels.resized(image, new_size, resample), image.resize(new_size, resample))


def test_resized_raises_the_error_of_pillow_for_an_empty_size(rng):
    with pytest.raises(ValueError):
        pixels.resized(picture(rng, 5, 5), (0, 4), BICUBIC)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_affine_and_rotated_equal_pillow(mode, rng):
    fill = (1, 2, 3) if mode == "RGB" else 7
    for number in range(40):
        image = picture(rng, *rng.integers(1, 60, 2).tolist(), mode)
        resample = Image.Resampling[FILTERS[(0, 2, 4)[number % 3]].upper()]
        matrix = (1, rng.uniform(-0.4, 0.4), 0, 0, 1, rng.uniform(-9, 9))
        expected = image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=fill)
        assert_same(pixels.affine(image, matrix, resample, fill), expected)
        for degrees in (rng.uniform(-400, 400), float(rng.integers(-8, 8) * 90)):
            expected = image.rotate(degrees, resample, fillcolor=fill)
            assert_same(pixels.rotated(image, degrees, resample, fill), expected)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_sharpened_and_saturated_equal_pillow(mode, rng):
    for number in range(30):
        image = picture(rng, *rng.integers(1, (5, 60)[number % 2], 2).tolist(), mode)
        image.info["comment"] = b"kept"
        for factor in (0, 1, rng.uniform(0, 1), rng.uniform(1, 2)):
            assert_same(pixels.sharpened(image, factor), ImageEnhance.Sharpness(image).enhance(factor))
            assert_same(pixels.saturated(image, factor), ImageEnhance.Color(image).enhance(factor))


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_normalized_follows_its_formula(mode, rng):
    image = picture(rng, 37, 11, mode)
    bands = len(mode)
    mean, std = (np.array(x, np.float32)[:bands] for x in ([*MEAN, 9], [*STD, 3.3]))
    expected = ((np.asarray(image, np.float32).reshape(11, 37, bands) - mean) / std).transpose(2, 0, 1)
    assert expected.dtype == np.float32
    for out in (np.empty((bands, 11, 37), np.float32), np.empty((bands, 11, 50), np.float32)[:, :, :37]):
        result = pixels.normalized(image, mean.reshape(-1, 1, 1), std.reshape(-1, 1, 1), out)
        assert result is out
        np.testing.assert_array_equal(out, expected)


def one_by_one(transforms, image, generator):
    for transform in transforms:
        image = transform(image, generator) if isinstance(transform, RandomTransform) else transform(image)
    return image


HFLIP, VFLIP = RandomHorizontalFlip(0.5), RandomVerticalFlip(0.5)
ENDS = [ToArray(), Normalize(MEAN, STD)]
LISTS = {
    "crop": ([RandomResizedCrop(24, interpolation="bicubic"), *ENDS], 2),
    "crop, flips": ([RandomResizedCrop(24, interpolation="lanczos"), HFLIP, VFLIP, HFLIP, *ENDS], 2),
    "centre": ([Resize(32, "bicubic"), CenterCrop(24), *ENDS], 2),
    "centre beyond": ([Resize(20), CenterCrop(24), *ENDS], 2),
    "others between": ([Resize((30, 26)), HFLIP, CenterCrop(24), VFLIP, *ENDS, RandomErasing(1.0)], 6),
}


@pytest.mark.parametrize("name", LISTS)
def test_compose_fuses_transforms_without_changing_bits(name, kernels, rng):
    transforms, num_steps = LISTS[name]
    compose = Compose(transforms)
    assert compose.transforms == transforms and len(compose._steps) == num_steps
    for seed in range(12):
        image = picture(rng, *rng.integers(5, 90, 2).tolist())
        expected = one_by_one(transforms, image, np.random.default_rng(seed))
        np.testing.assert_array_equal(compose(image, np.random.default_rng(seed)), expected)
        out = np.empty((3, 24, 24), np.float32)
        assert compose(image, np.random.default_rng(seed), out=out) is out
        np.testing.assert_array_equal(out, expected)


def test_compose_does_not_fuse_subclasses_of_users():
    class OwnFlip(RandomHorizontalFlip):
        def transform(self, image, rng):
            return image.rotate(90)

    class OwnCrop(RandomResizedCrop):
        def transform(self, image, rng):
            return image.crop((0, 0, 3, 3))

    for transforms in ([RandomResizedCrop(5), OwnFlip()], [OwnCrop(5), RandomHorizontalFlip()]):
        assert len(Compose(transforms)._steps) == 2


def test_pixels_use_the_kernels_when_they_are_on(kernels, monkeypatch, rng):
    calls = []
    names = ("resize", "affine", "to_planes", "mix", "look_up", "sharpen", "saturate")
    for name in names:
        kernel = getattr(images, name)
        monkeypatch.setattr(images, name, lambda *args, n=name, f=kernel: calls.append(n) or f(*args))
    image = picture(rng, 30, 20)
    pixels.resized(image, (10, 10), BICUBIC)
    pixels.rotated(image, 10.0, BICUBIC, (0, 0, 0))
    Compose(ENDS)(image)
    tone.invert(image)
    Mixup(0.8)(np.zeros((3, 1, 2, 2)), np.zeros(3, np.int32))
    pixels.sharpened(image, 0.5)
    pixels.saturated(image, 0.5)
    assert set(calls) == (set(names) if kernels == "on" else set())


@pytest.fixture
def log_lines(monkeypatch):
    lines = []
    monkeypatch.setattr(logger, "info", lambda text, *values: lines.append(text % values))
    pixels._down_first.cache_clear()
    pixels._transforms_equal.cache_clear()
    pixels._enhances_equal.cache_clear()
    yield lines
    pixels._down_first.cache_clear()
    pixels._transforms_equal.cache_clear()
    pixels._enhances_equal.cache_clear()


def test_pixels_fall_back_to_pillow_when_its_bits_differ(kernels, log_lines, monkeypatch, rng):
    """If a version of Pillow rounds differently, the kernels detect it, log it once and are not used."""
    for name in ("resize", "transform"):
        original = getattr(Image.Image, name)
        monkeypatch.setattr(
            Image.Image, name, lambda *args, f=original, **more: Image.eval(f(*args, **more), lambda x: 255 - x)
        )
    blend = Image.blend
    monkeypatch.setattr(Image, "blend", lambda *args: Image.eval(blend(*args), lambda x: 255 - x))
    image = picture(rng, 30, 20)
    for _ in range(2):
        assert_same(pixels.sharpened(image, 0.3), ImageEnhance.Sharpness(image).enhance(0.3))
        assert_same(pixels.saturated(image, 1.3), ImageEnhance.Color(image).enhance(1.3))
        assert_same(pixels.resized(image, (10, 12), BICUBIC), image.resize((10, 12), BICUBIC))
        matrix = (1, 0.2, 0, 0, 1, 0)
        expected = image.transform(image.size, Image.Transform.AFFINE, matrix, BICUBIC, fillcolor=(1, 2, 3))
        assert_same(pixels.affine(image, matrix, BICUBIC, (1, 2, 3)), expected)
    assert len(log_lines) == (3 if kernels == "on" else 0)
    assert all("Pillow is used, which is slower" in line for line in log_lines)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(5)
    for number in range(20):
        (root / f"c{number % 2}").mkdir(exist_ok=True)
        width, height = rng.integers(20, 140, 2).tolist()
        coarse = Image.fromarray(rng.integers(0, 256, (height // 5, width // 5, 3), np.uint8))
        coarse.resize((width, height), BICUBIC).save(root / f"c{number % 2}" / f"{number}.jpg")
    return root


TRAINING = {"auto_augment": "randaug-m9-n4-p1-mstd0.5-inc1", "vflip": 0.3, "re_prob": 0.5, "re_value": "pixel"}
PIPELINES = {
    "training": (True, 3, TRAINING),
    "training, bilinear": (True, 3, {**TRAINING, "interpolation": "bilinear"}),
    "training, grey": (True, 1, TRAINING),
    "evaluation": (False, 3, {"crop_pct": 0.875}),
    "evaluation, grey": (False, 1, {"crop_pct": 0.95, "interpolation": "lanczos"}),
}


def batches(folder, name, workers, processes):
    is_training, in_channels, options = PIPELINES[name]
    dataset = create_dataset("folder", str(folder), split="", shuffle=is_training)
    transform = create_transforms(
        "", 32, is_training, in_channels=in_channels, **{"interpolation": "bicubic", **options}
    )
    mixing = {"mixup": 0.8, "cutmix": 1.0, "cutmix_prob": 1.0} if is_training else {}
    loader = create_loader(
        dataset,
        6,
        is_training=is_training,
        num_classes=2,
        transform=transform,
        num_parallel_workers=workers,
        python_multiprocessing=processes,
        **mixing,
    )
    return [(images.tobytes(), labels.tobytes()) for images, labels in loader.batches(1)]


@pytest.mark.parametrize("name", PIPELINES)
def test_pipelines_give_the_same_bits_with_and_without_kernels(name, folder, kernels, monkeypatch, started_workers):
    kinds = [(1, False), (2, False), (2, True)]
    results = [batches(folder, name, *workers) for workers in kinds]
    assert started_workers == kinds
    monkeypatch.setenv("MINDCV_KERNELS", "off" if kernels == "on" else "on")
    expected = batches(folder, name, 1, False)
    assert len(expected) == 4 and len(set(expected)) == 4
    assert results == [expected] * 3
