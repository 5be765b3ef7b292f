"""The analysis of features is compared with the definitions in NumPy, pair by pair of channels."""

import csv
import io

import numpy as np
import pytest
from formulas import convolve, grn, norm, phi
from mindspore import Tensor
from PIL import Image
from small_network import build

from mindcv.engine.feature_analysis import BlockFeatures, _channel_distance, analyse_files, write_distances
from mindcv.models import ConvNeXtFeatures, pack_for_inference
from mindcv.models.convnext import ConvNeXt
from mindcv.utils.errors import DataError, UserError


def headless(use_grn=True):
    network = build(use_grn)
    network.reset_classifier(0)
    for parameter in network.get_parameters():
        if parameter.name.endswith("grn.gamma"):
            parameter.set_data(Tensor(np.random.default_rng(1).standard_normal(parameter.shape).astype(np.float32)))
    return network.set_train(False)


def distance_by_pairs(maps):
    """Return the mean of (1 - cos) / 2 over all C * C pairs of channels of a map [C, h, w], by its definition."""
    rows = maps.reshape(len(maps), -1).astype(np.float64)
    total = 0.0
    for a in rows:
        for b in rows:
            lengths = np.sqrt((a * a).sum()) * np.sqrt((b * b).sum())
            total += (1 - ((a * b).sum() / lengths if lengths else 0.0)) / 2
    return total / len(rows) ** 2


def hidden_layer(x, stage, weights):
    """Return the hidden layer [N, 4C, H, W] of a stage's only block in float64, for the input of the stage."""
    stem, block = f"feature.{2 * stage}", f"feature.{2 * stage + 1}.0"
    if stage == 0:
        x = convolve(x, weights[f"{stem}.0.weight"], weights[f"{stem}.0.bias"], 4, 0, 1)
        x = norm(x, weights[f"{stem}.1.gamma"], weights[f"{stem}.1.beta"])
    else:
        x = norm(x, weights[f"{stem}.0.gamma"], weights[f"{stem}.0.beta"])
        x = convolve(x, weights[f"{stem}.1.weight"], weights[f"{stem}.1.bias"], 2, 0, 1)
    y = convolve(x, weights[f"{block}.dwconv.weight"], weights[f"{block}.dwconv.bias"], 1, 3, x.shape[-1])
    y = norm(y, weights[f"{block}.norm.gamma"], weights[f"{block}.norm.beta"])
    y = y @ weights[f"{block}.pwconv1.weight"].T + weights[f"{block}.pwconv1.bias"]
    y = y * phi(y)
    if f"{block}.grn.gamma" in weights:
        y = grn(y, weights[f"{block}.grn.gamma"], weights[f"{block}.grn.beta"])
    return y.transpose(0, 3, 1, 2)


@pytest.mark.parametrize("use_grn", [True, False])
def test_block_features_measures_the_distance_of_all_pairs_of_channels(use_grn, kernels, rng):
    network, images = headless(use_grn), rng.standard_normal((2, 3, 64, 96)).astype(np.float32)
    distances, features, *maps = (values.asnumpy() for values in BlockFeatures(network)(Tensor(images)))
    expected_maps = [values.asnumpy() for values in ConvNeXtFeatures(network)(Tensor(images))]
    for found, expected in zip(maps, expected_maps):
        np.testing.assert_array_equal(found, expected)
    inputs = [images, *expected_maps[:3]]
    weights = {name: parameter.asnumpy().astype(np.float64) for name, parameter in network.parameters_and_names()}
    for stage in range(4):
        hidden = hidden_layer(inputs[stage].astype(np.float64).transpose(0, 2, 3, 1), stage, weights)
        for image in range(2):
            expected = [distance_by_pairs(maps[image]) for maps in (hidden, expected_maps[stage])]
            np.testing.assert_allclose(distances[image, stage], expected, atol=1e-5)
    np.testing.assert_array_equal(features, network(Tensor(images)).asnumpy())


def test_channel_distance_of_known_maps():
    """Equal channels have distance 0, opposite halves and orthogonal channels 1/2 less the pairs with themselves."""
    ramp = np.arange(1.0, 13.0).reshape(3, 4)
    alike = np.stack([ramp, 5 * ramp, 0.1 * ramp])
    opposite = np.stack([ramp, -ramp])
    orthogonal = np.eye(12)[:4].reshape(4, 3, 4)
    dead = np.zeros((4, 3, 4))
    for maps, expected in ((alike, 0), (opposite, 1 / 2), (orthogonal, (1 - 1 / 4) / 2), (dead, 1 / 2)):
        found = _channel_distance(Tensor(maps.transpose(1, 2, 0)[None].astype(np.float32))).asnumpy()
        np.testing.assert_allclose(found, [expected], atol=1e-6)


