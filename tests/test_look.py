"""Heat maps and the analysis of features as users run them, with untrained networks."""

import csv
from pathlib import Path

import colour_images
import numpy as np
import pytest
from colour_images import COLOURS
from PIL import Image

from mindcv.config import AnalyzeConfig, InferConfig, parse_args
from mindcv.convert import from_mindcv, weight_parameters, write_ckpt, write_safetensors
from mindcv.models import create_model
from mindcv.recipe_analysis import weights_to_analyse
from mindcv.utils.errors import ConfigError

ROOT = Path(__file__).parents[1]
PREPROCESSING = {**colour_images.PREPROCESSING, "image_resize": 64}


@pytest.fixture
def images(tmp_path):
    """Return a folder with two images of each class, all of different sizes."""
    rng = np.random.default_rng(0)
    for index, (name, colour) in enumerate(COLOURS.items()):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(2):
            size = (40 + 30 * number, 70 - 10 * index, 3)
            pixels = np.clip(rng.normal(colour, 25, size), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    return tmp_path / "images"


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """Return a checkpoint of a classifier."""
    network = create_model("convnextv2_atto", num_classes=3)
    options = {"model": "convnextv2_atto", "num_classes": 3, **PREPROCESSING}
    path = tmp_path_factory.mktemp("checkpoints") / "classifier.ckpt"
    names = {name: label for label, name in enumerate(COLOURS)}
    write_ckpt(path, weight_parameters(network), {"options": options, "class_to_idx": names})
    return path


@pytest.fixture
def run(run_main, monkeypatch, tmp_path):
    """Return a function that runs a script in a folder of its own and gives its status, output and messages."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return lambda script, *argv: run_main(script, *argv, "--mode", "1", "--batch_size", "4")


def test_infer_draws_heat_maps_of_the_images_that_it_can_read(images, classifier, run):
    (images / "red" / "bad.png").write_text("no image")
    where = ["--ckpt_path", classifier, "--image_path", images]
    status, out, err = run("infer.py", *where, "--explain", "gradcam", "--skip_corrupt", "True")
    assert status == 0 and len(out.splitlines()) == 6, err
    assert "saved heat_maps.png: heat maps of 6 images\n" in err
    with Image.open("heat_maps.png") as sheet:
        assert sheet.size == (2 * 380, 3 * 240 + 40)
    more = ["--explain", "eigencam", "--explain_picture", "new/eigen.jpg", "--explain_images", "2"]
    status, _, err = run("infer.py", *where, *more, "--explain_stage", "0")
    assert status == 1 and "1 of 7 images cannot be read and were left out" in err
    assert "saved new/eigen.jpg: heat maps of 2 images; --explain_images draws more of the 6 images" in err
    with Image.open("new/eigen.jpg") as sheet:
        assert sheet.width == 380


def test_infer_draws_no_heat_maps_when_it_is_not_asked_to(images, classifier, run):
    assert run("infer.py", "--ckpt_path", classifier, "--image_path", images)[0] == 0
    assert not list(Path.cwd().iterdir())


def test_infer_explains_an_earlier_stage_and_other_number_formats(images, classifier, run):
    where = ["--ckpt_path", classifier, "--image_path", images / "red" / "0.png", "--explain", "gradcam"]
    for number, options in enumerate((["--explain_stage", "2"], ["--val_amp_level", "O2"], ["--val_amp_level", "O1"])):
        status, _, err = run("infer.py", *where, *options, "--explain_picture", f"{number}.png")
        assert status == 0 and Path(f"{number}.png").is_file(), err


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--explain", "gradcm"], "expected one of gradcam, eigencam or None, got 'gradcm'; did you mean 'gradcam'?"),
        (["--explain", "gradcam", "--explain_picture", "a.txt"], "explain_picture: must end in .png, .jpg"),
        (["--explain", "gradcam", "--explain_stage", "4"], "--explain_stage: expected one of 0, 1, 2, 3, got '4'"),
        (["--explain_stage", "2"], "explain_stage: has no effect without explain"),
        (["--explain_picture", "a.png"], "explain_picture: has no effect without explain"),
    ],
)
def test_infer_refuses_heat_maps_that_it_cannot_draw(argv, message):
    with pytest.raises(ConfigError) as caught:
        parse_args(["--ckpt_path", "a.ckpt", "--image_path", "b", *argv], InferConfig)
    assert message in str(caught.value)


def test_infer_refuses_a_stage_whose_map_has_one_cell():
    config = parse_args(["--ckpt_path", "a.ckpt", "--image_path", "b", "--explain", "gradcam"], InferConfig)
    values = {"model": "convnext_atto", "image_resize": 32}  # as the checkpoint says
    with pytest.raises(ConfigError, match="explain_stage: the map of this stage has a single cell"):
        config.completed(values)
    assert config.completed({**values, "patch_size": 2}).image_resize == 32


# tools/analyze.py


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """Return an encoder of FCMAE as it is published: another layout of names, no last norm, no metadata."""
    network = create_model("convnextv2_atto", num_classes=0)
    arrays = {name: parameter.asnumpy() for name, parameter in weight_parameters(network).items()}
    arrays = {name: array for name, array in arrays.items() if not name.startswith("norm.")}
    path = tmp_path_factory.mktemp("checkpoints") / "encoder.safetensors"
    write_safetensors(path, from_mindcv(arrays, "official"))
    return path


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_analyze_compares_two_networks_on_the_images_that_can_be_read(images, classifier, encoder, run):
    (images / "red" / "bad.png").write_text("no image")
    where = ["--ckpt_path", classifier, "--image_path", images, "--output_dir", "out", "--image_resize", "64"]
    status, out, err = run("tools/analyze.py", *where, "--compare_with", encoder, "--num_drawn", "1")
    assert status == 1 and "1 of 7 images cannot be read" in err
    assert out.splitlines()[-1] == "saved cosine_distance.csv, cosine_distance.png, embedding.csv, embedding.png, " \
        "feature_maps.png in 'out'"  # fmt: skip
    distances, points = rows_of("out/cosine_distance.csv"), rows_of("out/embedding.csv")
    assert [row["weights"] for row in distances] == [str(classifier)] * 12 + [str(encoder)] * 12
    assert [row["layer"] for row in distances[10:14]] == ["feature.7.0", "feature.7.1", "feature.1.0", "feature.1.1"]
    assert all(0 < float(row["hidden"]) < 0.5 and row["images"] == "6" for row in distances)
    names = [f"{name}/{number}.png" for name in COLOURS for number in (0, 1)]
    assert [row["image"] for row in points] == 2 * names and [row["class"] for row in points[::2]] == 2 * list(COLOURS)
    assert {path.suffix for path in Path("out").iterdir()} == {".csv", ".png"}
    assert len(list(Path("out").iterdir())) == 5


def test_analyze_of_images_that_cannot_be_read_leaves_no_folder(images, classifier, run):
    Image.new("L", (40, 40)).save(images / "grey.png")
    for path in images.glob("*/*.png"):
        path.write_text("no image")
    for where in (images / "red", images / "gone"):
        status, _, err = run(
            "tools/analyze.py", "--ckpt_path", classifier, "--image_path", where, "--output_dir", "out"
        )
        assert status == 1 and not Path("out").exists(), err


def test_analyze_takes_max_images_evenly_and_draws_what_it_is_asked_to(images, classifier, run):
    where = ["--ckpt_path", classifier, "--image_path", images, "--output_dir", "out", "--max_images", "3"]
    status, _, err = run("tools/analyze.py", *where, "--num_drawn", "0")
    assert status == 0 and not Path("out/feature_maps.png").exists(), err
    assert [row["image"] for row in rows_of("out/embedding.csv")] == [f"{name}/0.png" for name in COLOURS]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--compare_with", "absent.ckpt"], "'absent.ckpt' is neither a file nor the name of a model"),
        (["--compare_with", "{classifier}"], "names the weights that it is compared with"),
        (["--compare_model", "convnext_tiny"], "compare_model: has no effect without compare_with"),
        (["--compare_with", "{encoder}", "--compare_model", "convnext_tin"], "did you mean 'convnext_tiny'?"),
        (["--compare_with", "convnextv2_atto.in1k"], "'in1k' is not known (there are: fcmae, fcmae_ft_in1k)"),
        (["--image_path", "{classifier}"], "is a file, and a folder of images is expected"),
    ],
)
def test_analyze_refuses_what_it_cannot_compare(images, classifier, encoder, run, argv, message):
    argv = [word.format(classifier=classifier, encoder=encoder) for word in argv]
    where = [] if "--image_path" in argv else ["--image_path", images]
    status, out, err = run("tools/analyze.py", "--ckpt_path", classifier, *where, "--output_dir", "out", *argv)
    assert status != 0 and message in err and not out


def test_weights_to_analyse_keeps_the_options_of_each_network(encoder):
    argv = ["--model", "convnext_tiny", "--ckpt_path", "a.ckpt", "--image_path", "b", "--output_dir", "c"]
    argv += ["--image_resize", "64", "--compare_with", str(encoder)]
    for more, model, given in (
        ([], "convnext_tiny", False),
        (["--compare_model", "convnext_base"], "convnext_base", True),
    ):
        first, second = weights_to_analyse(parse_args([*argv, *more], AnalyzeConfig))
        assert (first.model, first.ckpt_path) == ("convnext_tiny", "a.ckpt")
        assert (second.model, second.ckpt_path, second.image_resize) == (model, str(encoder), 64)
        assert "model" in first.given and ("model" in second.given) == given
    _, published = weights_to_analyse(parse_args([*argv[:-1], "convnextv2_atto.fcmae"], AnalyzeConfig))
    assert (published.model, published.pretrained, published.ckpt_path) == ("convnextv2_atto.fcmae", True, "")
