"""Tests of the scripts as users run them: a small training from end to end, and the mistakes of users."""

import contextlib
import csv
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from PIL import Image

from mindcv.config import ValidateConfig
from mindcv.data import create_dataset, create_loader
from mindcv.engine import Evaluation
from mindcv.engine.metrics import ClassificationCounts
from mindcv.engine.predictions import Predictions
from mindcv.models import create_model
from mindcv.recipe_validate import ValidationImages, describe_evaluation, write_results
from mindcv.utils.cli import run_script

ROOT = Path(__file__).parents[1]
CLASSES = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (210, 50, 40)}
NUM_TRAIN = {"blue": 4, "green": 5, "red": 4}
NUM_VAL = {"blue": 4, "green": 3, "red": 2}
SMALL = ["--model", "convnext_atto", "--mode", "1", "--image_resize", "32", "--batch_size", "4", "--warmup_epochs", "0"]


@dataclass
class Run:
    status: int
    out: str
    err: str


def load(script):
    """Load a script from its file as a new module."""
    spec = importlib.util.spec_from_file_location(f"script_{script}", ROOT / f"{script}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(script, *argv):
    """Run a script in this process. It is loaded from its file each time."""
    out, err, arguments = io.StringIO(), io.StringIO(), sys.argv
    state = np.random.get_state()  # set_seed sets NumPy's as well
    sys.argv = [f"{script}.py", *map(str, argv)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
            run_script(load(script).main)
    finally:
        sys.argv = arguments
        np.random.set_state(state)
    return Run(end.value.code, out.getvalue(), err.getvalue())


def process(cwd, script, *argv):
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(ROOT / f"{script}.py"), *map(str, argv)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    return Run(done.returncode, done.stdout, done.stderr)


def write_images(folder, counts, seed):
    """Write noisy images of 40 x 30 pixels, with one colour for each class. Half of them are JPEG files."""
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            noise = rng.integers(-40, 40, (30, 40, 3))
            pixels = np.clip(np.array(CLASSES[name]) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.{'png' if number % 2 else 'jpg'}")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_images(root / "train", NUM_TRAIN, 0)
    write_images(root / "val", NUM_VAL, 1)
    return root


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Return the folder, outcome and working folder of a training of two epochs of 3 steps in graph mode.

    It runs in a separate process, because in graph mode MindSpore may write files and print warnings at its end.
    """
    root = tmp_path_factory.mktemp("run")
    (root / "cwd").mkdir()
    options = ["--mode", 0, "--epoch_size", 2, "--val_while_train", "--lr", 0.002, "--opt", "adamw", "--min_lr", 0.001]
    options += ["--layer_scale_init_value", 0.5, "--color_jitter", "None", "--scale", 0.5, 1]
    # The preprocessing differs from the defaults, so the scripts must read it from the checkpoint.
    options += ["--crop_pct", 1, "--interpolation", "bicubic", "--mean", 128, 120, 110, "--std", "[60, 62, 64]"]
    options += ["--ckpt_save_dir", root / "new" / "ckpt"]
    outcome = process(root / "cwd", "train", *SMALL, "--data_dir", data, *options)
    assert outcome.status == 0, outcome.err
    return root / "new" / "ckpt", outcome, root / "cwd"


@pytest.fixture(scope="module")
def checkpoint(trained):
    return trained[0] / "convnext_atto-2_3.ckpt"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Change to an empty working folder, so that a test sees every file that a script writes there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def val_images(data):
    """Return (path, class) of the validation images in the order of the folders."""
    return [
        (path, label) for label, name in enumerate(sorted(CLASSES)) for path in sorted((data / "val" / name).iterdir())
    ]


@pytest.fixture(scope="module")
def own_logits(data, checkpoint):
    """Compute the logits of the validation images with Pillow and MindSpore's own reader of checkpoints."""
    ms.set_context(mode=ms.PYNATIVE_MODE)
    network = create_model("convnext_atto", num_classes=3).set_train(False)
    not_loaded, _ = ms.load_param_into_net(network, ms.load_checkpoint(str(checkpoint)))
    assert not not_loaded
    mean, std = np.array([128, 120, 110]), np.array([60, 62, 64])
    inputs = []
    for path, _ in val_images(data):
        with Image.open(path) as image:
            # The shorter side becomes 32, the other int(32 * 40 / 30) = 42, whose middle 32 begin at 5.
            resized = image.convert("RGB").resize((42, 32), Image.Resampling.BICUBIC)
        inputs.append((np.asarray(resized.crop((5, 0, 37, 32)), np.float64) - mean) / std)
    images = np.stack(inputs).transpose(0, 3, 1, 2).astype(np.float32)
    return network(ms.Tensor(images)).asnumpy().astype(np.float64)


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# Files that training writes


def test_train_writes_checkpoints_snapshots_metrics_and_learning_curve(trained, data):
    folder, outcome, _ = trained
    names = [f"convnext_atto-{epoch}_3.{kind}" for epoch in (1, 2) for kind in ("ckpt", "resume.safetensors")]
    names += ["convnext_atto_best.ckpt", "learning_curve.png", "metrics.csv", "run.json"]
    assert sorted(os.listdir(folder)) == names
    rows = read_csv(folder / "metrics.csv")
    assert list(rows[0]) == [
        "epoch",
        "step",
        "lr",
        "train_loss",
        "val_loss",
        "top_1",
        "top_5",
        "images_per_s",
        "seconds",
    ]
    assert [(row["epoch"], row["step"], row["top_5"]) for row in rows] == [("1", "3", "1.0"), ("2", "6", "1.0")]
    assert all(np.isfinite([float(value) for value in row.values()]).all() for row in rows)
    with Image.open(folder / "learning_curve.png") as picture:
        picture.load()
    assert outcome.out == ""
    for part in (
        "convnext_atto, ",
        "3 classes",
        "13 images, 3 steps of 4 an epoch, 2 epochs",
        "images left out of each epoch, because they do not fill a step: 1 (see drop_remainder)",
        "epoch 2/2 validated",
    ):
        assert part in outcome.err


def test_train_records_how_the_run_was_started(trained, data):
    (start,) = json.loads((trained[0] / "run.json").read_text())["starts"]
    assert start["command"][0].endswith("train.py") and "--val_while_train" in start["command"]
    options, sources = start["options"], start["option_sources"]
    assert options["model"] == "convnext_atto" and options["data_dir"] == str(data) and options["weight_decay"] == 1e-6
    assert sources["lr"] == "command line" and "weight_decay" not in sources
    assert start["resumed_at"] is None and start["num_processes"] == 1


def test_train_leaves_no_other_files_and_no_warnings(trained):
    _, outcome, working_folder = trained
    assert not os.listdir(working_folder)
    for word in ("Exception ignored", "Traceback", "error", "[WARNING]"):
        assert word not in outcome.err


# Validation


@pytest.mark.parametrize("batch_size", [4, 5, 64])
def test_validate_counts_every_image_once(data, checkpoint, own_logits, elsewhere, batch_size):
    results = ["--results_json", "r.json", "--per_class_csv", "c.csv", "--confusion_matrix", "m.png"]
    results += ["--reliability_plot", "e.png"]
    outcome = run(
        "validate", "--ckpt_path", checkpoint, "--data_dir", data, "--mode", 1, "--batch_size", batch_size, *results
    )
    assert outcome.status == 0, outcome.err
    labels = np.array([label for _, label in val_images(data)])
    predicted = own_logits.argmax(axis=1)
    hits = int((predicted == labels).sum())
    shares = np.exp(own_logits) / np.exp(own_logits).sum(axis=1, keepdims=True)
    found = json.loads((elsewhere / "r.json").read_text())
    assert (found["num_images"], found["num_top_1"], found["num_top_5"]) == (9, hits, 9)
    gaps = [  # the images of an untrained network are in few bins
        abs((predicted == labels)[bins == m].sum() - shares.max(axis=1)[bins == m].sum())
        for bins in [np.ceil(shares.max(axis=1) * 15)]
        for m in range(1, 16)
    ]
    assert found["ece"] == pytest.approx(sum(gaps) / 9, rel=1e-5)
    assert sum(row["num_images"] for row in found["calibration"]) == 9
    assert found["top_1"] == hits / 9 and found["model"] == "convnext_atto"
    assert found["loss"] == pytest.approx(-np.log(shares[np.arange(9), labels]).mean(), rel=1e-5)
    assert outcome.out.startswith(f"Top_1_Accuracy: {hits / 9:.4f}, Top_5_Accuracy: 1.0000, loss: ")
    for label, row in enumerate(read_csv(elsewhere / "c.csv")):
        of_class, taken = labels == label, predicted == label
        assert (row["class"], row["name"], int(row["images"])) == (str(label), sorted(CLASSES)[label], of_class.sum())
        assert (int(row["correct"]), int(row["predicted"])) == ((of_class & taken).sum(), taken.sum())
        assert row["precision"] == (f"{(of_class & taken).sum() / taken.sum():.4f}" if taken.any() else "")
    for name in ("e.png", "m.png"):
        with Image.open(elsewhere / name) as picture:
            picture.load()
    assert sorted(os.listdir(elsewhere)) == ["c.csv", "e.png", "m.png", "r.json"]


def test_validate_gives_the_metrics_of_training(trained, data, checkpoint):
    outcome = run("validate", "--ckpt_path", checkpoint, "--data_dir", data, "--mode", 1)
    last = read_csv(trained[0] / "metrics.csv")[-1]
    found = re.search(r"Top_1_Accuracy: (\S+), .*loss: (\S+),", outcome.out)
    assert float(found[1]) == pytest.approx(float(last["top_1"]), abs=1e-4)
    assert float(found[2]) == pytest.approx(float(last["val_loss"]), abs=1e-4)


def test_validate_keeps_class_numbers_when_a_class_has_no_images(data, checkpoint, own_logits, elsewhere):
    """Classes in a folder with fewer classes have the numbers that the network was trained with."""
    for name in ("green", "red"):
        shutil.copytree(data / "val" / name, elsewhere / "val" / name)
    outcome = run("validate", "--ckpt_path", checkpoint, "--data_dir", ".", "--mode", 1, "--results_json", "r.json")
    assert outcome.status == 0, outcome.err
    labels = np.array([label for _, label in val_images(data)])
    hits = (own_logits.argmax(axis=1) == labels)[labels > 0]
    found = json.loads((elsewhere / "r.json").read_text())
    assert (found["num_images"], found["num_top_1"]) == (5, hits.sum())


@pytest.mark.parametrize("num_left_out", [0, 2])
def test_validate_reports_how_many_images_were_left_out(tmp_path, num_left_out):
    counts = ClassificationCounts(2)
    counts.update(np.float32([[1, 0], [1, 0]]), np.array([0, 1]))
    config = ValidateConfig(results_json=str(tmp_path / "r.json"))
    predictions = Predictions(np.array([0, 1]), np.array([0, 0]), np.array([0.75, 0.75]))
    dataset = create_dataset("digits", "", "test")
    dataset.num_left_out = num_left_out
    images = ValidationImages(dataset, create_loader(dataset, 4, num_classes=10), np.array([3, 7]), None)
    measured = describe_evaluation(config, Evaluation(counts, 10.0, predictions), images)
    write_results(measured)
    found = json.loads((tmp_path / "r.json").read_text())
    assert (found["num_images"], found["num_left_out"]) == (2, num_left_out)
    assert found["ece"] == 0.25 and "ECE: 0.2500" in measured.summary
    assert measured.summary.endswith(", images left out: 2" if num_left_out else ", images/s: 10.0")


# Inference


def test_infer_gives_the_classes_that_validate_counts(data, checkpoint, own_logits, elsewhere):
    options = ["--top_k", 2, "--results_file", "p.json", "--picture", "p.png", "--batch_size", 4, "--mode", 1]
    outcome = run("infer", "--ckpt_path", checkpoint, "--image_path", data / "val", *options)
    assert outcome.status == 0, outcome.err
    found = json.loads((elsewhere / "p.json").read_text())
    assert [entry["image"] for entry in found] == [str(path) for path, _ in val_images(data)]
    for entry, logits, line in zip(found, own_logits, outcome.out.splitlines()):
        order = np.argsort(-logits)[:2]
        assert [p["class"] for p in entry["predictions"]] == order.tolist()
        assert [p["name"] for p in entry["predictions"]] == [sorted(CLASSES)[k] for k in order]
        shares = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose([p["probability"] for p in entry["predictions"]], shares[order], rtol=1e-4)
        name, share = line.removeprefix(f"{entry['image']}: ").split(", ")[0].split(" ")
        assert name == sorted(CLASSES)[order[0]] and float(share) == pytest.approx(shares[order[0]], abs=1e-4)
    assert sorted(os.listdir(elsewhere)) == ["p.json", "p.png"]


def test_infer_names_unreadable_images_and_classifies_the_others(data, checkpoint, elsewhere):
    shutil.copytree(data, elsewhere, dirs_exist_ok=True)
    corrupt_val(elsewhere)
    (elsewhere / "val" / "red" / "gone.png").symlink_to("nowhere.png")
    (elsewhere / "val" / "red" / "._0.jpg").write_bytes(b"hidden")
    argv = ["infer", "--ckpt_path", checkpoint, "--mode", 1, "--results_file", "p.json"]
    argv += ["--image_path", "val/red", "val/blue/0.jpg", "val/blue/1.png"]
    outcome = run(*argv)
    readable = ["val/red/0.jpg", "val/blue/0.jpg", "val/blue/1.png"]
    assert outcome.status == 1 and [line.split(": ")[0] for line in outcome.out.splitlines()] == readable
    assert outcome.err.splitlines() == [
        "warning: image 'val/red/1.png': it is not an image of a known format, or its header is damaged",
        "warning: image 'val/red/gone.png': No such file or directory",
        "error: 2 of 5 images cannot be read and were left out; --skip_corrupt True makes this no error",
    ]
    assert [entry["image"] for entry in json.loads((elsewhere / "p.json").read_text())] == readable
    assert run(*argv, "--skip_corrupt", "True").status == 0


def test_infer_refuses_files_that_are_no_images_before_it_opens_the_weights(elsewhere):
    (elsewhere / "a.png").write_text("no image")
    (elsewhere / "b.jpg").touch()
    outcome = run("infer", "--ckpt_path", "absent.ckpt", "--mode", 1, "--image_path", "a.png", "b.jpg")
    assert outcome.status == 1 and outcome.err.splitlines() == [
        "warning: image 'a.png': it is not an image of a known format, or its header is damaged",
        "warning: image 'b.jpg': the file is empty",
        "error: none of the 2 images can be read",
    ]


def test_infer_escapes_names_that_the_output_cannot_encode(data, checkpoint, elsewhere):
    name = os.fsdecode("Kätzchen, ".encode() + b"\xe9.png")
    shutil.copy(data / "val" / "red" / "1.png", name)
    argv = [sys.executable, str(ROOT / "infer.py"), "--ckpt_path", str(checkpoint), "--mode", "1", "--image_path", name]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([*argv, "--picture", "p.png"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("K\\xe4tzchen, \\udce9.png: ") and (elsewhere / "p.png").is_file()


# Starting from a checkpoint, and from MindCV's recipes


def test_train_reports_that_fine_tuning_leaves_out_the_head(data, checkpoint, elsewhere):
    for name in ("green", "red"):
        shutil.copytree(data / "train" / name, elsewhere / "data" / "train" / name)
    options = ["--ckpt_path", checkpoint, "--epoch_size", 1, "--num_samples", 4, "--ckpt_save_dir", "out"]
    outcome = run("train", *SMALL, "--data_dir", "data", *options)
    assert outcome.status == 0, outcome.err
    lines = [line for line in outcome.err.splitlines() if "head" in line]
    assert lines == [
        f"{checkpoint}: the head of 3 classes is left out; "
        "the model's head of 2 classes starts from random values and needs training"
    ]
    assert (elsewhere / "out" / "convnext_atto-1_1.ckpt").is_file()


def test_train_accepts_every_key_of_a_mindcv_recipe(data, elsewhere):
    """The recipe has every key of the published one, and sizes for a test."""
    text = (ROOT / "configs" / "convnextv2" / "convnextv2_tiny_ascend.yaml").read_text(encoding="utf-8")
    small = {"model": "convnext_atto", "num_classes": 3, "batch_size": 4, "image_resize": 32, "epoch_size": 1}
    small.update(mode=1, loss="'ce'", lr="2e-3", min_lr="'3e-7'", data_dir=data, ckpt_save_dir="./out")
    for key, value in small.items():
        text, count = re.subn(rf"(?m)^{key}: .*$", f"{key}: {value}", text)
        assert count == 1, key
    for line in ("num_parallel_workers: 16", "distribute: True", "amp_level: O2", "aug_repeats: 3", "mixup: 0.8"):
        assert line in text
    (elsewhere / "recipe.yaml").write_text(text, encoding="utf-8")
    outcome = run("train", "--config", "recipe.yaml", "--num_samples", 8)
    assert outcome.status == 0, outcome.err
    assert "it runs alone" in outcome.err
    (row,) = read_csv(elsewhere / "out" / "metrics.csv")
    assert np.isfinite(float(row["train_loss"])) and row["step"] == "2"


def test_train_replaces_and_counts_corrupt_images_when_skip_corrupt(data, elsewhere):
    shutil.copytree(data / "train", elsewhere / "train")
    truncated_jpeg(elsewhere)
    empty_file(elsewhere)
    options = ["--skip_corrupt", "True", "--ckpt_save_dir", "out"]
    outcome = run("train", *TRAIN, *ONE_BATCH, *options)
    assert outcome.status == 0, outcome.err
    assert "2 times a corrupt image was replaced by another" in outcome.err
    assert all(name in outcome.err for name in ("blue/0.jpg", "red/1.png"))


# Mistakes: each case changes a copy of the good data, and holds the words of the expected error


def empty_class(root):
    shutil.rmtree(root / "train" / "green")
    (root / "train" / "green").mkdir()


def truncated_jpeg(root):
    jpeg = root / "train" / "blue" / "0.jpg"
    jpeg.write_bytes(jpeg.read_bytes()[:-200])


def empty_file(root):
    (root / "train" / "red" / "1.png").write_bytes(b"")


def corrupt_val(root):
    (root / "val" / "red" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n not an image")


def wrong_yaml(root):
    (root / "wrong.yaml").write_text("batch_siz: 4\nlr: fast\nbatch_size: 2.5\nmodel: convnext_atto\n")


def other_software(root):
    network = create_model("convnext_atto", num_classes=5)
    ms.save_checkpoint(network, str(root / "other.ckpt"))


def held_folder(root):
    (root / "ckpt").mkdir()
    (root / "ckpt" / "other_best.ckpt").write_bytes(b"")


def nothing(root):
    pass


ONE_BATCH = ["--batch_size", "16", "--drop_remainder", "False"]
TRAIN = [*SMALL, "--data_dir", ".", "--epoch_size", "1"]
CASES = {
    "missing YAML": (
        nothing,
        "train",
        ["--model", "convnext_atto", "--config", "no.yaml"],
        2,
        ["cannot read 'no.yaml'"],
    ),
    "wrong options": (
        *(wrong_yaml, "train", ["-c", "wrong.yaml", "--epoch_size", "many", "--momentun", "0.9", "--scale", "1"], 2),
        [
            "wrong.yaml:1: batch_siz: there is no option 'batch_siz'; did you mean 'batch_size'?",
            "wrong.yaml:2: lr: expected a number, above 0, got 'fast'",
            "wrong.yaml:3: batch_size: expected a whole number, at least 1, got 2.5",
            "--epoch_size: expected a whole number, at least 1, got 'many'",
            "--momentun: there is no option 'momentun'; did you mean 'momentum'?",
            "--scale: expected 2 numbers",
        ],
    ),
    "no model": (nothing, "train", ["--data_dir", "."], 2, ["model: is required"]),
    "unknown model": (
        *(nothing, "train", [*TRAIN, "--model", "convnext_tini"], 2),
        ["'convnext_tini' is not known; did you mean 'convnext_tiny'?"],
    ),
    "missing data_dir": (
        nothing,
        "train",
        [*SMALL, "--data_dir", "gone"],
        2,
        ["data_dir: folder 'gone' does not exist"],
    ),
    "misspelt data_dir": (
        *(nothing, "validate", ["--ckpt_path", "{ckpt}", "--data_dir", "./trian"], 2),
        ["data_dir: folder 'trian' does not exist; did you mean 'train'?"],
    ),
    "data_dir is a file": (
        *(wrong_yaml, "train", [*SMALL, "--data_dir", "wrong.yaml"], 2),
        ["data_dir: 'wrong.yaml' is a file, and the folder of the data set is expected"],
    ),
    "missing split": (
        *(nothing, "train", [*TRAIN, "--train_split", "training"], 1),
        ["no folder 'training'", "did you mean 'train'?"],
    ),
    "empty class folder": (empty_class, "train", TRAIN, 1, ["has class folder(s) without images: 'green'"]),
    "unknown class in val": (
        *(lambda root: (root / "val" / "red").rename(root / "val" / "rot"), "train", [*TRAIN, "--val_while_train"], 1),
        ["'./val' has 1 class folder(s) that belong to none of the training's 3 classes: 'rot'"],
    ),
    "num_classes of training": (
        *(nothing, "train", [*TRAIN, "--num_classes", "7"], 1),
        ["num_classes is 7", "has 3 classes"],
    ),
    "batch above the data": (nothing, "train", [*TRAIN, "--batch_size", "50"], 1, ["13 samples", "one batch of 50"]),
    "truncated JPEG": (
        truncated_jpeg,
        "train",
        [*TRAIN, *ONE_BATCH],
        1,
        ["cannot decode './train/blue/0.jpg'", "truncated"],
    ),
    "zero-byte image": (empty_file, "train", [*TRAIN, *ONE_BATCH], 1, ["cannot decode './train/red/1.png'", "empty"]),
    "missing checkpoint": (
        *(nothing, "train", [*TRAIN, "--ckpt_path", "no.ckpt"], 1),
        ["checkpoint 'no.ckpt' does not exist"],
    ),
    "checkpoint of another model": (
        *(nothing, "train", [*TRAIN, "--model", "convnextv2_atto", "--ckpt_path", "{ckpt}"], 1),
        ["convnext_atto-2_3.ckpt' (layout: mindcv) does not fit the model", "24 missing", "12 unexpected"],
    ),
    "save folder below a file": (
        *(wrong_yaml, "train", [*TRAIN, "--ckpt_save_dir", "wrong.yaml/ckpt"], 2),
        ["ckpt_save_dir: cannot write to folder 'wrong.yaml/ckpt': '", "wrong.yaml' is a file, and a folder is"],
    ),
    "folder of another run": (
        *(held_folder, "train", TRAIN, 1),
        ["ckpt_save_dir './ckpt' holds an earlier run (other_best.ckpt)", "or remove it with --overwrite True"],
    ),
    "validation without checkpoint": (nothing, "validate", ["--data_dir", "."], 2, ["ckpt_path: is required"]),
    "validation of no file": (
        *(nothing, "validate", ["--ckpt_path", "no/no.ckpt", "--data_dir", "."], 1),
        ["checkpoint 'no/no.ckpt' does not exist (the folder 'no' does not exist either)"],
    ),
    "validation as another model": (
        *(nothing, "validate", ["--ckpt_path", "{ckpt}", "--data_dir", ".", "--model", "convnextv2_atto"], 1),
        ["convnext_atto-2_3.ckpt' (layout: mindcv) does not fit the model", "24 missing", "12 unexpected"],
    ),
    "num_classes of validation": (
        *(nothing, "validate", ["--ckpt_path", "{ckpt}", "--data_dir", ".", "--num_classes", "7"], 1),
        ["num_classes is 7, but '", "' has 3 classes: leave num_classes out"],
    ),
    "a class that the checkpoint does not have": (
        *(lambda root: (root / "val" / "red").rename(root / "val" / "rot"), "validate"),
        *(["--ckpt_path", "{ckpt}", "--data_dir", "."], 1),
        ["none of the checkpoint's 3 classes: 'rot'", "(the classes are 'blue', 'green', 'red')"],
    ),
    "num_classes of a bare checkpoint": (
        *(other_software, "validate", ["--ckpt_path", "other.ckpt", "--data_dir", ".", "--model", "convnext_atto"], 1),
        ["' has 5 classes without names, but the data set in '.' has 3", "'red'", "--class_names_file"],
    ),
    "a bare checkpoint of no model": (
        *(other_software, "validate", ["--ckpt_path", "other.ckpt", "--data_dir", "."], 2),
        ["model: is required, since the checkpoint does not name one"],
    ),
    "corrupt image in validation": (
        *(corrupt_val, "validate", ["--ckpt_path", "{ckpt}", "--data_dir", "."], 1),
        ["1 of the 9 validation images cannot be read: './val/red/1.png': it is not an image"],
    ),
    "corrupt image in the validation of a training": (
        *(corrupt_val, "train", [*TRAIN, "--val_while_train"], 1),
        ["1 of the 9 validation images cannot be read: './val/red/1.png': it is not an image"],
    ),
    "inference on a missing file": (
        *(nothing, "infer", ["--ckpt_path", "{ckpt}", "--image_path", "no.png"], 1),
        ["image 'no.png' does not exist"],
    ),
    "inference on an empty folder": (
        *(empty_class, "infer", ["--ckpt_path", "{ckpt}", "--image_path", "train/green"], 1),
        ["folder 'train/green' has no image files"],
    ),
    "inference on a corrupt image": (
        *(corrupt_val, "infer", ["--ckpt_path", "{ckpt}", "--image_path", "val/red/1.png", "--results_file", "p.csv"]),
        *(1, ["image 'val/red/1.png': it is not an image"]),
    ),
    "a picture that cannot be written": (
        *(nothing, "infer", ["--ckpt_path", "{ckpt}", "--image_path", "val", "--picture", "p.xyz"], 2),
        ["picture: must end in .png"],
    ),
    "a confusion matrix that cannot be written": (
        *(nothing, "validate", ["--ckpt_path", "{ckpt}", "--data_dir", ".", "--confusion_matrix", "m.txt"], 2),
        ["confusion_matrix: must end in .png"],
    ),
    "results in the place of a folder": (
        *(nothing, "validate", ["--ckpt_path", "{ckpt}", "--data_dir", ".", "--results_json", "val"], 2),
        ["results_json: cannot write to 'val': it is a folder"],
    ),
    "inference as another number of classes": (
        *(other_software, "infer", ["--ckpt_path", "other.ckpt", "--image_path", "val", "--model", "convnext_atto"]),
        *(1, ["'other.ckpt' holds no class names: give them, one a line, as --class_names_file"]),
    ),
    "inference of no model": (
        *(other_software, "infer", ["--ckpt_path", "other.ckpt", "--image_path", "val", "--num_classes", "5"]),
        *(2, ["model: is required, since the checkpoint does not name one"]),
    ),
    "inference without names": (
        other_software,
        "infer",
        ["--ckpt_path", "other.ckpt", "--image_path", "val", "--model", "convnext_atto", "--num_classes", "5"],
        *(1, ["'other.ckpt' holds no class names: give them, one a line, as --class_names_file"]),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_scripts_report_a_mistake_in_one_line(case, data, checkpoint, elsewhere):
    prepare, script, argv, status, parts = CASES[case]
    shutil.copytree(data, elsewhere, dirs_exist_ok=True)
    prepare(elsewhere)
    before = {path for path in elsewhere.rglob("*") if path.is_file()}
    argv = [word.replace("{ckpt}", str(checkpoint)) for word in argv]
    outcome = run(script, *argv, *(["--mode", "1"] if "--mode" not in argv else []))
    assert outcome.status == status, outcome.err
    errors = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == (len(parts) if case == "wrong options" else 1), outcome.err
    for part in parts:
        assert part in "\n".join(errors)
    assert "Traceback" not in outcome.err and outcome.out == ""
    assert {path for path in elsewhere.rglob("*") if path.is_file()} == before, "files were left behind"


# Scripts in separate processes


@pytest.mark.parametrize("script", ["train", "validate", "infer"])
def test_scripts_print_help_and_write_no_file(tmp_path, script):
    outcome = process(tmp_path, script, "--help")
    assert outcome.status == 0 and outcome.err == ""
    for part in ("--model: ", "--config: ", "--batch_size: ", "default 128"):
        assert part in outcome.out
    assert not os.listdir(tmp_path)


def test_train_names_unknown_flags(tmp_path):
    outcome = process(tmp_path, "train", "--model", "convnext_atto", "--bach_size", "4", "--modell=x")
    assert outcome.status == 2 and outcome.out == ""
    assert outcome.err.splitlines() == [
        "error: --bach_size: there is no option 'bach_size'; did you mean 'batch_size'?",
        "error: --modell: there is no option 'modell'; did you mean 'model'?",
    ]


def test_train_refuses_an_unsupported_device(tmp_path, data):
    if "GPU" in ms.get_context("device_target"):
        pytest.skip("there is a GPU")
    outcome = process(tmp_path, "train", *SMALL, "--data_dir", data, "--device_target", "GPU")
    (line,) = outcome.err.splitlines()
    assert outcome.status == 1 and line.startswith(
        "error: this installation of MindSpore does not support device_target 'GPU'"
    )
    assert not os.listdir(tmp_path)
