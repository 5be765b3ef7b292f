"""Networks work in MindSpore's own tools: mixed precision, copies, files and graphs that change."""

import copy
import os
import subprocess
import sys

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn
from mindspore.nn.cell import _cell_graph_executor
from small_network import build

from mindcv.engine import apply_amp
from mindcv.kernels import is_available
from mindcv.models import pack_for_inference
from mindcv.models.convnext import ConvNeXt
from mindcv.utils.errors import UserError

# O3 differs from O2 in the loss scale alone.
LEVELS = ["O2", pytest.param("O3", marks=pytest.mark.slow)]
needs_kernels = pytest.mark.skipif(not is_available(), reason="the kernels are not in use")


class Around(nn.Cell):
    """A cell that users may put around a network."""

    def __init__(self, network):
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, x):
        return self.network(x) * 1.0


@pytest.fixture(scope="module")
def exact(images):
    return build()(images).asnumpy()


def assert_half(logits, exact):
    """Check that logits are close to those of float32 but not equal, so that something was computed in float16."""
    logits = logits.asnumpy().astype(np.float32)
    np.testing.assert_allclose(logits, exact, atol=2e-2)
    assert (logits != exact).any()


def test_to_float_computes_in_float16(both_modes, images, exact):
    network = build().to_float(ms.float16)
    logits = network(images)
    assert logits.dtype == ms.float16
    assert_half(logits, exact)
    assert {parameter.dtype for parameter in network.get_parameters()} == {ms.float32}
    np.testing.assert_array_equal(network.to_float(ms.float32)(images).asnumpy(), exact)


@pytest.mark.parametrize("level", LEVELS)
def test_auto_mixed_precision_computes_in_float16(both_modes, images, exact, level):
    logits = ms.amp.auto_mixed_precision(build(), level)(images)
    assert logits.dtype == ms.float32
    assert_half(logits, exact)


def test_auto_mixed_precision_of_a_cell_around_the_network(images, exact):
    assert_half(ms.amp.auto_mixed_precision(Around(build()), "O2")(images), exact)


def test_auto_mixed_precision_o1_names_apply_amp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MindSpore writes sources where it works
    for network in (build(), Around(build())):
        with pytest.raises(UserError, match=r"level O1 cannot rewrite .*apply_amp\(network, 'O1'\)"):
            ms.amp.auto_mixed_precision(network, "O1")


def test_to_float_bfloat16_on_cpu_names_apply_amp():
    with pytest.raises(UserError, match=r"no bfloat16 operators on CPU.*apply_amp\(network, 'O1', dtype='bfloat16'\)"):
        build().to_float(ms.bfloat16)


@pytest.mark.parametrize("level", LEVELS)
def test_model_trains_with_amp_level(images, level):
    network = build()
    loss, optimizer = nn.CrossEntropyLoss(), nn.SGD(network.trainable_params(), 0.1)
    model = ms.Model(network, loss, optimizer, amp_level=level, loss_scale_manager=None)
    data = ms.dataset.NumpySlicesDataset((images.asnumpy(), np.array([0, 1], np.int32)), shuffle=False).batch(2)
    before = network.classifier.bias.asnumpy().copy()
    model.train(1, data, dataset_sink_mode=False)
    after = network.classifier.bias.asnumpy()
    assert np.isfinite(after).all() and (after != before).any()


@pytest.mark.parametrize("level", ["O0", "O1", "O2", "O3"])
@pytest.mark.parametrize("kernels", ["on", "off"])
def test_packed_network_at_every_amp_level(monkeypatch, images, exact, level, kernels):
    """`validate.py` and `infer.py` build a packed network in this way."""
    monkeypatch.setenv("MINDCV_KERNELS", kernels)
    logits = pack_for_inference(apply_amp(build(), level), keep_weights=False)(images)
    assert logits.dtype == ms.float32
    np.testing.assert_allclose(logits.asnumpy(), exact, atol=2e-2)
    if level != "O0":
        assert_half(logits, exact)


