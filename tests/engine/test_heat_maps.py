"""Heat maps are compared with formulas in NumPy, and with where a patch is that decides the class."""

import io

import mindspore as ms
import numpy as np
import pytest
from formulas import convolve, grn, norm, phi
from mindspore import Tensor
from PIL import Image
from small_network import build

from mindcv.engine.heat_maps import HeatMaps, _coloured, _overlaid, _with_header, draw_heat_maps, eigen_cam, grad_cam
from mindcv.engine.inference import Prediction
from mindcv.models import ConvNeXtFeatures, pack_for_inference
from mindcv.models.convnext import ConvNeXt
from mindcv.utils.errors import DataError, UserError

CLASSES = [3, 0]


def pictures(rng, side=64):
    return rng.standard_normal((2, 3, side, side)).astype(np.float32)


def weights_of(network):
    return {name: parameter.asnumpy().astype(np.float64) for name, parameter in network.parameters_and_names()}


def logits_behind(maps, stage, weights):
    """Return the logits of maps [N, C, h, w] of a stage, by the definition of the network in float64."""
    x = maps.astype(np.float64).transpose(0, 2, 3, 1)
    for later in range(stage + 1, 4):
        down, block = f"feature.{2 * later}", f"feature.{2 * later + 1}.0"
        x = norm(x, weights[f"{down}.0.gamma"], weights[f"{down}.0.beta"])
        x = convolve(x, weights[f"{down}.1.weight"], weights[f"{down}.1.bias"], 2, 0, 1)
        y = convolve(x, weights[f"{block}.dwconv.weight"], weights[f"{block}.dwconv.bias"], 1, 3, x.shape[-1])
        y = norm(y, weights[f"{block}.norm.gamma"], weights[f"{block}.norm.beta"])
        y = y @ weights[f"{block}.pwconv1.weight"].T + weights[f"{block}.pwconv1.bias"]
        y = grn(y * phi(y), weights[f"{block}.grn.gamma"], weights[f"{block}.grn.beta"])
        x = x + y @ weights[f"{block}.pwconv2.weight"].T + weights[f"{block}.pwconv2.bias"]
    pooled = norm(x.mean((1, 2)), weights["norm.gamma"], weights["norm.beta"])
    return pooled @ weights["classifier.weight"].T + weights["classifier.bias"]


@pytest.mark.parametrize("stage", [3, 2])
def test_grad_cam_is_the_weighted_sum_by_finite_differences(stage, kernels, rng):
    network, images = build(), pictures(rng)
    for parameter in network.get_parameters():
        if parameter.name.endswith("grn.gamma"):
            parameter.set_data(Tensor(rng.standard_normal(parameter.shape).astype(np.float32)))
    (maps,) = ConvNeXtFeatures(network, [stage])(Tensor(images))
    maps, weights, step = maps.asnumpy().astype(np.float64), weights_of(network), 1e-5
    expected = []
    for image, label in zip(maps, CLASSES):
        steps = step * np.eye(image.size).reshape(-1, *image.shape)
        scores = [logits_behind(image + sign * steps, stage, weights)[:, label] for sign in (1, -1)]
        gradient = ((scores[0] - scores[1]) / (2 * step)).reshape(image.shape)
        alpha = gradient.sum((1, 2)) / (image.shape[1] * image.shape[2])
        expected.append(np.maximum(sum(a * channel for a, channel in zip(alpha, image)), 0))
    expected = np.array(expected)
    assert (expected.reshape(2, -1).max(1) > 0).all() and (expected == 0).any(), "the positive part matters"
    found = HeatMaps(network, "gradcam", stage).compute(images, CLASSES)
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max())


def test_grad_cam_explains_the_class_that_it_is_given(rng):
    heat_maps, images = HeatMaps(build()), pictures(rng)
    first, second = (heat_maps.compute(images, classes) for classes in ([1, 1], [1, 2]))
    np.testing.assert_array_equal(first[0], second[0])
    assert not np.array_equal(first[1], second[1])


