"""tools/export.py as users run it, on a small checkpoint and images of colours."""

import json
import os
import stat
import sys
from pathlib import Path

import colour_images
import mindspore as ms
import numpy as np
import onnxruntime
import pytest
from colour_images import COLOURS
from PIL import Image

from mindcv.convert import weight_parameters, write_ckpt
from mindcv.data import Compose, create_transforms
from mindcv.engine.inference import classify
from mindcv.export import open_exported
from mindcv.models import create_model

ROOT = Path(__file__).parents[1]
PREPROCESSING = {**colour_images.PREPROCESSING, "crop_pct": 0.875, "interpolation": "bicubic"}


@pytest.fixture(scope="module")
def network():
    """Return a network that predicts the colours of images."""
    network = create_model("convnextv2_atto", num_classes=3)
    rng = np.random.default_rng(5)
    for parameter in network.get_parameters():
        if parameter.name.endswith(("grn.gamma", "grn.beta")):
            parameter.set_data(ms.Tensor(rng.standard_normal(parameter.shape).astype(np.float32)))
    network.set_train(False)
    transform = Compose(create_transforms(**PREPROCESSING))
    plain = [transform(np.full((32, 32, 3), colour, np.uint8)) for colour in COLOURS.values()]
    maps = network.forward_features(ms.Tensor(np.stack(plain)))
    features = network.forward_head(maps, pre_logits=True).asnumpy()
    weight = features - features.mean(0)
    weight *= 4 / (weight**2).sum(1, keepdims=True)
    network.classifier.weight.set_data(ms.Tensor(weight))
    network.classifier.bias.set_data(ms.Tensor(-weight @ features.mean(0)))
    return network


