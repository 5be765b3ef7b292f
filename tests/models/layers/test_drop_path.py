"""Random drops are compared with the hash written again in NumPy, and checked by their statistics."""

import zlib

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindcv.models.convnext import ConvNeXt
from mindcv.models.layers import Block, Dropout, DropPath, SampleCounter, number_samples


def mix(x):
    x = x.astype(np.uint32)
    x ^= x >> 16
    x *= np.uint32(0x7FEB352D)
    x ^= x >> 15
    x *= np.uint32(0x846CA68B)
    return x ^ (x >> 16)


def kept(samples, rate, layer, seed, width=1):
    """Return which of the `width` places of each sample are kept. A sample is given by its number in the run."""
    key = np.uint32(zlib.crc32(f"{seed}:{layer}".encode()))
    x = mix(np.asarray(samples, np.uint32)[:, None] + key)
    x = mix(x ^ np.arange(width, dtype=np.uint32) ^ key)
    return (x >> 8) >= round(rate * 2**24)


class Counted(nn.Cell):
    """A random layer behind the counter, as a network has it."""

    def __init__(self, kind, rate, layer=3, seed=11):
        super().__init__()
        self.sample_counter = SampleCounter()
        self.layer = kind(rate, layer, seed, self.sample_counter.count)

    def construct(self, x):
        return self.layer(self.sample_counter(x))


@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, ms.GRAPH_MODE])
def test_drop_path_follows_the_hash(mode):
    ms.set_context(mode=mode)
    cell = Counted(DropPath, 0.3).set_train(True)
    x = np.random.default_rng(0).standard_normal((64, 2, 2, 3)).astype(np.float32)
    for step in (0, 1, 2):
        expected = x * kept(np.arange(64) + 64 * step, 0.3, 3, 11)[..., None, None] / 0.7
        np.testing.assert_allclose(cell(Tensor(x)).asnumpy(), expected, rtol=1e-6)


def test_drop_path_resumes_from_its_count():
    x = Tensor(np.ones((256, 1), np.float32))
    first = Counted(DropPath, 0.5).set_train(True)
    run = [first(x).asnumpy() for _ in range(5)]
    second = Counted(DropPath, 0.5).set_train(True)
    second.sample_counter.count.set_data(Tensor(3 * 256, ms.int32))
    np.testing.assert_array_equal(second(x).asnumpy(), run[3])
    assert (run[3] != run[4]).any()


def test_drop_path_of_each_process_has_its_share_of_the_drops_of_the_whole_batch():
    x = np.ones((12, 1), np.float32)
    alone = Counted(DropPath, 0.5).set_train(True)
    whole = [alone(Tensor(x)).asnumpy() for _ in range(2)]
    for rank in range(3):
        part = Counted(DropPath, 0.5).set_train(True)
        number_samples(part, rank, 3)
        for expected in whole:
            own = slice(4 * rank, 4 * rank + 4)
            np.testing.assert_array_equal(part(Tensor(x[own])).asnumpy(), expected[own])
        assert int(part.sample_counter.count.asnumpy()) == 24


@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, ms.GRAPH_MODE])
def test_drop_path_of_each_process_has_its_share_of_each_split(mode):
    ms.set_context(mode=mode)
    x = np.ones((2 * 6, 1), np.float32)  # two versions of six images
    alone = Counted(DropPath, 0.5).set_train(True)
    whole = [alone(Tensor(x)).asnumpy().reshape(2, 6) for _ in range(2)]
    for rank in range(3):
        part = Counted(DropPath, 0.5).set_train(True)
        number_samples(part, rank, 3, num_splits=2)
        for expected in whole:
            own = part(Tensor(x[:4])).asnumpy().reshape(2, 2)
            np.testing.assert_array_equal(own, expected[:, 2 * rank : 2 * rank + 2])


def test_drop_path_drops_the_same_samples_when_the_batch_is_split():
    x = np.ones((12, 1), np.float32)
    alone, in_parts = (Counted(DropPath, 0.5).set_train(True) for _ in range(2))
    parts = [in_parts(Tensor(x[:count])).asnumpy() for count in (4, 5, 3)]
    np.testing.assert_array_equal(np.concatenate(parts), alone(Tensor(x)).asnumpy())


def test_drop_path_is_the_identity_in_evaluation():
    cell = Counted(DropPath, 0.5).set_train(False)
    x = np.ones((32, 4), np.float32)
    np.testing.assert_array_equal(cell(Tensor(x)).asnumpy(), x)
    assert int(cell.sample_counter.count.asnumpy()) == 0


def test_drop_path_drops_at_its_rate_and_independently_for_each_layer_seed_and_step():
    draws = {}
    for layer in (0, 1):
        for seed in (0, 1):
            cell = Counted(DropPath, 0.2, layer, seed).set_train(True)
            x = Tensor(np.ones((4096, 1), np.float32))
            for step in (1, 2):
                draws[layer, seed, step] = cell(x).asnumpy()[:, 0] > 0
    for draw in draws.values():
        assert abs(draw.mean() - 0.8) < 0.03  # 4.8 standard deviations
    keys = list(draws)
    for i, a in enumerate(keys):
        for b in keys[i + 1 :]:
            assert abs(np.corrcoef(draws[a], draws[b])[0, 1]) < 0.08


def test_dropout_drops_single_elements():
    cell = Counted(Dropout, 0.25).set_train(True)
    y = cell(Tensor(np.ones((40, 50), np.float32))).asnumpy()
    np.testing.assert_allclose(y, kept(np.arange(40), 0.25, 3, 11, 50) / 0.75, rtol=1e-6)


@pytest.mark.parametrize("rate", [1.0, -0.1])
def test_drop_path_refuses_a_rate_outside_0_to_1(rate):
    with pytest.raises(ValueError, match="rate"):
        Counted(DropPath, rate)


def small(**kwargs):
    return ConvNeXt(1, 3, (1, 1, 2, 1), (4, 4, 8, 8), use_grn=True, **kwargs)


def test_drop_path_rates_grow_linearly_over_the_blocks():
    network = small(drop_path_rate=0.4)
    scales = [cell.keep.scale for _, cell in network.cells_and_names() if isinstance(cell, DropPath)]
    np.testing.assert_allclose(scales, [1 / (1 - r) for r in (0.1, 0.2, 0.3, 0.4)])


def test_drop_path_drops_the_same_samples_when_blocks_are_recomputed(monkeypatch):
    calls, original = [], Block.construct
    monkeypatch.setattr(Block, "construct", lambda *args: calls.append(1) or original(*args))
    plain, again = small(drop_path_rate=0.5), small(drop_path_rate=0.5, recompute_stages=[0, 1, 2, 3])
    for a, b in zip(plain.get_parameters(), again.get_parameters()):
        assert a.name == b.name
        b.set_data(Tensor(a.asnumpy()))
    x = Tensor(np.random.default_rng(2).standard_normal((8, 1, 32, 32)).astype(np.float32))
    found = []
    for network, passes in ((plain, 1), (again, 2)):
        network.set_train(True)
        calls.clear()

        def total(x, network=network):
            return (network(x) ** 2).sum()

        step = ms.value_and_grad(total, None, network.trainable_params())
        found.append([[float(loss), *(g.asnumpy() for g in gradients)] for loss, gradients in (step(x), step(x))])
        num_blocks = sum(isinstance(cell, Block) for _, cell in network.cells_and_names())
        assert len(calls) == 2 * passes * num_blocks
    for ours, theirs in zip(found[0], found[1]):
        for a, b in zip(ours, theirs):
            np.testing.assert_array_equal(a, b)
    assert found[0][0][0] != found[0][1][0]
