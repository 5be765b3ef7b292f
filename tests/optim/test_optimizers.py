"""Every optimizer against its formula in NumPy float64, in both modes."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from mindcv.optim import AdamW, LearningRateTable, create_optimizer
from mindcv.utils.errors import UserError

STEPS = 10
SHAPES = {"dwconv.weight": (4, 3), "norm.beta": (5,), "grn.gamma": (1, 1, 1, 6)}


@pytest.fixture(params=[ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
def mode(request):
    before = ms.get_context("mode")
    ms.set_context(mode=request.param)
    yield request.param
    ms.set_context(mode=before)


def start():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


def gradients(step):
    rng = np.random.default_rng(100 + step)
    return {name: rng.normal(size=shape) for name, shape in SHAPES.items()}


def make_params():
    return [Parameter(Tensor(value.astype(np.float32)), name=name) for name, value in start().items()]


def train(optimizer, params, scale=1.0, steps=STEPS):
    for step in range(steps):
        by_name = gradients(step)
        optimizer(tuple(Tensor((by_name[p.name] * scale).astype(np.float32)) for p in optimizer.parameters))
    return {p.name: p.asnumpy() for p in params}


def numpy_sgd(momentum, nesterov, lr, decay):
    values, speed = start(), {}
    for step in range(STEPS):
        for name, gradient in gradients(step).items():
            gradient = gradient + decay(name) * values[name]
            speed[name] = gradient if step == 0 else momentum * speed[name] + gradient
            direction = gradient + momentum * speed[name] if nesterov else speed[name]
            values[name] = values[name] - lr(step) * direction
    return values


def numpy_adam(lr, decay, betas=(0.9, 0.999), eps=1e-8, decoupled=False, nesterov=False):
    values, m, v = start(), {}, {}
    beta1, beta2 = betas
    for step in range(STEPS):
        for name, gradient in gradients(step).items():
            rate, coefficient = lr(step), decay(name)
            if decoupled:
                values[name] = values[name] * (1 - rate * coefficient)
            else:
                gradient = gradient + coefficient * values[name]
            m[name] = beta1 * m.get(name, 0) + (1 - beta1) * gradient
            v[name] = beta2 * v.get(name, 0) + (1 - beta2) * gradient**2
            correct1, correct2 = 1 - beta1 ** (step + 1), 1 - beta2 ** (step + 1)
            first = beta1 * m[name] + (1 - beta1) * gradient if nesterov else m[name]
            if decoupled:
                update = (first / correct1) / (np.sqrt(v[name] / correct2) + eps)
            else:
                update = np.sqrt(correct2) / correct1 * first / (np.sqrt(v[name]) + eps)
            values[name] = values[name] - rate * update
    return values


def assert_close(actual, expected, tolerance=1e-5):
    for name in SHAPES:
        np.testing.assert_allclose(actual[name], expected[name], rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize(
    ("opt", "momentum", "nesterov"),
    [("sgd", 0.0, False), ("sgd", 0.9, False), ("sgd", 0.9, True), ("momentum", 0.9, False), ("momentum", 0.9, True)],
)
def test_sgd_and_momentum(mode, opt, momentum, nesterov):
    params = make_params()
    optimizer = create_optimizer(params, opt, lr=0.05, weight_decay=0.1, momentum=momentum, nesterov=nesterov)
    assert_close(train(optimizer, params), numpy_sgd(momentum, nesterov, lambda step: 0.05, lambda name: 0.1))


@pytest.mark.parametrize("nesterov", [False, True])
def test_adam(mode, nesterov):
    params = make_params()
    optimizer = create_optimizer(
        params, "adam", lr=0.01, weight_decay=0.1, nesterov=nesterov, eps=1e-3, betas=(0.8, 0.95)
    )
    expected = numpy_adam(lambda step: 0.01, lambda name: 0.1, (0.8, 0.95), 1e-3, nesterov=nesterov)
    assert_close(train(optimizer, params), expected)


@pytest.mark.parametrize(("betas", "eps"), [((0.9, 0.999), 1e-8), ((0.8, 0.95), 1e-2)])
def test_adamw(mode, betas, eps):
    params = make_params()
    optimizer = create_optimizer(params, "adamw", lr=0.01, weight_decay=0.3, eps=eps, betas=betas)
    expected = numpy_adam(lambda step: 0.01, lambda name: 0.3, betas, eps, decoupled=True)
    assert_close(train(optimizer, params), expected, 1e-6)


def test_adamw_on_bare_parameters_decays_all_of_them(mode):
    params = make_params()
    optimizer = AdamW(params, 0.01, weight_decay=0.3)
    assert_close(train(optimizer, params), numpy_adam(lambda step: 0.01, lambda name: 0.3, decoupled=True), 1e-6)


@pytest.mark.parametrize("opt", ["sgd", "momentum", "adam", "adamw"])
def test_loss_scale_changes_nothing(mode, opt):
    params = make_params()
    optimizer = create_optimizer(params, opt, lr=0.01, weight_decay=0.3, loss_scale=1024.0)
    scaled = train(optimizer, params, scale=1024.0)
    params = make_params()
    assert_close(scaled, train(create_optimizer(params, opt, lr=0.01, weight_decay=0.3), params), 1e-6)


TABLE = [0.02, 0.0, 0.01, 0.005]


@pytest.mark.parametrize("lr", [TABLE, np.array(TABLE), Tensor(TABLE, ms.float32)], ids=["list", "array", "tensor"])
def test_a_table_of_rates_holds_its_last_past_the_end(mode, lr):
    params = make_params()
    optimizer = create_optimizer(params, "adamw", lr=lr, weight_decay=0.3, eps=1e-8)
    expected = numpy_adam(lambda step: TABLE[min(step, 3)], lambda name: 0.3, decoupled=True)
    assert_close(train(optimizer, params), expected, 1e-6)


@pytest.mark.parametrize("opt", ["sgd", "momentum", "adam"])
def test_tables_in_mindspores_own_optimizers(mode, opt):
    params = make_params()
    optimizer = create_optimizer(params, opt, lr=TABLE, weight_decay=0.1, eps=1e-8)
    rate, decay = (lambda step: TABLE[min(step, 3)]), (lambda name: 0.1)
    expected = numpy_adam(rate, decay) if opt == "adam" else numpy_sgd(0.9, False, rate, decay)
    assert_close(train(optimizer, params), expected)


def test_a_table_is_not_part_of_the_state():
    optimizer = create_optimizer(make_params(), "adamw", lr=TABLE)
    assert not [p.name for p in optimizer.get_parameters() if "learning_rate" in p.name]


@pytest.mark.parametrize("opt", ["momentum", "adamw"])
def test_groups_with_rates_and_decays_of_their_own(mode, opt):
    params = make_params()
    groups = [
        {"params": [params[1]], "lr": TABLE, "weight_decay": 0.0},
        {"params": [params[0], params[2]], "lr": 0.03},
        {"order_params": params},
    ]
    optimizer = create_optimizer(groups, opt, lr=0.5, weight_decay=0.2, eps=1e-8)
    assert [p.name for p in optimizer.parameters] == list(SHAPES)
    actual = train(optimizer, params)
    for names, rate, decay in [
        (["norm.beta"], lambda step: TABLE[min(step, 3)], 0.0),
        (["dwconv.weight", "grn.gamma"], lambda step: 0.03, 0.2),
    ]:
        if opt == "adamw":
            expected = numpy_adam(rate, lambda name, value=decay: value, decoupled=True)
        else:
            expected = numpy_sgd(0.9, False, rate, lambda name, value=decay: value)
        for name in names:
            np.testing.assert_allclose(actual[name], expected[name], rtol=0, atol=1e-5, err_msg=name)


def test_the_filter_reaches_the_update(mode):
    params = make_params()
    optimizer = create_optimizer(params, "adamw", lr=0.01, weight_decay=0.3, weight_decay_filter="auto", eps=1e-8)
    expected = numpy_adam(lambda step: 0.01, lambda name: 0.3 if name == "dwconv.weight" else 0.0, decoupled=True)
    assert_close(train(optimizer, params), expected, 1e-6)


class TrainStep(nn.Cell):
    """Gradient and update in one graph, the way the trainer has them."""

    def __init__(self, network, optimizer):
        super().__init__(auto_prefix=False)
        self.network = network
        self.optimizer = optimizer
        self.grad = ms.value_and_grad(self.loss, None, optimizer.parameters)

    def loss(self, inputs):
        return (self.network(inputs) ** 2).sum()

    def construct(self, inputs):
        loss, grads = self.grad(inputs)
        self.optimizer(grads)
        return loss


def test_adamw_inside_a_training_cell(mode):
    network = nn.Dense(3, 2, weight_init="ones", has_bias=False)
    optimizer = create_optimizer(network, "adamw", lr=[0.1, 0.05], weight_decay=0.5, eps=1e-8)
    step = TrainStep(network, optimizer)
    inputs = np.array([[1.0, 2.0, -1.0], [0.5, 0.25, 3.0]])
    weight, m, v = np.ones((2, 3)), 0.0, 0.0
    for t, rate in enumerate([0.1, 0.05, 0.05], start=1):
        loss = step(Tensor(inputs, ms.float32)).asnumpy()
        output = inputs @ weight.T
        np.testing.assert_allclose(loss, (output**2).sum(), rtol=1e-5)
        gradient = 2 * output.T @ inputs
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        weight = weight * (1 - rate * 0.5) - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(network.weight.asnumpy(), weight, atol=1e-6)


def test_only_trainable_parameters_of_a_network():
    network = nn.Dense(3, 2)
    network.bias.requires_grad = False
    assert [p.name for p in create_optimizer(network, "sgd").parameters] == ["weight"]


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
        {"layer_decay": 0.9},
        {"checkpoint_path": "x.ckpt"},
        {"weight_decay_filter": "all"},
        {"bettas": (0.9, 0.99)},
    ],
    ids=str,
)
def test_wrong_values(wrong):
    with pytest.raises(ValueError):
        create_optimizer(make_params(), **wrong)


@pytest.mark.parametrize("name", ["nadam", "lamb", "lion", "adan", "rmsprop", "AdaGrad"])
def test_later_optimizers_say_so(name):
    with pytest.raises(UserError, match="later version"):
        create_optimizer(make_params(), name)


def test_unknown_names_list_what_there_is():
    with pytest.raises(UserError, match="did you mean 'adam'.*adam, adamw, momentum, sgd"):
        create_optimizer(make_params(), "adamv")
    with pytest.raises(UserError, match="no keyword 'beta1'.*it has: betas"):
        create_optimizer(make_params(), "adamw", beta1=0.9)


def test_groups_and_a_filter_exclude_each_other():
    with pytest.raises(UserError, match="groups state their own"):
        create_optimizer([{"params": make_params()}], "adamw", weight_decay_filter="auto")


def test_no_parameters():
    with pytest.raises(UserError, match="no parameters"):
        create_optimizer([], "adamw")


def test_upper_case_names():
    assert isinstance(create_optimizer(make_params(), "AdamW"), AdamW)


def test_table_reads():
    table = LearningRateTable([0.1, 0.2, 0.3])
    rates = [float(table(Tensor([step], ms.int32)).asnumpy()[0]) for step in (0, 1, 2, 3, 1000)]
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.3, 0.3, 0.3], rtol=1e-6)