@pytest.mark.parametrize("stage", [3, 1])
def test_eigen_cam_is_the_map_along_the_main_eigenvector(stage, rng):
    network, images = build(), pictures(rng)
    (maps,) = ConvNeXtFeatures(network, [stage])(Tensor(images))
    expected = []
    for image in maps.asnumpy().astype(np.float64):
        rows = image.reshape(len(image), -1).T
        values, vectors = np.linalg.eigh(rows.T @ rows)
        heat = rows @ vectors[:, values.argmax()]
        expected.append((heat if heat.sum() >= 0 else -heat).reshape(image.shape[1:]))
    found = HeatMaps(network, "eigencam", stage).compute(images, CLASSES)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_heat_maps_do_not_depend_on_the_other_images_of_a_batch(rng):
    maps, gradients = rng.standard_normal((2, 3, 7, 4, 5))
    for of_batch, of_first in (
        (grad_cam(maps, gradients), grad_cam(maps[:1], gradients[:1])),
        (eigen_cam(maps), eigen_cam(maps[:1])),
    ):
        np.testing.assert_allclose(of_batch[:1], of_first, rtol=1e-12)


# A network without mixing of cells, in which a single patch decides the class


def patch_network():
    """Build a network whose class 1 means that there is a bright patch, and class 0 that there is none.

    All blocks are identities, because LayerScale is 0. The other layers keep the channels as they are and average over
    patches, so the map of the last stage shows the colour of each patch of 32 x 32 pixels and nothing else.
    """
    network = ConvNeXt(3, 2, (1, 1, 1, 1), (4, 4, 4, 4), layer_scale_init_value=0.0).set_train(False)
    colour = np.zeros((4, 3), np.float32)
    colour[:3] = np.eye(3)
    values = {"feature.0.0.weight": np.broadcast_to(colour[:, :, None, None] / 16, (4, 3, 4, 4))}
    for stage in (1, 2, 3):
        values[f"feature.{2 * stage}.1.weight"] = np.broadcast_to(np.eye(4)[:, :, None, None] / 4, (4, 4, 2, 2))
    values["classifier.weight"] = np.array([[0, 0, 0, 0], [3, -1, -1, -1]])
    values["classifier.bias"] = np.array([1, 0])
    for name, parameter in network.parameters_and_names():
        if name in values:
            parameter.set_data(Tensor(np.ascontiguousarray(values[name], np.float32)))
    return network


@pytest.mark.parametrize(("method", "stage"), [("gradcam", 3), ("gradcam", 2), ("eigencam", 3), ("eigencam", 1)])
def test_heat_map_lights_up_at_the_patch_that_decides_the_class(method, stage):
    network = patch_network()
    images = np.zeros((3, 3, 128, 160), np.float32)
    places = [(0, 4), (2, 1), (3, 3)]
    for image, (row, column) in zip(images, places):
        image[0, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32] = 2
    assert network(Tensor(images)).asnumpy().argmax(1).tolist() == [1, 1, 1]
    assert network(Tensor(0 * images)).asnumpy().argmax(1).tolist() == [0, 0, 0]
    found = HeatMaps(network, method, stage).compute(images, [1, 1, 1])
    cells = 2 ** (3 - stage)  # along the side of the patch
    assert found.shape == (3, 4 * cells, 5 * cells)
    for heat, (row, column) in zip(found, places):
        inside = np.zeros(heat.shape, bool)
        inside[row * cells : (row + 1) * cells, column * cells : (column + 1) * cells] = True
        assert heat[inside].min() > 0 and (heat[~inside] == 0).all()


def test_heat_maps_are_the_same_for_a_packed_network(rng):
    images = pictures(rng)
    for stage, keeps_weights in ((3, False), (2, True)):
        expected = HeatMaps(build(), "gradcam", stage).compute(images, CLASSES)
        packed = pack_for_inference(build(), keep_weights=keeps_weights)
        np.testing.assert_array_equal(HeatMaps(packed, "gradcam", stage).compute(images, CLASSES), expected)


def test_heat_maps_run_in_graph_mode(rng):
    images = pictures(rng)
    expected = HeatMaps(build()).compute(images, CLASSES)
    ms.set_context(mode=ms.GRAPH_MODE)
    np.testing.assert_allclose(HeatMaps(build()).compute(images, CLASSES), expected, rtol=1e-4, atol=1e-6)


def test_heat_maps_refuse_what_they_cannot_explain(rng):
    for arguments, message in ((("gradcm",), "gradcam"), (("gradcam", 4), "stage must be .* 3, got 4")):
        with pytest.raises(UserError, match=message):
            HeatMaps(build(), *arguments)
    network = build()
    network.norm.gamma.set_data(Tensor(np.full(16, np.nan, np.float32)))
    with pytest.raises(UserError, match="gradients are not finite"):
        HeatMaps(network).compute(pictures(rng), CLASSES)


# The picture


def transform(encoded):
    """Return the pixels from 0 to 1 of a small image, [3, H, W]."""
    try:
        image = Image.open(io.BytesIO(encoded)).convert("RGB")
    except OSError:
        raise DataError("the file is no image") from None
    return np.asarray(image, np.float32).transpose(2, 0, 1) / 255


