"""Tests of loading checkpoints into networks: either all weights are set, or the network is unchanged."""

import gc

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindcv.convert import load_weights, weight_parameters, write_ckpt, write_safetensors
from mindcv.convert.load import adapted_stem
from mindcv.models import create_model, list_models
from mindcv.models.convnext import ConvNeXt
from mindcv.utils.errors import CheckpointError


def small(num_classes=3, **options):
    return ConvNeXt(in_channels=1, num_classes=num_classes, depths=(1, 1, 1, 1), dims=(4, 4, 8, 8), **options)


def random_arrays(of):
    rng = np.random.default_rng(0)
    shapes = {name: parameter.shape for name, parameter in weight_parameters(of).items()}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def values(of):
    return {name: parameter.asnumpy().copy() for name, parameter in weight_parameters(of).items()}


def write(path, arrays):
    write_ckpt(path, {name: Tensor(array) for name, array in arrays.items()}, {"note": 1})
    return path


def test_load_weights_sets_all_weights(tmp_path):
    target = small(drop_path_rate=0.5)
    arrays = random_arrays(target)
    assert load_weights(target, write(tmp_path / "a.ckpt", arrays)) == {"note": 1}
    found = values(target)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.fixture(params=["convnext_atto", "convnextv2_atto"], scope="module")
def target(request):
    """Return (name, network) of a network to load into."""
    yield request.param, create_model(request.param).set_train(False)
    gc.collect()  # the largest network takes 2.6 GB


def set_to_zero(target, names=""):
    for name, parameter in weight_parameters(target).items():
        if name.startswith(names):
            parameter.set_data(ms.ops.zeros_like(parameter))


def assert_recorded(name, network, reference):
    shape = min(shape for model, shape, _ in reference.cases if model == name)
    logits = network(Tensor(reference.image(shape))).asnumpy()
    recorded = reference.arrays[f"{name}/{shape[0]}x{shape[2]}x{shape[3]}/logits"]
    np.testing.assert_allclose(logits, recorded, atol=2e-4, rtol=0)


LAYOUTS = {
    "convnext": ("official", "timm", "torchvision", "transformers"),
    "convnextv2": ("official", "timm", "transformers", "fcmae"),
}


def by_size(model, layout):
    return pytest.param(model, layout, marks=[] if model.endswith("atto") else pytest.mark.slow)


@pytest.mark.parametrize(
    "target,layout",
    [by_size(model, layout) for model in list_models(module="convnext") for layout in LAYOUTS[model.split("_")[0]]],
    indirect=["target"],
)
def test_load_weights_of_every_layout_gives_the_recorded_logits(tmp_path, reference, as_layout, target, layout):
    name, network = target
    official = reference.weights(name)
    set_to_zero(network)
    path = tmp_path / "a.safetensors"
    if layout == "fcmae":  # the last norm and the head come from another file
        write_safetensors(path, official)
        load_weights(network, path)
        set_to_zero(network, "feature")
        official = {n: array for n, array in official.items() if n.startswith(("downsample", "stages"))}
    write_safetensors(path, as_layout(layout, name, official))
    load_weights(network, path, replace_head=layout == "fcmae")
    path.unlink()
    assert_recorded(name, network, reference)


def test_load_weights_reads_a_file_that_mindspore_wrote(tmp_path, reference, target):
    name, network = target
    entries = [{"name": n, "data": Tensor(array)} for n, array in reference.weights(name).items()]
    ms.save_checkpoint(entries, str(tmp_path / "a.ckpt"))
    set_to_zero(network)
    assert load_weights(network, tmp_path / "a.ckpt") == {}
    assert_recorded(name, network, reference)


