"""Compares every optimizer with its formula in NumPy float64, in both modes."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn

from mindcv.optim import AdamW, LearningRateTable, create_optimizer

STEPS = 10
# The first shape has 20 elements, because vectorized kernels compute the first 16 and the rest with
# different code.
SHAPES = {"dwconv.weight": (4, 5), "norm.beta": (5,), "grn.gamma": (1, 1, 1, 6)}
TABLE = [0.02, 0.0, 0.01, 0.005]


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
            values[name] = values[name] - rate * (first / correct1) / (np.sqrt(v[name] / correct2) + eps)
    return values


def numpy_nadam(lr, decay, betas=(0.9, 0.999), eps=1e-8, speed=4e-3):
    values, m, v, product = start(), dict.fromkeys(SHAPES, 0), dict.fromkeys(SHAPES, 0), 1.0
    for t in range(1, STEPS + 1):
        now, following = (betas[0] * (1 - 0.5 * 0.96 ** (s * speed)) for s in (t, t + 1))
        product *= now
        for name, gradient in gradients(t - 1).items():
            gradient = gradient + decay(name) * values[name]
            m[name] = betas[0] * m[name] + (1 - betas[0]) * gradient
            v[name] = betas[1] * v[name] + (1 - betas[1]) * gradient**2
            first = (1 - now) * gradient / (1 - product) + following * m[name] / (1 - product * following)
            values[name] = values[name] - lr(t - 1) * first / (np.sqrt(v[name] / (1 - betas[1] ** t)) + eps)
    return values


def numpy_lamb(lr, decay, betas=(0.9, 0.999), eps=1e-8):
    values, m, v = start(), dict.fromkeys(SHAPES, 0), dict.fromkeys(SHAPES, 0)
    for t in range(1, STEPS + 1):
        for name, gradient in gradients(t - 1).items():
            m[name] = betas[0] * m[name] + (1 - betas[0]) * gradient
            v[name] = betas[1] * v[name] + (1 - betas[1]) * gradient**2
            ratio = m[name] / (1 - betas[0] ** t) / (np.sqrt(v[name] / (1 - betas[1] ** t)) + eps)
            update = ratio + decay(name) * values[name]
            trust = np.linalg.norm(values[name]) / np.linalg.norm(update)
            values[name] = values[name] - lr(t - 1) * trust * update
    return values


def numpy_lion(lr, decay, betas=(0.9, 0.99), eps=None):
    values, m = start(), dict.fromkeys(SHAPES, 0)
    for step in range(STEPS):
        for name, gradient in gradients(step).items():
            direction = np.sign(betas[0] * m[name] + (1 - betas[0]) * gradient)
            values[name] = values[name] - lr(step) * (direction + decay(name) * values[name])
            m[name] = betas[1] * m[name] + (1 - betas[1]) * gradient
    return values


def numpy_adan(lr, decay, betas=(0.98, 0.92, 0.99), eps=1e-8):
    values, last = start(), gradients(0)
    m, v, n = (dict.fromkeys(SHAPES, 0) for _ in range(3))
    for t in range(1, STEPS + 1):
        for name, gradient in gradients(t - 1).items():
            change = gradient - last[name]
            m[name] = betas[0] * m[name] + (1 - betas[0]) * gradient
            v[name] = betas[1] * v[name] + (1 - betas[1]) * change
            n[name] = betas[2] * n[name] + (1 - betas[2]) * (gradient + betas[1] * change) ** 2
            step = m[name] / (1 - betas[0] ** t) + betas[1] * v[name] / (1 - betas[1] ** t)
            step = step / (np.sqrt(n[name] / (1 - betas[2] ** t)) + eps)
            values[name] = (values[name] - lr(t - 1) * step) / (1 + lr(t - 1) * decay(name))
            last[name] = gradient
    return values


def numpy_rmsprop(lr, decay, momentum=0.9, rho=0.9, eps=1e-8, centered=False):
    values, speed, mean = start(), dict.fromkeys(SHAPES, 0), dict.fromkeys(SHAPES, 0)
    square = {name: np.ones(shape) for name, shape in SHAPES.items()}
    for step in range(STEPS):
        for name, gradient in gradients(step).items():
            gradient = gradient + decay(name) * values[name]
            square[name] = rho * square[name] + (1 - rho) * gradient**2
            mean[name] = rho * mean[name] + (1 - rho) * gradient
            spread = square[name] - mean[name] ** 2 if centered else square[name]
            speed[name] = momentum * speed[name] + lr(step) * gradient / np.sqrt(spread + eps)
            values[name] = values[name] - speed[name]
    return values


def numpy_adagrad(lr, decay, accum=0.1, eps=None):
    values, total = start(), {name: np.full(shape, accum) for name, shape in SHAPES.items()}
    for step in range(STEPS):
        for name, gradient in gradients(step).items():
            gradient = gradient + decay(name) * values[name]
            total[name] = total[name] + gradient**2
            values[name] = values[name] - lr(step) * gradient / np.sqrt(total[name])
    return values


def numpy_adamw(lr, decay, betas=(0.9, 0.999), eps=1e-8):
    return numpy_adam(lr, decay, betas, eps, decoupled=True)


def numpy_momentum(lr, decay, eps=None):
    return numpy_sgd(0.9, False, lr, decay)


FORMULAS = {
    "sgd": numpy_momentum,
    "momentum": numpy_momentum,
    "adam": numpy_adam,
    "adamw": numpy_adamw,
    "nadam": numpy_nadam,
    "lamb": numpy_lamb,
    "lion": numpy_lion,
    "adan": numpy_adan,
    "rmsprop": numpy_rmsprop,
    "adagrad": numpy_adagrad,
}
ALL = sorted(FORMULAS)


def assert_close(actual, expected, tolerance=1e-5):
    for name in SHAPES:
        np.testing.assert_allclose(actual[name], expected[name], rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize(
    ("opt", "momentum", "nesterov"),
    [("sgd", 0.0, False), ("sgd", 0.9, False), ("sgd", 0.9, True), ("momentum", 0.9, False), ("momentum", 0.9, True)],
)
def test_sgd_and_momentum_equal_the_formula(mode, opt, momentum, nesterov):
    params = make_params()
    optimizer = create_optimizer(params, opt, lr=0.05, weight_decay=0.1, momentum=momentum, nesterov=nesterov)
    assert_close(train(optimizer, params), numpy_sgd(momentum, nesterov, lambda step: 0.05, lambda name: 0.1))


@pytest.mark.parametrize("nesterov", [False, True])
def test_adam_equals_the_formula_with_and_without_nesterov(mode, nesterov):
    params = make_params()
    optimizer = create_optimizer(
        params, "adam", lr=0.01, weight_decay=0.1, nesterov=nesterov, eps=1e-3, betas=(0.8, 0.95)
    )
    expected = numpy_adam(lambda step: 0.01, lambda name: 0.1, (0.8, 0.95), 1e-3, nesterov=nesterov)
    assert_close(train(optimizer, params), expected)


@pytest.mark.parametrize(("betas", "eps"), [((0.9, 0.999), 1e-8), ((0.8, 0.95), 1e-2)])
def test_adamw_equals_the_formula_with_and_without_kernels(mode, kernels, betas, eps, kernel_calls):
    params = make_params()
    optimizer = create_optimizer(params, "adamw", lr=0.01, weight_decay=0.3, eps=eps, betas=betas)
    expected = numpy_adam(lambda step: 0.01, lambda name: 0.3, betas, eps, decoupled=True)
    assert_close(train(optimizer, params), expected, 1e-6)
    assert kernel_calls == ({"AdamW"} if kernels == "on" else set())


def test_adamw_on_bare_parameters_decays_all_of_them(mode):
    params = make_params()
    optimizer = AdamW(params, 0.01, weight_decay=0.3)
    assert_close(train(optimizer, params), numpy_adam(lambda step: 0.01, lambda name: 0.3, decoupled=True), 1e-6)


@pytest.mark.parametrize(
    ("opt", "options"),
    [
        ("nadam", {"betas": (0.8, 0.95), "eps": 1e-3}),
        ("lamb", {"betas": (0.8, 0.95), "eps": 1e-3}),
        ("lion", {"betas": (0.7, 0.9)}),
        ("adan", {"betas": (0.9, 0.8, 0.95), "eps": 1e-3}),
        ("rmsprop", {"momentum": 0.5, "eps": 1e-3}),
        ("rmsprop", {"momentum": 0.0, "centered": True, "eps": 1e-3}),
        ("adagrad", {"accum": 0.5}),
    ],
)
def test_optimizers_apply_their_own_options(mode, opt, options):
    params = make_params()
    optimizer = create_optimizer(params, opt, lr=0.01, weight_decay=0.1, **{"eps": 1e-8, **options})
    assert_close(train(optimizer, params), FORMULAS[opt](lambda step: 0.01, lambda name: 0.1, **options))


def test_nadam_applies_schedule_decay(mode):
    params = make_params()
    optimizer = create_optimizer(params, "nadam", lr=0.01, schedule_decay=2.0, eps=1e-8)
    assert_close(train(optimizer, params), numpy_nadam(lambda step: 0.01, lambda name: 0.0, speed=2.0))


def test_lamb_changes_a_weight_that_is_0():
    param = Parameter(Tensor(np.zeros(3), ms.float32), name="w")
    optimizer = create_optimizer([param], "lamb", lr=0.1, eps=1e-8)
    optimizer((Tensor([1.0, -2.0, 0.5], ms.float32),))
    np.testing.assert_allclose(param.asnumpy(), [-0.1, 0.1, -0.1], rtol=1e-5)
    optimizer = create_optimizer([param], "lamb", lr=0.1, eps=1e-8)
    optimizer((Tensor([0.0, 0.0, 0.0], ms.float32),))
    np.testing.assert_allclose(param.asnumpy(), [-0.1, 0.1, -0.1], rtol=1e-5)


@pytest.mark.parametrize("opt", ALL)
def test_optimizers_apply_rates_decays_and_scales_of_groups(mode, opt):
    """One group has a table of rates, one has its own rate, and two have a factor of the rate."""
    params = make_params()
    groups = [
        {"params": [params[1]], "lr": TABLE, "weight_decay": 0.0, "lr_scale": 0.5},
        {"params": [params[0]], "lr": 0.03},
        {"params": [params[2]], "lr_scale": 0.25},
        {"order_params": params},
    ]
    optimizer = create_optimizer(groups, opt, lr=0.02, weight_decay=0.2, eps=1e-8)
    assert [p.name for p in optimizer.parameters] == list(SHAPES)
    assert optimizer.lr_scales == (1.0, 0.5, 0.25)
    assert optimizer.weight_decays == (0.2, 0.0, 0.2)
    actual = train(optimizer, params)
    for name, rate, decay in [
        ("dwconv.weight", lambda step: 0.03, 0.2),
        ("norm.beta", lambda step: 0.5 * TABLE[min(step, 3)], 0.0),
        ("grn.gamma", lambda step: 0.005, 0.2),
    ]:
        expected = FORMULAS[opt](rate, lambda name, value=decay: value)
        np.testing.assert_allclose(actual[name], expected[name], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("lr", [0.02, TABLE], ids=["number", "table"])
@pytest.mark.parametrize("opt", ["adamw", "momentum"])
def test_optimizers_scale_a_common_rate_by_lr_scale(mode, kernels, opt, lr):
    params = make_params()
    groups = [{"params": params[:1], "lr_scale": 0.5}, {"params": params[1:], "lr_scale": 2.0}]
    optimizer = create_optimizer(groups, opt, lr=lr, eps=1e-8)
    actual = train(optimizer, params)
    assert len(optimizer.get_lr_parameter(params)) == 3
    for name in SHAPES:
        scale = 0.5 if name == "dwconv.weight" else 2.0
        expected = FORMULAS[opt](lambda t, s=scale: s * (TABLE[min(t, 3)] if lr is TABLE else 0.02), lambda name: 0.0)
        np.testing.assert_allclose(actual[name], expected[name], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("opt", ["adamw", "momentum", "sgd"])
def test_optimizers_centralize_gradients_when_a_group_asks_for_it(mode, opt):
    """For parameters with more than one axis, the mean over all axes but the first is subtracted."""
    params = make_params()
    groups = [{"params": params[:2], "grad_centralization": True}, {"params": params[2:]}, {"order_params": params}]
    optimizer = create_optimizer(groups, opt, lr=0.01, eps=1e-8)
    steps = [gradients(0)]
    optimizer(tuple(Tensor(steps[0][p.name].astype(np.float32)) for p in optimizer.parameters))
    gradient = steps[0]["dwconv.weight"] - steps[0]["dwconv.weight"].mean(1, keepdims=True)
    expected = {**steps[0], "dwconv.weight": gradient}
    for param in params:
        step = expected[param.name] if opt != "adamw" else np.sign(expected[param.name])
        np.testing.assert_allclose(param.asnumpy(), start()[param.name] - 0.01 * step, atol=1e-6, err_msg=param.name)


def test_create_optimizer_skips_frozen_parameters_in_a_list():
    params = make_params()
    params[1].requires_grad = False
    assert [p.name for p in create_optimizer(params, "sgd").parameters] == ["dwconv.weight", "grn.gamma"]


@pytest.mark.parametrize("opt", ALL)
def test_optimizers_give_the_same_update_with_a_loss_scale(mode, opt):
    params = make_params()
    optimizer = create_optimizer(params, opt, lr=0.01, weight_decay=0.3, loss_scale=1024.0)
    scaled = train(optimizer, params, scale=1024.0)
    params = make_params()
    assert_close(scaled, train(create_optimizer(params, opt, lr=0.01, weight_decay=0.3), params), 1e-6)


@pytest.mark.parametrize("lr", [TABLE, np.array(TABLE), Tensor(TABLE, ms.float32)], ids=["list", "array", "tensor"])
def test_optimizers_keep_the_last_rate_after_the_end_of_a_table(mode, lr):
    params = make_params()
    optimizer = create_optimizer(params, "adamw", lr=lr, weight_decay=0.3, eps=1e-8)
    expected = numpy_adam(lambda step: TABLE[min(step, 3)], lambda name: 0.3, decoupled=True)
    assert_close(train(optimizer, params), expected, 1e-6)


@pytest.mark.parametrize("opt", ALL)
def test_optimizers_equal_their_formula(mode, opt):
    """It uses the default betas, a weight decay, and a table of rates that is shorter than the run."""
    params = make_params()
    optimizer = create_optimizer(params, opt, lr=TABLE, weight_decay=0.1, eps=1e-8)
    rate, decay = (lambda step: TABLE[min(step, 3)]), (lambda name: 0.1)
    assert_close(train(optimizer, params), FORMULAS[opt](rate, decay))


@pytest.mark.parametrize("opt", ["adam", "adamw", "adan", "lamb", "nadam"])
def test_optimizers_stay_close_to_their_formula_after_100_steps(opt, monkeypatch):
    """If corrections and moments round the betas differently, adan has an error of 1e-5 after 100 steps."""
    monkeypatch.setitem(globals(), "STEPS", 100)
    params = make_params()
    optimizer = create_optimizer(params, opt, lr=0.01, weight_decay=0.1, eps=1e-8)
    expected = FORMULAS[opt](lambda step: 0.01, lambda name: 0.1)
    assert_close(train(optimizer, params, steps=100), expected, 2e-6)


def test_optimizer_state_does_not_contain_a_table_of_rates():
    optimizer = create_optimizer(make_params(), "adamw", lr=TABLE)
    assert not [p.name for p in optimizer.get_parameters() if "learning_rate" in p.name]


def test_create_optimizer_applies_the_filter_in_the_update(mode):
    params = make_params()
    optimizer = create_optimizer(params, "adamw", lr=0.01, weight_decay=0.3, weight_decay_filter="auto", eps=1e-8)
    expected = numpy_adam(lambda step: 0.01, lambda name: 0.3 if name == "dwconv.weight" else 0.0, decoupled=True)
    assert_close(train(optimizer, params), expected, 1e-6)


class TrainStep(nn.Cell):
    """Computes gradient and update in one graph, as the trainer does."""

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


def test_adamw_equals_the_formula_inside_a_training_cell(mode, kernels, kernel_calls):
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
    assert kernel_calls == ({"AdamW"} if kernels == "on" else set())


def test_create_optimizer_skips_frozen_parameters_of_a_network():
    network = nn.Dense(3, 2)
    network.bias.requires_grad = False
    assert [p.name for p in create_optimizer(network, "sgd").parameters] == ["weight"]


def test_learning_rate_table_keeps_the_last_rate_after_its_end():
    table = LearningRateTable([0.1, 0.2, 0.3])
    rates = [float(table(Tensor([step], ms.int32)).asnumpy()[0]) for step in (0, 1, 2, 3, 1000)]
    np.testing.assert_allclose(rates, [0.1, 0.2, 0.3, 0.3, 0.3], rtol=1e-6)
