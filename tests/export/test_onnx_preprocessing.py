"""Preprocessing inside of an ONNX graph against the transforms that `infer.py` uses, which have Pillow's bits."""

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from plain_network import build, run_network

from mindcv.data import Compose, create_transforms
from mindcv.export import write_onnx
from mindcv.export.onnx_builder import GraphBuilder
from mindcv.export.onnx_preprocessing import add_preprocessing
from mindcv.utils.errors import UserError

# (height, width): smaller and larger than the result, and both orders of Pillow 13's passes.
SIZES = [(75, 100), (100, 75), (33, 200), (300, 60), (20, 29), (73, 73), (128, 256)]
SQUASHED = {"image_resize": 384, "crop_pct": 1.0}  # images are resized to the square without a crop


def options(**changes):
    values = {"image_resize": 64, "crop_pct": 0.875, "interpolation": "bicubic", "in_channels": 3}
    return {**values, "mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], **changes}


def pictures(rng, size):
    """Noise, whose values reach 0 and 255 after the filter, and a smooth picture."""
    height, width = size
    waves = np.sin(np.arange(height)[:, None, None] / 9) + np.cos(np.arange(width)[:, None] / 7 + np.arange(3))
    yield rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    yield np.rint((waves + 2) * 63).astype(np.uint8)


def session_of(preprocessing):
    """Return a session of a graph that prepares images and does nothing else."""
    graph = GraphBuilder()
    result = add_preprocessing(graph, "pixels", preprocessing)
    describe, types = onnx.helper.make_tensor_value_info, onnx.TensorProto
    given = describe("pixels", types.UINT8, ["n", "h", "w", 3])
    prepared = describe(result, types.FLOAT, ["n", "c", "s", "t"])
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in graph.arrays.items()]
    proto = onnx.helper.make_graph(graph.nodes, "prepare", [given], [prepared], tensors)
    model = onnx.helper.make_model(proto, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"interpolation": "bilinear", "crop_pct": 1.0, "image_resize": 150},
        {"interpolation": "lanczos", "image_resize": 47},
        {"in_channels": 1, "mean": [33.0], "std": [77.0]},
        SQUASHED,
    ],
    ids=["bicubic", "bilinear", "lanczos", "grey", "squashed"],
)
def test_graph_prepares_images_with_the_bits_of_the_transforms(changes, rng):
    preprocessing = options(**changes)
    session, transform = session_of(preprocessing), Compose(create_transforms(**preprocessing))
    for size in SIZES:
        for pixels in pictures(rng, size):
            found = session.run(None, {"pixels": pixels[None]})[0]
            np.testing.assert_array_equal(found[0], transform(pixels), err_msg=str(size))


def test_batch_of_images_is_prepared_like_single_images(rng):
    session = session_of(options())
    pixels = rng.integers(0, 256, (3, 40, 52, 3), dtype=np.uint8)
    together = session.run(None, {"pixels": pixels})[0]
    for image, prepared in zip(pixels, together):
        np.testing.assert_array_equal(prepared, session.run(None, {"pixels": image[None]})[0][0])


@pytest.mark.parametrize("order", [12, 13])
def test_order_of_the_passes_is_that_of_the_version_of_pillow(order, rng, monkeypatch):
    """Pillow rounds to bytes after the first pass, so that the order changes a tall image. NumPy rounds here."""
    monkeypatch.setattr("mindcv.export.onnx_preprocessing.pillow_version", f"{order}.1.0")
    preprocessing = options(mean=[0.0] * 3, std=[1.0] * 3, interpolation="bilinear", crop_pct=1.0, image_resize=32)
    pixels = rng.integers(0, 256, (300, 60, 3), dtype=np.uint8)
    found = session_of(preprocessing).run(None, {"pixels": pixels[None]})[0][0]
    image = Image.fromarray(pixels)
    sizes = [(60, 160), (32, 160)] if order == 13 else [(32, 300), (32, 160)]
    for size in sizes:
        image = image.resize(size, Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found, np.asarray(image)[64:96].transpose(2, 0, 1))


def test_file_with_preprocessing_takes_pixels(tmp_path, rng):
    network, preprocessing = build(), options(image_resize=48)
    metadata = write_onnx(network, tmp_path / "a.onnx", preprocessing=preprocessing, with_preprocess=True)
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    transform = Compose(create_transforms(**preprocessing))
    pixels = next(pictures(rng, (57, 91)))
    found = session.run(None, {"images": pixels[None]})[0]
    np.testing.assert_allclose(found, run_network(network, transform(pixels)[None])[0], rtol=0, atol=2e-5)
    assert metadata.takes_pixels and session.get_inputs()[0].type == "tensor(uint8)"


def test_preprocessing_that_the_graph_cannot_do_is_refused(tmp_path):
    with pytest.raises(UserError, match="resizes with bilinear, bicubic, lanczos, and the interpolation is 'nearest'"):
        write_onnx(build(), tmp_path / "a.onnx", preprocessing=options(interpolation="nearest"), with_preprocess=True)
    with pytest.raises(UserError, match="needs image_resize, crop_pct, mean, std, interpolation, which"):
        write_onnx(build(), tmp_path / "a.onnx", with_preprocess=True)
