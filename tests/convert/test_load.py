"""Checkpoints into networks: all of it or nothing."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from mindcv.convert import load_weights, weight_parameters, write_ckpt
from mindcv.models import create_model
from mindcv.models.convnext import ConvNeXt
from mindcv.utils.errors import CheckpointError


def network(num_classes=3, **options):
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


def test_all_weights_are_set(tmp_path):
    target = network(drop_path_rate=0.5)
    arrays = random_arrays(target)
    assert load_weights(target, write(tmp_path / "a.ckpt", arrays)) == {"note": 1}
    found = values(target)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_an_official_file_gives_the_recorded_logits(tmp_path, reference):
    # The file as another tool would have made it, by MindSpore alone; the logits are the reference implementation's.
    name = "convnextv2_atto"
    entries = [{"name": n, "data": Tensor(array)} for n, array in reference.weights(name).items()]
    ms.save_checkpoint(entries, str(tmp_path / "a.ckpt"))
    target = create_model(name).set_train(False)
    assert load_weights(target, tmp_path / "a.ckpt") == {}
    logits = target(Tensor(reference.image((2, 3, 64, 64)))).asnumpy()
    np.testing.assert_allclose(logits, reference.arrays[f"{name}/2x64x64/logits"], atol=1e-4)


def test_a_head_of_another_width_needs_leave(tmp_path, capsys):
    arrays = random_arrays(network(5))
    path = write(tmp_path / "a.ckpt", arrays)
    target = network(3)
    before = values(target)
    with pytest.raises(CheckpointError) as caught:
        load_weights(target, path)
    for part in (str(path), "(layout: mindcv)", "2 misshaped", "classifier.weight is [5, 8], the model's is [3, 8]"):
        assert part in str(caught.value)
    assert all((values(target)[name] == before[name]).all() for name in before)
    assert capsys.readouterr().err == ""

    load_weights(target, path, replace_head=True)
    assert capsys.readouterr().err == f"{path}: the head of 5 classes is left out; the model's, of 3, is untrained\n"
    for name, found in values(target).items():
        expected = before[name] if name.startswith("classifier.") else arrays[name]
        np.testing.assert_array_equal(found, expected, err_msg=name)


def test_a_head_that_fits_is_loaded_with_leave_too(tmp_path, capsys):
    target = network(3)
    arrays = random_arrays(target)
    load_weights(target, write(tmp_path / "a.ckpt", arrays), replace_head=True)
    np.testing.assert_array_equal(target.classifier.weight.asnumpy(), arrays["classifier.weight"])
    assert capsys.readouterr().err == ""


def test_a_network_without_a_head(tmp_path):
    arrays = random_arrays(network(5))
    target = network(0)
    load_weights(target, write(tmp_path / "a.ckpt", arrays), replace_head=True)
    np.testing.assert_array_equal(target.norm.gamma.asnumpy(), arrays["norm.gamma"])


@pytest.mark.parametrize("replace_head", [False, True])
def test_a_failed_load_changes_nothing(tmp_path, replace_head):
    target = network(3)
    before = values(target)
    arrays = random_arrays(network(5))
    arrays["norm.beta"] = np.zeros(9, np.float32)
    del arrays["feature.7.0.gamma_"]
    with pytest.raises(CheckpointError, match=r"1 missing: feature\.7\.0\.gamma_.*norm\.beta is \[9\]"):
        load_weights(target, write(tmp_path / "a.ckpt", arrays), replace_head)
    for name, value in values(target).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_a_file_of_something_else_is_named(tmp_path):
    path = write(tmp_path / "a.ckpt", {"conv1.weight": np.ones(3, np.float32)})
    with pytest.raises(CheckpointError, match=r"checkpoint '.*a\.ckpt': .*no known layout.*conv1\.weight"):
        load_weights(network(), path)
