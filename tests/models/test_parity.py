"""Networks are compared with recorded outputs of the reference implementation. A rule makes the weights of both."""

import gc

import mindspore as ms
import numpy as np
import pytest
from mindspore import ops

from mindcv import create_model, list_models
from mindcv.convert import to_mindcv, weight_parameters
from mindcv.models import ConvNeXtFeatures

QUICK = ("atto", "femto", "pico", "nano", "tiny")
ALL = list_models(module="convnext")


def by_size(model):
    return pytest.param(model, marks=[] if model.endswith(QUICK) else pytest.mark.slow)


def build(reference, model):
    network = create_model(model)
    for name, array in to_mindcv(reference.weights(model), network).items():
        weight_parameters(network)[name].set_data(ms.Tensor(array))
    return network.set_train(False)


@pytest.fixture(params=[by_size(model) for model in ALL], scope="module")
def filled(request, reference):
    """Yield (name, network) with the weights of the rule. Only one network is in memory at a time."""
    network = build(reference, request.param)
    yield request.param, network
    del network
    gc.collect()


def cases_of(reference, model):
    return [(shape, f"{model}/{shape[0]}x{shape[2]}x{shape[3]}") for name, shape, _ in reference.cases if name == model]


def test_reference_has_recorded_outputs_of_every_variant(reference):
    missing = sorted(set(ALL) - set(reference.models))
    assert not missing, f"record them with: python tests/data/parity/record.py {missing[0]}"
    assert set(reference.models) == set(ALL) and len(ALL) >= 18


def test_network_has_the_number_of_parameters_of_the_reference(filled, reference):
    model, network = filled
    expected = {name: count for name, _, count in reference.cases}
    assert sum(parameter.size for parameter in network.get_parameters()) == expected[model]


def test_network_gives_the_logits_of_the_reference(filled, reference):
    model, network = filled
    for shape, key in cases_of(reference, model):
        logits = network(ms.Tensor(reference.image(shape))).asnumpy()
        np.testing.assert_allclose(logits, reference.arrays[f"{key}/logits"], atol=2e-4, rtol=0, err_msg=key)


def test_network_gives_the_pre_logits_and_stage_means_of_the_reference(filled, reference):
    model, network = filled
    shape, key = cases_of(reference, model)[-1]
    image = ms.Tensor(reference.image(shape))
    maps = ConvNeXtFeatures(network)(image)
    for stage, feature_map in enumerate(maps):
        mean = feature_map.asnumpy().mean((2, 3))
        np.testing.assert_allclose(mean, reference.arrays[f"{key}/stage{stage}_channel_mean"], atol=2e-4, rtol=0)
    pre_logits = network.forward_head(maps[-1], pre_logits=True).asnumpy()
    np.testing.assert_allclose(pre_logits, reference.arrays[f"{key}/pre_logits"], atol=2e-4, rtol=0)


@pytest.mark.parametrize("model", ["convnext_atto", "convnextv2_atto"])
def test_network_gives_the_logits_of_the_reference_in_graph_mode(model, reference):
    network = build(reference, model)
    shape, key = cases_of(reference, model)[0]
    image = ms.Tensor(reference.image(shape))
    eager = network(image).asnumpy()
    assert not network.compile_cache
    ms.set_context(mode=ms.GRAPH_MODE)
    compiled = network(image).asnumpy()
    assert network.compile_cache
    np.testing.assert_allclose(compiled, reference.arrays[f"{key}/logits"], atol=2e-4, rtol=0)
    np.testing.assert_allclose(compiled, eager, atol=1e-5, rtol=0)


@pytest.mark.parametrize("model", ["convnext_atto", "convnextv2_atto"])
@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, pytest.param(ms.GRAPH_MODE, marks=pytest.mark.slow)])
def test_network_gives_the_loss_and_gradients_of_the_reference(model, mode, reference):
    ms.set_context(mode=mode)
    network = build(reference, model).set_train(True)

    def loss_of(images, labels):
        return ops.cross_entropy(network(images), labels, label_smoothing=0.1)

    gradient = ms.value_and_grad(loss_of, None, network.trainable_params())
    loss, gradients = gradient(ms.Tensor(reference.image((2, 3, 64, 64))), ms.Tensor([3, 997], ms.int32))
    np.testing.assert_allclose(loss.asnumpy(), reference.arrays[f"{model}/grad/loss"], rtol=1e-5)

    by_name = {parameter.name: value.asnumpy() for parameter, value in zip(network.trainable_params(), gradients)}
    # Which gradient is which official parameter's: mark each official array by its position and see where it lands.
    marked = {name: np.full(array.shape, i) for i, (name, array) in enumerate(reference.weights(model).items())}
    official = list(marked)
    landed = {name: official[int(array.flat[0])] for name, array in to_mindcv(marked, network).items()}
    assert set(landed) == set(by_name)
    for name, value in by_name.items():
        expected = reference.arrays[f"{model}/grad/{landed[name]}"]
        found = np.concatenate([[np.linalg.norm(value)], value.ravel()[:8]])
        # Relative to the gradient's norm: single entries can be arbitrarily near 0.
        np.testing.assert_allclose(found / expected[0], expected / expected[0], atol=1e-3, rtol=0, err_msg=name)
