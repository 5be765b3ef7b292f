"""Tests of the registry of models, of `create_model` and of the methods of networks."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

import mindcv
from mindcv import create_model, is_model, list_models, list_modules, model_entrypoint, register_model
from mindcv.convert import weight_parameters, write_ckpt
from mindcv.models.convnext import ConvNeXt
from mindcv.models.registry import _entrypoints
from mindcv.utils.errors import UserError

IMAGE = Tensor(np.random.default_rng(0).standard_normal((2, 3, 64, 64)).astype(np.float32))


def test_list_models_and_is_model_answer_for_the_registered_names():
    assert list_modules() == ["convnext", "fcmae"]
    names = list_models()
    assert names == sorted(names) and {"convnext_xlarge", "convnextv2_huge"} <= set(names)
    assert list_models("*v2*", "convnext") == [name for name in names if name.startswith("convnextv2_")]
    assert list_models(exclude_filters=["*_[a-s]*", "*v2*"]) == [
        name for name in names if "v2" not in name and name.split("_")[1][0] > "s"
    ]
    assert list_models(module="fcmae") == [f"fcmae_{name}" for name in list_models("convnextv2_*")]
    assert {*list_models(module="convnext"), *list_models(module="fcmae")} == set(names)
    assert is_model("convnext_tiny") and not is_model("convnext_huge")
    assert model_entrypoint("convnext_tiny") is mindcv.convnext_tiny


def test_create_model_suggests_the_nearest_name_when_the_model_is_unknown():
    with pytest.raises(UserError, match="did you mean 'convnextv2_tiny'"):
        create_model("convnextv2_tinny")


def test_register_model_adds_a_model_and_refuses_its_name_a_second_time():
    def my_convnext(pretrained=False, num_classes=1000, in_channels=3, **kwargs):
        return ConvNeXt(in_channels, num_classes, (1, 1, 1, 1), (4, 4, 4, 4), **kwargs)

    try:
        register_model(my_convnext)
        assert create_model("my_convnext", num_classes=3)(IMAGE).shape == (2, 3)
        with pytest.raises(ValueError, match="already registered"):
            register_model(my_convnext)
    finally:
        _entrypoints.pop("my_convnext", None)


def test_network_applies_forward_head_to_forward_features_and_reset_classifier_changes_the_head():
    network = create_model("convnextv2_atto", num_classes=7).set_train(False)
    features = network.forward_features(IMAGE)
    assert features.shape == (2, 320, 2, 2)
    pooled = network.forward_head(features, pre_logits=True)
    np.testing.assert_array_equal(network(IMAGE).asnumpy(), network.forward_head(features).asnumpy())
    assert network(IMAGE).shape == (2, 7)

    network.reset_classifier(0)
    np.testing.assert_array_equal(network(IMAGE).asnumpy(), pooled.asnumpy())
    network.reset_classifier(5)
    assert network(IMAGE).shape == (2, 5)
    assert [p.name for p in network.get_parameters()][-2:] == ["classifier.weight", "classifier.bias"]


def test_network_returns_pooled_features_when_num_classes_is_zero():
    network = create_model("convnext_atto", num_classes=0).set_train(False)
    assert network(IMAGE).shape == (2, 320)
    assert not [p.name for p in network.get_parameters() if "classifier" in p.name]


@pytest.mark.parametrize("in_channels", [1, 4])
def test_create_model_builds_a_network_for_the_given_in_channels(in_channels):
    network = create_model("convnext_atto", in_channels=in_channels, num_classes=2)
    assert network(Tensor(np.zeros((1, in_channels, 32, 32), np.float32))).shape == (1, 2)


def test_create_model_loads_weights_or_their_average_from_a_checkpoint(tmp_path, capsys):
    """The network takes the weights or their average, also for grey images and another number of classes."""
    saved = create_model("convnext_atto", num_classes=3)
    weights = {name: parameter.value() for name, parameter in weight_parameters(saved).items()}
    average = {f"ema.{name}": value + 1 for name, value in weights.items()}
    path = tmp_path / "a.ckpt"
    write_ckpt(path, {**weights, **average}, {})

    network = create_model("convnext_atto", num_classes=3, checkpoint_path=str(path), ema=True)
    np.testing.assert_array_equal(network.classifier.bias.asnumpy(), 1)
    np.testing.assert_array_equal(network.feature[0][0].bias.asnumpy(), 1)

    write_ckpt(tmp_path / "validated.ckpt", {**weights, **average}, {"validated_weights": "ema"})
    for ema, expected in ((None, 1), (False, 0)):
        network = create_model("convnext_atto", 3, checkpoint_path=str(tmp_path / "validated.ckpt"), ema=ema)
        np.testing.assert_array_equal(network.classifier.bias.asnumpy(), expected)

    capsys.readouterr()
    network = create_model("convnext_atto", num_classes=2, in_channels=1, checkpoint_path=str(path))
    told = capsys.readouterr().err
    assert "the head of 3 classes is left out" in told and "for 3 channels are adapted to 1" in told
    summed = weights["feature.0.0.weight"].asnumpy().astype(np.float64).sum(1, keepdims=True)
    np.testing.assert_allclose(network.feature[0][0].weight.asnumpy(), summed, atol=1e-6)
    assert network(Tensor(np.zeros((1, 1, 32, 32), np.float32))).shape == (1, 2)

    network = create_model("convnext_atto", num_classes=50, checkpoint_path=str(path), head_init_scale=0.1)
    assert 0.0019 < network.classifier.weight.asnumpy().std() < 0.0021  # the new head was drawn
    assert not any(parameter.has_init for parameter in network.get_parameters())

    with pytest.raises(UserError, match="give a checkpoint_path"):
        create_model("convnext_atto", ema=True)


def test_create_model_returns_the_chosen_stages_when_features_only():
    full = create_model("convnext_atto").set_train(False)
    weights = {p.name: p for p in full.get_parameters()}
    network = create_model("convnext_atto", features_only=True, out_indices=[1, 2]).set_train(False)
    for parameter in network.get_parameters():
        parameter.set_data(weights[parameter.name].value())
    assert [(info["chs"], info["reduction"]) for info in network.feature_info] == [(80, 8), (160, 16)]
    maps = network(IMAGE)
    assert [m.shape for m in maps] == [(2, 80, 8, 8), (2, 160, 4, 4)]
    # The last stage and the head are not there.
    assert not [
        p.name for p in network.get_parameters() if p.name.startswith(("feature.6", "feature.7", "norm", "class"))
    ]
    full.feature = full.feature[:6]
    np.testing.assert_array_equal(full.forward_features(IMAGE).asnumpy(), maps[1].asnumpy())


@pytest.mark.parametrize("out_indices", [[], [4], [2, 1], [1, 1], [-5]])
def test_create_model_refuses_wrong_out_indices(out_indices):
    with pytest.raises(ValueError, match="out_indices"):
        create_model("convnext_atto", features_only=True, out_indices=out_indices)


def test_create_model_draws_initial_values_and_scales_those_of_the_head():
    ms.set_seed(3)
    network = create_model("convnext_atto", head_init_scale=0.001)
    assert 1.5e-5 < network.classifier.weight.asnumpy().std() < 2.5e-5
    assert 0.019 < network.feature[1][0].pwconv1.weight.asnumpy().std() < 0.021
    np.testing.assert_array_equal(network.feature[1][0].gamma_.asnumpy(), np.float32(1e-6))
    np.testing.assert_array_equal(network.classifier.bias.asnumpy(), 0)


def test_create_model_draws_the_same_initial_values_when_the_seed_is_the_same():
    def draw(seed):
        ms.set_seed(seed)
        return create_model("convnext_atto").feature[3][0].pwconv2.weight.asnumpy()

    np.testing.assert_array_equal(draw(1), draw(1))
    assert (draw(1) != draw(2)).any()
