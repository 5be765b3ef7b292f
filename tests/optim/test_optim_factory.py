"""Checks the arguments that `create_optimizer` accepts and refuses, and the calls that MindCV's users make."""

from typing import NamedTuple, Optional

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from mindcv.optim import AdamW, create_optimizer
from mindcv.utils.errors import UserError

ALL = ["adagrad", "adam", "adamw", "adan", "lamb", "lion", "momentum", "nadam", "rmsprop", "sgd"]
SHAPES = {"dwconv.weight": (4, 3), "norm.beta": (5,), "grn.gamma": (1, 1, 1, 6)}


def make_params():
    return [Parameter(Tensor(np.ones(shape), ms.float32), name=name) for name, shape in SHAPES.items()]


class SmallNetwork(nn.Cell):
    """A convolution with 16 input channels, a norm and a classifier."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(3)
        weights = [Tensor(rng.normal(size=shape).astype(np.float32) * 0.1) for shape in ((8, 16, 3, 3), (3, 8))]
        self.conv = nn.Conv2d(16, 8, 3, weight_init=weights[0])
        self.norm = nn.LayerNorm((8,))
        self.fc = nn.Dense(8, 3, weight_init=weights[1])

    def construct(self, x):
        return self.fc(self.norm(self.conv(x).mean((2, 3))))


def losses(network, optimizer, batch_size, scale=1.0, steps=6):
    """Train as MindCV's tests do, and return the losses of a few steps on one batch."""
    rng = np.random.default_rng(4)
    images = Tensor(rng.normal(size=(batch_size, 16, 6, 6)).astype(np.float32))
    labels = Tensor((np.arange(batch_size) % 3).astype(np.int32))
    with_loss = nn.WithLossCell(network, nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean"))
    step = nn.TrainOneStepCell(with_loss, optimizer, sens=scale)
    step.set_train()
    return [float(step(images, labels).asnumpy()) for _ in range(steps)]


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("opt", ALL)
def test_create_optimizer_lowers_the_loss_in_train_one_step_cell(opt, batch_size):
    ms.set_context(mode=ms.GRAPH_MODE)
    network = SmallNetwork()
    optimizer = create_optimizer(
        network.trainable_params(), opt, lr=0.01, weight_decay=1e-5, momentum=0.9, nesterov=False, eps=1e-8
    )
    seen = losses(network, optimizer, batch_size)
    assert seen[-1] < 0.95 * seen[0]


@pytest.mark.parametrize("weight_decay_filter", ["disable", "auto", "norm_and_bias"])
@pytest.mark.parametrize("opt", ["sgd", "momentum", "adam"])
def test_create_optimizer_lowers_the_loss_with_nesterov_and_every_filter(opt, weight_decay_filter):
    ms.set_context(mode=ms.GRAPH_MODE)
    network = SmallNetwork()
    optimizer = create_optimizer(
        network.trainable_params(),
        opt,
        lr=0.01,
        weight_decay=1e-5,
        momentum=0.9,
        nesterov=True,
        weight_decay_filter=weight_decay_filter,
        loss_scale=128.0,
    )
    seen = losses(network, optimizer, 2, scale=128.0)
    assert seen[-1] < 0.95 * seen[0]


@pytest.mark.parametrize("opt", ["adamw", "momentum", "sgd"])
def test_create_optimizer_centralizes_gradients_of_groups_that_ask_for_it(opt):
    """The mean of the convolution weights over all axes but the first must not change."""
    ms.set_context(mode=ms.GRAPH_MODE)
    network = SmallNetwork()
    params = network.trainable_params()
    convolution = [p for p in params if "conv" in p.name]
    others = [p for p in params if "conv" not in p.name]
    groups = [
        {"params": others, "lr": 0.01},
        {"params": convolution, "weight_decay": 0.0, "grad_centralization": True},
        {"order_params": params},
    ]
    optimizer = create_optimizer(groups, opt, lr=0.02, weight_decay=1e-5, eps=1.0)
    assert [p.name for p in optimizer.parameters] == [p.name for p in params]
    before = convolution[0].asnumpy().copy()
    losses(network, optimizer, 4, steps=1 if opt == "adamw" else 4)
    moved = convolution[0].asnumpy() - before
    assert np.abs(moved).max() > 1e-5
    limit = 0.1 if opt == "adamw" else 1e-3  # an adaptive rate differs between elements
    assert np.abs(moved.mean((1, 2, 3))).max() < limit * np.abs(moved).max()


class Role(NamedTuple):
    stage: Optional[int]
    block: Optional[int]
    is_decayed: bool = True


class FourStages(nn.Cell):
    """Has a weight before each of four stages, a weight in each stage, and a bias outside of the stages."""

    def __init__(self):
        super().__init__()
        ones = [Parameter(Tensor(np.ones((2, 2)), ms.float32), name=f"weight{i}") for i in range(8)]
        for param in ones:
            self.insert_param_to_cell(param.name, param)
        self.before, self.inside = tuple(ones[:4]), tuple(ones[4:])
        self.bias = Parameter(Tensor(np.ones(2), ms.float32), name="bias")

    def parameter_roles(self):
        before = {parameter.name: Role(stage, None) for stage, parameter in enumerate(self.before)}
        return {**before, **{parameter.name: Role(stage, 0) for stage, parameter in enumerate(self.inside)}}


def test_create_optimizer_applies_layer_decay_in_the_update():
    network = FourStages()
    network.before[0].requires_grad = network.inside[1].requires_grad = False  # a frozen block still counts as a layer
    optimizer = create_optimizer(network, "sgd", lr=[0.1, 0.1], momentum=0.0, weight_decay=0.0, layer_decay=0.5)
    optimizer(tuple(Tensor(np.ones(p.shape), ms.float32) for p in optimizer.parameters))
    layers = [*zip(network.before, range(1, 5)), *zip(network.inside, range(1, 5)), (network.bias, 5)]
    assert len({parameter.name for parameter, _ in layers}) == 9
    for param, layer in layers:
        moved = 0.1 * 0.5 ** (5 - layer) if param.requires_grad else 0.0
        np.testing.assert_allclose(param.asnumpy(), 1 - moved, rtol=1e-6, err_msg=param.name)


def test_create_optimizer_refuses_layer_decay_when_a_network_has_no_roles():
    with pytest.raises(UserError, match="only a network with the method parameter_roles"):
        create_optimizer(SmallNetwork(), "adamw", layer_decay=0.9)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": -0.1},
        {"lr": float("nan")},
        {"lr": None},
        {"lr": [0.1, -0.1]},
        {"lr": []},
        {"lr": [[0.1], [0.2]]},
        {"momentum": -0.9},
        {"weight_decay": -0.1},
        {"loss_scale": 0.0},
        {"loss_scale": -1.0},
        {"eps": 0.0},
        {"eps": -1e-8},
        {"opt": "adamw", "betas": (0.9, 1.0)},
        {"opt": "adamw", "betas": (0.9,)},
        {"opt": "adamw", "nesterov": True},
        {"opt": "adan", "betas": (0.9, 0.99)},
        {"opt": "sgd", "betas": (0.9, 0.99)},
        {"opt": "lion", "nesterov": True},
        {"opt": "momentum", "momentum": 0.0, "nesterov": True},
        {"opt": "nadam", "schedule_decay": -1.0},
        {"layer_decay": 0.9},
        {"checkpoint_path": "x.ckpt"},
        {"weight_decay_filter": "all"},
        {"bettas": (0.9, 0.99)},
    ],
    ids=str,
)
def test_create_optimizer_refuses_wrong_values(wrong):
    with pytest.raises(ValueError):
        create_optimizer(make_params(), **wrong)


