"""Checks the errors of the losses: one sentence names the wrong argument, the value found and the expected one."""

import re

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindcv.loss import create_loss
from mindcv.loss.base import ClassificationLoss
from mindcv.utils.errors import UserError

NAMES = ("CE", "BCE", "asl_single_label", "asl_multi_label", "JSD")
NAN = float("nan")
LOGITS = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
NUMBERS = {"CE": 6, "BCE": 6, "asl_single_label": 6, "asl_multi_label": 6, "JSD": 2}  # number of labels for each loss


def refused(sentence):
    return pytest.raises(UserError, match=f"^{re.escape(sentence)}[^\n]*$")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"name": None}, "loss must be one of the strings 'BCE', 'CE', "),
        ({"reduction": None}, "reduction must be one of the strings 'mean', 'none', 'sum', got None"),
        ({"label_smoothing": "0.1"}, "label_smoothing must be a number of at least 0 and below 1, got '0.1'"),
        ({"label_smoothing": NAN}, "label_smoothing must be a number of at least 0 and below 1, got nan"),
        ({"label_smoothing": 1}, "label_smoothing must be a number of at least 0 and below 1, got 1"),
        ({"aux_factor": None}, "aux_factor must be a number of at least 0, got None"),
        ({"aux_factor": NAN}, "aux_factor must be a number of at least 0, got nan"),
        ({"weight": [1.0, 2.0]}, "weight must be a MindSpore tensor with one factor for each class"),
        ({"weight": Tensor(1.0, ms.float32)}, "weight must hold one factor for each class, got shape ()"),
        ({"weight": Tensor([1.0, -0.5], ms.float32)}, "weight must hold finite numbers of at least 0, got -0.5"),
        ({"weight": Tensor([NAN, 1.0], ms.float32)}, "weight must hold finite numbers of at least 0, got nan"),
        ({"weight": Tensor([0.0, 0.0], ms.float32)}, "weight must hold a number above 0, got zeros only"),
        ({"name": "bce", "target_threshold": "a"}, "target_threshold must be a number of at least 0 and below 1, got"),
        ({"name": "asl_multi_label", "clip": NAN}, "clip must be a number of at least 0 and below 1, got nan"),
        ({"name": "asl_single_label", "gamma_pos": NAN}, "gamma_pos must be a number of at least 0, got nan"),
        ({"name": "asl_single_label", "gamma_neg": "4"}, "gamma_neg must be a number of at least 0, got '4'"),
        ({"name": "JSD", "num_splits": 2.5}, "num_splits must be a whole number of at least 2, got 2.5"),
        ({"name": "JSD", "alpha": NAN}, "alpha must be a number of at least 0, got nan"),
    ],
)
def test_create_loss_names_a_wrong_argument(wrong, sentence):
    with refused(sentence):
        create_loss(**wrong)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [ms.float32, ms.float16, ms.bool_])
def test_losses_refuse_class_numbers_that_are_not_integers(name, dtype):
    labels = Tensor(np.ones(NUMBERS[name]), dtype)
    shown = {ms.float32: "float32", ms.float16: "float16", ms.bool_: "bool"}[dtype]
    sentence = f"labels of shape (images,) are class numbers and must be of an integer type, got {shown}: convert them"
    with refused(sentence):
        create_loss(name)(Tensor(LOGITS), labels)


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_equal_for_class_numbers_of_every_integer_type(name):
    labels, loss = np.arange(NUMBERS[name]) % 4, create_loss(name, label_smoothing=0.1)
    expected = loss(Tensor(LOGITS), Tensor(labels, ms.int32)).asnumpy()
    for dtype in (ms.int8, ms.int16, ms.int64, ms.uint8, ms.uint16, ms.uint32, ms.uint64):
        assert loss(Tensor(LOGITS), Tensor(labels, dtype)).asnumpy() == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [ms.bool_, ms.uint8, ms.float16])
def test_losses_are_equal_for_targets_of_0_and_1_of_every_type(name, dtype):
    targets, loss = np.eye(4)[np.arange(NUMBERS[name]) % 4], create_loss(name)
    expected = loss(Tensor(LOGITS), Tensor(targets, ms.float32)).asnumpy()
    assert loss(Tensor(LOGITS), Tensor(targets, dtype)).asnumpy() == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("logits", "labels", "sentence"),
    [
        (
            LOGITS,
            Tensor([0] * 6, ms.int32),
            "logits must be a MindSpore tensor (convert an array with ms.Tensor(array))",
        ),
        (Tensor(LOGITS), np.zeros(6, np.int32), "labels must be a MindSpore tensor (convert an array with"),
        ((), Tensor([0] * 6, ms.int32), "logits must be a MindSpore tensor (convert an array with"),
        (Tensor(LOGITS, ms.int32), Tensor([0] * 6, ms.int32), "logits must be of a floating-point type, got int32"),
        (Tensor(LOGITS[0]), Tensor(0, ms.int32), "logits must have the shape (images, classes), got (4,)"),
    ],
    ids=["array", "array of labels", "no head", "integers", "one image"],
)
def test_losses_name_the_input_that_is_not_a_batch(name, logits, labels, sentence):
    with refused(sentence):
        create_loss(name)(logits, labels)


@pytest.mark.parametrize("name", NAMES)
def test_losses_refuse_labels_without_a_dimension(name):
    with pytest.raises(ValueError, match=r"^labels of shape \(\) do not fit logits of shape \(6, 4\)$"):
        create_loss(name)(Tensor(LOGITS), Tensor(1, ms.int32))


@pytest.mark.parametrize("name", NAMES)
def test_losses_refuse_a_weight_of_another_number_of_classes(name):
    """A single factor would broadcast over the classes and silently change the loss."""
    labels = Tensor([0] * NUMBERS[name], ms.int32)
    for count in (1, 3):
        loss = create_loss(name, weight=Tensor(np.ones(count), ms.float32))
        with refused(f"weight has {count} factors, but the logits have 4 classes"):
            loss(Tensor(LOGITS), labels)


class Probe(ClassificationLoss):
    """A very small loss, whose graph compiles quickly."""

    def loss_of(self, logits, labels):
        return logits.sum()


def test_losses_refuse_float_class_numbers_when_a_graph_compiles(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MindSpore leaves a folder here when a graph does not compile
    ms.set_context(mode=ms.GRAPH_MODE)
    loss, labels = Probe(), Tensor([0] * 6, ms.int32)
    np.testing.assert_allclose(loss(Tensor(LOGITS), labels).asnumpy(), LOGITS.sum(), rtol=1e-5)
    with pytest.raises(UserError, match="class numbers and must be of an integer type, got float32"):
        loss(Tensor(LOGITS), labels.astype(ms.float32))
