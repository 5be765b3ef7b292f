"""Official names to this library's, against a table written by hand from the two code bases."""

import numpy as np
import pytest

from mindcv.convert import to_mindcv, weight_parameters
from mindcv.models import create_model
from mindcv.models.convnext import ConvNeXt
from mindcv.utils.errors import CheckpointError

# A name of each kind, at the first place it occurs and at the last.
SAMPLES = {
    "downsample_layers.0.0.weight": "feature.0.0.weight",
    "downsample_layers.0.0.bias": "feature.0.0.bias",
    "downsample_layers.0.1.weight": "feature.0.1.gamma",
    "downsample_layers.0.1.bias": "feature.0.1.beta",
    "downsample_layers.1.0.weight": "feature.2.0.gamma",
    "downsample_layers.1.1.weight": "feature.2.1.weight",
    "downsample_layers.3.0.bias": "feature.6.0.beta",
    "downsample_layers.3.1.bias": "feature.6.1.bias",
    "stages.0.0.dwconv.weight": "feature.1.0.dwconv.weight",
    "stages.0.1.norm.weight": "feature.1.1.norm.gamma",
    "stages.2.5.norm.bias": "feature.5.5.norm.beta",
    "stages.2.5.pwconv1.weight": "feature.5.5.pwconv1.weight",
    "stages.3.1.pwconv2.bias": "feature.7.1.pwconv2.bias",
    "norm.weight": "norm.gamma",
    "norm.bias": "norm.beta",
    "head.weight": "classifier.weight",
    "head.bias": "classifier.bias",
}
OF_FAMILY = {
    "convnext_atto": {"stages.0.0.gamma": "feature.1.0.gamma_", "stages.2.5.gamma": "feature.5.5.gamma_"},
    "convnextv2_atto": {
        "stages.0.0.grn.gamma": "feature.1.0.grn.gamma",
        "stages.3.1.grn.beta": "feature.7.1.grn.beta",
    },
}


def tiny(num_classes=3, seed=0):
    """A network and arrays that fit it, which differ from its own."""
    network = ConvNeXt(in_channels=1, num_classes=num_classes, depths=(1, 1, 1, 1), dims=(4, 4, 8, 8))
    rng = np.random.default_rng(seed)
    shapes = {name: parameter.shape for name, parameter in weight_parameters(network).items()}
    return network, {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", OF_FAMILY)
def test_official_names(reference, name):
    official = reference.weights(name)
    network = create_model(name)
    arrays = to_mindcv(official, network)
    for theirs, ours in {**SAMPLES, **OF_FAMILY[name]}.items():
        assert arrays[ours] is official[theirs], theirs
    wanted = {parameter.name: tuple(parameter.shape) for parameter in network.trainable_params()}
    assert {ours: array.shape for ours, array in arrays.items()} == wanted
    assert {id(array) for array in arrays.values()} == {id(array) for array in official.values()}


def test_own_names_pass_through():
    network, arrays = tiny()
    result = to_mindcv(arrays, network)
    assert result.keys() == arrays.keys() and all(result[name] is arrays[name] for name in arrays)


def test_all_that_does_not_fit_is_named_at_once():
    network, arrays = tiny()
    for name in ("norm.beta", "feature.1.0.gamma_"):
        del arrays[name]
    arrays["feature.9.0.weight"] = arrays["moments.x"] = np.zeros(2, np.float32)
    arrays["classifier.weight"] = np.zeros((5, 8), np.float32)
    with pytest.raises(CheckpointError) as caught:
        to_mindcv(arrays, network)
    message = str(caught.value)
    assert "(layout: mindcv)" in message
    assert "2 missing: feature.1.0.gamma_, norm.beta" in message
    assert "2 unexpected: moments.x, feature.9.0.weight" in message or (
        "2 unexpected: feature.9.0.weight, moments.x" in message
    )
    assert "1 misshaped: classifier.weight is [5, 8], the model's is [3, 8]" in message


def test_a_name_the_layout_does_not_have_is_unexpected():
    network, _ = tiny()
    with pytest.raises(CheckpointError, match=r"layout: official.*1 unexpected: stages\.0\.0\.dwconv\.kernel"):
        to_mindcv({"downsample_layers.0.0.bias": np.zeros(4), "stages.0.0.dwconv.kernel": np.zeros(4)}, network)


def test_long_lists_are_cut_with_their_number():
    network, arrays = tiny()
    with pytest.raises(CheckpointError) as caught:
        to_mindcv({"feature.0.0.bias": arrays["feature.0.0.bias"]}, network)
    assert f"{len(arrays) - 1} missing" in str(caught.value) and f"and {len(arrays) - 9} more" in str(caught.value)


@pytest.mark.parametrize("names", [[], ["encoder.stem.weight", "fc.bias"]])
def test_unknown_layouts(names):
    network, _ = tiny()
    with pytest.raises(CheckpointError, match=r"of no known layout \(mindcv, official\): ") as caught:
        to_mindcv({name: np.zeros(1) for name in names}, network)
    assert all(name in str(caught.value) for name in names)


def test_the_counter_of_random_layers_is_no_weight():
    network = ConvNeXt(1, 3, (1, 1, 1, 1), (4, 4, 8, 8), drop_path_rate=0.5, drop_rate=0.1)
    names = {parameter.name for parameter in network.get_parameters()}
    assert names - weight_parameters(network).keys() == {"random_step.step"}
