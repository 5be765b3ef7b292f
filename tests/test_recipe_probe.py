"""Probes and extraction of features as users run them, on images of colours that any network can tell apart."""

import json
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from colour_images import COLOURS, PREPROCESSING
from mindspore import Tensor
from PIL import Image

from mindcv.config import ValidateConfig, parse_args
from mindcv.convert import from_mindcv, weight_parameters, write_ckpt, write_safetensors
from mindcv.models import create_model
from mindcv.recipe_weights import open_weights
from mindcv.utils.errors import UserError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def images(tmp_path):
    """Return a folder of 5 training and 3 validation images of each class."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 5), ("val", 3)):
        for name, colour in COLOURS.items():
            (tmp_path / "images" / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.clip(rng.normal(colour, 25, (40, 40, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / split / name / f"{number}.png")
    return tmp_path / "images"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return kind -> checkpoint file. All hold the same encoder."""
    folder = tmp_path_factory.mktemp("checkpoints")
    network = create_model("fcmae_convnextv2_atto", img_size=64, decoder_embed_dim=16)
    weights = weight_parameters(network)
    options = {"model": "fcmae_convnextv2_atto", **PREPROCESSING}
    write_ckpt(folder / "pretrained.ckpt", weights, {"options": options})
    encoder = {name[8:]: weight.asnumpy() for name, weight in weights.items() if name.startswith("encoder.")}
    write_safetensors(folder / "released.safetensors", from_mindcv(encoder, "official"))
    head = {"norm.gamma": np.ones(320), "norm.beta": np.zeros(320), "classifier.weight": np.zeros((7, 320)),
            "classifier.bias": np.zeros(7)}  # fmt: skip
    classifier = {name: Tensor(array.astype(np.float32)) for name, array in {**encoder, **head}.items()}
    options = {"model": "convnextv2_atto", "num_classes": 7, **PREPROCESSING}
    names = {name: label for label, name in enumerate("abcdefg")}
    write_ckpt(folder / "classifier.ckpt", classifier, {"options": options, "class_to_idx": names})
    return {path.stem: path for path in folder.iterdir()}


@pytest.fixture
def run(run_main):
    """Return a function that runs a script and gives its status, its output and its messages."""
    return lambda script, *argv: run_main(script, *argv, "--mode", "1", "--batch_size", "4")


def test_validate_probes_the_same_features_of_each_kind_of_checkpoint(images, files, run, tmp_path):
    results = {}
    for kind, path in files.items():
        own = ["--model", "convnextv2_atto", "--image_resize", 32, "--crop_pct", 1.0] if kind == "released" else []
        where = ["--ckpt_path", path, "--data_dir", images, "--probe", "knn", "--probe_k", 5, *own]
        results_of = ["--results_json", tmp_path / "a.json", "--per_class_csv", tmp_path / "a.csv"]
        status, out, err = run("validate.py", *where, *results_of)
        assert status == 0, err
        assert out == "Top_1_Accuracy: 1.0000, Top_5_Accuracy: 1.0000, images: 9, training images: 15, probe: knn, " \
            "probe_k: 5\n"  # fmt: skip
        results[kind] = json.loads((tmp_path / "a.json").read_text())
        assert ("decoder is left out" in err) == (kind == "pretrained")
    for result in results.values():
        del result["ckpt_path"]
    assert results["pretrained"] == results["released"] == results["classifier"] == {
        "model": "convnextv2_atto", "top_1": 1.0, "top_5": 1.0, "num_images": 9, "num_top_1": 9, "num_top_5": 9,
        "num_training_images": 15, "probe": "knn", "probe_k": 5, "num_features": 320, "num_classes": 3,
        "num_left_out": 0,
    }  # fmt: skip
    assert (tmp_path / "a.csv").read_text().splitlines()[1:] == [
        f"{label},{name},3,3,1.0000,3,1.0000" for label, name in enumerate(COLOURS)
    ]


@pytest.mark.parametrize("model", ["convnextv2_atto.fcmae", "convnextv2_atto.fcmae_ft_in1k"])
def test_validate_probes_published_weights(images, files, run, monkeypatch, model):
    """Those without a classifier, and those with another number of classes than the images have."""
    kind = "released" if model.endswith(".fcmae") else "classifier"
    monkeypatch.setattr("mindcv.recipe_weights.fetch_pretrained", lambda weights: files[kind])
    where = ["--model", model, "--pretrained", "True", "--data_dir", images, "--image_resize", 32]
    status, out, err = run("validate.py", *where, "--probe", "knn", "--probe_k", 3)
    assert status == 0 and out.startswith("Top_1_Accuracy: 1.0000"), err


def test_validate_probes_linearly_on_held_out_images(images, files, run):
    where = ["--ckpt_path", files["pretrained"], "--data_dir", images, "--val_fraction", 0.2]
    status, out, err = run("validate.py", *where, "--probe", "linear")
    assert status == 0, err
    assert out.startswith("Top_1_Accuracy: 1.0000, Top_5_Accuracy: 1.0000, images: 3, training images: 12, probe: lin")


