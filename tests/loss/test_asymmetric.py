"""Compares asymmetric losses with loops over their formulas in float64, and gradients with central differences."""

import math

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindcv.loss import AsymmetricLossMultilabel, AsymmetricLossSingleLabel, create_loss
from mindcv.utils.errors import UserError

BATCH, CLASSES = 4, 5
RNG = np.random.default_rng(3)
LOGITS = RNG.normal(scale=2.5, size=(BATCH, CLASSES))
LOGITS[0, :2] = 0.0
LABELS = np.array([0, 4, 2, 2])
SEVERAL = np.array([[1, 0, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 1, 0, 0, 0]])
SOFT = RNG.uniform(size=(BATCH, CLASSES))
WEIGHT = RNG.uniform(0.5, 2.0, CLASSES)
NAMES = ["asl_single_label", "asl_multi_label"]


def multi_label(logits, targets, gamma_pos=1.0, gamma_neg=4.0, clip=0.05, eps=0.0, weight=None):
    """Return the unreduced losses, (B, K)."""
    losses = np.zeros(logits.shape)
    for at in np.ndindex(logits.shape):
        y = targets[at] * (1 - eps) + eps / 2
        p = 1 / (1 + math.exp(-logits[at]))
        absent = min(1 - p + clip, 1)
        told = p * y + absent * (1 - y)
        focus = (1 - told) ** (gamma_pos * y + gamma_neg * (1 - y))
        losses[at] = -focus * (y * math.log(p) + (1 - y) * math.log(absent))
    return losses if weight is None else losses * weight


def single_label(logits, targets, gamma_pos=1.0, gamma_neg=4.0, eps=0.0, weight=None):
    """Return the unreduced losses, (B,)."""
    losses = np.zeros(len(logits))
    for row, column in np.ndindex(logits.shape):
        t = targets[row, column]
        p = math.exp(logits[row, column]) / sum(math.exp(logit) for logit in logits[row])
        told = p * t + (1 - p) * (1 - t)
        focus = (1 - told) ** (gamma_pos * t + gamma_neg * (1 - t))
        smoothed = (1 - eps) * t + eps / CLASSES
        factor = 1 if weight is None else weight[column]
        losses[row] -= factor * smoothed * focus * math.log(p)
    return losses


FORMS = [(AsymmetricLossSingleLabel, single_label), (AsymmetricLossMultilabel, multi_label)]


def slopes(function, logits, step=1e-6):
    """Return the gradient of the sum of `function` by central differences."""
    found = np.zeros(logits.shape)
    for at in np.ndindex(logits.shape):
        up, down = logits.copy(), logits.copy()
        up[at] += step
        down[at] -= step
        found[at] = (function(up).sum() - function(down).sum()) / (2 * step)
    return found


def check(loss, logits, labels, formula):
    """Compare the value and the gradient of a mean loss with the formula."""
    targets = np.eye(CLASSES)[labels] if labels.ndim == 1 else labels
    inputs = Tensor(logits, ms.float32), Tensor(labels, ms.int32 if labels.ndim == 1 else ms.float32)
    value, gradient = ms.value_and_grad(loss, 0)(*inputs)
    losses = formula(logits, targets)
    np.testing.assert_allclose(value.asnumpy(), losses.mean(), rtol=2e-5)
    expected = slopes(lambda moved: formula(moved, targets), logits) / losses.size
    np.testing.assert_allclose(gradient.asnumpy(), expected, atol=2e-6)


OPTIONS = [
    {},
    {"gamma_pos": 0.0, "gamma_neg": 2.0},
    {"gamma_pos": 0.5, "gamma_neg": 0.5},
    {"gamma_pos": 0.0, "gamma_neg": 0.0},
]


@pytest.mark.parametrize("labels", [SEVERAL, SOFT], ids=["several", "soft"])
@pytest.mark.parametrize("options", [*OPTIONS, {"clip": 0.0}, {"clip": 0.3}, {"clip": 0.0, "gamma_neg": 0.5}])
def test_multi_label_loss_and_gradient_equal_the_formula(both_modes, labels, options):
    loss = AsymmetricLossMultilabel(reduction="mean", **options)
    check(loss, LOGITS, labels, lambda x, t: multi_label(x, t, **options))


@pytest.mark.parametrize("labels", [LABELS, SOFT], ids=["int", "soft"])
@pytest.mark.parametrize("options", OPTIONS)
def test_single_label_loss_and_gradient_equal_the_formula(both_modes, labels, options):
    loss = create_loss(NAMES[0], label_smoothing=0.1, **options)
    check(loss, LOGITS, labels, lambda x, t: single_label(x, t, eps=0.1, **options))


@pytest.mark.parametrize(("loss_class", "formula"), FORMS)
def test_asymmetric_losses_apply_smoothing_and_class_weights(both_modes, loss_class, formula):
    loss = loss_class(weight=Tensor(WEIGHT, ms.float32), smoothing=0.2, reduction="mean")
    check(loss, LOGITS, LABELS, lambda x, t: formula(x, t, eps=0.2, weight=WEIGHT))


