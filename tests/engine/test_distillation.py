"""Distillation of a linear student is compared with its gradient written in NumPy."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from mindcv.engine import DistillationLoss, DistillationNetwork, apply_amp, create_trainer
from mindcv.engine.loss_scale import FixedLossScale
from mindcv.engine.train_step import TrainStep
from mindcv.loss import create_loss
from mindcv.models.convnext import ConvNeXt
from mindcv.optim import create_optimizer
from mindcv.utils.errors import UserError

LR, EPS = 0.5, 0.1
RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((6, 4)).astype(np.float32)
LABELS = np.int32([0, 1, 2, 2, 1, 0])
MODES = pytest.mark.parametrize("mode_", [ms.PYNATIVE_MODE, ms.GRAPH_MODE], ids=["pynative", "graph"])
KINDS = pytest.mark.parametrize(("kind", "tau"), [("soft", 1.0), ("soft", 3.0), ("hard", 1.0)])


def linear(seed):
    rng = np.random.default_rng(seed)
    network = nn.Dense(4, 3)
    network.weight.set_data(Tensor(2 * rng.standard_normal((3, 4)).astype(np.float32)))
    network.bias.set_data(Tensor(rng.standard_normal(3).astype(np.float32)))
    return network


def weights(network):
    return [parameter.asnumpy().astype(np.float64) for parameter in network.get_parameters()]


def softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def by_hand(logits, teacher_logits, kind, alpha, tau):
    """Return (loss, its gradient with respect to the student's logits). The base is a smoothed cross-entropy."""
    size, shares = len(logits), softmax(logits)
    targets = (1 - EPS) * np.eye(3)[LABELS] + EPS / 3
    loss = (1 - alpha) * -(targets * np.log(shares)).sum() / size
    gradient = (1 - alpha) * (shares - targets) / size
    if kind == "hard":
        chosen = np.eye(3)[teacher_logits.argmax(1)]
        return loss - alpha * (chosen * np.log(shares)).sum() / size, gradient + alpha * (shares - chosen) / size
    p, q = softmax(teacher_logits / tau), softmax(logits / tau)
    loss += alpha * tau**2 * (p * np.log(p / q)).sum() / size
    return loss, gradient + alpha * tau * (q - p) / size  # tau^2 by the chain rule's 1 / tau


@MODES
@KINDS
def test_distillation_step_updates_the_student_by_the_formula(mode_, kind, tau):
    ms.set_context(mode=mode_)
    student, teacher = linear(1), linear(2)
    (weight, bias), before = weights(student), weights(teacher)
    network = DistillationNetwork(student, teacher)
    optimizer = create_optimizer(student, "sgd", lr=LR, momentum=0.0)
    loss = DistillationLoss(create_loss("CE", label_smoothing=EPS), kind, alpha=0.3, tau=tau)
    step = TrainStep(network, loss, optimizer, FixedLossScale()).set_train(True)
    found, _ = step(Tensor(IMAGES), Tensor(LABELS))
    logits, teacher_logits = IMAGES @ weight.T + bias, IMAGES @ before[0].T + before[1]
    expected, gradient = by_hand(logits, teacher_logits, kind, 0.3, tau)
    np.testing.assert_allclose(found.asnumpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(student.weight.asnumpy(), weight - LR * gradient.T @ IMAGES, atol=2e-6)
    np.testing.assert_allclose(student.bias.asnumpy(), bias - LR * gradient.sum(0), atol=2e-6)
    for now, then in zip(weights(teacher), before):
        np.testing.assert_array_equal(now, then)


def test_distillation_network_trains_only_parameters_of_the_student():
    student, teacher = linear(1), linear(2)
    network = DistillationNetwork(student, teacher)
    assert [parameter.name for parameter in student.get_parameters()] == ["weight", "bias"]
    assert [parameter.name for parameter in network.trainable_params()] == ["weight", "bias"]
    assert network.trainable_params()[0] is student.weight
    assert [parameter.name for parameter in network.get_parameters()] == [
        *("weight", "bias", "teacher.weight", "teacher.bias")
    ]
    DistillationNetwork(linear(3), teacher)  # a second student
    assert teacher.weight.name == "teacher.weight"


class Switch(nn.Cell):
    """A cell that returns ones in training and zeros in evaluation."""

    def construct(self, x):
        return ops.ones_like(x) if self.training else ops.zeros_like(x)


@MODES
def test_distillation_network_keeps_the_teacher_in_evaluation_mode(mode_):
    ms.set_context(mode=mode_)
    network = DistillationNetwork(Switch(), nn.SequentialCell(Switch()))
    outputs = nn.SequentialCell(network).set_train(True)(Tensor(IMAGES))
    assert [float(output.asnumpy().mean()) for output in outputs] == [1.0, 0.0]
    alone = network.set_train(False)(Tensor(IMAGES))
    np.testing.assert_array_equal(alone.asnumpy(), np.zeros_like(IMAGES))


@MODES
def test_distillation_loss_sends_no_gradient_to_the_teacher(mode_):
    ms.set_context(mode=mode_)
    teacher = linear(2)
    network = DistillationNetwork(linear(1), teacher).set_train(True)
    teacher.weight.requires_grad = True  # even then
    loss = DistillationLoss(create_loss("CE"), alpha=1.0)

    def forward(images, labels):
        return loss(network(images), labels)

    (gradient,) = ms.grad(forward, None, [teacher.weight])(Tensor(IMAGES), Tensor(LABELS))
    np.testing.assert_array_equal(gradient.asnumpy(), 0)


@MODES
@KINDS
def test_distillation_loss_is_exact_and_finite_for_extreme_float16_logits(mode_, kind, tau):
    ms.set_context(mode=mode_)
    loss = DistillationLoss(create_loss("CE"), kind, tau=tau)
    logits = Tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0], [2.0, 2.0, 2.0]], ms.float16)
    teacher_logits = Tensor([[-1e4, 1e4, 0.0], [-1e4, 1e4, 0.0], [2.0, 2.0, 2.0]], ms.float16)

    def forward(logits, teacher_logits, labels):
        return loss((logits, teacher_logits), labels)

    value, gradient = ms.value_and_grad(forward, 0)(logits, teacher_logits, Tensor([0, 1, 2], ms.int32))
    assert value.dtype == ms.float32 and np.isfinite(gradient.asnumpy()).all()
    # The first row of the teacher's contradicts the student by 2e4; of the third only the labels tell something.
    far = 2e4 * tau if kind == "soft" else 2e4 + np.log(3)
    np.testing.assert_allclose(value.asnumpy(), 0.5 * (np.log(3) + far) / 3, rtol=1e-5)


