"""Mixup and CutMix, against their formulas."""

from __future__ import annotations

import numpy as np
import pytest

from mindcv.data.mixup import Mixup
from mindcv.utils.errors import UserError


def batch(size, seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((size, 3, 16, 12), np.float32), rng.integers(0, 10, size).astype(np.int32)


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_mixup_formula(size):
    images, labels = batch(size)
    kept = images.copy()
    hot = np.eye(10)[labels]
    for seed in range(5):
        mixed, soft = Mixup(0.8, num_classes=10)(images, labels, rng(seed))
        assert mixed.dtype == soft.dtype == np.float32 and soft.shape == (size, 10)
        np.testing.assert_array_equal(images, kept)
        for i in range(size):
            j = size - 1 - i
            ratio = 1.0 if labels[i] == labels[j] else soft[i, labels[i]]
            if labels[i] == labels[j]:
                assert abs(soft[i, labels[i]] - 1) < 1e-6
                continue
            np.testing.assert_allclose(soft[i], ratio * hot[i] + (1 - ratio) * hot[j], atol=1e-6)
            np.testing.assert_allclose(mixed[i], ratio * kept[i] + (1 - ratio) * kept[j], atol=1e-6)


def test_the_middle_image_of_an_odd_batch_stays():
    images, labels = batch(5)
    for mixup in (Mixup(0.8, num_classes=10), Mixup(0, 1.0, num_classes=10)):
        mixed, soft = mixup(images, labels, rng())
        np.testing.assert_allclose(mixed[2], images[2], atol=1e-6)
        np.testing.assert_allclose(soft[2], np.eye(10)[labels[2]], atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_cutmix_ratio_is_the_share_of_pixels(size):
    images = np.arange(size, dtype=np.float32)[:, None, None, None] * np.ones((1, 3, 16, 12), np.float32)
    labels = np.arange(size)
    ratios = []
    for seed in range(60):
        mixed, soft = Mixup(0.0, 1.0, num_classes=size)(images, labels, rng(seed))
        for i in range(size):
            share = (mixed[i] == i).mean()
            assert abs(soft[i, i] - share) < 1e-6 and abs(soft[i].sum() - 1) < 1e-6
            foreign = np.argwhere(mixed[i, 0] != i)
            if len(foreign):
                assert set(mixed[i, 0][tuple(foreign.T)]) == {size - 1 - i}
                sides = foreign.max(0) - foreign.min(0) + 1
                assert sides.prod() == len(foreign)
        ratios.append(soft[0, 0])
    if size > 1:
        assert min(ratios) < 0.5 and max(ratios) > 0.9


def test_beta_distribution():
    images, labels = batch(2)
    labels = np.array([0, 1])
    ratios = [Mixup(0.2, num_classes=2)(images, labels, rng(seed))[1][0, 0] for seed in range(1500)]
    assert abs(np.mean(ratios) - 0.5) < 0.04
    assert abs(np.var(ratios) - 1 / (4 * (2 * 0.2 + 1))) < 0.02  # of Beta(a, a)


def kind(images, mixed):
    if np.array_equal(images, mixed):
        return "none"
    # CutMix copies pixels, mixup blends them
    return "cutmix" if np.isin(mixed, images).all() else "mixup"


def test_probabilities():
    images, labels = batch(2)
    both = Mixup(1.0, 1.0, prob=0.6, num_classes=10)
    seen = [kind(images, both(images, labels, rng(seed))[0]) for seed in range(1000)]
    # A CutMix box may round to nothing, which looks like none: for about 2% of the batches at this size.
    assert abs(seen.count("mixup") / 1000 - 0.3) < 0.05
    assert abs(seen.count("cutmix") / 1000 - 0.29) < 0.05
    unmixed = Mixup(1.0, prob=1e-9, num_classes=10)(images, labels, rng())
    np.testing.assert_array_equal(unmixed[1], np.eye(10)[labels])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mixup_alpha": 0.0}, "nor both 0"),
        ({"mixup_alpha": -1.0}, "must not be negative"),
        ({"prob": 0.0}, "cutmix_prob"),
        ({"switch_prob": 2.0}, "switch_prob"),
        ({"mode": "elem"}, "mixup mode 'elem' is not known"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(UserError, match=message):
        Mixup(**options)
