"""Tests of each transform against Pillow, NumPy or its formula."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
from PIL import Image

from mindcv.data.random_erasing import RandomErasing
from mindcv.data.transform_base import Compose
from mindcv.data.transforms import (
    CenterCrop,
    ColorJitter,
    Decode,
    Normalize,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomVerticalFlip,
    Resize,
    ToArray,
    pillow_filter,
)
from mindcv.utils.errors import UserError


def picture(width=40, height=30, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_pillow_filter_knows_the_filters():
    assert pillow_filter("bicubic") == Image.Resampling.BICUBIC and pillow_filter("box") == Image.Resampling.BOX
    with pytest.raises(UserError, match="'bicubik' is not known; did you mean 'bicubic'"):
        pillow_filter("bicubik")


def test_random_resized_crop_equals_crop_and_resize():
    image, crop = picture(), RandomResizedCrop(16, interpolation="bicubic")
    for seed in range(20):
        box = crop.draw_box(*image.size, rng(seed))
        by_hand = image.crop(box).resize((16, 16), Image.Resampling.BICUBIC)
        np.testing.assert_array_equal(np.asarray(crop(image, rng(seed))), np.asarray(by_hand))


def test_random_resized_crop_has_the_documented_distribution():
    width, height, generator = 500, 375, rng()
    crop = RandomResizedCrop(224, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3))
    boxes = np.array([crop.draw_box(width, height, generator) for _ in range(4000)])
    w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0 and boxes[:, 2].max() <= width and boxes[:, 3].max() <= height
    area, aspect = w * h / (width * height), w / h
    assert 0.078 < area.min() < 0.1 and area.max() > 0.9
    assert 0.74 < aspect.min() < 0.77 and 1.3 < aspect.max() < 1.35
    # Small boxes always fit, so they show the distributions of both draws. The logarithm of the
    # ratio is centred on 0, half of it is within half the range, and the area is uniform.
    small = area < 0.4
    assert abs(np.log(aspect[small]).mean()) < 0.02
    assert abs((np.abs(np.log(aspect[small])) < math.log(4 / 3) / 2).mean() - 0.5) < 0.04
    assert abs((area[small] < 0.24).mean() - 0.5) < 0.04
    # The position is uniform over all possible positions.
    assert abs((boxes[small, 0] / (width - w[small])).mean() - 0.5) < 0.03
    assert abs((boxes[small, 1] / (height - h[small])).mean() - 0.5) < 0.03


@pytest.mark.parametrize(
    "size, box", [((100, 10), (43, 0, 56, 10)), ((10, 100), (0, 43, 10, 56)), ((12, 10), (0, 0, 12, 10))]
)
def test_random_resized_crop_falls_back_to_the_centre(size, box):
    crop = RandomResizedCrop(8, scale=(1.0, 1.0), ratio=(3 / 4, 4 / 3))
    crop.scale = (50.0, 50.0)  # no box fits
    assert crop.draw_box(*size, rng()) == box


def test_random_resized_crop_accepts_a_thin_image():
    for size in ((1, 500), (500, 1), (1, 1)):
        assert RandomResizedCrop(8)(picture(*size), rng()).size == (8, 8)


def test_random_flips_swap_sides_with_their_probability():
    image = picture()
    pixels = np.asarray(image)
    np.testing.assert_array_equal(np.asarray(RandomHorizontalFlip(1.0)(image, rng())), pixels[:, ::-1])
    np.testing.assert_array_equal(np.asarray(RandomVerticalFlip(1.0)(image, rng())), pixels[::-1])
    generator, flip = rng(), RandomHorizontalFlip(0.3)
    flipped = sum(not np.array_equal(np.asarray(flip(image, generator)), pixels) for _ in range(2000))
    assert abs(flipped / 2000 - 0.3) < 0.04
    with pytest.raises(UserError, match="RandomVerticalFlip must be a number of at least 0 and at most 1"):
        RandomVerticalFlip(1.5)


def test_random_transform_draws_differently_without_a_generator():
    image = picture()
    assert len({RandomResizedCrop(8)(image).tobytes() for _ in range(5)}) == 5


@pytest.mark.parametrize("which", range(3))
def test_color_jitter_follows_the_formula_of_each_change(which):
    strength = [0.0, 0.0, 0.0]
    strength[which] = 0.4
    image = picture()
    pixels = np.asarray(image).astype(float)
    grey = np.asarray(image.convert("L")).astype(float)
    anchor = (0.0, np.rint(grey.mean()), grey[:, :, None])[which]
    factors = []
    for seed in range(50):
        jittered = np.asarray(ColorJitter(*strength)(image, rng(seed))).astype(float)
        # least squares for the factor on pixels that were not clipped
        free = (jittered > 0) & (jittered < 255)
        offset, change = (pixels - anchor)[free], (jittered - anchor)[free]
        factor = (offset * change).sum() / (offset * offset).sum()
        assert np.abs(change - factor * offset).max() <= 1.6
        factors.append(factor)
    assert min(factors) > 0.58 and max(factors) < 1.42 and max(factors) - min(factors) > 0.5


def test_color_jitter_applies_changes_in_random_order():
    image, jitter = picture(), ColorJitter(0.4, 0.4, 0.4)
    generators = [rng(seed).permutation(3) for seed in range(30)]
    assert len({tuple(order) for order in generators}) == 6
    assert len({jitter(image, rng(seed)).tobytes() for seed in range(30)}) == 30


def test_color_jitter_hue_keeps_saturation_and_value():
    image = Image.new("RGB", (2, 2), (200, 40, 40))
    hues = []
    for seed in range(40):
        turned = ColorJitter(hue=0.25)(image, rng(seed)).getpixel((0, 0))
        hue, saturation, value = colorsys.rgb_to_hsv(*(c / 255 for c in turned))
        assert abs(saturation - 0.8) < 0.03 and abs(value - 200 / 255) < 0.01
        hues.append((hue + 0.5) % 1 - 0.5)
    assert -0.26 < min(hues) < -0.15 and 0.15 < max(hues) < 0.26


def test_color_jitter_hue_and_saturation_keep_grey_images():
    grey = picture().convert("L")
    jittered = ColorJitter(saturation=0.5, hue=0.5)(grey, rng())
    assert jittered.mode == "L" and jittered.tobytes() == grey.tobytes()


def test_color_jitter_refuses_strengths_out_of_range():
    for strengths in ((-0.1,), (0, 0, 0, 0.6)):
        with pytest.raises(UserError, match="color jitter must be"):
            ColorJitter(*strengths)


@pytest.mark.parametrize(
    "size, expected", [((40, 30), (26, 20)), ((30, 40), (20, 26)), ((20, 20), (20, 20)), ((7, 333), (20, 951))]
)
def test_resize_sets_the_shorter_side(size, expected):
    image = picture(*size)
    resized = Resize(20, "bilinear")(image)
    assert resized.size == expected
    np.testing.assert_array_equal(np.asarray(resized), np.asarray(image.resize(expected, Image.Resampling.BILINEAR)))


def test_resize_accepts_height_and_width():
    assert Resize((5, 9))(picture()).size == (9, 5)


@pytest.mark.parametrize(
    "length, offset", [(10, 0), (11, 0), (12, 1), (13, 2), (14, 2), (15, 2), (17, 4)]
)  # halves are rounded to even: 0.5 -> 0, 1.5 -> 2, 2.5 -> 2
def test_center_crop_rounds_offsets_to_even(length, offset):
    image = picture(length, length + 1)
    cropped = np.asarray(CenterCrop(10)(image))
    top = int(np.rint((length + 1 - 10) / 2))
    np.testing.assert_array_equal(cropped, np.asarray(image)[top : top + 10, offset : offset + 10])


def test_center_crop_pads_small_images_with_black():
    image = picture(5, 4)
    expected = np.zeros((10, 10, 3), np.uint8)
    expected[3:7, 2:7] = np.asarray(image)
    np.testing.assert_array_equal(np.asarray(CenterCrop(10)(image)), expected)
    assert CenterCrop(10)(picture(5, 40)).size == (10, 10)


def test_to_array_and_normalize_follow_their_formulas():
    image = picture()
    array = ToArray()(image)
    assert array.dtype == np.float32 and array.shape == (3, 30, 40) and array.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(array, np.asarray(image).transpose(2, 0, 1))
    assert ToArray()(image.convert("L")).shape == (1, 30, 40)
    before = array.copy()
    normalized = Normalize([10, 20, 30], [2, 4, 8])(array)
    assert normalized.dtype == np.float32
    by_hand = [(before[c].astype(float) - 10 * (c + 1)) / 2 ** (c + 1) for c in range(3)]
    np.testing.assert_allclose(normalized, by_hand, rtol=1e-6)
    np.testing.assert_array_equal(array, before)
    with pytest.raises(UserError, match="3 numbers, but the image has 1 channels"):
        Normalize([1, 2, 3], [1, 2, 3])(array[:1])
    with pytest.raises(UserError, match="std positive"):
        Normalize([1], [0])


def test_array_transforms_write_to_out():
    image, transforms = picture(), [ToArray(), Normalize([10, 20, 30], [2, 4, 8]), RandomErasing(1.0, value="pixel")]
    for last in (1, 2, 3):
        pipeline = Compose(transforms[:last])
        expected = pipeline(image, rng())
        out = np.full((3, 30, 40), np.nan, np.float32)
        assert pipeline(image, rng(), out=out) is out
        np.testing.assert_array_equal(out, expected)


def test_array_transforms_do_not_write_to_out_of_another_shape():
    for transform in (ToArray(), Compose([ToArray()])):
        out = np.zeros((3, 40, 30), np.float32)
        result = transform(picture(), out=out)
        assert result.shape == (3, 30, 40) and not out.any()


def test_array_transforms_do_not_change_their_input():
    array, out = np.ones((3, 30, 40), np.float32), np.zeros((3, 30, 40), np.float32)
    for transform in (Normalize([10, 20, 30], [2, 4, 8]), RandomErasing(1.0)):
        assert transform(array, out=out) is out and (array == 1).all() and not (out == 1).all()
    untouched = RandomErasing(0.0)(array, rng(), out=out)
    np.testing.assert_array_equal(untouched, array)


def test_compose_accepts_a_transform_that_returns_a_view():
    turned = Compose([ToArray(), lambda array: array[:, ::-1, ::-1], Normalize([10, 20, 30], [2, 4, 8])])
    out = np.zeros((3, 30, 40), np.float32)
    np.testing.assert_array_equal(turned(picture(), rng(), out=out), turned(picture(), rng()))


def test_repr_of_transforms_shows_their_arguments():
    transforms = (Decode(), RandomResizedCrop(8), RandomHorizontalFlip(), RandomVerticalFlip(), ColorJitter(0.1))
    transforms += (Resize(8), CenterCrop(8), ToArray(), Normalize([1], [2]), RandomErasing())
    for transform in transforms:
        assert repr(transform).startswith(type(transform).__name__ + "(") and " at 0x" not in repr(transform)


def test_repr_of_compose_shows_the_steps_that_run():
    crop, flip, to_array, normalize = RandomResizedCrop(8), RandomHorizontalFlip(), ToArray(), Normalize([1], [2])
    jitter = ColorJitter(0.1)
    assert repr(Compose([Decode(), crop, flip, to_array, normalize])) == (
        f"Compose([{Decode()}, {crop} + {flip}, {to_array} + {normalize}])"
    )
    assert repr(Compose([Resize(9), CenterCrop(8)])) == f"Compose([{Resize(9)} + {CenterCrop(8)}])"
    assert repr(Compose([crop, jitter, flip])) == f"Compose([{crop}, {jitter}, {flip}])"


def erased_box(image, erased):
    changed = np.argwhere((image != erased).any(axis=0))
    (top, left), (bottom, right) = changed.min(0), changed.max(0) + 1
    assert len(changed) == (bottom - top) * (right - left)  # one full rectangle
    return bottom - top, right - left


def test_random_erasing_draws_areas_ratios_and_frequency():
    image = np.ones((3, 64, 64), np.float32)
    erasing, generator = RandomErasing(0.25, scale=(0.05, 0.2), ratio=(0.5, 2.0)), rng()
    results = [erasing(image, generator) for _ in range(2000)]
    boxes = np.array([erased_box(image, result) for result in results if result is not image])
    assert abs(len(boxes) / 2000 - 0.25) < 0.04
    area, aspect = boxes.prod(1) / 4096, boxes[:, 0] / boxes[:, 1]
    assert 0.044 < area.min() < 0.06 and 0.19 < area.max() < 0.21 and abs(area.mean() - 0.125) < 0.01
    assert 0.44 < aspect.min() < 0.55 and 1.8 < aspect.max() < 2.25 and abs(np.log(aspect).mean()) < 0.06
    assert (image == 1).all()


def test_random_erasing_fills_with_value():
    image = np.full((3, 64, 64), 9, np.float32)
    noise = RandomErasing(1.0, scale=(0.3, 0.33), value="random")(image, rng())
    drawn = noise[image != noise]
    assert abs(drawn.mean()) < 0.05 and abs(drawn.std() - 1) < 0.05 and len(np.unique(drawn)) > 0.9 * len(drawn)
    listed = RandomErasing(1.0, value=[1, 2, 3])(image, rng())
    assert [sorted(set(channel.flat)) for channel in listed] == [[1, 9], [2, 9], [3, 9]]
    assert set(RandomErasing(1.0, value=-2.5)(image, rng()).flat) == {9, -2.5}


def test_random_erasing_accepts_both_names_of_noise():
    image = np.full((3, 64, 64), 9, np.float32)
    pixel, alias = (RandomErasing(1.0, value=name)(image, rng()) for name in ("pixel", "random"))
    np.testing.assert_array_equal(pixel, alias)


def test_random_erasing_fills_with_one_random_colour():
    image = np.full((3, 64, 64), 9, np.float32)
    colours = []
    for seed in range(300):
        result = RandomErasing(1.0, value="rand")(image, rng(seed))
        erased_box(image, result)
        (colour,) = {tuple(result[:, y, x]) for y, x in np.argwhere((result != image).any(axis=0))}
        colours.append(colour)
    colours = np.array(colours)
    assert abs(colours.mean()) < 0.1 and abs(colours.std() - 1) < 0.1
    assert abs(np.corrcoef(colours.T)[0, 1]) < 0.2  # the channels are drawn independently


@pytest.mark.parametrize("count", [1, 2, 4])
def test_random_erasing_draws_the_number_of_boxes(count):
    """Each box has a colour of its own, which identifies it unless a later box covers it."""
    image = np.zeros((3, 128, 128), np.float32)
    erasing = RandomErasing(1.0, scale=(0.12, 0.12), ratio=(1.0, 1.0), value="rand", count=count)
    numbers = []
    for seed in range(400):
        result = erasing(image, rng(seed))
        boxes = [np.argwhere(result[0] == value) for value in set(result[0].flat) - {0.0}]
        numbers.append(len(boxes))
        side = round(np.sqrt(0.12 * 128**2 / len(boxes)))
        spans = [box.max(0) - box.min(0) + 1 for box in boxes]
        # the visible part of a box is within its size, and the last box is completely visible
        assert all((span <= side).all() for span in spans) and max(map(len, boxes)) == side**2
    shares = np.bincount(numbers, minlength=count + 1)[1:] / 400
    assert len(shares) == count and np.abs(shares - 1 / count).max() < 0.08


def test_random_erasing_refuses_wrong_arguments():
    with pytest.raises(UserError, match="'pixel' .or 'random'. or 'rand', got 'pixels'"):
        RandomErasing(value="pixels")
    for option in ("count", "max_attempts"):
        with pytest.raises(UserError, match=f"{option} of random erasing must be a whole number of at least 1"):
            RandomErasing(**{option: 0})
    with pytest.raises(UserError, match="prob of random erasing"):
        RandomErasing(prob=-1)
    with pytest.raises(UserError, match="0 < low <= high <= 1"):
        RandomErasing(scale=(0.5, 0.2))
    with pytest.raises(UserError, match="2 numbers, but the image has 3 channels"):
        RandomErasing(1.0, value=[1, 2])(np.zeros((3, 8, 8), np.float32), rng())
