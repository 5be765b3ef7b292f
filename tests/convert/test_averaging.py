"""The mean of weights is compared with NumPy, and files of different networks are refused by name."""

import numpy as np
import pytest
from mindspore import Tensor

from mindcv.convert import from_mindcv, weight_parameters, write_ckpt, write_safetensors
from mindcv.convert.averaging import WeightSum, check_alike, file_digest, read_ingredient
from mindcv.models import ConvNeXt
from mindcv.utils.errors import CheckpointError


@pytest.fixture
def arrays(rng):
    network = ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 16, 32, 64), num_classes=3)
    shapes = {name: parameter.shape for name, parameter in weight_parameters(network).items()}
    return [{name: rng.normal(0, 1, s).astype(np.float32) for name, s in shapes.items()} for _ in range(4)]


def save(path, arrays, metadata):
    write_ckpt(path, {name: Tensor(array) for name, array in arrays.items()}, metadata)
    return read_ingredient(path)


def test_weight_sum_gives_the_mean_with_and_without_a_candidate(arrays):
    total = WeightSum()
    for number, each in enumerate(arrays):
        if number:
            found = total.mean(each)
        else:
            found = WeightSum().mean(each)
        total.add(each)
        for name in each:
            expected = np.mean([other[name].astype(np.float64) for other in arrays[: number + 1]], axis=0)
            np.testing.assert_allclose(found[name], expected, rtol=1e-6, atol=1e-7)
            assert found[name].dtype == np.float32
            np.testing.assert_array_equal(total.mean()[name], found[name])


def test_read_ingredient_gives_own_names_whatever_the_layout(arrays, tmp_path):
    own = save(tmp_path / "own.ckpt", arrays[0], {"options": {"model": "m"}})
    write_safetensors(tmp_path / "timm.safetensors", from_mindcv(arrays[0], "timm"))
    other = read_ingredient(tmp_path / "timm.safetensors")
    check_alike(own, other)
    assert own.metadata["options"] == {"model": "m"}
    assert own.arrays.keys() == other.arrays.keys() == arrays[0].keys()
    for name, array in other.arrays.items():
        np.testing.assert_array_equal(array, arrays[0][name])


@pytest.mark.parametrize(
    ("metadata", "change", "message"),
    [
        ({"options": {"model": "b"}}, {}, "they are of the models a and b"),
        (
            {},
            {"classifier.bias": np.zeros(4, np.float32)},
            "classifier.bias has the shape .3. in the first",
        ),
        ({"class_to_idx": {"dog": 0, "cat": 1}}, {}, "their classes have other names or another order"),
    ],
)
def test_check_alike_refuses_other_networks_and_classes(arrays, tmp_path, metadata, change, message):
    first = save(tmp_path / "a.ckpt", arrays[0], {"options": {"model": "a"}, "class_to_idx": {"cat": 0, "dog": 1}})
    other = save(tmp_path / "b.ckpt", {**arrays[1], **change}, metadata)
    check_alike(first, first)
    with pytest.raises(CheckpointError, match=rf"'.*a.ckpt' and '.*b.ckpt' cannot be averaged: {message}"):
        check_alike(first, other)


def test_read_ingredient_refuses_a_backbone_and_unknown_arrays(arrays, tmp_path):
    backbone = {name: array for name, array in arrays[0].items() if not name.startswith("classifier")}
    with pytest.raises(CheckpointError, match="a.ckpt' is not that of a classifier: it has no head"):
        save(tmp_path / "a.ckpt", backbone, {})
    with pytest.raises(CheckpointError, match="b.ckpt' is not that of a classifier: it also holds 'extra'"):
        save(tmp_path / "b.ckpt", {**arrays[0], "extra": np.zeros(1, np.float32)}, {})


def test_read_ingredient_refuses_weights_that_are_not_finite(arrays, tmp_path):
    arrays[0]["classifier.bias"][1] = np.nan
    with pytest.raises(CheckpointError, match="a.ckpt' holds NaN or infinity, and so would a mean: 'classifier.bias'"):
        save(tmp_path / "a.ckpt", arrays[0], {})


def test_file_digest_is_the_sha256_of_the_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert file_digest(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
