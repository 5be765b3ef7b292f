"""Tests of the conversion between layouts of names, against tables written by hand from the other code bases."""

import gc

import numpy as np
import pytest
from mindspore.nn.utils import no_init_parameters

from mindcv import list_models
from mindcv.convert import from_mindcv, to_mindcv, weight_parameters
from mindcv.convert.layout_tables import LAYOUTS
from mindcv.convert.layouts import rename
from mindcv.models import create_model
from mindcv.models.convnext import ConvNeXt
from mindcv.utils.errors import CheckpointError, UserError

# Official name -> name in this library: one name of each kind, at its first and its last position.
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
# The variants that torchvision has, and the smallest variant, converted to its layout.
TORCHVISION = ("convnext_atto", "convnext_tiny", "convnext_small", "convnext_base", "convnext_large")


def tiny(num_classes=3, seed=0):
    """Return a small network and random arrays that fit it."""
    network = ConvNeXt(in_channels=1, num_classes=num_classes, depths=(1, 1, 1, 1), dims=(4, 4, 8, 8))
    rng = np.random.default_rng(seed)
    shapes = {name: parameter.shape for name, parameter in weight_parameters(network).items()}
    return network, {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("name", OF_FAMILY)
def test_to_mindcv_converts_official_names(reference, name):
    official = reference.weights(name)
    network = create_model(name)
    arrays = to_mindcv(official, network)
    for theirs, ours in {**SAMPLES, **OF_FAMILY[name]}.items():
        assert arrays[ours] is official[theirs], theirs
    wanted = {parameter.name: tuple(parameter.shape) for parameter in network.trainable_params()}
    assert {ours: array.shape for ours, array in arrays.items()} == wanted
    assert {id(array) for array in arrays.values()} == {id(array) for array in official.values()}


def layouts_of(model):
    """Return the layouts other than mindcv's that a model exists in."""
    return [
        layout
        for layout in LAYOUTS
        if layout != "mindcv"
        and not (layout == "torchvision" and model not in TORCHVISION)
        and not (layout == "fcmae" and "v2" not in model)
    ]


def encoder_of(official):
    return {name: array for name, array in official.items() if name.startswith(("downsample", "stages"))}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_layouts_are_complete():
    assert list(LAYOUTS) == ["mindcv", "official", "timm", "torchvision", "mmpretrain", "transformers", "fcmae"]


@pytest.mark.parametrize(
    "model,layout", [(model, layout) for model in ("convnext_atto", "convnextv2_atto") for layout in layouts_of(model)]
)
def test_layouts_convert_values_into_mindcv_and_back(reference, as_layout, model, layout):
    official = reference.weights(model)
    if layout == "fcmae":
        official = encoder_of(official)
    expected = rename(official).arrays  # test_to_mindcv_converts_official_names checks these
    theirs = as_layout(layout, model, official)
    assert theirs.keys() != official.keys() or layout == "official"
    found = rename(theirs)
    assert found.layout.name == layout and not found.unexpected
    assert_same(found.arrays, expected)
    assert_same(from_mindcv(found.arrays, layout), theirs)
    assert_same(from_mindcv(expected, "official"), official)


@pytest.fixture(params=list_models(module="convnext"), scope="module")
def blank(request):
    """Return (name, network) of every variant. The network has names and shapes, but no values."""
    with no_init_parameters():
        network = create_model(request.param)
    yield request.param, network
    del network
    gc.collect()


def test_layouts_convert_every_variant(blank, official_shapes, as_layout):
    """Each array is filled with its index in the list, so that a swapped pair of names is detected."""
    model, network = blank
    official = {
        name: np.broadcast_to(np.float32(i), shape) for i, (name, shape) in enumerate(official_shapes(model).items())
    }
    places = {name: array.flat[0] for name, array in to_mindcv(official, network).items()}
    for layout in layouts_of(model):
        given = as_layout(layout, model, encoder_of(official) if layout == "fcmae" else official)
        found = rename(given)
        assert found.layout.name == layout and not found.unexpected
        assert {name: array.flat[0] for name, array in found.arrays.items()} == {n: places[n] for n in found.arrays}
        if layout != "fcmae":
            assert to_mindcv(given, network).keys() == found.arrays.keys() == places.keys()
        back = from_mindcv(found.arrays, layout)
        assert {name: a.shape for name, a in back.items()} == {name: a.shape for name, a in given.items()}
        assert all(back[name].flat[0] == given[name].flat[0] for name in given)


def test_to_mindcv_accepts_a_model_without_a_head(reference, as_layout):
    official = {name: a for name, a in reference.weights("convnextv2_atto").items() if not name.startswith("head")}
    network = create_model("convnextv2_atto", num_classes=0)
    theirs = as_layout("transformers", "convnextv2_atto", official)
    assert "embeddings.layernorm.bias" in theirs  # a model without a head has no root
    found = to_mindcv(theirs, network)
    assert_same(found, to_mindcv(official, network))
    assert_same(from_mindcv(found, "transformers"), theirs)


def test_rename_returns_views(reference, as_layout):
    official = reference.weights("convnextv2_atto")
    for layout, given in (
        ("timm", official),
        ("transformers", official),
        ("fcmae", encoder_of(official)),
    ):
        theirs = as_layout(layout, "convnextv2_atto", given)
        found = rename(theirs)
        assert all(np.shares_memory(array, theirs[found.sources[name]]) for name, array in found.arrays.items())


def pretraining(as_layout, official):
    """Return a pre-training network: the sparse encoder, and a decoder with one dense block of 512 channels."""
    decoder = {
        "mask_token": (1, 512, 1, 1),
        "proj.weight": (512, 320, 1, 1),
        "decoder.0.dwconv.weight": (512, 1, 7, 7),
        "decoder.0.grn.gamma": (1, 1, 1, 2048),
        "pred.bias": (3072,),
    }
    zeros = {name: np.zeros(shape, np.float32) for name, shape in decoder.items()}
    return {**as_layout("fcmae", "convnextv2_atto", encoder_of(official)), **zeros}


def test_to_mindcv_leaves_out_the_fcmae_decoder_and_logs_it(reference, as_layout, capsys):
    official = reference.weights("convnextv2_atto")
    given = pretraining(as_layout, official)
    network = create_model("convnextv2_atto", features_only=True)  # no last norm, no head
    assert to_mindcv(given, network).keys() == weight_parameters(network).keys()
    assert capsys.readouterr().err == "weights: the decoder is left out: decoder, mask_token, pred, proj\n"
    # In any other layout the names of the decoder are unexpected.
    dense = {**encoder_of(official), "mask_token": given["mask_token"]}
    with pytest.raises(CheckpointError, match="layout: official.*1 unexpected: mask_token"):
        to_mindcv(dense, network)


def test_from_mindcv_writes_only_the_encoder_for_fcmae(reference, as_layout, capsys):
    official = reference.weights("convnextv2_atto")
    found = from_mindcv(rename(official).arrays, "fcmae")
    assert_same(found, as_layout("fcmae", "convnextv2_atto", encoder_of(official)))
    assert capsys.readouterr().err == (
        "the layout fcmae contains only an encoder; "
        "left out: classifier.bias, classifier.weight, norm.beta, norm.gamma\n"
    )


def test_from_mindcv_rejects_arrays_that_the_layout_does_not_support(reference):
    v1, v2 = (rename(reference.weights(model)).arrays for model in ("convnext_atto", "convnextv2_atto"))
    with pytest.raises(
        CheckpointError, match=r"torchvision does not support these arrays: feature\.1\.0\.grn\.gamma.* 16 more"
    ):
        from_mindcv(v2, "torchvision")
    with pytest.raises(CheckpointError, match=r"layout fcmae does not support these arrays: feature\.1\.0\.gamma_"):
        from_mindcv(v1, "fcmae")
    with pytest.raises(CheckpointError, match=r"not names of this library's models: stem\.0\.bias"):
        from_mindcv({**v1, "stem.0.bias": v1["norm.beta"]}, "timm")
    with pytest.raises(UserError, match=r"layout 'tim' is not known; did you mean 'timm'\? \(there are: fcmae, "):
        from_mindcv(v1, "tim")


def without(arrays, *parts):
    return {name: array for name, array in arrays.items() if not any(part in name for part in parts)}


def more(arrays, **shapes):
    return {**arrays, **{name.replace("__", "."): np.zeros(shape, np.float32) for name, shape in shapes.items()}}


STRUCTURES = {
    "overlapping convolutions (timm's *_ols)": lambda a: more(
        without(a, "stem.1"), stem__2__weight=40, stem__2__bias=40
    ),
    "a downsampling layer before the first stage (timm's patch_size=2)": lambda a: more(
        {**a, "stem.0.weight": a["stem.0.weight"][:, :, :2, :2]},
        stages__0__downsample__0__weight=40,
        stages__0__downsample__0__bias=40,
        stages__0__downsample__1__weight=(40, 40, 2, 2),
        stages__0__downsample__1__bias=40,
    ),
    "a norm before the pooling (timm's *_hnf)": lambda a: more(
        without(a, "head.norm"), norm_pre__weight=320, norm_pre__bias=320
    ),
    "a hidden layer in the head (timm's *_mlp)": lambda a: more(a, head__pre_logits__fc__weight=(320, 320)),
    "norms without a bias (timm's *_rms)": lambda a: without(a, "norm.bias", "stem.1.bias", "downsample.0.bias"),
}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_to_mindcv_names_unsupported_structures_of_timm(reference, as_layout, structure):
    weights = as_layout("timm", "convnext_atto", reference.weights("convnext_atto"))
    with pytest.raises(CheckpointError) as caught:
        to_mindcv(STRUCTURES[structure](weights), create_model("convnext_atto"))
    message = str(caught.value)
    assert f"{structure}, which this library does not support" in message and "layout: timm" in message
    assert message.count("which this library does not support") == 1 and "give patch_size" not in message


def test_to_mindcv_names_unsupported_norms_of_a_transformers_backbone(reference, as_layout):
    official = encoder_of(reference.weights("convnext_atto"))
    weights = more(as_layout("transformers", "convnext_atto", official), hidden_states_norms__stage4__weight=320)
    network = create_model("convnext_atto", features_only=True)
    with pytest.raises(CheckpointError, match="norms of the stages' feature maps.*1 unexpected: hidden_states_norms"):
        to_mindcv(weights, network)


def test_to_mindcv_describes_both_networks_when_they_differ(reference, as_layout):
    weights = as_layout("timm", "convnext_atto", reference.weights("convnext_atto"))
    with pytest.raises(CheckpointError) as caught:
        to_mindcv(weights, create_model("convnextv2_nano"))
    message = str(caught.value)
    assert (
        "the checkpoint belongs to a V1 with depths 2, 2, 6, 2 and 40 channels in the first stage, "
        "but the model is a V2 with depths 2, 2, 8, 2 and 80 channels in the first stage" in message
    )
    assert "stages.0.blocks.0.mlp.grn.weight (here feature.1.0.grn.gamma)" in message  # missing
    assert "12 unexpected: stages.0.blocks.0.gamma (here feature.1.0.gamma_)" in message
    assert (
        "stem.0.weight (here feature.0.0.weight) has the shape [40, 3, 4, 4], the model's has [80, 3, 4, 4]" in message
    )
    assert len(message) < 650 and message.count("has the shape") == 1  # the cause is known, so one name of each kind


def test_to_mindcv_reports_a_sparse_kernel_that_is_not_square(reference, as_layout):
    weights = as_layout("fcmae", "convnextv2_atto", encoder_of(reference.weights("convnextv2_atto")))
    weights["encoder.stages.0.0.dwconv.kernel"] = np.zeros((48, 40), np.float32)
    network = create_model("convnextv2_atto", features_only=True)
    with pytest.raises(
        CheckpointError, match=r"1 misshaped: encoder\.stages\.0\.0\.dwconv\.kernel.* has the shape \[48, 40\]"
    ):
        to_mindcv(weights, network)


def test_to_mindcv_returns_the_same_arrays_for_own_names():
    network, arrays = tiny()
    result = to_mindcv(arrays, network)
    assert result.keys() == arrays.keys() and all(result[name] is arrays[name] for name in arrays)


def test_to_mindcv_reports_all_mismatches_at_once():
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
    assert "1 misshaped: classifier.weight has the shape [5, 8], the model's has [3, 8]" in message


def test_to_mindcv_reports_an_unexpected_name():
    network, _ = tiny()
    with pytest.raises(CheckpointError, match=r"layout: official.*1 unexpected: stages\.0\.0\.dwconv\.kernel"):
        to_mindcv({"downsample_layers.0.0.bias": np.zeros(4), "stages.0.0.dwconv.kernel": np.zeros(4)}, network)


def test_to_mindcv_shortens_long_lists_of_names():
    network, arrays = tiny()
    with pytest.raises(CheckpointError) as caught:
        to_mindcv({"feature.0.0.bias": arrays["feature.0.0.bias"]}, network)
    assert f"{len(arrays) - 1} missing" in str(caught.value) and f"and {len(arrays) - 9} more" in str(caught.value)


@pytest.mark.parametrize("names", [[], ["encoder.stem.weight", "fc.bias"]])
def test_to_mindcv_rejects_an_unknown_layout(names):
    network, _ = tiny()
    with pytest.raises(
        CheckpointError,
        match=r"no known layout of names \(mindcv, official, timm, torchvision, mmpretrain, transformers, fcmae\): ",
    ) as caught:
        to_mindcv({name: np.zeros(1) for name in names}, network)
    assert all(name in str(caught.value) for name in names)


def test_weight_parameters_excludes_the_counter_of_random_layers():
    network = ConvNeXt(1, 3, (1, 1, 1, 1), (4, 4, 8, 8), drop_path_rate=0.5, drop_rate=0.1)
    names = {parameter.name for parameter in network.get_parameters()}
    assert names - weight_parameters(network).keys() == {"sample_counter.count"}