def test_create_optimizer_lists_the_names_when_one_is_unknown():
    with pytest.raises(UserError, match="did you mean 'adam'.*" + ", ".join(ALL)):
        create_optimizer(make_params(), "adamv")
    with pytest.raises(UserError, match="no keyword 'beta1'.*it has: betas"):
        create_optimizer(make_params(), "adamw", beta1=0.9)


@pytest.mark.parametrize("is_ordered", [True, False])
@pytest.mark.parametrize("rule", ["auto", "norm_and_bias", "disable"])
def test_create_optimizer_filters_groups_without_their_own_decay(rule, is_ordered):
    """The rule applies to groups without their own decay. MindCV's tests pass groups with the rule `auto`."""
    weight, beta, gamma = make_params()
    groups = [{"params": (p for p in (beta, weight)), "lr_scale": 0.5}, {"params": [gamma], "weight_decay": 0.2}]
    if is_ordered:
        groups.append({"order_params": [weight, beta, gamma]})
    optimizer = create_optimizer(groups, "adamw", weight_decay=0.1, weight_decay_filter=rule)
    order = [weight, beta, gamma] if is_ordered else [beta, weight, gamma]
    assert [p.name for p in optimizer.parameters] == [p.name for p in order]
    decays = {weight.name: 0.1, beta.name: 0.1 if rule == "disable" else 0.0, gamma.name: 0.2}
    assert optimizer.weight_decays == tuple(decays[p.name] for p in order)
    assert optimizer.lr_scales == tuple(1.0 if p is gamma else 0.5 for p in order)


@pytest.mark.parametrize("rule", ["auto", "disable"])
@pytest.mark.parametrize("wrong", ["text", 1])
def test_create_optimizer_refuses_a_group_with_a_value_that_is_no_parameter(wrong, rule):
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        groups = [{"params": [*make_params(), wrong]}]
        create_optimizer(groups, "adamw", weight_decay_filter=rule)


def test_create_optimizer_refuses_layer_decay_with_groups():
    with pytest.raises(UserError, match="groups state their own lr_scale"):
        create_optimizer([{"params": make_params()}], "adamw", layer_decay=0.9)


@pytest.mark.parametrize(
    "wrong", [{"lr_scale": -1.0}, {"lr_scale": float("nan")}, {"lr": -0.1}, {"weight_decay": -0.1}], ids=str
)
def test_create_optimizer_refuses_wrong_values_in_groups(wrong):
    with pytest.raises(ValueError):
        create_optimizer([{"params": make_params(), **wrong}], "adamw")


def test_create_optimizer_refuses_unknown_keys_in_groups():
    with pytest.raises(KeyError, match="lr_scales"):
        create_optimizer([{"params": make_params(), "lr_scales": 0.1}], "adamw")


def test_create_optimizer_refuses_an_empty_list_of_parameters():
    with pytest.raises(UserError, match="no parameters"):
        create_optimizer([], "adamw")


def test_create_optimizer_finds_names_in_upper_case():
    assert isinstance(create_optimizer(make_params(), "AdamW"), AdamW)