def test_load_weights_rejects_a_head_of_another_width_unless_replace_head(tmp_path, capsys):
    arrays = random_arrays(small(5))
    path = write(tmp_path / "a.ckpt", arrays)
    target = small(3)
    before = values(target)
    with pytest.raises(CheckpointError) as caught:
        load_weights(target, path)
    for part in (
        str(path),
        "(layout: mindcv)",
        "2 misshaped",
        "classifier.weight has the shape [5, 8], the model's has [3, 8]",
    ):
        assert part in str(caught.value)
    assert all((values(target)[name] == before[name]).all() for name in before)
    assert capsys.readouterr().err == ""

    load_weights(target, path, replace_head=True)
    assert (
        capsys.readouterr().err == f"{path}: the head of 5 classes is left out; "
        "the model's head of 3 classes starts from random values and needs training\n"
    )
    for name, found in values(target).items():
        expected = before[name] if name.startswith("classifier.") else arrays[name]
        np.testing.assert_array_equal(found, expected, err_msg=name)


def test_load_weights_loads_a_fitting_head_when_replace_head(tmp_path, capsys):
    target = small(3)
    arrays = random_arrays(target)
    load_weights(target, write(tmp_path / "a.ckpt", arrays), replace_head=True)
    np.testing.assert_array_equal(target.classifier.weight.asnumpy(), arrays["classifier.weight"])
    assert capsys.readouterr().err == ""


def test_load_weights_fills_a_network_without_a_head(tmp_path):
    arrays = random_arrays(small(5))
    target = small(0)
    load_weights(target, write(tmp_path / "a.ckpt", arrays), replace_head=True)
    np.testing.assert_array_equal(target.norm.gamma.asnumpy(), arrays["norm.gamma"])


@pytest.mark.parametrize("replace_head", [False, True])
def test_load_weights_changes_nothing_when_it_fails(tmp_path, replace_head):
    target = small(3)
    before = values(target)
    arrays = random_arrays(small(5))
    arrays["norm.beta"] = np.zeros(9, np.float32)
    del arrays["feature.7.0.gamma_"]
    with pytest.raises(CheckpointError, match=r"1 missing: feature\.7\.0\.gamma_.*norm\.beta has the shape \[9\]"):
        load_weights(target, write(tmp_path / "a.ckpt", arrays), replace_head)
    for name, value in values(target).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_load_weights_names_a_file_of_another_model(tmp_path):
    path = write(tmp_path / "a.ckpt", {"conv1.weight": np.ones(3, np.float32)})
    with pytest.raises(CheckpointError, match=r"checkpoint '.*a\.ckpt': .*no known layout.*conv1\.weight"):
        load_weights(small(), path)


def encoder_of(arrays):
    return {name: array for name, array in arrays.items() if name.startswith("feature.")}


@pytest.mark.parametrize(
    "num_classes,left,message",
    [
        (
            3,
            ("norm.", "classifier."),
            "has no last norm and no head; the model's last norm keeps its values, "
            "and its head of 3 classes starts from random values and needs training",
        ),
        (
            0,
            ("norm.",),
            "ends before the last norm, as encoders do; the model's last norm keeps its values, which are 1 and 0 in a "
            "new model",
        ),
    ],
)
def test_load_weights_accepts_an_encoder_when_replace_head(tmp_path, capsys, num_classes, left, message):
    arrays = encoder_of(random_arrays(small()))
    path = write(tmp_path / "a.ckpt", arrays)
    target = small(num_classes)
    before = values(target)
    with pytest.raises(CheckpointError, match=f"{2 * len(left)} missing: norm.gamma, norm.beta"):
        load_weights(target, path)
    assert capsys.readouterr().err == ""
    load_weights(target, path, replace_head=True)
    assert capsys.readouterr().err == f"{path}: the checkpoint {message}\n"
    for name, found in values(target).items():
        np.testing.assert_array_equal(found, before[name] if name.startswith(left) else arrays[name], err_msg=name)


def test_load_weights_accepts_a_file_without_a_head_when_replace_head(tmp_path, capsys):
    arrays = random_arrays(small(0))
    path = write(tmp_path / "a.ckpt", arrays)
    target = small(3)
    with pytest.raises(CheckpointError, match="2 missing: classifier.weight, classifier.bias$"):
        load_weights(target, path)
    load_weights(target, path, replace_head=True)
    assert (
        capsys.readouterr().err == f"{path}: the checkpoint has no head; "
        "the model's head of 3 classes starts from random values and needs training\n"
    )
    np.testing.assert_array_equal(target.norm.beta.asnumpy(), arrays["norm.beta"])
    # A last norm with a missing part is an error: no software writes such a file.
    del arrays["norm.gamma"]
    with pytest.raises(CheckpointError, match="1 missing: norm.gamma$"):
        load_weights(target, write(tmp_path / "b.ckpt", arrays), replace_head=True)