@needs_kernels
def test_packed_network_with_bfloat16(images, exact):
    plain = apply_amp(build(), "O1", dtype="bfloat16")(images).asnumpy()
    assert (plain != exact).any()
    packed = pack_for_inference(apply_amp(build(), "O1", dtype="bfloat16"))
    assert packed.feature[1].packed is not None
    np.testing.assert_array_equal(packed(images).asnumpy(), plain)


@pytest.mark.parametrize("is_packed", [False, True])
def test_deepcopy_of_a_network_shares_nothing_with_it(both_modes, images, exact, is_packed):
    network = pack_for_inference(build()) if is_packed else build()
    network(images)
    copied = copy.deepcopy(network)
    np.testing.assert_array_equal(copied(images).asnumpy(), exact)
    copied.classifier.bias.set_data(copied.classifier.bias + 1.0)
    copied.feature[3][0].pwconv2.weight.set_data(copied.feature[3][0].pwconv2.weight * 0.0)
    assert (np.abs(copied(images).asnumpy() - exact) > 1e-3).any()
    np.testing.assert_array_equal(network(images).asnumpy(), exact)


def test_deepcopy_of_a_network_keeps_drops_and_gradient_checkpointing(images):
    options = {"drop_path_rate": 0.5, "drop_rate": 0.2, "recompute_stages": (0, 1), "layer_scale_init_value": 0.5}
    network = ConvNeXt(3, 5, (1, 1, 1, 1), (8, 8, 8, 16), **options)
    copied = copy.deepcopy(network)
    results = []
    for each in (network, copied, network, copied):
        value, gradients = ms.value_and_grad(lambda x, net=each: net(x).sum(), None, each.trainable_params())(images)
        results.append([value.asnumpy(), *(gradient.asnumpy() for gradient in gradients)])
    for one, other in ((0, 1), (2, 3)):
        for first, second in zip(results[one], results[other]):
            np.testing.assert_array_equal(first, second)
    assert copied.sample_counter.count is not network.sample_counter.count
    assert copied.feature[1][0]._recompute_cell is not None


@needs_kernels
def test_export_of_bfloat16_on_cpu_is_refused(tmp_path, images):
    network = apply_amp(build(), "O1", dtype="bfloat16")
    with pytest.raises(UserError, match="in bfloat16 cannot be exported on CPU: export it before apply_amp"):
        ms.export(network, images, file_name=str(tmp_path / "network"), file_format="MINDIR")
    assert network(images).shape == (2, 5)


def test_export_with_any_number_of_images(tmp_path, images, exact):
    any_number = Tensor(shape=[None, 3, 32, 32], dtype=ms.float32)
    ms.export(build(), any_number, file_name=str(tmp_path / "network"), file_format="MINDIR")
    graph = nn.GraphCell(ms.load(str(tmp_path / "network.mindir")))
    for count in (1, 3):
        found = graph(ms.ops.concat([images] * count)).asnumpy()
        np.testing.assert_allclose(found, np.concatenate([exact] * count), atol=1e-5)


_RUN_FILE = """
import sys
import mindspore as ms
import numpy as np

graph = ms.nn.GraphCell(ms.load(sys.argv[1]))
np.save(sys.argv[2], graph(ms.Tensor(np.load(sys.argv[3]))).asnumpy())
assert not any(name.startswith("mindcv") for name in sys.modules)
"""


def test_export_runs_in_another_process_without_this_library(tmp_path, images, exact):
    network = pack_for_inference(build())
    ms.export(network, images, file_name=str(tmp_path / "network"), file_format="MINDIR")
    file = tmp_path / "network.mindir"
    assert b"_kernels" not in file.read_bytes()
    # The export leaves the network as it was, with its kernels.
    np.testing.assert_array_equal(network(images).asnumpy(), exact)
    moved = file.rename(tmp_path / "moved.mindir")
    np.save(tmp_path / "images.npy", images.asnumpy())
    command = [sys.executable, "-c", _RUN_FILE, str(moved), str(tmp_path / "out.npy"), str(tmp_path / "images.npy")]
    subprocess.run(command, check=True, cwd=tmp_path, env={**os.environ, "MINDCV_KERNELS": "off"})
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), exact, atol=1e-5)


