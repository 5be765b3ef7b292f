"""Tests of checkpoints of larger models and of wrappers, which add a prefix to all names, and of NaN in files."""

import mindspore as ms
import numpy as np
import pytest

from mindcv.convert import (
    from_mindcv,
    load_weights,
    open_checkpoint,
    read_checkpoint,
    to_mindcv,
    weight_parameters,
    write_ckpt,
    write_safetensors,
)
from mindcv.models.convnext import ConvNeXt
from mindcv.utils.errors import CheckpointError

DEPTHS, DIMS = (1, 1, 1, 1), (4, 4, 8, 8)


def build(**options):
    return ConvNeXt(3, 3, DEPTHS, DIMS, **options)


@pytest.fixture(scope="module")
def arrays():
    """Return this library's names with random values."""
    rng = np.random.default_rng(4)
    return {n: rng.standard_normal(p.shape).astype(np.float32) for n, p in weight_parameters(build()).items()}


@pytest.fixture(scope="module")
def layouts(arrays, as_layout):
    return {name: from_mindcv(arrays, name) for name in ("mindcv", "official", "timm", "torchvision", "mmpretrain")}


def assert_loaded(network, arrays):
    for name, parameter in weight_parameters(network).items():
        np.testing.assert_array_equal(parameter.asnumpy(), arrays[name], name)


@pytest.mark.parametrize("layout", ["mindcv", "official", "timm", "torchvision", "mmpretrain"])
@pytest.mark.parametrize("prefix", ["model.", "net.", "module.", "backbone.", "visual.trunk.", "student.", "teacher."])
def test_load_weights_removes_a_common_prefix_and_logs_it(tmp_path, capsys, arrays, layouts, layout, prefix):
    path = tmp_path / "wrapped.safetensors"
    write_safetensors(path, {prefix + name: array for name, array in layouts[layout].items()})
    network = build()
    load_weights(network, path)
    assert_loaded(network, arrays)
    if prefix != "module.":  # the prefix of data-parallel training is removed as the file is read
        assert f"the prefix '{prefix}' is removed from the names" in capsys.readouterr().err


def test_to_mindcv_leaves_out_other_parts_of_a_larger_model_and_logs_them(capsys, arrays, layouts):
    given = {f"visual.trunk.{name}": array for name, array in layouts["timm"].items()}
    given.update({"text.token_embedding.weight": np.zeros((2, 2)), "logit_scale": np.zeros(())})
    found = to_mindcv(given, build())
    assert found.keys() == arrays.keys()
    message = "the prefix 'visual.trunk.' is removed from the names, and other parts are left out: logit_scale, text"
    assert message in capsys.readouterr().err


def test_to_mindcv_logs_nothing_without_a_prefix(capsys, layouts):
    for given in layouts.values():
        to_mindcv(given, build())
    assert not capsys.readouterr().err


def test_to_mindcv_names_missing_weights_with_their_prefix(layouts):
    given = {f"net.{name}": array for name, array in layouts["official"].items() if name != "norm.weight"}
    with pytest.raises(CheckpointError, match=r"1 missing: net\.norm\.weight \(here norm\.gamma\)"):
        to_mindcv(given, build())


def test_to_mindcv_rejects_several_networks(layouts):
    given = {f"{part}.{name}": array for part in ("first", "second") for name, array in layouts["timm"].items()}
    with pytest.raises(CheckpointError, match=r"several networks, with the prefixes 'first\.', 'second\.'"):
        to_mindcv(given, build())


@pytest.mark.parametrize("inner", ["", "backbone."])
def test_load_weights_chooses_student_or_teacher_by_ema(tmp_path, capsys, arrays, layouts, inner):
    path = tmp_path / "both.safetensors"
    official = layouts["official"]
    given = {f"student.{inner}{name}": array for name, array in official.items()}
    given.update({f"teacher.{inner}{name}": array + 1.0 for name, array in official.items()})
    write_safetensors(path, given)
    network = build()
    load_weights(network, path)
    assert_loaded(network, arrays)
    assert f"left out: teacher.* ({len(official)})" in capsys.readouterr().err
    load_weights(network, path, ema=True)
    assert_loaded(network, {name: array + 1.0 for name, array in arrays.items()})


def test_layout_mmpretrain_converts_a_v2_network(as_layout):
    network = build(use_grn=True)
    rng = np.random.default_rng(5)
    own = {n: rng.standard_normal(p.shape).astype(np.float32) for n, p in weight_parameters(network).items()}
    theirs = from_mindcv(own, "mmpretrain")
    assert theirs["backbone.stages.2.0.grn.gamma"].shape == (32,)
    assert theirs["backbone.stages.0.0.pointwise_conv1.weight"].shape == (16, 4)
    found = to_mindcv({name: a for name, a in theirs.items()}, network)
    for name, array in own.items():
        np.testing.assert_array_equal(found[name], array)
    # Networks whose pointwise layers are convolutions are accepted, and so is the backbone by
    # itself.
    conv = {n: a[:, :, None, None] if "pointwise" in n and a.ndim == 2 else a for n, a in theirs.items()}
    np.testing.assert_array_equal(
        to_mindcv(conv, network)["feature.1.0.pwconv1.weight"], own["feature.1.0.pwconv1.weight"]
    )
    alone = {n.removeprefix("backbone."): a for n, a in theirs.items() if n.startswith("backbone.")}
    network.reset_classifier(0)
    assert to_mindcv(alone, network).keys() == weight_parameters(network).keys()


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_reading_a_checkpoint_warns_of_nan_and_infinity(tmp_path, capsys, arrays, suffix, value):
    path = tmp_path / f"broken{suffix}"
    broken = {**arrays, "norm.gamma": np.full_like(arrays["norm.gamma"], value)}
    if suffix == ".ckpt":
        write_ckpt(path, {name: ms.Tensor(array) for name, array in broken.items()}, {})
    else:
        write_safetensors(path, broken)
    for read in (read_checkpoint, open_checkpoint, lambda file: load_weights(build(), file)):
        read(path)
        message = capsys.readouterr().err
        assert f"{path.name}: 1 array(s) contain NaN or infinity: norm.gamma" in message