def test_load_weights_logs_the_fcmae_decoder(tmp_path, capsys):
    arrays = {f"encoder.{name}": array for name, array in encoder_of(random_arrays(small())).items()}
    arrays["mask_token"] = np.zeros((1, 4, 1, 1), np.float32)
    path = write(tmp_path / "a.ckpt", arrays)
    load_weights(small(0), path, replace_head=True)
    assert capsys.readouterr().err.splitlines()[0] == f"{path}: the decoder is left out: mask_token"


# Weights of one output channel of a 1x1 kernel: red 1, green 10, blue 100.
RGB = np.float32([1, 10, 100]).reshape(1, 3, 1, 1)


@pytest.mark.parametrize(
    "in_channels,expected",
    [
        (1, [111]),
        (2, [1.5, 15]),
        (4, [0.75, 7.5, 75, 0.75]),
        (7, [3 / 7, 30 / 7, 300 / 7, 3 / 7, 30 / 7, 300 / 7, 3 / 7]),
    ],
)
def test_adapted_stem_sums_or_repeats_the_channels(in_channels, expected):
    found = adapted_stem(RGB, in_channels)
    assert found.dtype == np.float32 and found.shape == (1, in_channels, 1, 1)
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-6)


def test_load_weights_adapts_the_stem_only_when_adapt_stem(tmp_path, capsys):
    arrays = random_arrays(small())  # the network has 1 input channel
    arrays["feature.0.0.weight"] = np.random.default_rng(1).standard_normal((4, 3, 4, 4)).astype(np.float32)
    path = write(tmp_path / "a.ckpt", arrays)
    target = small()
    with pytest.raises(
        CheckpointError, match=r"feature\.0\.0\.weight has the shape \[4, 3, 4, 4\], the model's has \[4, 1, "
    ):
        load_weights(target, path)
    load_weights(target, path, adapt_stem=True)
    assert capsys.readouterr().err == f"{path}: the stem's weights for 3 channels are adapted to 1\n"
    summed = arrays["feature.0.0.weight"].astype(np.float64).sum(1, keepdims=True)
    np.testing.assert_allclose(target.feature[0][0].weight.asnumpy(), summed, atol=1e-6)


def test_load_weights_does_not_adapt_a_grey_stem(tmp_path):
    path = write(tmp_path / "a.ckpt", random_arrays(small()))
    target = ConvNeXt(3, 3, (1, 1, 1, 1), (4, 4, 8, 8))
    with pytest.raises(CheckpointError, match=r"1 misshaped: feature\.0\.0\.weight has the shape \[4, 1, 4, 4\]"):
        load_weights(target, path, adapt_stem=True)


def test_load_weights_loads_the_average_when_ema(tmp_path):
    arrays = random_arrays(small())
    average = {f"ema.{name}": array + 1 for name, array in arrays.items()}
    path = write(tmp_path / "a.ckpt", {**arrays, **average})
    for ema in (False, True):
        target = small()
        load_weights(target, path, ema=ema)
        for name, found in values(target).items():
            np.testing.assert_array_equal(found, arrays[name] + (1 if ema else 0), err_msg=name)
    with pytest.raises(CheckpointError, match=r"b\.ckpt'.*no moving average"):
        load_weights(small(), write(tmp_path / "b.ckpt", arrays), ema=True)


def test_load_weights_rejects_weights_that_are_not_floats(tmp_path):
    target = small()
    before = values(target)
    arrays = random_arrays(target)
    arrays["norm.gamma"] = arrays["norm.gamma"].astype(np.int8)
    write_safetensors(tmp_path / "a.safetensors", arrays)
    with pytest.raises(CheckpointError, match="not floats: norm.gamma is int8$"):
        load_weights(target, tmp_path / "a.safetensors")
    assert all((values(target)[name] == before[name]).all() for name in before)
