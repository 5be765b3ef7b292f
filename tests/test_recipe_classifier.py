"""The scripts with exported files in the place of a checkpoint, as users run them, on a small network and images."""

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from mindspore import Tensor
from PIL import Image

from mindcv import recipe_validate_all
from mindcv.config import ValidateConfig, parse_args
from mindcv.convert import weight_parameters, write_ckpt
from mindcv.data import imagenet_class_names, imagenet_wordnet_ids
from mindcv.export import write_mindir, write_onnx
from mindcv.models import ConvNeXtFeatures, create_model
from mindcv.recipe_classifier import open_classifier
from mindcv.recipe_validate import measure_predictions
from mindcv.utils.errors import ConfigError, UserError

ROOT = Path(__file__).parents[1]
CLASSES = ["cat", "dog", "owl"]
PREPROCESSING = {"image_resize": 32, "crop_pct": 0.8, "interpolation": "bicubic", "in_channels": 3}
PREPROCESSING |= {"mean": [120.0, 110.0, 100.0], "std": [60.0, 58.0, 56.0]}
OPTIONS = {"model": "convnext_atto", "num_classes": 3, **PREPROCESSING}
# Name of the exported file -> how it is exported.
KINDS = {
    "plain.onnx": {},
    "one.onnx": {"dynamic_batch": False},
    "pixels.onnx": {"with_preprocess": True},
    "softmax.onnx": {"with_softmax": True, "with_preprocess": True},
    "plain.mindir": {},
    "softmax.mindir": {"with_softmax": True},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Return a folder of 11 images of three classes: colour and grey, of odd sizes."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for label, (name, count) in enumerate(zip(CLASSES, (4, 3, 4))):
        (folder / "val" / name).mkdir(parents=True)
        for number in range(count):
            shape = (int(rng.integers(20, 90)), int(rng.integers(20, 90)), 3)
            pixels = np.clip(rng.normal(90 + 40 * label, 60, shape), 0, 255).astype(np.uint8)
            image = Image.fromarray(pixels).convert("L" if number == 1 else "RGB")
            image.save(folder / "val" / name / f"{number}.{'jpg' if number == 2 else 'png'}")
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return a folder with a checkpoint, and with exported files of the same network."""
    folder, rng = tmp_path_factory.mktemp("files"), np.random.default_rng(1)
    network = create_model("convnext_atto", num_classes=3).set_train(False)
    # The classes of an untrained network would all have nearly the same probability.
    network.classifier.weight.set_data(Tensor(rng.normal(0, 0.5, (3, 320)).astype(np.float32)))
    names = {name: label for label, name in enumerate(CLASSES)}
    write_ckpt(folder / "a.ckpt", weight_parameters(network), {"options": OPTIONS, "class_to_idx": names})
    described = {"model": "convnext_atto", "class_names": CLASSES, "preprocessing": PREPROCESSING}
    for name, own in KINDS.items():
        if name.endswith(".onnx"):
            write_onnx(network, folder / name, **described, **own)
        else:
            write_mindir(network, folder / name, 32, **described, **own)
    write_onnx(ConvNeXtFeatures(network), folder / "maps.onnx", model="convnext_atto")
    return folder


@pytest.fixture
def run(run_main):
    """Return a function that runs a script and gives its status, its output and its messages."""

    def run(script, *argv):
        own = [] if script == "infer.py" else ["--num_parallel_workers", "1"]
        return run_main(script, *argv, "--mode", "1", "--batch_size", "4", *own)

    return run


@pytest.fixture
def predict(run, tmp_path):
    """Return a function that runs infer.py and gives the class and the probabilities of each image."""

    def predict(path, *argv):
        results = tmp_path / "r.json"
        status, _, err = run("infer.py", "--ckpt_path", path, *argv, "--results_file", results)
        assert status == 0, err
        found = {}
        for each in json.loads(results.read_text()):
            shares = {one["name"]: one["probability"] for one in each["predictions"]}
            found[each["image"]] = (each["predictions"][0]["name"], [shares[name] for name in sorted(shares)])
        return found

    return predict


@pytest.mark.parametrize("kind", KINDS)
def test_infer_predicts_with_an_exported_file_as_with_the_checkpoint(predict, files, images, kind):
    argv = ["--image_path", images / "val"]
    expected, found = predict(files / "a.ckpt", *argv), predict(files / kind, *argv)
    assert list(found) == list(expected) and len(found) == 11
    assert [top for top, _ in found.values()] == [top for top, _ in expected.values()]
    assert len({top for top, _ in expected.values()}) > 1
    differences = [np.subtract(found[path][1], expected[path][1]) for path in found]
    print(f"{kind}: largest difference of a probability {np.abs(differences).max():.1e}")
    np.testing.assert_allclose(differences, 0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_validate_measures_an_exported_file_as_the_checkpoint(run, files, images, tmp_path, kind):
    found = {}
    for name in ("a.ckpt", kind):
        where = ["--ckpt_path", files / name, "--data_dir", images, "--results_json", tmp_path / "r.json"]
        status, _, err = run("validate.py", *where)
        assert status == 0, err
        found[name] = json.loads((tmp_path / "r.json").read_text())
    for metric in ("num_images", "num_top_1", "num_top_5", "num_classes", "model"):
        assert found[kind][metric] == found["a.ckpt"][metric], metric
    assert found[kind]["loss"] == pytest.approx(found["a.ckpt"]["loss"], abs=1e-5)
    assert found[kind]["num_images"] == 11


@pytest.mark.parametrize("kind", ["plain.onnx", "plain.mindir"])
def test_validate_averages_the_views_of_an_exported_file(run, files, images, kind):
    lines = []
    for name in ("a.ckpt", kind):
        _, out, err = run("validate.py", "--ckpt_path", files / name, "--data_dir", images, "--tta", "ten_crop")
        lines.append(out.partition(", images/s")[0])
    assert lines[0] == lines[1] and lines[0].startswith("Top_1_Accuracy: "), err


@pytest.mark.parametrize("kind", ["plain.onnx", "pixels.onnx", "plain.mindir"])
def test_infer_lists_the_images_that_it_left_out_at_the_end(run, files, images, tmp_path, kind):
    folder = shutil.copytree(images / "val" / "cat", tmp_path / "some")
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes()[:200])  # its header can be read
    (folder / "text.png").write_text("no image")
    found = {}
    for name in ("a.ckpt", kind):
        status, out, err = run("infer.py", "--ckpt_path", files / name, "--image_path", folder)
        lines = err.splitlines()
        assert status == 1 and len(out.splitlines()) == 3
        assert [f"'{folder / image}'" in line for image, line in zip(("text.png", "0.png"), lines[-3:])] == [True] * 2
        found[name] = lines[-3:]
    assert found[kind] == found["a.ckpt"]


def test_validate_all_measures_the_exported_files_of_a_folder(run, files, images, tmp_path):
    folder = tmp_path / "several"
    folder.mkdir()
    for name in ("a.ckpt", "pixels.onnx", "plain.mindir", "plain.json", "maps.onnx"):
        shutil.copy(files / name, folder / name)
    where = ["--checkpoints", folder, "--data_dir", images, "--results_csv", tmp_path / "r.csv"]
    status, _, err = run("tools/validate_all.py", *where)
    lines = (tmp_path / "r.csv").read_text(encoding="utf-8").splitlines()
    rows = {Path(row["checkpoint"]).name: row for row in csv.DictReader(lines)}
    assert list(rows) == ["a.ckpt", "maps.onnx", "pixels.onnx", "plain.mindir"]
    assert status == 1 and "returns feature maps, and a classifier is expected" in rows["maps.onnx"]["error"], err
    del rows["maps.onnx"]
    assert len({row["top_1"] for row in rows.values()}) == 1
    assert {(row["model"], row["image_resize"]) for row in rows.values()} == {("convnext_atto", "32")}


@pytest.mark.parametrize(
    ("kind", "argv", "sentence"),
    [
        ("plain.onnx", ["--ema", "True"], "ema: cannot be used with '{path}', because an exported file is a finished"),
        ("plain.onnx", ["--val_amp_level", "O2"], "val_amp_level: cannot be used with '{path}'"),
        ("plain.mindir", ["--patch_size", "2"], "patch_size: cannot be used with '{path}'"),
        ("plain.mindir", ["--image_resize", "64"], "'{path}' is exported for 32: leave image_resize out"),
        ("pixels.onnx", ["--crop_pct", "1"], "crop_pct: 1.0 is given (command line), but '{path}' is exported for 0.8"),
        ("plain.onnx", ["--model", "convnext_tiny"], "but '{path}' is exported for convnext_atto: leave model out"),
        ("plain.onnx", ["--num_classes", "5"], "num_classes is 5, but '{path}' has 3 classes: leave"),
        ("maps.onnx", [], "'{path}' returns feature maps, and a classifier is expected: export the model with its"),
        ("none.onnx", [], "exported file '{path}' does not exist"),
    ],
)
@pytest.mark.parametrize("script", ["infer.py", "validate.py"])
def test_scripts_refuse_what_an_exported_file_cannot_do(run, files, images, script, kind, argv, sentence):
    where = ["--image_path", images / "val"] if script == "infer.py" else ["--data_dir", images]
    status, out, err = run(script, "--ckpt_path", files / kind, *where, *argv)
    assert status in (1, 2) and out == ""
    assert sentence.format(path=files / kind) in err and err.count("error: ") == len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("script", "kind", "argv", "sentence"),
    [
        ("infer.py", "plain.onnx", ["--explain", "gradcam"], "explain: cannot be used with '{path}'"),
        ("validate.py", "plain.mindir", ["--probe", "knn"], "probe: cannot be used with '{path}'"),
        ("validate.py", "pixels.onnx", ["--tta", "flip"], "tta: '{path}' resizes and crops the images itself"),
        ("tools/extract_features.py", "plain.onnx", ["--output", "f.npz"], "which only validate.py, infer.py, tools/"),
    ],
)
def test_scripts_refuse_their_own_options_with_an_exported_file(run, files, images, script, kind, argv, sentence):
    where = ["--data_dir", images] if script == "validate.py" else ["--image_path", images / "val"]
    argv = ["--ckpt_path", files / kind, *where, *argv]
    status, _, err = run(script, *argv)
    assert status == 2 and sentence.format(path=files / kind) in err


def test_measure_predictions_shows_no_batches_of_a_file_that_prepares_the_images(files, images):
    config = parse_args(["--ckpt_path", str(files / "pixels.onnx"), "--data_dir", str(images)], ValidateConfig)
    with pytest.raises(UserError, match="prepares the images itself, so the input of its network cannot be shown"):
        measure_predictions(config, on_batch=lambda *_: None)


def test_average_refuses_an_exported_file(run, files, tmp_path):
    argv = ["--checkpoints", files / "a.ckpt", files / "plain.onnx", "--dst", tmp_path / "mean.ckpt"]
    status, _, err = run("tools/average.py", *argv)
    assert status == 1 and "it is an exported file, whose weights cannot be loaded: give the checkpoint" in err


def test_infer_names_the_extra_when_onnxruntime_is_missing(run, files, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    status, _, err = run("infer.py", "--ckpt_path", files / "plain.onnx", "--image_path", images / "val")
    assert status == 1 and 'needs the package onnxruntime: run pip install -e ".[onnx]"' in err


def test_yaml_options_that_contradict_an_exported_file_are_refused(run, files, images, tmp_path):
    (tmp_path / "r.yaml").write_text("image_resize: 64\ncrop_pct: 0.9\n")
    argv = ["--ckpt_path", files / "plain.mindir", "--image_path", images / "val", "--config", tmp_path / "r.yaml"]
    status, _, err = run("infer.py", *argv)
    assert status == 2 and f"image_resize: 64 is given ({tmp_path / 'r.yaml'}" in err and "crop_pct" not in err
    assert "is exported for 32: give --image_resize 32, or export" in err
    assert run("infer.py", *argv, "--image_resize", "32")[0] == 0


@pytest.mark.parametrize("script", ["validate.py", "tools/validate_all.py"])
def test_recipe_options_without_a_meaning_for_an_exported_file_are_left_out(run, files, images, tmp_path, script):
    (tmp_path / "r.yaml").write_text("ema: True\nval_amp_level: O2\n")
    where = ["--ckpt_path"] if script == "validate.py" else ["--results_csv", tmp_path / "r.csv", "--checkpoints"]
    argv = [*where, files / "plain.onnx", "--data_dir", images, "--config", tmp_path / "r.yaml"]
    status, _, err = run(script, *argv)
    assert status == 0, err
    for line, option in enumerate(("ema: True", "val_amp_level: O2"), start=1):
        assert err.count(f"{option} ({tmp_path / 'r.yaml'}:{line}) is not used, because the exported file") == 1
    assert "float16" not in err or script != "validate.py"


def test_infer_takes_another_image_size_for_an_onnx_file(predict, files, images):
    argv = ["--image_path", images / "val", "--image_resize", 48]
    expected, found = predict(files / "a.ckpt", *argv), predict(files / "plain.onnx", *argv)
    differences = [np.subtract(found[path][1], expected[path][1]) for path in found]
    np.testing.assert_allclose(differences, 0, atol=1e-5)


def without_metadata(path, to, side=None, channels=None):
    """Write an ONNX file as other software does: without metadata, with another name of the input, and of one size."""
    proto = onnx.load(str(path))
    del proto.metadata_props[:]
    for node in proto.graph.node:
        for number, name in enumerate(node.input):
            node.input[number] = "x" if name == "images" else name
    proto.graph.input[0].name = "x"
    if channels:
        proto.graph.input[0].type.tensor_type.shape.dim[1].dim_param = channels
    if side:
        dims = proto.graph.input[0].type.tensor_type.shape.dim
        for dim, value in zip(dims, (4, 3, side, side)):
            dim.dim_value = value
    onnx.save(proto, str(to))


@pytest.mark.parametrize(("kind", "side"), [("plain.onnx", None), ("plain.onnx", 32), ("shares.onnx", 32)])
def test_infer_takes_an_onnx_file_of_other_software(run, predict, files, images, tmp_path, kind, side):
    if kind == "shares.onnx":
        proto = onnx.load(str(files / "plain.onnx"))
        proto.graph.node.append(onnx.helper.make_node("Softmax", ["logits"], ["shares"], axis=-1))
        proto.graph.output[0].name = "shares"
        onnx.save(proto, str(tmp_path / kind))
    source = tmp_path / kind if kind == "shares.onnx" else files / kind
    without_metadata(source, tmp_path / "other.onnx", side)
    where = ["--image_path", images / "val"]
    status, _, err = run("infer.py", "--ckpt_path", tmp_path / "other.onnx", *where)
    assert status == 1 and "other.onnx' holds no class names: give them, one a line, as --class_names_file" in err
    assert "other.onnx' does not say how its images are prepared; these values are used: " in err
    assert ("image_resize 224, " in err) == (side is None)
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    own = [word for name, value in PREPROCESSING.items() for word in (f"--{name}", *np.ravel(value))]
    found = predict(tmp_path / "other.onnx", *where, *own, "--class_names_file", tmp_path / "names.txt")
    expected = predict(files / "a.ckpt", *where)
    differences = [np.subtract(found[path][1], expected[path][1]) for path in found]
    np.testing.assert_allclose(differences, 0, atol=1e-5)


def test_onnx_file_of_other_software_with_other_inputs_is_refused(run, files, images, tmp_path):
    without_metadata(files / "pixels.onnx", tmp_path / "other.onnx")
    status, _, err = run("infer.py", "--ckpt_path", tmp_path / "other.onnx", "--image_path", images / "val")
    assert status == 1 and "other.onnx' comes from other software and takes tensor(uint8) [" in err
    without_metadata(files / "maps.onnx", tmp_path / "other.onnx")
    status, _, err = run("infer.py", "--ckpt_path", tmp_path / "other.onnx", "--image_path", images / "val")
    assert status == 1 and "only a classifier that returns logits or probabilities, [N, classes]" in err


def test_scripts_tell_which_classes_the_outputs_of_a_file_without_names_are_taken_for(files, images, tmp_path, capsys):
    without_metadata(files / "plain.onnx", tmp_path / "other.onnx")
    argv = ["--ckpt_path", str(tmp_path / "other.onnx"), "--data_dir", str(images), "--image_resize", "32"]
    open_classifier(parse_args(argv, ValidateConfig))
    err = capsys.readouterr().err
    assert "does not name its classes, and its outputs are taken for the classes of the data set in their order" in err
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    open_classifier(parse_args([*argv, "--class_names_file", str(tmp_path / "names.txt")], ValidateConfig))
    assert "does not name its classes" not in capsys.readouterr().err


def test_classifier_of_other_software_for_grey_images_needs_mean_and_std(files, images, tmp_path):
    without_metadata(files / "plain.onnx", tmp_path / "other.onnx", channels="channels")
    argv = ["--ckpt_path", str(tmp_path / "other.onnx"), "--data_dir", str(images), "--in_channels", "1"]
    with pytest.raises(ConfigError) as error:
        open_classifier(parse_args(argv, ValidateConfig))
    (sentence,) = error.value.problems
    assert sentence.startswith("mean and std: the images of '") and "have 1 channel, and the file does not" in sentence


def test_validate_names_an_exported_file_as_the_owner_of_its_classes(run, files, images, tmp_path):
    shutil.copytree(images / "val" / "cat", tmp_path / "val" / "cow")
    shutil.copytree(images / "val" / "dog", tmp_path / "val" / "dog")
    status, _, err = run("validate.py", "--ckpt_path", files / "plain.onnx", "--data_dir", tmp_path)
    assert status == 1 and "1 class folder(s) that belong to none of the exported file's 3 classes: 'cow'" in err


def test_own_file_for_pixels_does_not_miss_the_number_of_channels(tmp_path, images, capsys):
    known = {name: value for name, value in PREPROCESSING.items() if name != "in_channels"}
    network = create_model("convnext_atto", num_classes=3).set_train(False)
    described = {"model": "convnext_atto", "class_names": CLASSES, "preprocessing": known}
    write_onnx(network, tmp_path / "a.onnx", **described, with_preprocess=True)
    argv = ["--ckpt_path", str(tmp_path / "a.onnx"), "--data_dir", str(images)]
    assert open_classifier(parse_args(argv, ValidateConfig)).config.in_channels == 3
    assert "does not say how its images are prepared" not in capsys.readouterr().err


def test_validate_all_knows_when_a_file_beside_an_exported_file_has_changed(files, tmp_path):
    path = shutil.copy(files / "plain.mindir", tmp_path / "a.mindir")
    digests = []
    for text in ("{}", "{ }"):
        (tmp_path / "a.json").write_text(text)
        digests.append(recipe_validate_all._digest(str(path), is_published=False))
    assert digests[0] != digests[1]


def test_infer_names_the_size_when_the_metadata_of_a_mindir_file_is_wrong(run, files, images, tmp_path):
    shutil.copy(files / "plain.mindir", tmp_path)
    text = (files / "plain.json").read_text()
    (tmp_path / "plain.json").write_text(text.replace('"image_resize": 32', '"image_resize": 96'))
    status, _, err = run("infer.py", "--ckpt_path", tmp_path / "plain.mindir", "--image_path", images / "val" / "cat")
    assert status == 1 and "its metadata says image_resize 96, which may be wrong: " in err


def test_validate_knows_the_classes_of_imagenet_in_an_exported_file(run, images, tmp_path):
    """Its class names are known, so class folders may have the WordNet ids."""
    network = create_model("convnext_atto", num_classes=1000).set_train(False)
    described = {"model": "convnext_atto", "class_names": imagenet_class_names(), "preprocessing": PREPROCESSING}
    write_onnx(network, tmp_path / "a.onnx", **described)
    for old, new in zip(CLASSES, imagenet_wordnet_ids()):
        shutil.copytree(images / "val" / old, tmp_path / "data" / "val" / new)
    status, out, err = run("validate.py", "--ckpt_path", tmp_path / "a.onnx", "--data_dir", tmp_path / "data")
    assert status == 0 and "images: 11" in out, err