def test_validate_numbers_the_classes_of_a_probe_as_the_training_images_do(images, files, run):
    """Without the first folder, the others would have other numbers."""
    for path in (images / "val" / "blue").iterdir():
        path.unlink()
    (images / "val" / "blue").rmdir()
    where = ["--ckpt_path", files["pretrained"], "--data_dir", images, "--probe", "knn", "--probe_k", 1]
    status, out, err = run("validate.py", *where)
    assert status == 0 and out.startswith("Top_1_Accuracy: 1.0000") and "images: 6," in out
    assert "the images are of 2 of the training's 3 classes, and none is of 'blue'" in err
    (images / "val" / "pink").mkdir()
    Image.new("RGB", (40, 40)).save(images / "val" / "pink" / "1.png")
    status, _, err = run("validate.py", *where)
    assert status == 1 and "belong to none of the training's 3 classes: 'pink'" in err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--train_split", "no"], "a probe learns from the training images, so give their folder as --train_split"),
        (["--probe_k", "16"], "error: probe_k is 16, but there are only 15 training images: give --probe_k 15 or less"),
        (["--probe_k", "0"], "--probe_k: expected a whole number, at least 1, got '0'"),
        (["--val_split", "train"], "error: a probe cannot be measured on the images that it learns from"),
        (["--probe", "svm"], "--probe: expected one of knn, linear or None, got 'svm'"),
        (["--restrict_classes", "True"], "restrict_classes: cannot stand beside probe"),
        (["--probe", "linear", "--probe_k", "3"], "probe_k: is used with probe: knn only"),
        (["--num_classes", "7"], "num_classes is 7, but the data set in"),
    ],
)
def test_validate_refuses_what_a_probe_cannot_use(images, files, run, argv, message):
    status, out, err = run(
        "validate.py", "--ckpt_path", files["pretrained"], "--data_dir", images, "--probe", "knn", *argv
    )
    assert status != 0 and message in err and not out


def test_validate_names_images_that_a_probe_cannot_read(images, files, run):
    (images / "train" / "red" / "bad.png").write_text("no image")
    where = ["--ckpt_path", files["pretrained"], "--data_dir", images, "--probe", "knn", "--probe_k", 3]
    status, _, err = run("validate.py", *where)
    assert status == 1 and "error: 1 of the 16 training images cannot be read: " in err and "bad.png'" in err
    status, out, err = run("validate.py", *where, "--skip_corrupt", "True")
    assert status == 0 and "training images: 15, probe: knn, probe_k: 3, images left out: 1" in out


def test_validate_refuses_predictions_of_a_checkpoint_without_a_classifier(files):
    with pytest.raises(UserError, match="holds a masked autoencoder, which has no classifier: measure its features"):
        open_weights(parse_args(["--ckpt_path", str(files["pretrained"])], ValidateConfig))


# tools/extract_features.py


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_extract_features_writes_the_output_of_the_network(images, files, run, tmp_path, suffix):
    Image.new("RGB", (40, 40), (9, 9, 9)).save(images / "val" / "loose.png")
    output = tmp_path / f"features.{suffix}"
    where = ["--ckpt_path", files["pretrained"], "--image_path", images / "val", "--output", output]
    status, out, err = run("tools/extract_features.py", *where)
    assert (status, out) == (0, f"{output}: 10 images, 320 features, 3 classes\n"), err
    if suffix == "npz":
        found = dict(np.load(output))
        names, class_names = found["files"].tolist(), found["class_names"].tolist()
        metadata = json.loads(str(found["metadata"]))
    else:
        safetensors = pytest.importorskip("safetensors")
        with safetensors.safe_open(output, "numpy") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
            texts = file.metadata()
        names = found["files"].tobytes().decode().split("\0")
        class_names, metadata = json.loads(texts["class_names"]), json.loads(texts["metadata"])
    assert names == sorted([*(f"{name}/{number}.png" for name in COLOURS for number in range(3)), "loose.png"])
    assert found["labels"].tolist() == [0, 0, 0, 1, 1, 1, -1, 2, 2, 2] and class_names == list(COLOURS)
    assert metadata == {"model": "convnextv2_atto", "weights": "pretrained.ckpt", **PREPROCESSING}

    encoder = create_model("convnextv2_atto", checkpoint_path=str(files["pretrained"]), features_only=True)
    picture = np.asarray(Image.open(images / "val" / names[4]).resize((32, 32), Image.Resampling.BILINEAR), np.float32)
    picture = (picture - PREPROCESSING["mean"]) / PREPROCESSING["std"]
    last = encoder.set_train(False)(ms.Tensor(picture.transpose(2, 0, 1)[None].astype(np.float32)))[-1]
    pooled = last.asnumpy().astype(np.float64).mean((2, 3))[0]
    expected = (pooled - pooled.mean()) / np.sqrt(pooled.var() + 1e-6)
    np.testing.assert_allclose(found["features"][4], expected, atol=1e-4)


def test_extract_features_names_images_that_cannot_be_read(images, files, run, tmp_path):
    (images / "val" / "red" / "bad.png").write_text("no image")
    output = tmp_path / "features.npz"
    where = ["--ckpt_path", files["pretrained"], "--image_path", images / "val", "--output", output]
    status, _, err = run("tools/extract_features.py", *where)
    assert status == 1 and "bad.png'" in err and "1 of 10 images cannot be read and were left out" in err
    assert len(np.load(output)["features"]) == 9
    assert run("tools/extract_features.py", *where, "--skip_corrupt", "True")[0] == 0


def test_extract_features_refuses_a_file_for_a_folder_and_another_suffix(images, files, run, tmp_path):
    where = ["--ckpt_path", files["pretrained"], "--image_path", files["pretrained"]]
    status, _, err = run("tools/extract_features.py", *where, "--output", tmp_path / "a.npz")
    assert status == 1 and "is a file, and a folder of images is expected" in err
    status, _, err = run("tools/extract_features.py", *where, "--output", tmp_path / "a.csv")
    assert status == 2 and "output: its name must end in .npz or .safetensors" in err
