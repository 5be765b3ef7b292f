"""Models have the options and methods that scripts for MindCV and timm use, and refuse wrong values."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from mindcv import create_model, list_models
from mindcv.models import ConvNeXtFeatures
from mindcv.models.convnext import ConvNeXt
from mindcv.models.features import FeatureExtractWrapper
from mindcv.utils.errors import UserError


def build(**options):
    return ConvNeXt(**{"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32), "num_classes": 5, **options}).set_train(False)


@pytest.fixture(scope="module")
def images():
    return Tensor(np.random.default_rng(2).standard_normal((2, 3, 64, 96)).astype(np.float32))


@pytest.mark.parametrize("value", [None, -1, "10", 2.5, True])
def test_num_classes_that_is_no_number_of_classes_is_named(value):
    network = build()
    for call in (
        lambda: create_model("convnext_atto", num_classes=value),
        lambda: build(num_classes=value),
        lambda: network.reset_classifier(value),
    ):
        with pytest.raises(UserError, match=rf"num_classes must be a whole number of at least 0 .*, got {value!r}$"):
            call()
    assert network.num_classes == 5 and network.classifier.weight.shape == (5, 32)


@pytest.mark.parametrize("name", ["drop_rate", "drop_path_rate"])
@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan"), "0.1"])
def test_rate_that_is_no_probability_below_1_is_named(name, value):
    with pytest.raises(UserError, match=f"{name} must be a number of at least 0 and below 1, got {value!r}"):
        build(**{name: value})


def test_num_classes_of_numpy_is_a_number():
    assert build(num_classes=np.int64(7)).classifier.weight.shape == (7, 32)


@pytest.mark.parametrize("value", [0, -3, None, "3"])
def test_in_channels_that_is_no_number_of_channels_is_named(value):
    with pytest.raises(UserError, match=rf"in_channels must be a whole number of at least 1, got {value!r}$"):
        build(in_channels=value)


def test_in_chans_is_in_channels():
    network = create_model("convnext_atto", num_classes=2, in_chans=4)
    assert network.feature[0][0].weight.shape[1] == 4
    assert create_model("convnext_atto", in_channels=4, in_chans=4).feature[0][0].weight.shape[1] == 4
    with pytest.raises(UserError, match="in_channels=2 and in_chans=4 are two names of one argument"):
        create_model("convnext_atto", in_channels=2, in_chans=4)


def test_get_classifier_is_the_head():
    network = build()
    assert network.get_classifier() is network.classifier


def test_global_pool_empty_gives_the_normalised_map(images):
    network = build(num_classes=0, global_pool="")
    feature_map = network.forward_features(images).asnumpy()
    mean = feature_map.mean(1, keepdims=True)
    expected = (feature_map - mean) / np.sqrt(feature_map.var(1, keepdims=True) + 1e-6)
    found = network(images).asnumpy()
    assert found.shape == (2, 32, 2, 3)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    network.reset_classifier(3, global_pool="avg")
    assert network(images).shape == (2, 3)


def test_global_pool_that_is_wrong_is_named():
    with pytest.raises(UserError, match="global_pool 'max' is not known"):
        build(global_pool="max")
    with pytest.raises(UserError, match="global_pool '' makes the network return a map and needs num_classes 0, not 5"):
        build(global_pool="")


def test_feature_info_has_the_methods_of_timm():
    backbone = ConvNeXtFeatures(build(), [1, 3])
    info = backbone.feature_info
    assert [entry["chs"] for entry in info] == info.channels() == [16, 32]
    assert info.reduction() == [8, 32] and info.module_name() == ["feature.3", "feature.7"]
    assert info.channels(1) == 32 and info.channels([0]) == [16]


def test_negative_out_indices_count_from_the_last_stage(images):
    backbone, same = ConvNeXtFeatures(build(), [-2, -1]), ConvNeXtFeatures(build(), (2, 3))
    assert backbone.out_indices == same.out_indices
    assert [y.shape for y in backbone(images)] == [(2, 24, 4, 6), (2, 32, 2, 3)]


@pytest.mark.parametrize("indices", [[-5], [4], [1, -3], [3, 0], []])
def test_out_indices_that_are_no_stages_are_named(indices):
    with pytest.raises(UserError, match="out_indices must be rising stage numbers from 0 to 3, or negative"):
        ConvNeXtFeatures(build(), indices)


def test_list_models_takes_several_patterns():
    assert list_models(["convnext_atto", "convnextv2_a*"]) == ["convnext_atto", "convnextv2_atto"]
    assert list_models([]) == list_models("") == list_models()
    assert list_models(["*"], exclude_filters=["convnext_*", "*huge"]) == list_models("*v2*", exclude_filters="*huge")


def test_repr_shows_sizes():
    shown = repr(build(use_grn=True, drop_path_rate=0.3))
    for part in (
        "StemConv(\n        in_channels=3, out_channels=8, kernel_size=4",
        "DepthwiseConv(\n          channels=8, kernel_size=7",
        "Dense(in_channels=8, out_channels=32)",
        "GRN(channels=128)",
        "PatchConv(\n        in_channels=24, out_channels=32, kernel_size=2",
        "channels=24",
        "rate=0.1",
        "(classifier): Dense(in_channels=32, out_channels=5)",
    ):
        assert part in shown, part
    assert "Parameter (" not in shown


def test_networks_are_compiled_with_each_pooling(images):
    ms.set_context(mode=ms.GRAPH_MODE)
    assert build(num_classes=0, global_pool="")(images).shape == (2, 32, 2, 3)


class Stages(nn.Cell):
    """A network as MindCV's guide to feature extraction describes it."""

    def __init__(self, is_nested):
        super().__init__()
        cells = [nn.SequentialCell(nn.Dense(4, 3), nn.ReLU()) for _ in range(1)]
        cells += [nn.Dense(3, 5), nn.Dense(5, 2)]
        names = ["stage0", "stage1", "stage2"]
        if is_nested:
            self.feature = nn.SequentialCell(cells)
            self.flatten_sequential = True
            names = [f"feature.{i}" for i in range(3)]
        else:
            self.stage0, self.stage1, self.stage2 = cells
        self.feature_info = [{"chs": chs, "reduction": 1, "name": name} for chs, name in zip((3, 5, 2), names)]
        self.cells_in_order = tuple(cells)


@pytest.mark.parametrize("is_nested", [False, True])
@pytest.mark.parametrize("graph", [False, True])
def test_feature_extract_wrapper_gives_the_maps_of_named_cells(is_nested, graph):
    ms.set_context(mode=ms.GRAPH_MODE if graph else ms.PYNATIVE_MODE)
    network, x = Stages(is_nested), Tensor(np.random.default_rng(3).standard_normal((2, 4)).astype(np.float32))
    expected, y = [], x
    for cell in network.cells_in_order:
        y = cell(y)
        expected.append(y.asnumpy())
    names = [parameter.name for parameter in network.get_parameters()]
    for indices in ([0, 1, 2], [1]):
        maps = FeatureExtractWrapper(network, indices)(x)
        for found, i in zip(maps, indices):
            np.testing.assert_allclose(found.asnumpy(), expected[i], atol=1e-6)
        assert len(maps) == len(indices)
    assert [parameter.name for parameter in network.get_parameters()] == names