@pytest.mark.parametrize(("loss_class", "formula"), FORMS)
def test_asymmetric_losses_apply_the_reduction(both_modes, loss_class, formula):
    expected = formula(LOGITS, np.eye(CLASSES)[LABELS], eps=0.1)
    for reduction, right in (("none", expected), ("sum", expected.sum()), ("mean", expected.mean())):
        loss = loss_class(reduction=reduction, smoothing=0.1)
        value = loss(Tensor(LOGITS, ms.float32), Tensor(LABELS, ms.int32)).asnumpy()
        np.testing.assert_allclose(value, right, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("options", [{}, {"reduction": "mean", "label_smoothing": 0.1}, {"reduction": "sum"}])
def test_create_loss_multi_label_sums_and_does_not_smooth(options):
    """MindCV's callers pass options that are meant for other losses. MindCV ignores them for this loss."""
    rng = np.random.default_rng(7)
    logits, targets = rng.normal(size=(3, 4)), rng.integers(0, 2, (3, 4))
    value = create_loss(NAMES[1], **options)(Tensor(logits, ms.float32), Tensor(targets, ms.int32))
    np.testing.assert_allclose(value.asnumpy(), multi_label(logits, targets).sum(), rtol=1e-5)
    zeros = create_loss(NAMES[1], **options)(Tensor(np.zeros((3, 5)), ms.float32), Tensor(np.zeros((3, 5)), ms.int32))
    np.testing.assert_allclose(zeros.asnumpy(), 15 * 0.45**4 * -math.log(0.55), rtol=1e-5)


def test_create_loss_multi_label_logs_the_options_it_ignores(caplog, monkeypatch):
    monkeypatch.setattr("mindcv.utils.logger.logger.propagate", True)
    create_loss(NAMES[1], label_smoothing=0.1)
    assert "sums over samples and classes" in caplog.text and "label_smoothing=0.1 are not used" in caplog.text
    caplog.clear()
    create_loss(NAMES[1], reduction="none")
    assert not caplog.text


def test_create_loss_single_label_smooths_and_averages():
    rng = np.random.default_rng(8)
    logits, labels = rng.normal(size=(3, 5)), np.array([1, 1, 4])
    loss = create_loss(NAMES[0], label_smoothing=0.1, gamma_pos=0.0)
    value = loss(Tensor(logits, ms.float32), Tensor(labels, ms.int32))
    expected = single_label(logits, np.eye(5)[labels], gamma_pos=0.0, eps=0.1).mean()
    np.testing.assert_allclose(value.asnumpy(), expected, rtol=1e-5)


def test_asymmetric_losses_equal_cross_entropies_when_gammas_are_0(both_modes):
    logits, labels = Tensor(LOGITS, ms.float32), Tensor(LABELS, ms.int32)
    flat = {"gamma_pos": 0.0, "gamma_neg": 0.0}
    for one, other in (
        (create_loss(NAMES[0], label_smoothing=0.1, **flat), create_loss("CE", label_smoothing=0.1)),
        (create_loss(NAMES[1], clip=0.0, **flat), create_loss("BCE", reduction="sum")),
    ):
        np.testing.assert_allclose(one(logits, labels).asnumpy(), other(logits, labels).asnumpy(), rtol=2e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("gamma", "eps"), [(0.0, 0.0), (0.0, 0.1), (0.5, 0.0), (0.5, 0.1), (4.0, 0.0)])
def test_asymmetric_losses_are_finite_when_logits_are_extreme_or_equal(both_modes, name, gamma, eps):
    logits = np.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4], [0.0, 0.0, 0.0], [1e4, 1e4, 1e4], [-1e4, -1e4, -1e4]])
    clips = [{}] if name == NAMES[0] else [{"clip": 0.0}, {"clip": 0.05}]
    for clip in clips:
        loss = create_loss(name, label_smoothing=eps, gamma_pos=gamma, gamma_neg=gamma, **clip)
        value, gradient = ms.value_and_grad(loss, 0)(Tensor(logits, ms.float16), Tensor([1, 0, 2, 0, 1], ms.int32))
        assert value.dtype == ms.float32 and np.isfinite(value.asnumpy())
        assert np.isfinite(gradient.asnumpy()).all()


def test_multi_label_loss_keeps_its_gradient_when_a_probability_is_tiny(both_modes):
    """timm limits the probability to at least 1e-8, a logit of -18. Below that its gradient is 0."""
    logits = np.array([[-1e4, 1e4]])
    value, gradient = ms.value_and_grad(create_loss(NAMES[1], reduction="sum", clip=0.0), 0)(
        Tensor(logits, ms.float32), Tensor([[1, 0]], ms.int32)
    )
    np.testing.assert_allclose(value.asnumpy(), 2e4, rtol=1e-6)
    np.testing.assert_allclose(gradient.asnumpy(), [[-1.0, 1.0]], rtol=1e-6)


def test_asymmetric_losses_compute_in_float32_when_logits_are_float16(both_modes):
    half = LOGITS.astype(np.float16)
    for loss_class, formula in FORMS:
        value = loss_class(smoothing=0.1, reduction="mean")(Tensor(half), Tensor(LABELS, ms.int32))
        expected = formula(half.astype(np.float64), np.eye(CLASSES)[LABELS], eps=0.1).mean()
        np.testing.assert_allclose(value.asnumpy(), expected, rtol=1e-5)


def test_create_loss_finds_asymmetric_losses_in_any_case():
    assert isinstance(create_loss("ASL_single_label"), AsymmetricLossSingleLabel)
    assert isinstance(create_loss("asl_multi_label"), AsymmetricLossMultilabel)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        (NAMES[0], {"gamma_pos": -1.0}, "gamma_pos must be a number of at least 0"),
        (NAMES[1], {"gamma_neg": -1.0}, "gamma_neg must be a number of at least 0"),
        (NAMES[1], {"clip": 1.0}, "clip must be a number of at least 0 and below 1"),
        (NAMES[0], {"clip": 0.05}, "'asl_single_label' has no keyword 'clip'.*it has: gamma_pos, gamma_neg"),
        (NAMES[1], {"gama_pos": 1.0}, "did you mean 'gamma_pos'"),
    ],
)
def test_create_loss_refuses_wrong_options_of_asymmetric_losses(name, options, words):
    with pytest.raises(UserError, match=words):
        create_loss(name, **options)