@pytest.fixture
def predictions(tmp_path):
    """Return predictions of five images of 64 x 64 pixels with one red quarter, whose number is in the file name."""
    found = []
    for number in (0, 1, 2, 3, 1):
        pixels = np.zeros((64, 64, 3), np.uint8)
        row, column = divmod(number, 2)
        pixels[32 * row : 32 * row + 32, 32 * column : 32 * column + 32, 0] = 255
        path = tmp_path / "images" / f"{len(found)}-{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
        found.append(Prediction(str(path), (1, 0), ("red", "black"), (0.9, 0.1)))
    return found


@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_draw_heat_maps_shows_each_image_with_its_heat_map(predictions, tmp_path, batch_size):
    draw_heat_maps(
        predictions, HeatMaps(patch_network()), transform, [0] * 3, [255] * 3, batch_size, tmp_path / "h.png"
    )
    draw_heat_maps(predictions[:1], HeatMaps(patch_network()), transform, [0] * 3, [255] * 3, 1, tmp_path / "one.png")
    with Image.open(tmp_path / "h.png") as sheet, Image.open(tmp_path / "one.png") as one:
        height, width, header = one.height - 60, one.width, 40  # the title of a narrow sheet has two lines
        assert sheet.size == (2 * width, 3 * height + header)
        pixels = np.asarray(sheet, np.int64)
    for index, number in enumerate((0, 1, 2, 3, 1)):
        top, left = header + index // 2 * height + 46, index % 2 * width + 12
        image, overlaid = (pixels[top : top + 176, left + x : left + x + 176] for x in (0, 180))
        for row in (0, 1):
            for column in (0, 1):
                centre = np.s_[88 * row + 44, 88 * column + 44]
                assert image[centre].tolist() == ([255, 0, 0] if (row, column) == divmod(number, 2) else [0, 0, 0])
                is_hot = overlaid[centre][0] > overlaid[centre][2] + 50  # red and not blue
                assert is_hot == ((row, column) == divmod(number, 2))


def test_draw_heat_maps_names_an_image_that_cannot_be_read_any_more(predictions, tmp_path):
    with open(predictions[2].path, "wb"):
        pass
    with pytest.raises(DataError, match=r"image '.*2-2\.png': the file is no image"):
        draw_heat_maps(predictions, HeatMaps(patch_network()), transform, [0] * 3, [255] * 3, 2, tmp_path / "h.png")
    assert not (tmp_path / "h.png").exists()


def test_draw_heat_maps_accepts_long_names(predictions, tmp_path):
    long = Prediction(predictions[0].path, (0,), ("a very long name of a class, " * 9,), (1.0,))
    draw_heat_maps([long], HeatMaps(patch_network()), transform, [0] * 3, [255] * 3, 1, tmp_path / "h.webp")
    assert (tmp_path / "h.webp").is_file()


def test_overlaid_shows_no_rounding_errors_as_heat():
    image = Image.new("RGB", (40, 40), "grey")
    constant = np.asarray(_overlaid(image, np.full((4, 4), 0.5)))
    nearly = 0.5 * (1 + 1e-7 * np.arange(16.0).reshape(4, 4))
    np.testing.assert_array_equal(np.asarray(_overlaid(image, nearly)), constant)
    assert len(np.unique(constant.reshape(-1, 3), axis=0)) == 1


def test_overlaid_enlarges_a_heat_map_bilinearly_between_the_centres_of_its_cells():
    """Columns at the centres of two cells have their values, and those between them a mean by distance."""
    found = np.asarray(_overlaid(Image.new("RGB", (40, 40), (128, 128, 128)), np.array([[2.0, 6.0]])))
    scaled = np.interp((np.arange(40) + 0.5) / 40, [0.25, 0.75], [0, 1])
    np.testing.assert_allclose(found, np.broadcast_to(0.4 * 128 + 0.6 * _coloured(scaled), found.shape), atol=0.51)


@pytest.mark.parametrize(("width", "lines"), [(380, 2), (760, 1)])
def test_with_header_leaves_room_for_its_text(width, lines):
    found = np.asarray(_with_header(Image.new("RGB", (width, 50), "black"), "Grad-CAM on the map of stage 3"))
    header = found[:-50]
    assert header.shape == (20 + 20 * lines, width, 3) and (found[-50:] == 0).all()
    is_inked = (header < 255).any(axis=(1, 2))
    assert is_inked[12:-8].any() and not is_inked[-5:].any(), "white above the sheet"
