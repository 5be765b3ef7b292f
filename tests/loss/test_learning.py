"""Trains with each loss in MindSpore's own training cells: ten steps on one batch must lower the loss."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindcv.loss import create_loss
from mindcv.optim import create_optimizer

BATCH, CLASSES = 6, 3
RNG = np.random.default_rng(0)
IMAGES = Tensor(RNG.normal(size=(BATCH, 8)), ms.float32)
LABELS = np.array([0, 1, 2, 2, 1, 0])
# First, for each loss, the options that add the most operators to its graph; the others are slow.
CASES = [
    ("CE", 3, {"aux_factor": 0.4, "label_smoothing": 0.1}),
    ("BCE", 1, {"label_smoothing": 0.1, "target_threshold": 0.2}),
    ("asl_single_label", 1, {"label_smoothing": 0.1}),
    ("asl_multi_label", 1, {}),
    ("JSD", 1, {"alpha": 1.0}),
]
CASES += [
    pytest.param(*case, marks=pytest.mark.slow)
    for case in (
        ("CE", 1, {}),
        ("CE", 1, {"reduction": "sum"}),
        ("CE", 1, {"label_smoothing": 0.1}),
        ("CE", 2, {"aux_factor": 0.4}),
        ("BCE", 1, {}),
        ("BCE", 1, {"reduction": "sum"}),
        ("BCE", 2, {"aux_factor": 0.4}),
        ("BCE", 3, {"aux_factor": 0.4}),
    )
]


class Heads(nn.Cell):
    """One classifier, or several classifiers whose logits form a tuple."""

    def __init__(self, count):
        super().__init__()
        self.heads = nn.CellList([nn.Dense(8, CLASSES) for _ in range(count)])

    def construct(self, x):
        outputs = ()
        for head in self.heads:
            outputs += (head(x),)
        return outputs if len(outputs) > 1 else outputs[0]


@pytest.mark.parametrize(("name", "heads", "options"), CASES)
def test_ten_steps_lower_the_loss_equally_in_both_modes(name, heads, options):
    """The loss of each step is the same in both modes. Other tests compare PyNative mode with formulas."""
    is_hot = name in ("BCE", "asl_multi_label")
    labels = Tensor(np.eye(CLASSES)[LABELS], ms.float32) if is_hot else Tensor(LABELS, ms.int32)
    losses = []
    for mode in (ms.PYNATIVE_MODE, ms.GRAPH_MODE):
        ms.set_context(mode=mode)
        ms.set_seed(0)
        with_loss = nn.WithLossCell(Heads(heads), create_loss(name, **options))
        step = nn.TrainOneStepCell(with_loss, create_optimizer(with_loss, "adam", lr=0.01)).set_train()
        losses.append([float(step(IMAGES, labels).asnumpy()) for _ in range(10)])
    assert losses[0][-1] < losses[0][0] and np.isfinite(losses).all()
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-5)
