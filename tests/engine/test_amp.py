"""Mixed precision computes close to float32, and really in another format."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindcv.engine import apply_amp
from mindcv.kernels import is_available
from mindcv.models.convnext import ConvNeXt
from mindcv.models.fcmae import FCMAE
from mindcv.utils.errors import UserError


def build():
    """Build a network with the same weights each time, which are so large that every layer matters."""
    network = ConvNeXt(1, 3, (1, 1, 1, 1), (4, 4, 8, 8), layer_scale_init_value=0.5).set_train(False)
    rng = np.random.default_rng(0)
    for parameter in network.get_parameters():
        if parameter.name.endswith("weight"):
            parameter.set_data(Tensor(0.3 * rng.standard_normal(parameter.shape).astype(np.float32)))
    return network


@pytest.fixture(scope="module")
def images():
    return Tensor(np.random.default_rng(1).standard_normal((2, 1, 32, 32)).astype(np.float32))


@pytest.fixture(scope="module")
def exact(images):
    return build()(images).asnumpy()


@pytest.mark.parametrize(
    ("level", "cast_list"), [("O1", ()), ("O1", ["Dense"]), ("O1", ["PatchConv"]), ("O2", ()), ("O3", ())]
)
def test_apply_amp_computes_logits_near_to_those_of_float32_and_not_equal(images, exact, level, cast_list):
    network = build()
    logits = apply_amp(network, level, cast_list)(images)
    assert logits.dtype == ms.float32
    np.testing.assert_allclose(logits.asnumpy(), exact, atol=1e-2)
    assert (logits.asnumpy() != exact).any(), "nothing was computed in float16"
    assert {parameter.dtype for parameter in network.get_parameters()} == {ms.float32}


@pytest.mark.parametrize("cast_list", [["FourierDepthwiseConv"], ["Dense", "FourierDepthwiseConv"]])
def test_apply_amp_casts_a_listed_layer_inside_a_block(images, exact, cast_list):
    """The kernel of a whole block must not run when one layer of the block is cast."""
    logits = apply_amp(build(), "O1", cast_list)(images).asnumpy()
    np.testing.assert_allclose(logits, exact, atol=1e-2)
    assert (logits != exact).any()


def test_apply_amp_with_bfloat16_keeps_about_8_bits(images, exact):
    """The error is larger than that of float32, but not much larger than 8 bits allow."""
    logits = apply_amp(build(), "O1", dtype="bfloat16")(images)
    assert logits.dtype == ms.float32
    error = np.abs(logits.asnumpy() - exact).max() / np.abs(exact).max()
    assert 1e-5 < error < 2e-2


@pytest.mark.skipif(not is_available(), reason="the kernels are not in use")
@pytest.mark.parametrize("level", ["O2", "O3"])
def test_apply_amp_with_bfloat16_on_cpu_is_o1_at_every_level(images, capsys, level):
    logits = apply_amp(build(), level, dtype="bfloat16")(images)
    assert f"amp_level {level} with bfloat16 is computed as O1" in capsys.readouterr().err
    np.testing.assert_array_equal(logits.asnumpy(), apply_amp(build(), "O1", dtype="bfloat16")(images).asnumpy())


def test_apply_amp_refuses_bfloat16_where_it_is_unavailable(monkeypatch):
    with pytest.raises(UserError, match="bfloat16 on CPU goes without amp_cast_list"):
        apply_amp(build(), "O1", ["Dense"], dtype="bfloat16")
    with pytest.raises(UserError, match="amp_dtype 'bfloat61' is not known; did you mean 'bfloat16'"):
        apply_amp(build(), "O1", dtype="bfloat61")
    monkeypatch.setenv("MINDCV_KERNELS", "off")
    with pytest.raises(UserError, match="bfloat16 on CPU needs the kernels"):
        apply_amp(build(), "O1", dtype="bfloat16")


@pytest.mark.skipif(not is_available(), reason="the kernels are not in use")
def test_apply_amp_with_bfloat16_on_cpu_keeps_the_head_of_a_wrapped_network_in_float32():
    class Wrapper(nn.Cell):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def construct(self, x):
            return self.network(x)

    network = build()
    apply_amp(Wrapper(network), "O1", dtype="bfloat16")
    assert network.classifier.compute_type is None
    assert network.feature[0][0].compute_type == ms.bfloat16


def test_apply_amp_o0_changes_nothing(images, exact):
    network = build()
    assert apply_amp(network, "O0") is network
    np.testing.assert_array_equal(network(images).asnumpy(), exact)


@pytest.mark.parametrize("level", ["O2", "O3"])
def test_apply_amp_o0_undoes_the_half_input_of_a_network_with_its_own_loss(level):
    encoder = ConvNeXt(1, 0, (1, 1, 1, 1), (4, 4, 8, 8), use_grn=True)
    network = FCMAE(encoder, img_size=64, decoder_embed_dim=8, in_channels=1).set_train(False)
    rng = np.random.default_rng(2)
    inputs = Tensor(rng.standard_normal((2, 1, 64, 64)).astype(np.float32)), Tensor(np.float32([[0, 1, 1, 0]] * 2))
    exact = network(*inputs)[1].asnumpy()
    half = apply_amp(network, level)(*inputs)[1].asnumpy()
    assert not np.array_equal(half, exact)
    np.testing.assert_array_equal(apply_amp(network, "O0")(*inputs)[1].asnumpy(), exact)


def test_apply_amp_casts_only_the_layers_of_the_cast_list():
    network = apply_amp(build(), "O1", ["Dense"])
    types = {type(cell).__name__: getattr(cell, "compute_type", None) for _, cell in network.cells_and_names()}
    assert types["Dense"] == ms.float16 and types["PatchConv"] is None


def test_apply_amp_refuses_unknown_levels_and_layers():
    for level, cast_list, says in [
        ("O4", (), r"amp_level 'O4' is not known.*\(there are: O0, O1, O2, O3\)"),
        ("O2", ["Dense"], "amp_cast_list goes with amp_level O1, not O2"),
        ("O1", ["Dence"], r"amp_cast_list: layer 'Dence' is not known; did you mean 'Dense'\?.*PatchConv"),
        ("O1", ["Dense", "LayerNorm"], "amp_cast_list: layer 'LayerNorm' is not known"),
    ]:
        network = build()
        with pytest.raises(UserError, match=says):
            apply_amp(network, level, cast_list)
        assert all(getattr(cell, "compute_type", None) is None for _, cell in network.cells_and_names())