@MODES
def test_distillation_loss_teaches_only_the_main_head_of_a_tuple(mode_, rng):
    ms.set_context(mode=mode_)
    main, aux, teacher = (rng.standard_normal((6, 3)) for _ in range(3))
    loss = DistillationLoss(create_loss("CE", label_smoothing=EPS, aux_factor=0.4), alpha=0.3, tau=2.0)
    main_, aux_, teacher_ = (Tensor(array, ms.float32) for array in (main, aux, teacher))
    found = loss(((main_, aux_), teacher_), Tensor(LABELS))
    aux_alone = by_hand(aux, teacher, "soft", 0.0, 1.0)[0]
    expected = by_hand(main, teacher, "soft", 0.3, 2.0)[0] + 0.7 * 0.4 * aux_alone
    np.testing.assert_allclose(found.asnumpy(), expected, rtol=1e-5)


def test_trainer_distils_a_convnext_in_graph_mode():
    """Student and teacher have the same parameter names, and the teacher computes in float16."""
    ms.set_context(mode=ms.GRAPH_MODE)
    student, teacher = (ConvNeXt(1, 3, (1, 1, 1, 1), (4, 4, 8, 8), use_grn=True, drop_path_rate=0.5) for _ in range(2))
    before = weights(teacher)
    network = DistillationNetwork(student, apply_amp(teacher, "O2"))
    optimizer = create_optimizer(student, "adamw", lr=0.01)
    trainer = create_trainer(network, DistillationLoss(create_loss("CE")), optimizer)
    images = np.random.default_rng(0).standard_normal((2, 1, 32, 32)).astype(np.float32)
    step = trainer.step.set_train(True)
    losses = [float(step(Tensor(images), Tensor(np.int32([0, 2])))[0].asnumpy()) for _ in range(10)]
    assert losses[-1] < losses[0]
    for now, then in zip(weights(teacher), before):
        np.testing.assert_array_equal(now, then)


def test_distillation_network_refuses_one_network_as_student_and_teacher():
    student = linear(1)
    with pytest.raises(UserError, match="network of its own"):
        DistillationNetwork(student, nn.SequentialCell(student))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"kind": "sotf"}, "did you mean 'soft'"),
        ({"alpha": 1.5}, "alpha"),
        ({"tau": 0.0}, "tau"),
        ({"kind": "hard", "tau": 2.0}, "tau is of soft"),
        ({"base": create_loss("CE", reduction="sum")}, "reduction 'mean', not 'sum'"),
    ],
)
def test_distillation_loss_refuses_wrong_options(wrong, words):
    with pytest.raises(UserError, match=words):
        DistillationLoss(**{"base": create_loss("CE"), **wrong})
