"""Tests of RandAugment: policy strings, operations, magnitudes and frequencies."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from mindcv.data.augment_ops import Canvas, make_ops
from mindcv.data.auto_augment import RandAugment, RandAugmentPolicy, create_auto_augment, parse_rand_augment
from mindcv.utils.errors import UserError

CANVAS = Canvas((1, 2, 3), Image.Resampling.BILINEAR)
GEOMETRIC = {"Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"}
ENHANCEMENTS = {"Color", "Contrast", "Brightness", "Sharpness"}
CONSTANT = {"AutoContrast", "Equalize", "Invert"}


def smooth_picture(size=32):
    coarse = np.random.default_rng(0).integers(40, 215, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)


def op(name, increasing=True):
    return next(op for op in make_ops(increasing) if op.name == name)


def applied(name, level, increasing=True, sign=1):
    chosen = op(name, increasing)
    return np.asarray(chosen.apply(smooth_picture(), sign * chosen.amount(level), CANVAS)).astype(int)


def test_make_ops_returns_the_published_operations():
    names = [op.name for op in make_ops(True)]
    assert len(names) == len(set(names)) == 15
    assert set(names) == GEOMETRIC | ENHANCEMENTS | CONSTANT | {"Posterize", "Solarize", "SolarizeAdd"}
    assert abs(sum(op.weight for op in make_ops(True)) - 1) < 1e-9


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize", "Invert"])
def test_ops_without_magnitude_equal_pillow(name):
    by_hand = {"AutoContrast": ImageOps.autocontrast, "Equalize": ImageOps.equalize, "Invert": ImageOps.invert}[name]
    for level in (0, 9):
        np.testing.assert_array_equal(applied(name, level), np.asarray(by_hand(smooth_picture())))


@pytest.mark.parametrize("level, mask", [(0, 0xF0), (2.4, 0xF0), (2.5, 0xE0), (5, 0xC0), (9, 0x80), (10, 0x80)])
def test_posterize_op_keeps_the_highest_bits(level, mask):
    np.testing.assert_array_equal(applied("Posterize", level), np.asarray(smooth_picture()) & mask)


def test_solarize_ops_follow_their_formulas():
    pixels = np.asarray(smooth_picture()).astype(int)
    np.testing.assert_array_equal(applied("Solarize", 5), np.where(pixels < 128, pixels, 255 - pixels))
    np.testing.assert_array_equal(
        applied("SolarizeAdd", 5), np.where(pixels < 128, np.minimum(pixels + 55, 255), pixels)
    )


@pytest.mark.parametrize("name", sorted(ENHANCEMENTS))
@pytest.mark.parametrize("level, factor", [(0, 1.0), (5, 1.45), (10, 1.9)])
def test_enhancement_ops_move_away_from_the_image_with_inc1(name, level, factor):
    enhancer = getattr(ImageEnhance, name)(smooth_picture())
    np.testing.assert_array_equal(applied(name, level), np.asarray(enhancer.enhance(factor)))
    np.testing.assert_array_equal(applied(name, level, sign=-1), np.asarray(enhancer.enhance(2 - factor)))


@pytest.mark.parametrize("name", sorted(ENHANCEMENTS))
@pytest.mark.parametrize("level, factor", [(0, 0.1), (5, 1.0), (10, 1.9)])
def test_enhancement_ops_use_the_paper_scale_without_inc(name, level, factor):
    by_hand = np.asarray(getattr(ImageEnhance, name)(smooth_picture()).enhance(factor)).astype(int)
    assert np.abs(applied(name, level, increasing=False) - by_hand).max() <= 1
    assert not op(name, increasing=False).is_signed


def test_translate_ops_move_whole_pixels():
    pixels = np.asarray(smooth_picture(20)).astype(int)
    moved = np.asarray(op("TranslateXRel").apply(smooth_picture(20), 0.25, CANVAS)).astype(int)
    np.testing.assert_array_equal(moved[:, :15], pixels[:, 5:])
    assert (moved[:, 15:] == (1, 2, 3)).all()
    moved = np.asarray(op("TranslateYRel").apply(smooth_picture(20), -0.25, CANVAS)).astype(int)
    np.testing.assert_array_equal(moved[5:], pixels[:15])
    assert (moved[:5] == (1, 2, 3)).all()
    assert op("TranslateXRel").amount(10) == 0.45


def test_shear_ops_move_rows_in_proportion_to_their_index():
    nearest = Canvas((1, 2, 3), Image.Resampling.NEAREST)
    pixels = np.asarray(smooth_picture(20))
    sheared = np.asarray(op("ShearX").apply(smooth_picture(20), 0.3, nearest))
    for y in range(20):
        # the source of the pixel's centre (x + 0.5, y + 0.5) is at x + 0.5 + 0.3 (y + 0.5)
        source = np.floor(np.arange(20) + 0.5 + 0.3 * (y + 0.5)).astype(int)
        inside = source < 20
        np.testing.assert_array_equal(sheared[y, inside], pixels[y, source[inside]])
        assert (sheared[y, ~inside] == (1, 2, 3)).all()
    transposed = smooth_picture(20).transpose(Image.Transpose.TRANSPOSE)
    by_y = op("ShearY").apply(transposed, 0.3, nearest).transpose(Image.Transpose.TRANSPOSE)
    np.testing.assert_array_equal(np.asarray(by_y), sheared)


def test_rotate_op_equals_pillow():
    nearest = Canvas((1, 2, 3), Image.Resampling.NEAREST)
    rotated = np.asarray(op("Rotate").apply(smooth_picture(), 90.0, nearest))
    np.testing.assert_array_equal(rotated, np.rot90(np.asarray(smooth_picture())))
    assert op("Rotate").amount(9) == 27
    corner = np.asarray(op("Rotate").apply(smooth_picture(), 27.0, nearest))[0, 0]
    assert tuple(corner) == (1, 2, 3)


@pytest.mark.parametrize(
    "name, sign",
    [(op.name, sign) for op in make_ops(True) for sign in (1, -1)[: 1 + op.is_signed] if op.name not in CONSTANT],
)
def test_ops_change_more_with_a_greater_magnitude(name, sign):
    chosen = op(name)
    original = np.asarray(smooth_picture()).astype(int)
    changes = [np.abs(applied(name, level, sign=sign) - original).mean() for level in range(11)]
    assert changes == sorted(changes) or name in GEOMETRIC, changes
    assert changes[9] > changes[5] > changes[1]
    amounts = [abs(chosen.amount(level)) for level in range(11)]
    assert amounts == sorted(
        amounts, reverse=name in ("Posterize", "Solarize")
    )  # the number of bits and the threshold decrease


def test_posterize_and_solarize_ops_do_not_depend_on_inc():
    for name in ("Posterize", "Solarize"):
        for level in range(11):
            np.testing.assert_array_equal(applied(name, level, increasing=False), applied(name, level))


def test_ops_draw_both_signs_equally_often():
    original, counts = smooth_picture(), 0
    brighter = op("Brightness")
    generator = np.random.default_rng(0)
    for _ in range(400):
        counts += np.asarray(brighter(original, 9, CANVAS, generator)).mean() > np.asarray(original).mean()
    assert 160 < counts < 240


@pytest.mark.parametrize("name", [op.name for op in make_ops(True)])
def test_ops_accept_grey_images(name):
    canvas = Canvas(7, Image.Resampling.BICUBIC)
    out = op(name)(smooth_picture().convert("L"), 9.0, canvas, np.random.default_rng(0))
    assert out.mode == "L" and out.size == (32, 32)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("rand-m9-mstd0.5-inc1", RandAugmentPolicy(9, 2, None, 0.5, 10, 1)),
        ("randaug-m9-n2-w0-mstd0.5-mmax10-inc1", RandAugmentPolicy(9, 2, 0, 0.5, 10, 1)),
        ("randaug-m7.5-n3-inc0-p0.8", RandAugmentPolicy(7.5, 3, None, 0, 10, 0, 0.8)),
        ("rand-mstd101-mmax8", RandAugmentPolicy(10, 2, None, 101, 8, 0)),
        ("randaug", RandAugmentPolicy(10, 2, None, 0, 10, 0, 0.5)),
    ],
)
def test_parse_rand_augment_reads_policy_strings(text, expected):
    assert parse_rand_augment(text) == expected


@pytest.mark.parametrize(
    "text, message",
    [
        ("randagu-m9", "'randagu' is not known; did you mean 'randaug'"),
        ("rand-q3", "field 'q' is not known"),
        ("rand-msdt0.5", "field 'msdt' is not known; did you mean 'mstd'"),
        ("rand-m", "field 'm' must be followed by a number, got ''"),
        ("rand-m9x", "field 'm' must be followed by a number, got '9x'"),
        ("rand-n2.5", "field 'n' must be followed by a whole number"),
        ("rand-m9-m8", "field 'm' occurs twice"),
        ("rand--m9", "field '' is not known"),
        ("rand-m11", "m must be a number of at least 0 and at most 10, got 11"),
        ("rand-n0", "n must be a whole number of at least 1, got 0"),
        ("rand-mmax0", "mmax must be a number above 0 and at most 10, got 0"),
        ("rand-w1", "w must be 0"),
        ("rand-w0-n14", "n must be a whole number of at least 1 and at most 13 with w0, .*, got 14"),
        ("rand-inc2", "inc must be a whole number of at least 0 and at most 1, got 2"),
        ("rand-p1.5", "p must be a number of at least 0 and at most 1, got 1.5"),
        ("rand-m-1", "m must be a number of at least 0 and at most 10, got -1"),
        ("rand-9", "'rand-9' is not known; did you mean 'rand'"),
        ("", "policy '' is not known .there are: 3a, augmix, autoaug"),
        ("autoag", "'autoag' is not known; did you mean 'autoaug'"),
        ("autoaug-m9", "field 'm' is not known .there are: mstd."),
        ("autoaug-mstd", "field 'mstd' must be followed by a number"),
        ("v0r-mstd-1", "v0r's mstd must be a number of at least 0, got -1"),
        ("3a-mstd0.5-mstd0.5", "occurs twice"),
        ("trivialaugwide-m20", "'trivialaugwide' takes no fields, got 'm20'"),
        ("augmix-n3", "field 'n' is not known"),
        ("augmix-d1.5", "field 'd' must be followed by a whole number"),
        ("augmix-d0", "d must be a whole number of at least 1, or -1"),
        ("augmix-w0", "w must be a whole number of at least 1, got 0"),
        ("augmix-a0", "a must be a number above 0, got 0"),
        ("augmix-b2", "b must be a whole number of at least 0 and at most 1, got 2"),
        ("augmix-m11", "AugMix's m must be a number of at least 0 and at most 10, got 11"),
        ("augmix-mstd-1", "AugMix's mstd must be a number of at least 0, got -1"),
    ],
)
def test_create_auto_augment_refuses_bad_policy_strings(text, message):
    with pytest.raises(UserError, match=message):
        create_auto_augment(text, [1, 2, 3], "bilinear")


class Recorder:
    """Stands in for an operation and records its calls."""

    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def __call__(self, image, level, canvas, rng):
        self.calls.append((self.name, level))
        return image


def recorded(text, times=2000):
    augment = create_auto_augment(text, [1, 2, 3], "bilinear")
    calls, generator = [], np.random.default_rng(0)
    augment._ops = [Recorder(op.name, calls) for op in augment._ops]
    for _ in range(times):
        augment(smooth_picture(4), generator)
    return [name for name, _ in calls], np.array([level for _, level in calls])


def test_rand_augment_applies_num_ops_operations_with_probability_p():
    assert abs(len(recorded("rand-n2")[0]) / 2000 - 1.0) < 0.06
    assert abs(len(recorded("rand-n3")[0]) / 2000 - 1.5) < 0.08
    assert len(recorded("rand-n3-p1")[0]) == 6000


def test_rand_augment_chooses_operations_equally_or_by_weight():
    names, _ = recorded("rand-n1-p1", 6000)
    counts = [names.count(op.name) / 6000 for op in make_ops(True)]
    assert min(counts) > 0.8 / 15 and max(counts) < 1.2 / 15
    names, _ = recorded("rand-n1-p1-w0", 6000)
    shares = {name: names.count(name) / 6000 for name in set(names)}
    assert abs(shares["Rotate"] - 0.3) < 0.03 and abs(shares["ShearX"] - 0.2) < 0.03
    assert abs(shares["Color"] - 0.025) < 0.01
    assert "Invert" not in shares and "Posterize" not in shares
    names, _ = recorded("rand-n2-p1-w0", 500)
    assert all(first != second for first, second in zip(names[::2], names[1::2]))  # drawn without replacement


def test_rand_augment_adds_noise_to_the_magnitude():
    assert set(recorded("rand-m9")[1]) == {9.0}
    _, levels = recorded("rand-m5-mstd0.5")
    assert abs(levels.mean() - 5) < 0.05 and abs(levels.std() - 0.5) < 0.03
    _, levels = recorded("rand-m5-mstd1.5")
    assert abs(levels.std() - 1.5) < 0.08
    _, levels = recorded("rand-m9-mstd1")
    assert levels.max() == 10.0 and levels.min() > 4
    _, levels = recorded("rand-m9-mstd0.5-mmax8")
    assert levels.max() == 8.0 and (levels == 8.0).mean() > 0.9
    _, levels = recorded("rand-m6-mstd100")
    assert levels.min() < 0.1 and 5.9 < levels.max() <= 6 and abs(levels.mean() - 3) < 0.15


@pytest.mark.parametrize("inc, expected", [("", 0.9), ("-inc0", 0.9), ("-inc1", 0.0)])
def test_rand_augment_passes_inc_to_the_operations(inc, expected):
    augment = create_auto_augment(f"rand-m0{inc}", [1, 2, 3], "bilinear")
    brightness = next(op for op in augment._ops if op.name == "Brightness")
    assert abs(brightness.amount(0)) == pytest.approx(expected)


def test_rand_augment_depends_only_on_the_generator():
    augment = create_auto_augment("rand-m9-mstd0.5-inc1", [123.675, 116.28, 103.53], "bicubic")
    first, again = (augment(smooth_picture(), np.random.default_rng(5)).tobytes() for _ in range(2))
    assert first == again
    assert len({augment(smooth_picture(), np.random.default_rng(s)).tobytes() for s in range(20)}) > 10


def test_rand_augment_uses_fill_and_interpolation():
    augment = create_auto_augment("rand", [123.675, 116.28, 103.53], "bicubic")
    assert augment.canvas == Canvas((124, 116, 104), Image.Resampling.BICUBIC)
    assert RandAugment(RandAugmentPolicy(), [114.5], "nearest").canvas == Canvas(114, Image.Resampling.NEAREST)
    assert RandAugment(RandAugmentPolicy(), [1, 2, 3], "lanczos").canvas.resample == Image.Resampling.BICUBIC
    assert "magnitude=9" in repr(create_auto_augment("rand-m9", [1, 2, 3], "bilinear"))
