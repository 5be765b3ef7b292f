"""The example that quantises an exported classifier gives an int8 file that computes nearly the same."""

import numpy as np
import onnx
import pytest
from example_script import load
from PIL import Image
from plain_network import build

from mindcv.data import Compose, create_transforms
from mindcv.engine.inference import read_image
from mindcv.export import open_exported, write_onnx
from mindcv.utils.errors import UserError

PREPROCESSING = {
    "image_resize": 64,
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "mean": [127.0, 127.0, 127.0],
    "std": [64.0, 64.0, 64.0],
    "in_channels": 3,
}


@pytest.fixture(scope="module")
def quantize():
    return load("quantize/quantize.py").quantize


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(3)
    for number in range(24):
        small = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8))
        small.resize((70, 66), Image.Resampling.BICUBIC).save(folder / f"{number:02}.png")
    return sorted(map(str, folder.iterdir()))


@pytest.mark.parametrize("use_grn", [False, True])
def test_quantized_file_computes_products_in_int8_and_nearly_the_same_logits(quantize, paths, tmp_path, use_grn):
    source, target = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    write_onnx(build(use_grn), source, model="small", class_names="abcde", preprocessing=PREPROCESSING)
    quantize(str(source), str(target), paths[:12])
    transform = Compose(create_transforms(**PREPROCESSING))
    images = np.stack([read_image(path, transform) for path in paths[12:]])
    (exact,), (rounded,) = open_exported(source)(images), open_exported(target)(images)
    error = np.sqrt(np.mean((rounded - exact) ** 2)) / exact.std()
    assert 0 < error < 0.1
    stored = {tensor.name: tensor.data_type for tensor in onnx.load(target).graph.initializer}
    kernels = [kind for name, kind in stored.items() if name.endswith("pwconv1.weight_quantized")]
    assert len(kernels) == 5 and set(kernels) == {onnx.TensorProto.INT8}


def test_file_that_cannot_be_quantized_is_refused_in_one_sentence(quantize, paths, tmp_path):
    write_onnx(build(), tmp_path / "pixels.onnx", preprocessing=PREPROCESSING, with_preprocess=True)
    (tmp_path / "text.onnx").write_text("something else")
    found = {"pixels": "export it without --with_preprocess", "text": "it is damaged", "missing": "does not exist"}
    for name, message in found.items():
        with pytest.raises(UserError, match=f"{name}.onnx' .*{message}"):
            quantize(str(tmp_path / f"{name}.onnx"), str(tmp_path / "int8.onnx"), paths)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.onnx", "model.onnx", "--image_path", "."], "'model.onnx' is the file to quantise"),
        (["model.onnx", "int8.onnx", "--image_path", ".", "--num_images", "0"], "num_images must be .*at least 1"),
    ],
)
def test_quantize_refuses_wrong_arguments(arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["quantize.py", *arguments])
    with pytest.raises(UserError, match=message):
        load("quantize/quantize.py").main()


@pytest.fixture
def speed(monkeypatch, tmp_path):
    """Run speed.py with arguments, in a folder with exported files."""
    for name, options in {"model": {}, "one": {"dynamic_batch": False}, "pixels": {"with_preprocess": True}}.items():
        write_onnx(build(), tmp_path / f"{name}.onnx", preprocessing=PREPROCESSING, **options)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["speed.py", "--image_size", "32", "--steps", "1", "--rounds", "2", *arguments])
        load("quantize/speed.py").main()

    return run


def test_speed_compares_files(speed, capsys):
    speed("model.onnx", "one.onnx", "--batch_size", "1", "--threads", "1")
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("model.onnx: ") and first.endswith(" images/s, 1.00 times the first file")
    assert second.startswith("one.onnx: ") and second.endswith(" times the first file")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pixels.onnx"], "'pixels.onnx' prepares its images itself"),
        (["one.onnx"], "'one.onnx' takes 1 image at a time: give --batch_size 1"),
        (["missing.onnx"], "'missing.onnx' does not exist"),
        (["model.onnx", "--rounds", "0"], "rounds must be .*at least 1"),
    ],
)
def test_speed_refuses_wrong_arguments(arguments, message, speed):
    with pytest.raises(UserError, match=message):
        speed(*arguments)
