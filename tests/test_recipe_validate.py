"""Validation, the validation of many checkpoints and averages, as users run them, on small images and networks."""

import csv
import json
import shutil
from pathlib import Path

import colour_images
import numpy as np
import pytest
from mindspore import Tensor
from PIL import Image

from mindcv.convert import open_checkpoint, weight_parameters, write_ckpt
from mindcv.convert.averaging import read_ingredient
from mindcv.data import Compose, create_transforms, imagenet_wordnet_ids
from mindcv.models import create_model

ROOT = Path(__file__).parents[1]
CLASSES = imagenet_wordnet_ids()[:3]
PREPROCESSING = {**colour_images.PREPROCESSING, "crop_pct": 0.8}
METADATA = {
    "options": {"model": "convnext_atto", "num_classes": 3, **PREPROCESSING},
    "class_to_idx": {name: label for label, name in enumerate(CLASSES)},
}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Return a folder of 4, 3 and 4 images of three classes, of different sizes."""
    folder, rng, number = tmp_path_factory.mktemp("images"), np.random.default_rng(0), 0
    for label, (name, count) in enumerate(zip(CLASSES, (4, 3, 4))):
        (folder / "val" / name).mkdir(parents=True)
        for _ in range(count):
            number += 1
            shape = (int(rng.integers(36, 60)), int(rng.integers(36, 60)), 3)
            pixels = np.clip(rng.normal(90 + 40 * label, 60, shape), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / "val" / name / f"ILSVRC2012_val_{number:08}.png")
    return folder


@pytest.fixture(scope="module")
def network():
    network = create_model("convnext_atto", num_classes=3).set_train(False)
    rng = np.random.default_rng(1)
    # The classes of an untrained network would all have nearly the same probability.
    network.classifier.weight.set_data(Tensor(rng.normal(0, 0.5, (3, 320)).astype(np.float32)))
    return network


@pytest.fixture(scope="module")
def checkpoints(network, tmp_path_factory):
    """Return a folder with three checkpoints of one network whose heads differ."""
    folder = tmp_path_factory.mktemp("checkpoints")
    arrays = {name: parameter.asnumpy() for name, parameter in weight_parameters(network).items()}
    rng = np.random.default_rng(2)
    for number in range(3):
        head = arrays["classifier.weight"] + number * rng.normal(0, 0.5, (3, 320)).astype(np.float32)
        own = {**arrays, "classifier.weight": head}
        write_ckpt(folder / f"{number}.ckpt", {name: Tensor(array) for name, array in own.items()}, METADATA)
    return folder


@pytest.fixture
def run(run_main):
    """Return a function that runs a script and gives its status, its output and its messages."""

    def run(script, *argv):
        own = [] if "--batch_size" in argv else ["--batch_size", "4"]
        return run_main(script, *argv, "--mode", "1", "--num_parallel_workers", "1", *own)

    return run


def files_and_labels(images):
    return [(path, label) for label, name in enumerate(CLASSES) for path in sorted((images / "val" / name).iterdir())]


def logits_of(network, batch):
    return network(Tensor(np.ascontiguousarray(batch))).asnumpy().astype(np.float64)


def shares_of(network, images, tta):
    """Return the mean probabilities [N, 3] of the views, one image and one view at a time."""
    found = []
    for path, _ in files_and_labels(images):
        views = Compose(create_transforms("folder", **PREPROCESSING, five_crop=tta == "ten_crop"))(path.read_bytes())
        views = list(views) if tta == "ten_crop" else [views]
        views += [view[..., ::-1] for view in views] if tta != "none" else []
        powers = np.exp(logits_of(network, np.stack(views)))
        found.append((powers / powers.sum(axis=1, keepdims=True)).mean(axis=0))
    return np.array(found)


@pytest.mark.parametrize("tta", ["none", "flip", "ten_crop"])
def test_validate_averages_the_probabilities_of_the_views(images, checkpoints, network, run, tmp_path, tta):
    where = ["--ckpt_path", checkpoints / "0.ckpt", "--data_dir", images, "--tta", tta, "--batch_size", 12]
    status, out, err = run("validate.py", *where, "--results_json", tmp_path / "r.json")
    assert status == 0, err
    shares, labels = shares_of(network, images, tta), np.array([label for _, label in files_and_labels(images)])
    found = json.loads((tmp_path / "r.json").read_text())
    assert (found["num_images"], found["num_top_1"]) == (11, (shares.argmax(axis=1) == labels).sum())
    assert found["loss"] == pytest.approx(-np.log(shares[np.arange(11), labels]).mean(), rel=1e-4)
    assert found["mean_confidence"] == pytest.approx(shares.max(axis=1).mean(), rel=1e-4)
    assert found["tta"] == tta and f"ECE: {found['ece']:.4f}, images: 11, " in out


def test_validate_measures_real_labels_and_draws_confused_pairs(images, checkpoints, network, run, tmp_path):
    predicted = shares_of(network, images, "none").argmax(axis=1)
    labels = np.array([label for _, label in files_and_labels(images)])
    assert (predicted != labels).any()
    # The first image has no label, the second another one than the prediction, and the others the predicted one.
    real = [[], [int(predicted[1] + 1) % 3], *([5, int(label)] for label in predicted[2:])]
    (tmp_path / "real.json").write_text(json.dumps(real + [[7]] * (50_000 - 11)))
    where = ["--ckpt_path", checkpoints / "0.ckpt", "--data_dir", images, "--real_labels", tmp_path / "real.json"]
    results = ["--results_json", tmp_path / "r.json", "--confused_pairs", tmp_path / "p.png", "--eval_shuffle", "True"]
    status, out, err = run("validate.py", *where, *results)
    assert status == 0, err
    found = json.loads((tmp_path / "r.json").read_text())
    assert (found["num_real_images"], found["num_real_top_1"], found["real_top_1"]) == (10, 9, 0.9)
    assert ", ReaL_Accuracy: 0.9000 of 10 images" in out
    assert f"saved {tmp_path / 'r.json'}: the metrics\n" in err and f"saved {tmp_path / 'p.png'}: " in err
    with Image.open(tmp_path / "p.png") as picture:
        num_pairs = len({(label, guess) for label, guess in zip(labels, predicted) if label != guess})
        assert picture.height == num_pairs * (112 + 56) + 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tta", "ten_crop", "--crop_pct", "1.0"], "tta: five crops need a resized image that is larger than a crop"),
        (["--tta", "mirror"], "--tta: expected one of none, flip, ten_crop, got 'mirror'"),
        (["--real_labels", "no.json"], "real_labels 'no.json' cannot be read: No such file or directory"),
        (["--probe", "knn", "--tta", "flip"], "tta: cannot stand beside probe"),
        (["--probe", "knn", "--confused_pairs", "a.png"], "confused_pairs: cannot stand beside probe"),
        (["--confused_pairs", "a.txt"], "confused_pairs: must end in .png"),
        (["--reliability_plot", "a.txt"], "reliability_plot: must end in .png"),
    ],
)
def test_validate_refuses_measurements_in_one_sentence(images, checkpoints, run, options, message):
    status, out, err = run("validate.py", "--ckpt_path", checkpoints / "0.ckpt", "--data_dir", images, *options)
    assert status in (1, 2) and not out and f"error: {message}" in err and "Traceback" not in err


# Many checkpoints


def rows_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_validate_all_writes_a_row_for_each_checkpoint_and_keeps_rows_that_exist(images, checkpoints, run, tmp_path):
    folder = tmp_path / "own"
    shutil.copytree(checkpoints, folder)
    (folder / "2.ckpt").write_bytes((folder / "2.ckpt").read_bytes()[:5000])
    table = tmp_path / "t.csv"
    command = ["tools/validate_all.py", "--checkpoints", folder, "--data_dir", images, "--results_csv", table]
    status, out, err = run(*command)
    assert status == 1 and "error: 1 of 3 checkpoints could not be measured: the column error of" in err
    first = rows_of(table)
    assert [Path(row["checkpoint"]).name for row in first] == ["0.ckpt", "1.ckpt", "2.ckpt"]
    assert "2.ckpt' cannot be read: it is damaged" in first[2]["error"] and not first[2]["top_1"]
    assert [row["num_images"] for row in first[:2]] == ["11", "11"] and not first[0]["error"]
    assert all(row["model"] == "convnext_atto" and row["image_resize"] == "32" for row in first[:2])
    run("validate.py", "--ckpt_path", folder / "1.ckpt", "--data_dir", images, "--results_json", tmp_path / "r.json")
    alone = json.loads((tmp_path / "r.json").read_text())
    for name in ("top_1", "loss", "ece"):
        assert float(first[1][name]) == pytest.approx(alone[name], rel=1e-5)

    # Rows are kept, also one with an error; a file that has changed is measured again.
    shutil.copy(checkpoints / "1.ckpt", folder / "0.ckpt")
    status, _, err = run(*command)
    second = rows_of(table)
    assert status == 1 and err.count("it is measured again") == 1 and second[1:] == first[1:]
    assert second[0]["loss"] == first[1]["loss"] != first[0]["loss"]

    shutil.copy(checkpoints / "2.ckpt", folder / "2.ckpt")
    status, out, err = run(*command, "--repeat", "failed")
    third = rows_of(table)
    assert status == 0, err
    assert third[:2] == second[:2] and third[2]["top_1"] and not third[2]["error"]

    status, _, err = run(*command, "--tta", "flip")
    assert status == 1 and "has rows that were measured with other options" in err and "--repeat all" in err
    assert rows_of(table) == third


def test_validate_all_measures_all_published_tags_with_a_classifier(images, checkpoints, run, tmp_path, monkeypatch):
    fetched = []

    def fetch(weights):
        fetched.append(weights.name)
        return checkpoints / "0.ckpt"

    monkeypatch.setattr("mindcv.recipe_weights.fetch_pretrained", fetch)
    table = tmp_path / "t.csv"
    command = ["--models", "convnextv2_att?", "convnext_atto", "--data_dir", images, "--results_csv", table]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("image_resize: 32\ntop_k: 3\nepoch_size: 300\nmodel: convnext_tiny\n")
    status, out, err = run("tools/validate_all.py", "-c", recipe, *command)
    rows = rows_of(table)
    assert {row["settings"] for row in rows} == {json.dumps({"data_dir": str(images), "image_resize": 32})}
    assert [row["checkpoint"] for row in rows] == fetched or not fetched
    assert {row["checkpoint"].split(".")[0] for row in rows} == {"convnextv2_atto", "convnext_atto"}
    assert not [row for row in rows if row["checkpoint"].endswith(".fcmae")]
    assert "1 published weights have no classifier and are left out" in err
    assert status == 1 and all(row["error"] for row in rows), "a network of 1000 classes cannot have 3"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--results_csv", "t.csv"], "checkpoints: is required, unless models is given"),
        (["--checkpoints", "a.ckpt"], "results_csv: is required; give the file for the results"),
        (["--models", "convnext_atom", "--results_csv", "t.csv"], "models: 'convnext_atom' is not known; did you mean"),
        (["--checkpoints", "no.ckpt", "--results_csv", "t.csv"], "'no.ckpt' names no checkpoint"),
        (["--checkpoints", "{0}", "--results_csv", "{notes}"], "notes.csv' is not a table of this tool"),
        (["--checkpoints", "{0}", "--results_csv", "t.csv", "--val_split", "test"], "has no folder 'test'"),
    ],
)
def test_validate_all_refuses_mistakes_in_one_sentence(
    images, checkpoints, run, tmp_path, monkeypatch, options, message
):
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    monkeypatch.chdir(tmp_path)
    options = [word.format(checkpoints / "0.ckpt", notes=tmp_path / "notes.csv") for word in options]
    status, _, err = run("tools/validate_all.py", "--data_dir", images, *options)
    assert status in (1, 2) and message in err and "Traceback" not in err


# Averages


def test_average_writes_the_mean_with_its_ingredients(images, checkpoints, run, tmp_path):
    files = [checkpoints / f"{number}.ckpt" for number in range(3)]
    status, out, err = run("tools/average.py", "--checkpoints", *files, "--dst", tmp_path / "mean.ckpt")
    assert status == 0 and out.endswith("mean.ckpt: the mean of 3 checkpoints of convnext_atto\n"), err
    mean = open_checkpoint(tmp_path / "mean.ckpt")
    each = [open_checkpoint(path).arrays for path in files]
    for name, array in mean.arrays.items():
        np.testing.assert_allclose(array, np.mean([one[name] for one in each], axis=0), rtol=1e-5, atol=1e-6)
    assert mean.metadata["options"] == {**METADATA["options"], "patch_size": 4}
    assert mean.metadata["class_to_idx"] == METADATA["class_to_idx"]
    averaged = mean.metadata["averaged"]
    assert (averaged["method"], averaged["num_checkpoints"]) == ("mean", 3)
    assert [sorted(one) for one in averaged["ingredients"]] == [["file", "sha256"]] * 3
    assert [one["file"] for one in averaged["ingredients"]] == ["0.ckpt", "1.ckpt", "2.ckpt"]
    status, out, err = run("validate.py", "--ckpt_path", tmp_path / "mean.ckpt", "--data_dir", images)
    assert status == 0 and "images: 11" in out, err


def test_average_counts_equal_weights_once(checkpoints, run, tmp_path):
    """The best epoch is in the folder of a run twice, with other metadata."""
    files = [tmp_path / name for name in ("m-1_3.ckpt", "m-2_3.ckpt", "m_best.ckpt")]
    shutil.copy(checkpoints / "0.ckpt", files[0])
    shutil.copy(checkpoints / "1.ckpt", files[1])
    arrays = open_checkpoint(files[0]).arrays
    write_ckpt(files[2], {name: Tensor(array) for name, array in arrays.items()}, {**METADATA, "epoch": 1})
    status, out, err = run("tools/average.py", "--checkpoints", tmp_path, "--dst", tmp_path / "new" / "mean.ckpt")
    assert status == 0 and out.endswith("mean.ckpt: the mean of 2 checkpoints of convnext_atto\n"), err
    assert f"'{files[2]}' has the same weights as '{files[0]}', so it is left out" in err
    mean = open_checkpoint(tmp_path / "new" / "mean.ckpt")
    assert [one["file"] for one in mean.metadata["averaged"]["ingredients"]] == ["m-1_3.ckpt", "m-2_3.ckpt"]
    each = [open_checkpoint(path).arrays["classifier.weight"] for path in files[:2]]
    np.testing.assert_allclose(mean.arrays["classifier.weight"], np.mean(each, axis=0), rtol=1e-5, atol=1e-6)
    status, _, err = run("tools/average.py", "--checkpoints", files[0], files[2], "--dst", tmp_path / "mean.ckpt")
    assert status == 1 and "checkpoints: the 2 files have the same weights" in err


def test_average_chooses_a_greedy_soup_on_validation_images(images, checkpoints, run, tmp_path, monkeypatch):
    where, read = ["--data_dir", images, "--checkpoints", checkpoints, "--dst", tmp_path / "soup.ckpt"], []

    def read_and_note(path, ema):
        read.append(Path(path).name)
        return read_ingredient(path, ema)

    monkeypatch.setattr("mindcv.recipe_average.read_ingredient", read_and_note)
    status, out, err = run("tools/average.py", *where, "--method", "greedy")
    assert status == 0, err
    assert max(map(read.count, read)) == 3, "to check it, to measure it alone, and to measure it in the soup"
    soup = open_checkpoint(tmp_path / "soup.ckpt")
    averaged = soup.metadata["averaged"]
    kept = [checkpoints / one["file"] for one in averaged["ingredients"]]
    assert averaged["num_images"] == 11 and averaged["method"] == "greedy" and 1 <= len(kept) <= 3
    each = [open_checkpoint(path).arrays["classifier.weight"] for path in kept]
    np.testing.assert_allclose(soup.arrays["classifier.weight"], np.mean(each, axis=0), rtol=1e-5, atol=1e-6)
    scores = {}
    for path in [*sorted(checkpoints.iterdir()), tmp_path / "soup.ckpt"]:
        run("validate.py", "--ckpt_path", path, "--data_dir", images, "--results_json", tmp_path / "r.json")
        scores[path.name] = json.loads((tmp_path / "r.json").read_text())["num_top_1"]
    assert scores["soup.ckpt"] >= max(scores.values()), scores
    assert averaged["ingredients"][0]["num_top_1"] == max(scores[f"{number}.ckpt"] for number in range(3))
    lines = out.splitlines()
    assert len(lines) == 4 and sum(line.endswith("in the soup") for line in lines) == len(kept)
    assert lines[-1].endswith(f"Top_1_Accuracy: {scores['soup.ckpt'] / 11:.4f}, images: 11")


def test_average_refuses_checkpoints_that_differ_in_one_sentence(checkpoints, run, tmp_path):
    first, other = checkpoints / "0.ckpt", tmp_path / "other.ckpt"
    arrays = {name: Tensor(array) for name, array in open_checkpoint(checkpoints / "1.ckpt").arrays.items()}
    changed = {**METADATA, "options": {**METADATA["options"], "image_resize": 64}}
    write_ckpt(other, arrays, changed)
    command = ["tools/average.py", "--checkpoints", first, other, "--dst", tmp_path / "mean.ckpt"]
    status, _, err = run(*command)
    assert (
        status == 2
        and "image_resize: the checkpoints have different values (32 in '0.ckpt', 64 in 'other.ckpt')" in err
    )
    status, _, err = run(*command, "--image_resize", 48)
    assert status == 0, err
    assert open_checkpoint(tmp_path / "mean.ckpt").metadata["options"]["image_resize"] == 48
    status, _, err = run(*command[:-1], first)
    assert status == 2 and "0.ckpt' is read as checkpoints, and would be overwritten: give another path" in err
    status, _, err = run("tools/average.py", "--checkpoints", checkpoints, other, "--dst", first, "--image_resize", 48)
    assert status == 1 and "0.ckpt' is one of the checkpoints that are averaged" in err
    status, _, err = run("tools/average.py", "--checkpoints", first, "--dst", tmp_path / "mean.ckpt")
    assert status == 1 and "at least two files are needed for an average, and there is only" in err
    status, _, err = run(*command[:-1], tmp_path / "mean.pt")
    assert status == 2 and "dst: its name must end in .ckpt" in err
