"""Compares the losses and their gradients with NumPy formulas in float64, in both modes."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindcv.loss import BinaryCrossEntropySmooth, CrossEntropySmooth, create_loss
from mindcv.utils.errors import UserError

BATCH, CLASSES = 5, 7
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(scale=3, size=(BATCH, CLASSES))
LOGITS[0, :2] = 0.0
AUX = [RNG.normal(size=(BATCH, CLASSES)) for _ in range(2)]
LABELS = np.array([0, 6, 3, 3, 1])
SOFT = RNG.dirichlet(np.ones(CLASSES), BATCH)
WEIGHT = RNG.uniform(0.5, 2.0, CLASSES)


def targets_of(labels, eps):
    hot = np.eye(CLASSES)[labels] if labels.ndim == 1 else labels
    return (1 - eps) * hot + eps / CLASSES


def softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def ce(logits, labels, eps=0.0, weight=None, reduction="mean"):
    """Return the value and the gradient."""
    w = np.ones(CLASSES) if weight is None else weight
    weighted = w * targets_of(labels, eps)
    probs = softmax(logits)
    share = 1.0
    if reduction == "mean":
        share = 1 / (w[labels].sum() if labels.ndim == 1 else len(logits))
    value = -(weighted * np.log(probs)).sum() * share
    return value, (probs * weighted.sum(1, keepdims=True) - weighted) * share


def bce(logits, labels, eps=0.0, weight=None, reduction="mean"):
    w = np.ones(CLASSES) if weight is None else weight
    t = targets_of(labels, eps)
    p = 1 / (1 + np.exp(-logits))
    share = 1 / logits.size if reduction == "mean" else 1.0
    return -(w * (t * np.log(p) + (1 - t) * np.log(1 - p))).sum() * share, w * (p - t) * share


def tensors(logits, labels, dtype=ms.float32):
    return Tensor(logits, dtype), Tensor(labels, ms.int32 if labels.ndim == 1 else ms.float32)


def value_and_grad(loss, *inputs):
    value, grad = ms.value_and_grad(loss, 0)(*inputs)
    return value.asnumpy(), grad.asnumpy()


@pytest.mark.parametrize(("name", "formula"), [("CE", ce), ("BCE", bce)])
@pytest.mark.parametrize("labels", [LABELS, SOFT], ids=["int", "soft"])
@pytest.mark.parametrize("eps", [0.0, 0.1])
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["equal", "weighted"])
def test_cross_entropy_values_and_gradients_equal_the_formulas(both_modes, name, formula, labels, eps, weight):
    class_weight = None if weight is None else Tensor(weight, ms.float32)
    loss = create_loss(name, weight=class_weight, label_smoothing=eps)
    value, grad = value_and_grad(loss, *tensors(LOGITS, labels))
    expected, expected_grad = formula(LOGITS, labels, eps, weight)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(grad, expected_grad, atol=1e-6)


@pytest.mark.parametrize(("name", "formula"), [("CE", ce), ("BCE", bce)])
@pytest.mark.parametrize("labels", [LABELS, SOFT], ids=["int", "soft"])
def test_cross_entropies_sum_when_the_reduction_is_sum(both_modes, name, formula, labels):
    value, grad = value_and_grad(create_loss(name, reduction="sum", label_smoothing=0.1), *tensors(LOGITS, labels))
    expected, expected_grad = formula(LOGITS, labels, 0.1, reduction="sum")
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(grad, expected_grad, atol=5e-6)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["equal", "weighted"])
@pytest.mark.parametrize("labels", [LABELS, SOFT], ids=["int", "soft"])
def test_cross_entropies_are_not_reduced_when_the_reduction_is_none(both_modes, labels, weight):
    """Cross-entropy gives one loss for each sample; binary cross-entropy gives one for each sample and class.

    They are weighted but not divided by the weights.
    """
    w = np.ones(CLASSES) if weight is None else weight
    options = {"reduction": "none", "label_smoothing": 0.1, "weight": Tensor(w, ms.float32)}
    targets, p = targets_of(labels, 0.1), 1 / (1 + np.exp(-LOGITS))
    expected = {
        "CE": -(w * targets * np.log(softmax(LOGITS))).sum(1),
        "BCE": -w * (targets * np.log(p) + (1 - targets) * np.log(1 - p)),
    }
    for name, right in expected.items():
        value = create_loss(name, **options)(*tensors(LOGITS, labels)).asnumpy()
        assert value.shape == right.shape
        np.testing.assert_allclose(value, right, rtol=2e-5)


def test_bce_counts_targets_above_the_threshold_as_present(both_modes, rng):
    """The first image mixes two classes. By hand, its smoothed targets are 0.02 + 0.9 * (0.7, 0.3, 0, 0, 0)."""
    logits = rng.normal(size=(2, 5))
    soft = np.array([[0.7, 0.3, 0.0, 0.0, 0.0], [0.0, 0.8, 0.0, 0.0, 0.2]])
    for threshold, eps, hard in (
        (0.2, 0.0, [[1, 1, 0, 0, 0], [0, 1, 0, 0, 0]]),
        (0.2, 0.1, [[1, 1, 0, 0, 0], [0, 1, 0, 0, 0]]),  # 0.9 * 0.2 + 0.02 = 0.2
        (0.19, 0.1, [[1, 1, 0, 0, 0], [0, 1, 0, 0, 1]]),
        (0.29, 0.1, [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]]),  # 0.9 * 0.3 + 0.02 = 0.29
    ):
        loss = create_loss("BCE", label_smoothing=eps, target_threshold=threshold + 1e-6)
        p = 1 / (1 + np.exp(-logits))
        expected = -np.where(np.array(hard) == 1, np.log(p), np.log(1 - p)).mean()
        np.testing.assert_allclose(loss(*tensors(logits, soft)).asnumpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["CE", "BCE"])
def test_cross_entropies_are_exact_when_logits_are_equal(both_modes, name):
    logits, labels = np.full((2, 4), 1e4 if name == "CE" else 0.0), np.array([0, 3])
    value, grad = value_and_grad(create_loss(name), *tensors(logits, labels, ms.float16))
    np.testing.assert_allclose(value, np.log(4) if name == "CE" else np.log(2), rtol=5e-6)
    share = 1 / 4 if name == "CE" else 1 / 2
    expected = (share - np.eye(4)[labels]) / (2 if name == "CE" else 8)
    np.testing.assert_allclose(grad, expected, atol=1e-4)  # the gradient is float16, like the logits


@pytest.mark.parametrize(("name", "formula"), [("CE", ce), ("BCE", bce)])
def test_cross_entropies_add_the_auxiliary_heads_times_aux_factor(both_modes, name, formula):
    loss = create_loss(name, aux_factor=0.4)
    main, labels = tensors(LOGITS, LABELS)
    value = loss((main, *(Tensor(aux, ms.float32) for aux in AUX)), labels).asnumpy()
    expected = formula(LOGITS, LABELS)[0] + 0.4 * sum(formula(aux, LABELS)[0] for aux in AUX)
    np.testing.assert_allclose(value, expected, rtol=1e-5)


@pytest.mark.parametrize(("name", "formula"), [("CE", ce), ("BCE", bce)])
def test_cross_entropies_compute_in_float32_when_logits_are_float16(both_modes, name, formula):
    half = LOGITS.astype(np.float16)
    value = create_loss(name, label_smoothing=0.1)(*tensors(half, LABELS, ms.float16))
    assert value.dtype == ms.float32
    np.testing.assert_allclose(value.asnumpy(), formula(half.astype(np.float64), LABELS, 0.1)[0], rtol=1e-6)


@pytest.mark.parametrize("name", ["CE", "BCE"])
def test_cross_entropies_are_exact_when_logits_are_extreme(both_modes, name):
    logits = np.array([[1e4, -1e4, 0.0]])
    value, grad = value_and_grad(create_loss(name), *tensors(logits, np.array([1])))
    # CE is the log-sum-exp 1e4 minus -1e4. BCE is 1e4 + 1e4 + log 2, divided by three classes.
    np.testing.assert_allclose(value, 2e4 if name == "CE" else (2e4 + np.log(2)) / 3, rtol=1e-6)
    expected = [[1.0, -1.0, 0.0]] if name == "CE" else [[1 / 3, -1 / 3, 0.5 / 3]]
    np.testing.assert_allclose(grad, expected, atol=1e-6)


def test_bce_mean_is_over_the_current_batch_when_sizes_change(both_modes):
    loss = create_loss("BCE")
    for size in (5, 2, 3):
        _, grad = value_and_grad(loss, *tensors(LOGITS[:size], LABELS[:size]))
        np.testing.assert_allclose(grad, bce(LOGITS[:size], LABELS[:size])[1], atol=1e-6)


def test_cross_entropy_reads_integer_one_hot_labels_as_targets(both_modes):
    hot = Tensor(np.eye(CLASSES, dtype=np.int32)[LABELS])
    value = create_loss("CE")(Tensor(LOGITS, ms.float32), hot)
    np.testing.assert_allclose(value.asnumpy(), ce(LOGITS, LABELS)[0], rtol=1e-6)


def test_create_loss_finds_names_in_any_case_and_lists_them_when_unknown():
    assert isinstance(create_loss("ce"), CrossEntropySmooth)
    assert isinstance(create_loss("bce"), BinaryCrossEntropySmooth)
    with pytest.raises(UserError, match="loss 'focal' is not known.*BCE, CE, JSD, asl_multi_label, asl_single_label"):
        create_loss("focal")
    with pytest.raises(UserError, match="loss 'CE' has no keyword 'target_threshold'.*it has: none"):
        create_loss("ce", target_threshold=0.2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"reduction": "batchmean"},
        {"label_smoothing": 1.0},
        {"label_smoothing": -0.1},
        {"aux_factor": -1.0},
        {"weight": Tensor(np.ones((2, 2)), ms.float32)},
    ],
    ids=["reduction", "smoothing", "negative", "aux", "weight"],
)
def test_create_loss_refuses_options_out_of_range(wrong):
    with pytest.raises(UserError):
        create_loss("CE", **wrong)


@pytest.mark.parametrize(("eps", "threshold"), [(0.0, 1.0), (0.0, -0.1), (0.1, 0.0), (0.1, 0.95)])
def test_bce_refuses_thresholds_that_smoothing_alone_crosses(eps, threshold):
    with pytest.raises(UserError, match="target_threshold must be "):
        create_loss("BCE", label_smoothing=eps, target_threshold=threshold)


@pytest.mark.parametrize("name", ["CE", "BCE", "asl_single_label", "asl_multi_label"])
@pytest.mark.parametrize("shape", [(BATCH, 1), (BATCH + 1,), (BATCH, CLASSES + 1)])
def test_losses_refuse_labels_whose_shape_does_not_fit_the_logits(name, shape, both_modes, tmp_path, monkeypatch):
    """Labels (B, 1) would broadcast over the classes and silently give a wrong loss."""
    monkeypatch.chdir(tmp_path)  # MindSpore leaves a folder here when a graph does not compile
    with pytest.raises(ValueError, match=r"labels of shape \(.*\) do not fit logits of shape \(5, 7\)"):
        create_loss(name)(Tensor(LOGITS, ms.float32), Tensor(np.zeros(shape), ms.int32))