@pytest.fixture(scope="module")
def checkpoint(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "atto.ckpt"
    options = {"model": "convnextv2_atto", "num_classes": 3, **PREPROCESSING}
    names = {name: label for label, name in enumerate(COLOURS)}
    write_ckpt(path, weight_parameters(network), {"options": options, "class_to_idx": names})
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Return a folder of images of odd sizes: PNG and JPEG, colour, grey, with an alpha channel, and a rotated one."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("photos")
    sizes = [(61, 47), (40, 40), (29, 33), (250, 64), (35, 210), (91, 57)]
    for number, (height, width) in enumerate(sizes):
        pixels = np.clip(rng.normal(list(COLOURS.values())[number % 3], 60, (height, width, 3)), 0, 255)
        image = Image.fromarray(pixels.astype(np.uint8))
        if number == 1:
            image = image.convert("L")
        if number == 2:
            image = image.convert("RGBA")
        exif = image.getexif()
        exif[0x0112] = 6  # turned by 90 degrees
        if number in (0, 5):
            image.save(folder / f"{number}.jpg", quality=95, **({"exif": exif} if number else {}))
        else:
            image.save(folder / f"{number}.png")
    return folder


@pytest.fixture
def run(run_main):
    """Return a function that runs the tool and gives its status, its output and its messages."""
    return lambda *argv: run_main("tools/export.py", *argv)


def test_tool_writes_an_onnx_file_that_runs_at_any_size(run, network, checkpoint, tmp_path, rng):
    dst = tmp_path / "new" / "atto.onnx"
    status, out, err = run("--ckpt_path", checkpoint, "--format", "onnx", "--dst", dst, "--image_size", 64)
    assert status == 0, err
    assert out.startswith(f"{dst}: logits of convnextv2_atto, 3 class names; checked on 4 drawn images: largest diff")
    assert "same top-1 class for 4 of them" in out and os.listdir(dst.parent) == ["atto.onnx"]
    exported = open_exported(dst)
    assert exported.metadata.class_names == ("blue", "green", "red")
    assert exported.metadata.preprocessing == {**PREPROCESSING, "image_resize": 64}
    images = rng.standard_normal((2, 3, 37, 50)).astype(np.float32)
    np.testing.assert_allclose(exported(images)[0], network(ms.Tensor(images)).asnumpy(), rtol=0, atol=2e-4)


def test_file_with_preprocessing_predicts_as_infer_does(run, network, checkpoint, photos, tmp_path):
    """The pixels come from Pillow alone, as a server would read them."""
    dst = tmp_path / "atto.onnx"
    own = ["--with_preprocess", "True", "--with_softmax", "True", "--image_path", photos]
    status, out, err = run("--ckpt_path", checkpoint, "--dst", dst, *own)
    assert status == 0, err
    assert "probabilities of convnextv2_atto" in out and "checked on 6 images" in out and "for 6 of them" in out
    paths = sorted(map(str, photos.iterdir()))
    transform = Compose(create_transforms(**PREPROCESSING))
    session = onnxruntime.InferenceSession(str(dst), providers=["CPUExecutionProvider"])
    names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
    predicted = list(classify(network, paths, transform, list(COLOURS), 3, 4))
    for path, prediction in zip(paths, predicted):
        with Image.open(path) as image:
            upright = image.transpose(Image.Transpose.ROTATE_270) if path.endswith("5.jpg") else image
            pixels = np.asarray(upright.convert("RGB"))
        probabilities = session.run(None, {"images": pixels[None]})[0][0]
        order = np.argsort(-probabilities)
        assert tuple(names[index] for index in order) == prediction.names
        np.testing.assert_allclose(probabilities[order], prediction.probabilities, rtol=0, atol=1e-5)
    assert len({prediction.names for prediction in predicted}) > 1


def test_tool_writes_a_backbone(run, network, checkpoint, tmp_path, rng):
    dst = tmp_path / "maps.onnx"
    own = ["--features_only", "True", "--out_indices", "0", "2", "--dynamic_batch", "False"]
    status, out, err = run("--ckpt_path", checkpoint, "--dst", dst, *own)
    assert status == 0, err
    assert "feature_maps of convnextv2_atto, 0 class names" in out and "top-1" not in out
    images = rng.standard_normal((2, 3, 64, 32)).astype(np.float32)
    assert [array.shape for array in open_exported(dst)(images)] == [(2, 40, 16, 8), (2, 160, 4, 2)]


def test_file_that_differs_from_the_network_is_not_kept(run, checkpoint, tmp_path, monkeypatch):
    dst = tmp_path / "atto.onnx"
    dst.write_text("an earlier file")
    monkeypatch.setattr("mindcv.export.onnx_network.EPSILON", 0.1)
    status, _, err = run("--ckpt_path", checkpoint, "--dst", dst)
    assert status == 1 and "error: the outputs of the exported file differ from those of the network by up to" in err
    assert os.listdir(tmp_path) == ["atto.onnx"] and dst.read_text() == "an earlier file"


def test_tool_names_a_checkpoint_without_class_names_and_unreadable_images(run, network, tmp_path):
    options = {"model": "convnextv2_atto", "num_classes": 3, **PREPROCESSING}
    write_ckpt(tmp_path / "a.ckpt", weight_parameters(network), {"options": options})
    Image.new("RGB", (50, 40), "red").save(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(b"no image")
    images = ["--image_path", tmp_path / "1.png", tmp_path / "2.png"]
    where = ["--ckpt_path", tmp_path / "a.ckpt", "--dst", tmp_path / "a.onnx", "--half", "True"]
    status, out, err = run(*where, *images)
    assert status == 1 and "0 class names; checked on 1 image: " in out and (tmp_path / "a.onnx").exists()
    assert "holds no class names, so the exported file has none" in err and "2.png': it is not an image" in err
    assert "error: 1 of 2 images cannot be read and were left out; --skip_corrupt True makes this no error" in err
    assert run(*where, *images, "--skip_corrupt", "True")[0] == 0
    (tmp_path / "a.onnx").unlink()
    status, _, err = run(*where, *images[:1], tmp_path / "2.png")
    assert status == 1 and "2.png': it is not an image" in err and not (tmp_path / "a.onnx").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--dst", "a.air"], "error: MindSpore writes AIR files on an Ascend only, and the device here is CPU"),
        (["--dst", "a.air"], "device here is CPU: write a file whose name ends in .mindir or .onnx instead"),
        (["--dst", "a.pb"], "dst: its name must end in .mindir, .onnx, .air, and it is 'a.pb'"),
        (
            ["--dst", "a.onnx", "--format", "mindir"],
            "dst: its name must end in .mindir because format is mindir, and it is 'a.onnx'",
        ),
        (
            ["--dst", "a.onnx", "--format", "tflite"],
            "--format: expected one of mindir, onnx, air or None, got 'tflite'",
        ),
        (["--dst", "a.mindir", "--with_preprocess", "True"], "with_preprocess: only an ONNX file can hold the prepro"),
        (
            ["--dst", "a.onnx", "--out_indices", "1"],
            "out_indices: selects feature maps, so it needs features_only: True",
        ),
        (["--dst", "a.onnx", "--features_only", "True", "--with_softmax", "True"], "with_softmax: the feature maps of"),
        (["--dst", "a.onnx", "--image_size", "64", "--image_resize", "64"], "image_size: give either image_size or"),
        (["--dst", "a.onnx", "--num_classes", "7"], "' has 3 classes: leave num_classes out"),
        ([], "dst: is required; give the file to write, for example --dst model.onnx\n"),
    ],
)
def test_mistakes_are_told_in_one_sentence(run, checkpoint, tmp_path, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    status, _, err = run("--ckpt_path", checkpoint, *argv)
    assert status in (1, 2) and message in err and "Traceback" not in err
    assert os.listdir(tmp_path) == []


def test_missing_extra_is_told_before_the_weights_are_read(run, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("mindcv.recipe_weights.open_checkpoint", None)
    status, _, err = run("--ckpt_path", checkpoint, "--dst", tmp_path / "a.onnx")
    assert (
        status == 1 and 'error: running ONNX files needs the package onnxruntime: run pip install -e ".[onnx]"' in err
    )


def test_folder_that_cannot_be_written_is_told_before_the_weights_are_read(run, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("mindcv.recipe_weights.open_checkpoint", None)
    (tmp_path / "file").write_text("")
    status, _, err = run("--ckpt_path", checkpoint, "--dst", tmp_path / "file" / "a.onnx")
    told = f"error: dst: cannot write to folder '{tmp_path / 'file'}': '{tmp_path / 'file'}' is a file, and a folder is"
    assert status == 2 and err.count(told) == 1


@pytest.mark.slow
def test_tool_writes_a_mindir_file(run, checkpoint, tmp_path):
    dst = tmp_path / "atto.mindir"
    status, out, err = run("--ckpt_path", checkpoint, "--dst", dst, "--with_softmax", "True")
    assert status == 0, err
    assert "probabilities of convnextv2_atto, 3 class names; checked on 4 drawn images" in out
    assert sorted(os.listdir(tmp_path)) == ["atto.json", "atto.mindir"]
    assert os.stat(dst).st_mode & stat.S_IWUSR