def test_block_features_names_each_block():
    network = ConvNeXt(3, 0, (2, 1, 3, 1), (4, 4, 4, 4))
    assert BlockFeatures(network).layers == [
        *(("feature.1.0", 0, 0), ("feature.1.1", 0, 1), ("feature.3.0", 1, 0), ("feature.5.0", 2, 0)),
        *(("feature.5.1", 2, 1), ("feature.5.2", 2, 2), ("feature.7.0", 3, 0)),
    ]
    assert {name.rsplit(".", 1)[0] for name in network.parameters_dict()} >= {"feature.5.2.dwconv", "feature.7.0.norm"}


def test_block_features_refuses_other_networks(rng):
    network = headless()
    with pytest.raises(UserError, match="network must be a ConvNeXt"):
        BlockFeatures(ConvNeXtFeatures(network))
    if pack_for_inference(network, keep_weights=False).feature[0].packed is not None:
        with pytest.raises(UserError, match="this network was packed"):
            BlockFeatures(network)


# Files


def transform(encoded):
    try:
        image = Image.open(io.BytesIO(encoded)).convert("RGB").resize((64, 64))
    except OSError:
        raise DataError("the file is no image") from None
    return np.asarray(image, np.float32).transpose(2, 0, 1) / 255


@pytest.fixture
def paths(tmp_path, rng):
    """Return five files, of which the second is no image."""
    for number in range(5):
        Image.fromarray(rng.integers(0, 255, (30 + number, 50, 3)).astype(np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    return [str(tmp_path / f"{number}.png") for number in range(5)]


@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_analyse_files_averages_over_the_images_that_it_can_read(paths, batch_size):
    network, errors = BlockFeatures(headless()), []
    found = analyse_files(network, paths, transform, batch_size, 2, errors.append, "a")
    images = np.stack([transform(open(path, "rb").read()) for path in paths if not path.endswith("1.png")])  # noqa: SIM115
    distances, features, *maps = (values.asnumpy() for values in network(Tensor(images)))
    assert found.kept == (0, 2, 3, 4) and [str(error) for error in errors] == [
        f"image '{paths[1]}': the file is no image"
    ]
    for place, kind in enumerate(("hidden", "map")):
        means, deviations = ([getattr(layer, kind + end) for layer in found.layers] for end in ("", "_deviation"))
        np.testing.assert_allclose(means, distances[:, :, place].mean(0), rtol=1e-6)
        np.testing.assert_allclose(deviations, distances[:, :, place].std(0), rtol=1e-2, atol=1e-7)
    np.testing.assert_array_equal(found.features.read(0, 9), features)
    assert [drawn.path for drawn in found.drawn] == [paths[0], paths[2]]
    for place, drawn in enumerate(found.drawn):
        np.testing.assert_array_equal(drawn.image, images[place])
        for stage in range(4):
            np.testing.assert_array_equal(drawn.maps[stage], maps[stage][place])


def test_analyse_files_names_weights_that_are_not_finite_and_a_folder_without_images(paths):
    network = headless()
    network.norm.gamma.set_data(Tensor(np.full(16, np.inf, np.float32)))
    with pytest.raises(UserError, match="the features of 'a.ckpt' are not finite"):
        analyse_files(BlockFeatures(network), paths[2:3], transform, 4, 0, lambda error: None, "a.ckpt")
    with pytest.raises(DataError, match="none of the 1 images can be read"):
        analyse_files(BlockFeatures(headless()), paths[1:2], transform, 4, 0, lambda error: None, "a.ckpt")


def test_write_distances_writes_a_row_for_each_block(paths, tmp_path):
    found = analyse_files(BlockFeatures(headless()), paths[2:], transform, 4, 0, lambda error: None, "a.ckpt")
    write_distances([found, found], tmp_path / "d.csv")
    with open(tmp_path / "d.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["layer"] for row in rows] == ["feature.1.0", "feature.3.0", "feature.5.0", "feature.7.0"] * 2
    assert [float(row["depth"]) for row in rows[:4]] == pytest.approx([0, 1 / 3, 2 / 3, 1], abs=1e-6)
    assert {row["images"] for row in rows} == {"3"} and {row["weights"] for row in rows} == {"a.ckpt"}
    for kind in ("hidden", "hidden_deviation", "map", "map_deviation"):
        expected = [getattr(layer, kind) for layer in found.layers]
        assert [float(row[kind]) for row in rows[:4]] == pytest.approx(expected, abs=1e-6)
