"""Packed networks, and blocks whose layers are replaced, follow each change or refuse it."""

import copy

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops
from small_network import build

from mindcv.engine import apply_amp, create_trainer
from mindcv.kernels import is_available
from mindcv.models import pack_for_inference
from mindcv.models.layers import GRN, Dense, KeepPath
from mindcv.utils.errors import UserError

needs_kernels = pytest.mark.skipif(not is_available(), reason="the kernels are not in use")


def is_packed(network):
    return [section.packed is not None for section in network.feature]


@needs_kernels
def test_apply_amp_unpacks_a_packed_network(images, capsys):
    network = apply_amp(pack_for_inference(build()), "O1", dtype="bfloat16")
    assert capsys.readouterr().err.count("call pack_for_inference again") == 1
    expected = apply_amp(build(), "O1", dtype="bfloat16")(images).asnumpy()
    np.testing.assert_array_equal(network(images).asnumpy(), expected)
    assert all(is_packed(pack_for_inference(network)))


@needs_kernels
def test_apply_amp_leaves_packed_what_has_the_formats_already():
    assert all(is_packed(apply_amp(pack_for_inference(build()), "O0")))


@pytest.mark.parametrize("dtype", ["float16", pytest.param("bfloat16", marks=needs_kernels)])
def test_apply_amp_replaces_the_formats_of_an_earlier_call(images, dtype):
    network, exact = build(), build()(images).asnumpy()
    assert (apply_amp(network, "O1", dtype=dtype)(images).asnumpy() != exact).any()
    np.testing.assert_array_equal(apply_amp(network, "O0")(images).asnumpy(), exact)
    apply_amp(apply_amp(network, "O1"), "O1", ["PatchConv"])
    types = {type(cell).__name__: getattr(cell, "compute_type", None) for _, cell in network.cells_and_names()}
    assert types["PatchConv"] == ms.float16
    assert types["Dense"] is None


@needs_kernels
@pytest.mark.parametrize(
    "use",
    [
        lambda network, path: network.set_train(True),
        lambda network, path: copy.deepcopy(network),
        lambda network, path: apply_amp(network, "O1", dtype="bfloat16"),
        lambda network, path: create_trainer(network, nn.CrossEntropyLoss(), nn.SGD(network.trainable_params(), 0.1)),
        lambda network, path: ms.load_param_into_net(network, {p.name: p for p in build().get_parameters()}),
        lambda network, path: network.feature[1].append(KeepPath()),
        lambda network, path: ms.export(
            network, Tensor(np.zeros((1, 3, 32, 32), np.float32)), file_name=str(path / "n"), file_format="MINDIR"
        ),
    ],
    ids=["set_train", "deepcopy", "apply_amp", "create_trainer", "load", "append", "export"],
)
def test_network_without_weights_refuses_what_needs_them(images, tmp_path, use):
    network = pack_for_inference(build(), keep_weights=False)
    with pytest.raises(UserError, match="packed with keep_weights=False, which removed its weights: it can only infer"):
        use(network, tmp_path)
    np.testing.assert_array_equal(network.set_train(False)(images).asnumpy(), build()(images).asnumpy())


def replace_parameter(network):
    network.feature[1][0].pwconv1.weight = Parameter(Tensor(np.ones((32, 8), np.float32)), name="weight")


def replace_layer(network):
    network.feature[1][0].grn = GRN(32)
    network.feature[1][0].grn.gamma.set_data(ops.ones((1, 1, 1, 32), ms.float32))


def replace_block(network):
    network.feature[1][0] = build().feature[1][0]
    network.feature[1][0].pwconv2.bias.set_data(ops.ones((8,), ms.float32))


def append_block(network):
    network.feature[1].append(build().feature[1][0])


def delete_block(network):
    del network.feature[1][0]


@needs_kernels
@pytest.mark.parametrize("change", [replace_parameter, replace_layer, replace_block, append_block, delete_block])
def test_replacing_a_part_of_a_packed_network_unpacks_its_section(images, change):
    network, plain = pack_for_inference(build()), build()
    before = network(images).asnumpy()
    change(network)
    change(plain)
    assert is_packed(network) == [True, False] + [True] * 6
    found = network(images).asnumpy()
    np.testing.assert_array_equal(found, plain(images).asnumpy())
    assert (found != before).any()


@needs_kernels
def test_changing_a_copy_leaves_the_packed_original_packed():
    network = pack_for_inference(build())
    replace_layer(copy.deepcopy(network))
    assert all(is_packed(network))


@pytest.mark.parametrize("change", [replace_block, append_block, replace_parameter])
def test_replacing_a_part_after_a_call_changes_the_graph(images, change):
    ms.set_context(mode=ms.GRAPH_MODE)
    stage = build().feature[1]
    x = Tensor(np.random.default_rng(2).standard_normal((1, 4, 4, 8)).astype(np.float32))
    before = stage(x).asnumpy()
    network = nn.Cell()
    network.feature = [None, stage]
    change(network)
    found = stage(x).asnumpy()
    assert (found != before).any()
    ms.set_context(mode=ms.PYNATIVE_MODE)
    np.testing.assert_allclose(found, stage(x).asnumpy(), atol=1e-5)


def as_theirs(dense):
    """Return MindSpore's Dense with the same weights."""
    outputs, inputs = dense.weight.shape
    return nn.Dense(inputs, outputs, weight_init=Tensor(dense.weight.asnumpy()), bias_init=Tensor(dense.bias.asnumpy()))


@pytest.mark.parametrize("use_grn", [False, True])
@pytest.mark.parametrize("kernels", ["on", "off"])
def test_block_with_a_dense_of_mindspore_goes_by_its_layers(each_mode, monkeypatch, use_grn, kernels):
    monkeypatch.setenv("MINDCV_KERNELS", kernels)
    block = build(use_grn).feature[1][0]
    x = Tensor(np.random.default_rng(2).standard_normal((1, 4, 4, 8)).astype(np.float32))
    expected = block(x).asnumpy()
    ours = block.pwconv1
    block.pwconv1 = as_theirs(ours)
    np.testing.assert_allclose(block(x).asnumpy(), expected, atol=1e-4)
    block.pwconv1.bias.set_data(block.pwconv1.bias + 1.0)
    assert np.abs(block(x).asnumpy() - expected).max() > 1e-3
    block.pwconv1 = ours
    np.testing.assert_array_equal(block(x).asnumpy(), expected)


def test_block_goes_by_its_layers_when_pruned_or_with_another_activation():
    block = build().feature[1][0]
    x = Tensor(np.random.default_rng(2).standard_normal((1, 4, 4, 8)).astype(np.float32))
    block.act = nn.ReLU()
    block.pwconv1, block.grn, block.pwconv2 = Dense(8, 12), GRN(12), Dense(12, 8)
    wide = block.grn(block.act(block.pwconv1(block.norm(block.dwconv(x)))))
    expected = x + block.pwconv2(wide)
    np.testing.assert_array_equal(block(x).asnumpy(), expected.asnumpy())
    assert not block.is_whole


@needs_kernels
def test_stage_with_a_replaced_layer_is_not_packed(images):
    network = build()
    network.feature[1][0].pwconv1 = as_theirs(network.feature[1][0].pwconv1)
    expected = network(images).asnumpy()
    assert is_packed(pack_for_inference(network)) == [True, False] + [True] * 6
    np.testing.assert_array_equal(network(images).asnumpy(), expected)
