"""Tests of AutoAugment, TrivialAugment and AugMix: tables, operations and frequencies."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from mindcv.data.augment_ops import Canvas, make_paper_ops, make_wide_ops
from mindcv.data.augment_policies import POLICIES
from mindcv.data.auto_augment import AugMix, AugMixPolicy, AutoAugment, TrivialAugmentWide, create_auto_augment
from mindcv.utils.errors import UserError

CANVAS = Canvas((1, 2, 3), Image.Resampling.NEAREST)
MEAN = [1, 2, 3]

# Each entry is an operation, a probability and a magnitude. The operations are P posterize, R
# rotate, S solarize, Z solarize-add, A autocontrast, E equalize, I invert, C color, K contrast, H
# sharpness, X and Y shear, T translate. ORIGINAL comes from torchvision, which omits magnitudes
# without a meaning. V0 comes from the EfficientNet code.
ORIGINAL = """
P.4,8 R.6,9|S.6,5 A.6|E.8 E.6|P.6,7 P.6,6|E.4 S.2,4|E.4 R.8,8|S.6,3 E.6|P.8,5 E1|R.2,3 S.6,8|E.6 P.4,6|R.8,8 C.4,0|
R.4,9 E.6|E0 E.8|I.6 E1|C.6,4 K1,8|R.8,8 C1,2|C.8,8 S.8,7|H.4,7 I.6|X.6,5 E1|C.4,0 E.6|E.4 S.2,4|S.6,5 A.6|I.6 E1|
C.6,4 K1,8|E.8 E.6
"""
V0 = """
E.8 Y.8,4|C.4,9 E.6|C.4,1 R.6,8|S.8,3 E.4|S.4,2 S.6,2|C.2,0 E.8|E.4 Z.8,3|X.2,9 R.6,8|C.6,1 E1|I.4 R.6,0|E1 Y.6,3|
C.4,7 E.6|P.4,6 A.4|S.6,8 C.6,9|S.2,4 R.8,9|R1,7 T.8,9|X0,0 S.8,4|Y.8,0 C.6,4|C1,0 R.6,2|E.8 E0|E1 A.6|Y.4,7 Z.6,7|
P.8,2 S.6,10|S.6,8 E.6|C.8,6 R.4,5
"""
LETTERS = {
    **{"P": "Posterize", "R": "Rotate", "S": "Solarize", "Z": "SolarizeAdd", "A": "AutoContrast", "E": "Equalize"},
    **{"I": "Invert", "C": "Color", "K": "Contrast", "H": "Sharpness", "X": "ShearX", "Y": "ShearY"},
    **{"T": "TranslateYRel"},
}
WITHOUT_MAGNITUDE = {"AutoContrast", "Equalize", "Invert"}


def picture(size=24, mode="RGB"):
    coarse = np.random.default_rng(0).integers(20, 235, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).convert(mode)


def levels(image):
    return np.asarray(image).astype(int)


@pytest.mark.parametrize(
    "names, text", [(("autoaug", "autoaugr", "original", "originalr"), ORIGINAL), (("v0", "v0r"), V0)]
)
def test_policies_equal_the_published_tables(names, text):
    expected = []
    for pair in text.replace("\n", "").split("|"):
        numbers = [(LETTERS[word[0]], *word[1:].split(",")) for word in pair.split()]
        expected.append([(name, float(rest[0]), float(rest[1]) if rest[1:] else None) for name, *rest in numbers])
    for name in names:
        ours = [
            [(op, prob, None if op in WITHOUT_MAGNITUDE else magnitude) for op, prob, magnitude in pair]
            for pair in POLICIES[name].alternatives
        ]
        assert ours == expected and len(ours) == 25


def test_policy_3a_has_three_operations():
    assert POLICIES["3a"].alternatives == (
        (("Solarize", 1.0, 5),),
        (("Desaturate", 1.0, 10),),
        (("GaussianBlurRand", 1.0, 10),),
    )


@pytest.mark.parametrize(
    "policies, bits",
    [
        (("autoaug", "original", "3a"), [4, 4, 4, 5, 5, 6, 6, 6, 7, 7, 8]),
        (("autoaugr", "originalr", "v0r"), [4, 4, 4, 3, 3, 2, 2, 2, 1, 1, 1]),
        (("v0",), [1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4]),
    ],
)
def test_policies_have_their_posterize_bits(policies, bits):
    for name in policies:
        posterize = next(op for op in make_paper_ops(POLICIES[name].posterize_bits) if op.name == "Posterize")
        for level, kept in enumerate(bits):
            result = np.asarray(posterize(picture(), float(level), CANVAS, np.random.default_rng(0)))
            np.testing.assert_array_equal(result, np.asarray(picture()) & (256 - 2 ** (8 - kept)))


def paper_op(name):
    return next(op for op in make_paper_ops(POLICIES["autoaug"].posterize_bits) if op.name == name)


def test_make_paper_ops_uses_the_scale_of_the_paper():
    rng = np.random.default_rng(0)
    pixels = levels(picture())
    for level, threshold in ((0, 0), (5, 128), (10, 256)):
        result = levels(paper_op("Solarize")(picture(), level, CANVAS, rng))
        np.testing.assert_array_equal(result, np.where(pixels < threshold, pixels, 255 - pixels))
    for name in ("Color", "Contrast", "Sharpness"):
        for level in (0, 2, 8, 10):
            by_hand = getattr(ImageEnhance, name)(picture()).enhance(0.1 + 0.18 * level)
            assert np.abs(levels(paper_op(name)(picture(), level, CANVAS, rng)) - levels(by_hand)).max() <= 1
    grey = paper_op("Desaturate")(picture(), 10, CANVAS, rng)
    np.testing.assert_array_equal(grey, picture().convert("L").convert("RGB"))
    assert [paper_op(name).amount(10) for name in ("Rotate", "ShearX", "ShearY", "TranslateYRel", "SolarizeAdd")] == [
        *(30, 0.3, 0.3, 0.45, 110)
    ]


def test_blur_op_draws_a_radius():
    radii = []
    for seed in range(50):
        result = paper_op("GaussianBlurRand")(picture(), 10, CANVAS, np.random.default_rng(seed))
        radius = np.random.default_rng(seed).uniform(0.1, 2.0)
        np.testing.assert_array_equal(result, picture().filter(ImageFilter.GaussianBlur(radius)))
        radii.append(radius)
    assert min(radii) < 0.3 and max(radii) > 1.8


class Recorder:
    """Stands in for an operation and records its calls."""

    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def __call__(self, image, level, canvas, rng):
        self.calls.append((self.name, level))
        return image


def recorded(text, times):
    """Return the operations and magnitudes for each of `times` images."""
    augment = create_auto_augment(text, MEAN, "bilinear")
    calls, rng, runs = [], np.random.default_rng(0), []
    if isinstance(augment._ops, dict):
        augment._ops = {name: Recorder(name, calls) for name in augment._ops}
    else:
        augment._ops = [Recorder(op.name, calls) for op in augment._ops]
    for _ in range(times):
        augment(picture(4), rng)
        runs.append(tuple(calls))
        calls.clear()
    return runs


def test_auto_augment_applies_one_pair_with_its_probabilities():
    runs = recorded("autoaug", 20000)
    allowed = set()
    for first, second in (((f[0], f[2]), (s[0], s[2])) for f, s in POLICIES["autoaug"].alternatives):
        allowed |= {(), (first,), (second,), (first, second)}
    assert set(runs) <= allowed
    # Pairs 4 (posterize, posterize) and 19 (shear, equalize) get 1/25 of the images, times the
    # probabilities.
    assert abs(runs.count((("Posterize", 7), ("Posterize", 6))) / 20000 - 0.36 / 25) < 0.003
    assert abs(runs.count((("ShearX", 5), ("Equalize", 9))) / 20000 - 0.6 / 25) < 0.004
    assert (("Equalize", 7), ("Equalize", 8)) not in runs  # the first of these has probability 0


def test_auto_augment_adds_noise_to_the_magnitude():
    assert {level for run in recorded("3a", 50) for _, level in run} == {5.0, 10.0}
    magnitudes = np.array([level for run in recorded("3a-mstd0.5", 3000) for name, level in run if name == "Solarize"])
    assert abs(magnitudes.mean() - 5) < 0.06 and abs(magnitudes.std() - 0.5) < 0.04
    assert max(level for run in recorded("3a-mstd2", 300) for _, level in run) == 10.0


def test_auto_augment_gives_the_expected_pixels():
    """The test repeats a pair with the draws in their order: pair, probability, sign, probability."""
    augment, seen = AutoAugment("autoaug", mean=MEAN, interpolation="nearest"), 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        if rng.integers(25) != 10:  # rotate 0.8, 8 and colour 0.4, 0
            continue
        seen += 1
        expected = picture()
        if rng.random() < 0.8:
            degrees = -24.0 if rng.random() < 0.5 else 24.0
            expected = expected.rotate(degrees, Image.Resampling.NEAREST, fillcolor=(1, 2, 3))
        if rng.random() < 0.4:
            expected = ImageEnhance.Color(expected).enhance(0.1)
        np.testing.assert_array_equal(augment(picture(), np.random.default_rng(seed)), expected)
    assert seen > 3


# Operation of TrivialAugment -> (image, strength 0..30, sign) by Pillow alone, with torchvision's
# wide ranges.
WIDE = {
    "Identity": lambda x, k, s: x,
    "AutoContrast": lambda x, k, s: ImageOps.autocontrast(x),
    "Equalize": lambda x, k, s: ImageOps.equalize(x),
    "Rotate": lambda x, k, s: x.rotate(s * 4.5 * k, Image.Resampling.NEAREST, fillcolor=(1, 2, 3)),
    "Posterize": lambda x, k, s: ImageOps.posterize(x, int(8 - np.round(k / 5))),
    "Solarize": lambda x, k, s: ImageOps.solarize(x, float(np.linspace(255, 0, 31)[k])),
    "Color": lambda x, k, s: ImageEnhance.Color(x).enhance(1 + s * 0.033 * k),
    "Contrast": lambda x, k, s: ImageEnhance.Contrast(x).enhance(1 + s * 0.033 * k),
    "Brightness": lambda x, k, s: ImageEnhance.Brightness(x).enhance(1 + s * 0.033 * k),
    "Sharpness": lambda x, k, s: ImageEnhance.Sharpness(x).enhance(1 + s * 0.033 * k),
    "ShearX": lambda x, k, s: affine(x, 1, s * 0.033 * k, 0, 0, 1, 0),
    "ShearY": lambda x, k, s: affine(x, 1, 0, 0, s * 0.033 * k, 1, 0),
    "TranslateX": lambda x, k, s: affine(x, 1, 0, s * int(32 * k / 30), 0, 1, 0),
    "TranslateY": lambda x, k, s: affine(x, 1, 0, 0, 0, 1, s * int(32 * k / 30)),
}


def affine(image, *matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=(1, 2, 3))


@pytest.mark.parametrize("name", sorted(WIDE))
def test_make_wide_ops_equal_pillow(name):
    op = {op.name: op for op in make_wide_ops()}[name]
    for strength in (0, 1, 15, 22, 30):
        for sign in (1, -1) if op.is_signed else (1,):
            ours = op.apply(picture(80), sign * op.amount(strength / 3), CANVAS)
            assert np.abs(levels(ours) - levels(WIDE[name](picture(80), strength, sign))).mean() < 0.05
    assert op.is_signed == (name[:5] in ("Rotat", "Color", "Contr", "Brigh", "Sharp", "Shear", "Trans"))


@pytest.mark.parametrize("name", sorted(set(WIDE) - {"Identity", "AutoContrast", "Equalize"}))
def test_make_wide_ops_grow_with_the_magnitude(name):
    op = {op.name: op for op in make_wide_ops()}[name]
    changes = [np.abs(levels(op.apply(picture(80), op.amount(level), CANVAS)) - levels(picture(80))).mean()
               for level in (0, 2, 5, 8)]  # fmt: skip
    assert changes[0] < 0.5 and changes[3] > changes[1] > changes[0]
    assert changes == sorted(changes) or name == "Rotate"  # Rotate turns beyond half of a full turn


def test_trivial_augment_applies_one_operation_at_one_of_31_strengths():
    runs = recorded("trivialaugwide", 14000)
    assert all(len(run) == 1 for run in runs)
    names = [run[0][0] for run in runs]
    assert set(names) == set(WIDE)
    assert all(850 < names.count(name) < 1150 for name in WIDE)
    strengths = np.array([run[0][1] for run in runs]) * 3
    counts = np.bincount(np.rint(strengths).astype(int), minlength=31)
    assert np.abs(strengths - np.rint(strengths)).max() < 1e-9 and len(counts) == 31
    assert counts.min() > 370 and counts.max() < 540


def test_create_auto_augment_reads_augmix_strings():
    assert create_auto_augment("augmix", MEAN, "bilinear").policy == AugMixPolicy(3.0, 3, -1, 1.0, 0, 100.0)
    augment = create_auto_augment("augmix-m5-w4-d2-a0.5-b1-mstd0.5", MEAN, "bilinear")
    assert augment.policy == AugMixPolicy(5.0, 4, 2, 0.5, 1, 0.5)
    assert create_auto_augment("augmix-d-1-w2", MEAN, "bilinear").policy == AugMixPolicy(depth=-1, width=2)


def test_augmix_runs_chains_of_operations():
    runs = recorded("augmix-d2-w4-m5-mstd0", 50)
    assert all(len(run) == 8 and {level for _, level in run} == {5.0} for run in runs)
    lengths = [len(run) for run in recorded("augmix-w1", 600)]
    assert set(lengths) == {1, 2, 3} and all(150 < lengths.count(n) < 250 for n in (1, 2, 3))
    calls = [call for run in recorded("augmix-m4", 1000) for call in run]
    assert {name for name, _ in calls} == set(
        [
            "AutoContrast",
            "Equalize",
            "Rotate",
            "Posterize",
            "Solarize",
            "Color",
            "Contrast",
            "Brightness",
            "Sharpness",
            "ShearX",
            "ShearY",
            "TranslateXRel",
            "TranslateYRel",
        ]
    )
    magnitudes = np.array([level for _, level in calls])
    assert magnitudes.min() < 0.01 and 3.99 < magnitudes.max() <= 4 and abs(magnitudes.mean() - 2) < 0.05


class Paint:
    """An operation whose result is a uniform grey image."""

    def __init__(self, name, greys):
        self.name, self.greys = name, greys

    def __call__(self, image, level, canvas, rng):
        self.greys.append(int(rng.integers(256)))
        return Image.new("RGB", image.size, (self.greys[-1],) * 3)


@pytest.mark.parametrize("blended", [0, 1])
@pytest.mark.parametrize("width", [1, 3, 5])
def test_augmix_follows_its_formula(blended, width):
    for seed in range(20):
        augment, greys = AugMix(AugMixPolicy(width=width, depth=1, alpha=0.7, blended=blended)), []
        augment._ops = [Paint(op.name, greys) for op in augment._ops]
        result = levels(augment(picture(), np.random.default_rng(seed)))
        rng = np.random.default_rng(seed)
        m, weights = rng.beta(0.7, 0.7), rng.dirichlet([0.7] * width)
        expected = (1 - m) * levels(picture()) + m * (weights * greys).sum()
        # Each of Pillow's blends truncates to integers.
        assert np.abs(result - expected).max() <= (width if blended else 0.5001)


def test_augmix_blended_agrees_with_float_mixing():
    ways = [AugMix(AugMixPolicy(magnitude=8, blended=blended)) for blended in (0, 1)]
    differ = False
    for seed in range(20):
        slow, fast = (levels(way(picture(), np.random.default_rng(seed))) for way in ways)
        assert np.abs(slow - fast).max() <= 3
        differ = differ or (slow != fast).any()
    assert differ  # they round differently, so two different implementations ran


@pytest.mark.parametrize(
    "text", ["autoaug-mstd0.5", "autoaugr", "v0", "v0r", "3a", "trivialaugwide", "augmix-b1", "augmix"]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_policies_depend_only_on_the_generator(text, mode):
    augment = create_auto_augment(text, MEAN if mode == "RGB" else [7], "bicubic")
    results = set()
    for seed in range(40):
        first, again = (augment(picture(mode=mode), np.random.default_rng(seed)) for _ in range(2))
        assert first.mode == mode and first.size == (24, 24) and first.tobytes() == again.tobytes()
        results.add(first.tobytes())
    assert len(results) > 15
    assert repr(augment).startswith(type(augment).__name__ + "(") and " at 0x" not in repr(augment)


def test_create_auto_augment_selects_the_transform_by_name():
    kinds = {"v0r-mstd0.5": AutoAugment, "trivialaugwide": TrivialAugmentWide, "augmix-w2": AugMix}
    for text, kind in kinds.items():
        augment = create_auto_augment(text, [123.675, 116.28, 103.53], "bicubic")
        assert type(augment) is kind and augment.canvas == Canvas((124, 116, 104), Image.Resampling.BICUBIC)
    assert create_auto_augment("v0r-mstd0.5", MEAN, "bilinear").magnitude_std == 0.5
    with pytest.raises(UserError, match="'v1' is not known"):
        AutoAugment("v1")
