"""Training steps of a linear classifier are compared with its gradient written in NumPy."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindcv.engine.ema import WeightAverage
from mindcv.engine.loss_scale import DynamicLossScale, FixedLossScale
from mindcv.engine.train_step import AccumulatedStep, TrainStep
from mindcv.loss import create_loss
from mindcv.models.convnext import ConvNeXt
from mindcv.optim import create_optimizer
from mindcv.utils.errors import UserError

LR = 0.5
MODES = pytest.mark.parametrize("mode_", [ms.PYNATIVE_MODE, ms.GRAPH_MODE], ids=["pynative", "graph"])


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((6, 4)).astype(np.float32), np.int32([0, 1, 2, 2, 1, 0])


def weights(network):
    return network.weight.asnumpy().copy(), network.bias.asnumpy().copy()


def build(loss_scale=None, in_parts=False, reduction="mean", ema=None, **options):
    """Build an SGD step of a network with the same weights each time. `ema` is (decay, warm-up) of an average."""
    rng = np.random.default_rng(1)
    network = nn.Dense(4, 3)
    network.weight.set_data(Tensor(rng.standard_normal((3, 4)).astype(np.float32)))
    network.bias.set_data(Tensor(rng.standard_normal(3).astype(np.float32)))
    optimizer = create_optimizer(network, "sgd", lr=LR, momentum=0.0)
    average = WeightAverage(network, *ema) if ema else None
    loss = create_loss("CE", reduction=reduction)
    step = TrainStep(network, loss, optimizer, loss_scale or FixedLossScale(), ema=average, **options)
    step = AccumulatedStep(step) if in_parts else step
    return (network, step.set_train(True), average) if ema else (network, step.set_train(True))


def by_hand(network, images, labels, clip_norm=np.inf):
    """Return (loss, new weight, new bias) in float64. The gradient of the logits is softmax minus target."""
    weight, bias = (array.astype(np.float64) for array in weights(network))
    logits = images @ weight.T + bias
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    at = np.arange(len(labels)), labels
    loss = -np.log(shares[at]).mean()
    shares[at] -= 1
    gradients = shares.T @ images / len(labels), shares.mean(0)
    norm = np.sqrt(sum((g**2).sum() for g in gradients))
    factor = min(1, clip_norm / norm)
    return loss, weight - LR * factor * gradients[0], bias - LR * factor * gradients[1]


def check(network, step, data, clip_norm=np.inf):
    loss, weight, bias = by_hand(network, *data, clip_norm)
    found, is_finite = step(*map(Tensor, data))
    np.testing.assert_allclose(found.asnumpy(), loss, rtol=1e-5)
    np.testing.assert_allclose(network.weight.asnumpy(), weight, atol=1e-6)
    np.testing.assert_allclose(network.bias.asnumpy(), bias, atol=1e-6)
    assert bool(is_finite.asnumpy())


@MODES
def test_train_step_follows_the_formula_of_sgd(data, mode_):
    ms.set_context(mode=mode_)
    network, step = build()
    check(network, step, data)
    check(network, step, data)


def test_train_step_sets_the_compile_phase_of_cells_once_for_each_graph(data):
    """Setting it at each step would take longer than some steps."""
    ms.set_context(mode=ms.GRAPH_MODE)
    images, labels = data
    network, step = build()
    step(Tensor(images), Tensor(labels))
    first = network.compile_phase
    assert first and first == step.compile_phase
    network.compile_phase = "since"
    step(Tensor(images), Tensor(labels))
    assert network.compile_phase == "since"
    step(Tensor(images[:3]), Tensor(labels[:3]))  # another graph
    assert network.compile_phase == step.compile_phase != first


@pytest.mark.parametrize("scale", [FixedLossScale(1024.0), DynamicLossScale(1024.0)], ids=["fixed", "dynamic"])
def test_train_step_gives_the_same_weights_with_a_loss_scale(data, scale):
    plain, step = build()
    step(*map(Tensor, data))
    scaled, scaled_step = build(scale, skip_overflow=True)
    check(scaled, scaled_step, data)
    for one, other in zip(weights(plain), weights(scaled)):
        np.testing.assert_array_equal(one, other)  # a power of two costs no bits


@pytest.mark.parametrize("clip_norm", [0.01, 100.0])
def test_train_step_clips_gradients_by_their_global_norm(data, clip_norm):
    network, step = build(FixedLossScale(1024.0), clip_norm=clip_norm)
    before = weights(network)
    check(network, step, data, clip_norm)
    moved = np.sqrt(sum(((a - b) ** 2).sum() for a, b in zip(before, weights(network)))) / LR
    assert moved == pytest.approx(0.01, rel=1e-3) if clip_norm == 0.01 else 0.01 < moved < 100


@MODES
def test_train_step_skips_an_overflow_and_halves_the_scale(data, mode_):
    ms.set_context(mode=mode_)
    scale = DynamicLossScale(8.0, window=2)
    network, step = build(scale, skip_overflow=True, clip_norm=1.0)
    before = weights(network)
    images, labels = data
    bad = images.copy()
    bad[3, 2] = np.inf
    _, is_finite = step(Tensor(bad), Tensor(labels))
    assert not bool(is_finite.asnumpy()) and scale.value.asnumpy() == 4
    for one, other in zip(before, weights(network)):
        np.testing.assert_array_equal(one, other)
    # Training goes on; the loss is right in the step that doubles the scale, too.
    for expected in (4, 8, 8, 16):
        check(network, step, data, clip_norm=1.0)
        assert scale.value.asnumpy() == expected


def test_train_step_updates_weights_on_an_overflow_without_skip_overflow(data):
    network, step = build()
    step(Tensor(np.full((6, 4), np.inf, np.float32)), Tensor(data[1]))
    assert not np.isfinite(network.weight.asnumpy()).all()


@MODES
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_accumulated_step_adds_up_parts_to_the_large_batch(data, mode_, reduction):
    ms.set_context(mode=mode_)
    images, labels = data
    whole, whole_step = build(FixedLossScale(8.0), reduction=reduction, clip_norm=0.3)
    parts, parts_step = build(FixedLossScale(8.0), True, reduction, clip_norm=0.3)
    for _ in range(2):  # the second would show what the first left behind
        loss, _ = whole_step(Tensor(images), Tensor(labels))
        for part in (slice(0, 3), slice(3, 5)):
            parts_step.accumulate(Tensor(images[part]), Tensor(labels[part]))
        found, is_finite = parts_step(Tensor(images[5:]), Tensor(labels[5:]))
        assert bool(is_finite.asnumpy()) and found.shape == ()
        np.testing.assert_allclose(found.asnumpy(), loss.asnumpy(), rtol=1e-6)
        for one, other in zip(weights(whole), weights(parts)):
            np.testing.assert_allclose(one, other, atol=1e-7)


def test_accumulated_step_skips_the_update_when_a_part_overflows(data):
    scale = DynamicLossScale(8.0)
    network, step = build(scale, True, skip_overflow=True)
    before, (images, labels) = weights(network), data
    step.accumulate(Tensor(np.full((6, 4), np.inf, np.float32)), Tensor(labels))
    _, is_finite = step(Tensor(images), Tensor(labels))
    assert not bool(is_finite.asnumpy()) and scale.value.asnumpy() == 4
    for one, other in zip(before, weights(network)):
        np.testing.assert_array_equal(one, other)
    _, is_finite = step(Tensor(images), Tensor(labels))  # nothing of it is left
    assert bool(is_finite.asnumpy()) and np.isfinite(network.weight.asnumpy()).all()


@MODES
@pytest.mark.parametrize("warmup", [0, 3])
def test_weight_average_follows_the_weights_by_its_decay(data, mode_, warmup):
    ms.set_context(mode=mode_)
    network, step, average = build(ema=(0.75, warmup))
    expected = weights(network)[0].astype(np.float64)
    for number in (1, 2, 3, 4):
        step(*map(Tensor, data))
        decay = 0.75 * (1 - np.exp(-number / warmup)) if warmup else 0.75
        expected = decay * expected + (1 - decay) * weights(network)[0]
        np.testing.assert_allclose(average.averages["weight"].asnumpy(), expected, atol=1e-6)
    assert int(average.num_updates.asnumpy()) == 4
    assert np.abs(expected - weights(network)[0]).max() > 1e-3


def test_weight_average_is_unchanged_when_a_step_is_skipped(data):
    network, step, average = build(DynamicLossScale(8.0), ema=(0.5, 0), skip_overflow=True)
    before = average.averages["weight"].asnumpy().copy()
    step(Tensor(np.full((6, 4), np.inf, np.float32)), Tensor(data[1]))
    np.testing.assert_array_equal(average.averages["weight"].asnumpy(), before)
    assert int(average.num_updates.asnumpy()) == 0


@pytest.mark.parametrize(("decay", "warmup", "named"), [(1.5, 0, "ema_decay"), (0.9, -1, "ema_warmup")])
def test_weight_average_refuses_arguments_out_of_range(decay, warmup, named):
    with pytest.raises(UserError, match=named):
        WeightAverage(nn.Dense(4, 3), decay, warmup)


def test_train_step_of_a_convnext_agrees_in_pynative_and_graph_mode():
    """One step has random drops, GRN, loss scaling and clipping. A second step would be compiled again here."""
    rng = np.random.default_rng(0)
    images, labels = rng.standard_normal((2, 1, 32, 32)).astype(np.float32), np.int32([0, 2])
    start, found = None, []
    for mode_ in (ms.PYNATIVE_MODE, ms.GRAPH_MODE):
        ms.set_context(mode=mode_)
        network = ConvNeXt(1, 3, (1, 1, 1, 1), (4, 4, 8, 8), use_grn=True, drop_path_rate=0.5)
        start = start or {p.name: p.asnumpy().copy() for p in network.trainable_params()}
        for parameter in network.trainable_params():
            parameter.set_data(Tensor(start[parameter.name]))
        optimizer = create_optimizer(network, "sgd", lr=[LR, 0.1], weight_decay=0.05, weight_decay_filter="auto")
        step = TrainStep(
            network, create_loss("CE"), optimizer, DynamicLossScale(8.0), skip_overflow=True, clip_norm=1.0
        )
        loss, _ = step.set_train(True)(Tensor(images), Tensor(labels))
        assert bool(step.compile_cache) == (mode_ == ms.GRAPH_MODE)
        found.append((float(loss.asnumpy()), {p.name: p.asnumpy().copy() for p in network.trainable_params()}))
    (loss, eager), (graph_loss, graph) = found
    assert loss == pytest.approx(graph_loss, rel=1e-5)
    for name, value in eager.items():
        np.testing.assert_allclose(graph[name], value, atol=1e-6, err_msg=name)
    assert any((eager[name] != start[name]).any() for name in eager)
