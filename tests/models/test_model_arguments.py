"""Models refuse a wrong argument in one sentence that names the argument, its value and the expected values."""

import re

import numpy as np
import pytest

from mindcv import create_model
from mindcv.models import ConvNeXtFeatures, convnext_atto, is_model, list_models, model_entrypoint, pack_for_inference
from mindcv.models.convnext import ConvNeXt
from mindcv.models.features import FeatureExtractWrapper
from mindcv.utils.errors import UserError

NAN = float("nan")
SMALL = {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32), "num_classes": 5}


def refused(sentence):
    return pytest.raises(UserError, match=f"^{re.escape(sentence)}[^\n]*$")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"depths": (3, 3)}, "depths must be a list of 4 whole numbers, each of at least 1, got (3, 3)"),
        ({"depths": (3, 3, 9, -3)}, "depths must be a list of 4 whole numbers, each of at least 1, got (3, 3, 9, -3)"),
        (
            {"depths": (1, 1, 1, 1.5)},
            "depths must be a list of 4 whole numbers, each of at least 1, got (1, 1, 1, 1.5)",
        ),
        ({"depths": 3}, "depths must be a list of 4 whole numbers, each of at least 1, got 3"),
        ({"dims": (8, 16, 24)}, "dims must be a list of 4 whole numbers, each of at least 1, got (8, 16, 24)"),
        ({"dims": (0, 8, 8, 8)}, "dims must be a list of 4 whole numbers, each of at least 1, got (0, 8, 8, 8)"),
        ({"dims": "abcd"}, "dims must be a list of 4 whole numbers, each of at least 1, got 'abcd'"),
        ({"use_grn": "False"}, "use_grn must be True or False, got 'False'"),
        ({"drop_path_rate": None}, "drop_path_rate must be a number of at least 0 and below 1, got None"),
        ({"drop_rate": [0.1]}, "drop_rate must be a number of at least 0 and below 1, got [0.1]"),
        ({"layer_scale_init_value": "a"}, "layer_scale_init_value must be a number, got 'a'"),
        ({"layer_scale_init_value": NAN}, "layer_scale_init_value must be a number, got nan"),
        ({"head_init_scale": None}, "head_init_scale must be a number of at least 0, got None"),
        ({"head_init_scale": -1}, "head_init_scale must be a number of at least 0, got -1"),
        (
            {"recompute_stages": 2},
            "recompute_stages must be a list of whole numbers, each of at least 0 and at most 3, got 2",
        ),
        (
            {"recompute_stages": (4,)},
            "recompute_stages must be a list of whole numbers, each of at least 0 and at most 3, got (4,)",
        ),
        ({"seed": 0.5}, "seed must be a whole number, got 0.5"),
    ],
)
def test_convnext_names_a_wrong_argument(wrong, sentence):
    with refused(sentence):
        ConvNeXt(**{**SMALL, **wrong})


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: create_model("convnext_atto", num_clases=3),
            "create_model: the keyword 'num_clases' is not known; did you mean 'num_classes'? (there are: ",
        ),
        (
            lambda: create_model("convnext_atto", chekpoint_path="a.ckpt"),
            "create_model: the keyword 'chekpoint_path' is not known; did you mean 'checkpoint_path'? (there are: ",
        ),
        (lambda: create_model("convnextv2_atto", depths=(1, 1, 1, 1)), "create_model: the keyword 'depths' is not kn"),
        (lambda: create_model("convnextv2_atto", use_grn=True), "create_model: the keyword 'use_grn' is not known"),
        (lambda: convnext_atto(use_grn=True), "convnext_atto: the keyword 'use_grn' is not known"),
        (
            lambda: convnext_atto(drop_pth_rate=0.1),
            "convnext_atto: the keyword 'drop_pth_rate' is not known; did you mean 'drop_path_rate'? (there are: ",
        ),
    ],
)
def test_model_names_an_unknown_keyword(call, sentence):
    with refused(sentence) as caught:
        call()
    assert isinstance(caught.value, TypeError)


def test_convnext_takes_the_numbers_of_numpy():
    network = ConvNeXt(dims=np.array([8, 16, 24, 32]), depths=[1, np.int64(1), 1, 1], drop_path_rate=np.float32(0.25))
    assert network.num_features == 32 and len(network.feature) == 8


@pytest.mark.parametrize(
    ("model_name", "wrong", "sentence"),
    [
        (None, {}, "model_name must be a string, got None"),
        (["convnext_tiny"], {}, "model_name must be a string, got ['convnext_tiny']"),
        ("convnext_atto", {"pretrained": "False"}, "pretrained must be True or False, got 'False'"),
        ("convnext_atto", {"features_only": 2}, "features_only must be True or False, got 2"),
        ("convnext_atto", {"ema": "yes"}, "ema must be True or False, got 'yes'"),
        ("convnext_atto", {"checkpoint_path": 3}, "checkpoint_path must be a path (a string or a pathlib.Path), got 3"),
        (
            "convnext_atto",
            {"features_only": True, "out_indices": 2},
            "out_indices must be a list of whole numbers, got 2",
        ),
        (
            "convnext_atto",
            {"features_only": True, "out_indices": [1, "2"]},
            "out_indices must be a list of whole numbers, got [1, '2']",
        ),
        ("convnext_atto", {"in_channels": 2.5}, "in_channels must be a whole number of at least 1, got 2.5"),
        (
            "convnext_atto",
            {"drop_path_rate": 1.5},
            "drop_path_rate must be a number of at least 0 and below 1, got 1.5",
        ),
    ],
)
def test_create_model_names_a_wrong_argument(model_name, wrong, sentence):
    with refused(sentence):
        create_model(model_name, **wrong)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: is_model(None), "model_name must be a string, got None"),
        (lambda: model_entrypoint(3), "model_name must be a string, got 3"),
        (lambda: list_models(3), "filter must be a pattern such as '*v2*', or a list of patterns, got 3"),
        (lambda: list_models(exclude_filters=[1]), "exclude_filters must be a pattern such as '*v2*', or a list of"),
        (lambda: pack_for_inference(None), "network must be a network (a mindspore.nn.Cell), got None"),
        (lambda: ConvNeXtFeatures(None), "network must be a ConvNeXt, got None"),
        (lambda: FeatureExtractWrapper(None), "net must be a network with the attribute feature_info, got None"),
    ],
)
def test_functions_of_models_name_a_wrong_argument(call, sentence):
    with refused(sentence):
        call()


def test_feature_extract_wrapper_names_places_that_there_are_not():
    with refused("out_indices must be a list of whole numbers, each of at least 0 and at most 3, got (0, 1, 2, 3, 4)"):
        FeatureExtractWrapper(ConvNeXt(**SMALL))
