"""Tests of mixup and CutMix against their formulas."""

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
def test_mixup_follows_its_formula(size):
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


def test_mixup_mixes_labels_that_are_probabilities():
    images, _ = batch(4)
    shares = np.random.default_rng(5).dirichlet(np.ones(10), 4)
    _, soft = Mixup(0.8, num_classes=10, mode="batch")(images, shares, rng())
    ratio = (soft[0, 0] - shares[3, 0]) / (shares[0, 0] - shares[3, 0])
    assert 0 < ratio < 1 and soft.dtype == np.float32
    np.testing.assert_allclose(soft, ratio * shares + (1 - ratio) * shares[::-1], atol=1e-6)


def test_mixup_keeps_the_middle_image_of_an_odd_batch():
    images, labels = batch(5)
    for mixup in (Mixup(0.8, num_classes=10), Mixup(0, 1.0, num_classes=10)):
        mixed, soft = mixup(images, labels, rng())
        np.testing.assert_allclose(mixed[2], images[2], atol=1e-6)
        np.testing.assert_allclose(soft[2], np.eye(10)[labels[2]], atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_cutmix_label_equals_the_share_of_pixels(size):
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


def test_mixup_draws_shares_from_a_beta_distribution():
    images, labels = batch(2)
    labels = np.array([0, 1])
    ratios = [Mixup(0.2, num_classes=2)(images, labels, rng(seed))[1][0, 0] for seed in range(1500)]
    assert abs(np.mean(ratios) - 0.5) < 0.04
    assert abs(np.var(ratios) - 1 / (4 * (2 * 0.2 + 1))) < 0.02  # of Beta(a, a)


def kind(images, mixed):
    if np.array_equal(images, mixed):
        return "none"
    # CutMix copies pixels, and mixup blends them
    return "cutmix" if np.isin(mixed, images).all() else "mixup"


def test_mixup_follows_prob_and_switch_prob():
    images, labels = batch(2)
    both = Mixup(1.0, 1.0, prob=0.6, num_classes=10)
    seen = [kind(images, both(images, labels, rng(seed))[0]) for seed in range(1000)]
    # A CutMix box may round to an empty one, which looks like no mixing. At this size it happens in
    # about 2% of batches.
    assert abs(seen.count("mixup") / 1000 - 0.3) < 0.05
    assert abs(seen.count("cutmix") / 1000 - 0.29) < 0.05
    unmixed = Mixup(1.0, prob=1e-9, num_classes=10)(images, labels, rng())
    np.testing.assert_array_equal(unmixed[1], np.eye(10)[labels])


def by_hand(images, labels, mixes):
    """Mix images and labels of 10 classes row by row, as `mixes` says."""
    mixed, soft = images.astype(float), np.zeros((len(images), 10))
    for i, (share, box) in enumerate(mixes):
        j = len(images) - 1 - i
        soft[i, labels[i]] += share
        soft[i, labels[j]] += 1 - float(share)
        if box is None:
            mixed[i] = float(share) * images[i] + (1 - float(share)) * images[j]
        else:
            for y in range(box[0], box[1]):
                for x in range(box[2], box[3]):
                    mixed[i, :, y, x] = images[j, :, y, x]
    return mixed, soft


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("size", [1, 2, 5, 8])
@pytest.mark.parametrize("minmax", [None, (0.2, 0.8)])
def test_mixup_modes_follow_the_formula(mode, size, minmax):
    images, labels = batch(size)
    kept = images.copy()
    mixup = Mixup(0.8, 1.0, prob=0.8, num_classes=10, mode=mode, cutmix_minmax=minmax)
    for seed in range(12):
        mixed, soft = mixup(images, labels, rng(seed))
        assert mixed.dtype == soft.dtype == np.float32
        expected = by_hand(kept, labels, mixup.draw(size, (16, 12), rng(seed)))
        np.testing.assert_allclose(mixed, expected[0], atol=1e-6)
        np.testing.assert_allclose(soft, expected[1], atol=1e-6)
        np.testing.assert_array_equal(images, kept)


@pytest.mark.parametrize("mode, num_draws", [("batch", 1), ("pair", 4), ("elem", 7)])
def test_mixup_draws_once_per_batch_pair_or_image(mode, num_draws):
    mixes = Mixup(0.8, num_classes=10, mode=mode).draw(7, (16, 12), rng())
    assert len(mixes) == 7 and len({mix.share for mix in mixes}) == num_draws
    if mode == "pair":
        assert all(mixes[i] == mixes[6 - i] for i in range(7))


def test_mixup_mode_elem_follows_the_probabilities():
    mixes = Mixup(0.7, 1.0, prob=0.6, switch_prob=0.25, num_classes=10, mode="elem").draw(8000, (16, 12), rng())
    pasted = sum(mix.box is not None for mix in mixes) / 8000
    untouched = sum(mix.box is None and mix.share == 1 for mix in mixes) / 8000
    assert abs(pasted - 0.15) < 0.015 and abs(untouched - 0.4) < 0.02
    blended = np.array([mix.share for mix in mixes if mix.box is None and mix.share < 1])
    assert abs(blended.mean() - 0.5) < 0.015 and abs(blended.var() - 1 / (4 * 2.4)) < 0.005  # of Beta(0.7, 0.7)


def test_cutmix_minmax_limits_the_boxes():
    mixes = Mixup(0, cutmix_minmax=(0.25, 0.75), num_classes=10, mode="elem").draw(4000, (16, 12), rng())
    tops, bottoms, lefts, rights = np.array([mix.box for mix in mixes]).T
    heights, widths = bottoms - tops, rights - lefts
    assert set(heights) == set(range(4, 13)) and set(widths) == set(range(3, 10))
    assert tops.min() == lefts.min() == 0 and bottoms.max() == 16 and rights.max() == 12
    assert np.bincount(heights)[4:].min() > 350 and np.bincount(widths)[3:].min() > 450
    np.testing.assert_allclose([mix.share for mix in mixes], 1 - heights * widths / 192, atol=1e-6)


def test_cutmix_correct_lam_counts_the_pasted_pixels():
    exact, drawn = (
        Mixup(0, 1.0, num_classes=10, mode="elem", correct_lam=correct).draw(3000, (224, 224), rng())
        for correct in (True, False)
    )
    assert [mix.box for mix in exact] == [mix.box for mix in drawn]
    areas = np.array([(bottom - top) * (right - left) for top, bottom, left, right in (mix.box for mix in exact)])
    counted, shares = (np.array([mix.share for mix in mixes]) for mixes in (exact, drawn))
    np.testing.assert_allclose(counted, 1 - areas / 224**2, atol=1e-6)
    assert (counted >= shares - 1e-6).all() and (counted > shares + 0.1).mean() > 0.2  # borders clip many boxes
    assert abs(shares.mean() - 0.5) < 0.02  # of Beta(1, 1)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
def test_mixup_mixes_nothing_from_the_off_epoch_on(mode):
    images, labels = batch(6)
    mixup = Mixup(0.8, 1.0, num_classes=10, mode=mode, off_epoch=3)
    for epoch in (0, 2):
        assert not np.array_equal(mixup(images, labels, rng(), epoch)[0], images)
    for epoch in (3, 10):
        mixed, soft = mixup(images, labels, rng(), epoch)
        np.testing.assert_array_equal(mixed, images)
        np.testing.assert_array_equal(soft, np.eye(10)[labels])
        assert mixed.dtype == soft.dtype == np.float32
    assert not np.array_equal(Mixup(0.8, num_classes=10)(images, labels, rng(), 1000)[0], images)  # 0 means never


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mixup_alpha": 0.0}, "not both 0"),
        ({"mixup_alpha": -1.0}, "must be at least 0"),
        ({"prob": -0.1}, "cutmix_prob"),
        ({"prob": 1.1}, "cutmix_prob"),
        ({"switch_prob": 2.0}, "switch_prob"),
        ({"mode": "pairs"}, "mixup mode 'pairs' is not known; did you mean 'pair'"),
        ({"cutmix_minmax": [0.8, 0.2]}, "cutmix_minmax must be two numbers, 0 < low <= high <= 1"),
        ({"off_epoch": -1}, "off_epoch"),
    ],
)
def test_mixup_refuses_wrong_arguments(options, message):
    with pytest.raises(UserError, match=message):
        Mixup(**options)


@pytest.mark.parametrize("mode", ["batch", "pair", "elem"])
@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_mixup_in_place_gives_the_same_bits(mode, size):
    copies = 0
    for seed in range(10):
        images, labels = batch(size, seed)
        mixup = Mixup(0.8, 1.0, prob=0.7, num_classes=10, mode=mode)
        expected, targets = mixup(images, labels, rng(seed))
        mixed, same_targets = mixup(images, labels, rng(seed), in_place=True)
        assert mixed is images
        copies += expected is not images
        np.testing.assert_array_equal(mixed, expected)
        np.testing.assert_array_equal(same_targets, targets)
    assert copies > 0  # otherwise nothing was mixed
