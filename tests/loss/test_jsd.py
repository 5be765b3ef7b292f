"""Compares cross-entropy plus Jensen-Shannon divergence with NumPy formulas in float64."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindcv.loss import JSDCrossEntropy, create_loss
from mindcv.utils.errors import UserError

BATCH, CLASSES = 3, 4
RNG = np.random.default_rng(5)
LABELS = np.array([0, 3, 1])
WEIGHT = RNG.uniform(0.5, 2.0, CLASSES)


def softmax(logits):
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def entropy(shares):
    return -(shares * np.log(shares)).sum(-1)


def parts(logits, eps=0.0, splits=3):
    """Return cross-entropy and divergence of each image; the divergence is entropy of the mean minus mean entropy."""
    shares = [softmax(logits[start : start + BATCH]) for start in range(0, splits * BATCH, BATCH)]
    targets = (1 - eps) * np.eye(CLASSES)[LABELS] + eps / CLASSES
    cross_entropy = -(targets * np.log(shares[0])).sum(1)
    return cross_entropy, entropy(sum(shares) / splits) - sum(map(entropy, shares)) / splits


def slopes(function, logits, step=1e-6):
    found = np.zeros(logits.shape)
    for at in np.ndindex(logits.shape):
        up, down = logits.copy(), logits.copy()
        up[at] += step
        down[at] -= step
        found[at] = (function(up) - function(down)) / (2 * step)
    return found


@pytest.mark.parametrize(
    ("splits", "alpha", "eps"), [(3, 12.0, 0.0), (3, 12.0, 0.1), (2, 1.0, 0.1), (4, 0.0, 0.0)], ids=str
)
def test_jsd_value_and_gradient_equal_the_formula(both_modes, splits, alpha, eps, rng):
    logits = rng.normal(scale=2, size=(splits * BATCH, CLASSES))

    def formula(logits):
        cross_entropy, divergence = parts(logits, eps, splits)
        return cross_entropy.mean() + alpha * divergence.mean()

    options = {} if (splits, alpha) == (3, 12.0) else {"num_splits": splits, "alpha": alpha}
    loss = create_loss("JSD", label_smoothing=eps, **options)
    value, gradient = ms.value_and_grad(loss, 0)(Tensor(logits, ms.float32), Tensor(LABELS, ms.int32))
    np.testing.assert_allclose(value.asnumpy(), formula(logits), rtol=1e-5)
    np.testing.assert_allclose(gradient.asnumpy(), slopes(formula, logits), atol=5e-6)


def test_jsd_applies_the_reduction_to_every_form_of_labels(both_modes, rng):
    logits = rng.normal(scale=2, size=(3 * BATCH, CLASSES))
    cross_entropy, divergence = parts(logits)
    single = cross_entropy + 12 * divergence
    repeated, hot = np.tile(LABELS, 3), np.eye(CLASSES, dtype=np.float32)[LABELS]
    for reduction, right in (("none", single), ("sum", single.sum()), ("mean", single.mean())):
        loss = create_loss("jsd", reduction=reduction)
        for labels in (LABELS.astype(np.int32), repeated.astype(np.int32), hot):
            value = loss(Tensor(logits, ms.float32), Tensor(labels)).asnumpy()
            np.testing.assert_allclose(value, right, rtol=2e-5)


def test_jsd_applies_class_weights_to_the_cross_entropy_only(both_modes, rng):
    logits = rng.normal(size=(3 * BATCH, CLASSES))
    cross_entropy, divergence = parts(logits)
    of_labels = WEIGHT[LABELS]
    expected = (of_labels * cross_entropy).sum() / of_labels.sum() + 12 * divergence.mean()
    value = create_loss("JSD", weight=Tensor(WEIGHT, ms.float32))(Tensor(logits, ms.float32), Tensor(LABELS, ms.int32))
    np.testing.assert_allclose(value.asnumpy(), expected, rtol=1e-5)


def test_jsd_divergence_is_0_when_copies_are_equal(both_modes, rng):
    logits = np.tile(rng.normal(size=(BATCH, CLASSES)), (3, 1))
    inputs = Tensor(logits, ms.float32), Tensor(LABELS, ms.int32)
    value, gradient = ms.value_and_grad(create_loss("JSD"), 0)(*inputs)
    np.testing.assert_allclose(value.asnumpy(), parts(logits)[0].mean(), rtol=1e-5)
    np.testing.assert_allclose(gradient.asnumpy()[BATCH:], 0, atol=1e-5)


def test_jsd_is_finite_when_logits_are_extreme(both_modes):
    """Three copies predict three different classes with probability 1: the divergence is log 3, its largest value."""
    logits = Tensor(1e4 * (2 * np.eye(3) - 1), ms.float16)
    value, gradient = ms.value_and_grad(create_loss("JSD"), 0)(logits, Tensor([0], ms.int32))
    assert value.dtype == ms.float32
    np.testing.assert_allclose(value.asnumpy(), 12 * np.log(3), rtol=1e-6)
    assert np.isfinite(gradient.asnumpy()).all()
    value, gradient = ms.value_and_grad(create_loss("JSD"), 0)(
        Tensor(np.full((3, 3), 1e4), ms.float16), Tensor([0], ms.int32)
    )
    np.testing.assert_allclose(value.asnumpy(), np.log(3), rtol=5e-6)
    assert np.isfinite(gradient.asnumpy()).all()


def test_jsd_refuses_rows_that_are_not_a_multiple_of_num_splits(both_modes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # graph mode leaves a folder here when it fails
    with pytest.raises(ValueError, match="7 rows of logits cannot be split into 3 equal parts"):
        create_loss("JSD")(Tensor(np.zeros((7, 2)), ms.float32), Tensor([0, 1], ms.int32))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_splits": 1}, "num_splits must be a whole number of at least 2"),
        ({"alpha": -1.0}, "alpha must be a number of at least 0"),
        ({"reduction": "average"}, "reduction 'average' is not known"),
        ({"clip": 0.1}, "'JSD' has no keyword 'clip'.*it has: num_splits, alpha"),
    ],
)
def test_create_loss_refuses_wrong_options_of_jsd(options, words):
    with pytest.raises(UserError, match=words):
        create_loss("JSD", **options)
    assert isinstance(create_loss("jsd"), JSDCrossEntropy)


@pytest.mark.parametrize("batches", [(5,), pytest.param((6, 7), marks=pytest.mark.slow)], ids=len)
def test_jsd_gives_the_same_bits_at_every_call(both_modes, batches, rng):
    """The first calls of MindSpore's Log in a process try other splits over threads, which change the last bit."""
    for batch in batches:
        logits = Tensor(rng.standard_normal((2 * batch, 20)).astype(np.float32))
        labels = Tensor(rng.integers(0, 20, batch).astype(np.int32))
        loss = JSDCrossEntropy(num_splits=2)
        gradient = ms.value_and_grad(loss)
        found = set()
        for _ in range(20):
            value, slope = gradient(logits, labels)
            found.add(value.asnumpy().tobytes() + slope.asnumpy().tobytes())
        assert len(found) == 1