@pytest.mark.parametrize("use_grn", [pytest.param(False, marks=pytest.mark.slow), True])
def test_export_before_the_first_call_needs_no_kernels(tmp_path, images, use_grn):
    network = build(use_grn)
    ms.export(network, images, file_name=str(tmp_path / "network"), file_format="MINDIR")
    graph = nn.GraphCell(ms.load(str(tmp_path / "network.mindir")))
    np.testing.assert_allclose(graph(images).asnumpy(), network(images).asnumpy(), atol=1e-5)
    assert b"_kernels" not in (tmp_path / "network.mindir").read_bytes()


@needs_kernels
def test_saving_a_packed_network_writes_its_weights(tmp_path):
    path = str(tmp_path / "packed.ckpt")
    ms.save_checkpoint(pack_for_inference(build()), path)
    saved, expected = ms.load_checkpoint(path), {p.name: p.asnumpy() for p in build().get_parameters()}
    assert saved.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(saved[name].asnumpy(), value)


@needs_kernels
def test_loading_into_a_packed_network_unpacks_it(both_modes, images):
    network, other = pack_for_inference(build()), build()
    network(images)
    other.feature[3][0].pwconv2.weight.set_data(other.feature[3][0].pwconv2.weight * 0.5)
    ms.load_param_into_net(network, {p.name: p for p in other.get_parameters()})
    np.testing.assert_array_equal(network(images).asnumpy(), other(images).asnumpy())
    assert network.feature[3].packed is None


@needs_kernels
def test_training_a_packed_network_unpacks_it(images):
    network = pack_for_inference(build())
    network.set_train()
    gradients = ms.grad(network, None, network.trainable_params())(images)
    assert all(np.abs(gradient.asnumpy()).sum() > 0 for gradient in gradients[-4:])


@needs_kernels
def test_pack_for_inference_without_weights_has_the_same_bits_and_no_parameters(images, exact):
    network = pack_for_inference(build(), keep_weights=False)
    np.testing.assert_array_equal(network(images).asnumpy(), exact)
    assert all(parameter.name.startswith(("norm.", "classifier.")) for parameter in network.get_parameters())
    with pytest.raises(TypeError, match="expects float32"):
        network(images.astype(ms.float16))


def test_reset_classifier_after_a_call_changes_the_graph(images):
    ms.set_context(mode=ms.GRAPH_MODE)
    network = build()
    around = Around(network)
    assert network(images).shape == around(images).shape == (2, 5)
    network.reset_classifier(7)
    assert network(images).shape == around(images).shape == (2, 7)
    network.reset_classifier(0)
    assert around(images).shape == (2, 16)
    network.classifier = nn.Dense(16, 9)
    assert around(images).shape == (2, 9)


def test_apply_amp_and_layers_after_a_call_change_the_graph(images, exact):
    ms.set_context(mode=ms.GRAPH_MODE)
    around = Around(build())
    np.testing.assert_array_equal(around(images).asnumpy(), exact)
    apply_amp(around, "O1")
    assert_half(around(images), exact)
    apply_amp(around, "O0")
    block = around.network.feature[3][0]
    before = around(images).asnumpy()
    block.norm = nn.Identity()
    assert (around(images).asnumpy() != before).any()


@needs_kernels
def test_pack_for_inference_after_a_call_changes_the_graph(images, exact):
    ms.set_context(mode=ms.GRAPH_MODE)
    around = Around(build())
    around(images)
    phase = around.compile_phase
    pack_for_inference(around)
    assert not _cell_graph_executor.has_compiled(phase)
    np.testing.assert_array_equal(around(images).asnumpy(), exact)
    assert _cell_graph_executor.has_compiled(phase)
