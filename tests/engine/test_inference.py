"""Tests of the classification of single images and of the files that hold the results."""

import io
import os

import numpy as np
import pytest
from mindspore import Tensor, nn
from PIL import Image

from mindcv.data import find_images, imagenet_class_names
from mindcv.engine.inference import (
    Prediction,
    classes_of_folders,
    classify,
    draw_predictions,
)
from mindcv.utils.errors import DataError, UserError
from mindcv.utils.logger import logger


@pytest.fixture
def folder(tmp_path):
    for index, name in enumerate(("b.png", "a.JPG", "sub/c.jpeg", "notes.txt", "sub/deep/d.png")):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("txt"):
            path.write_text("x")
        else:
            Image.new("RGB", (8 + index, 6), (40 * index, 10, 200)).save(path)
    return tmp_path / "images"


class Linear(nn.Cell):
    def __init__(self, weight):
        super().__init__()
        self.weight = Tensor(weight)

    def construct(self, x):
        return x.mean(axis=(2, 3)) @ self.weight


def mean_colour(encoded):
    """Replace preprocessing: return the mean colour of an image as an array [3, 2, 2]."""
    values = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"), np.float32).mean(axis=(0, 1)) / 255
    return np.broadcast_to(values[:, None, None], (3, 2, 2)).astype(np.float32)


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_classify_gives_the_most_probable_classes_by_the_softmax_formula(folder, batch_size):
    paths = find_images([str(folder)])
    weight = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32) * 3
    names = ["ant", "bee", "cat", "dog"]
    found = list(classify(Linear(weight).set_train(False), paths, mean_colour, names, 3, batch_size))
    assert [prediction.path for prediction in found] == paths
    for prediction, path in zip(found, paths):
        with open(path, "rb") as file:
            logits = mean_colour(file.read())[:, 0, 0].astype(np.float64) @ weight
        shares = np.exp(logits) / np.exp(logits).sum()
        order = sorted(range(4), key=lambda k: -shares[k])[:3]
        assert list(prediction.indices) == order and list(prediction.names) == [names[k] for k in order]
        np.testing.assert_allclose(prediction.probabilities, shares[order], rtol=1e-4)


def test_classify_gives_all_classes_when_top_k_exceeds_their_number(folder):
    (found,) = classify(Linear(np.ones((3, 2), np.float32)), [str(folder / "b.png")], mean_colour, ["x", "y"], 5, 8)
    assert found.indices == (0, 1) and found.probabilities == (0.5, 0.5)


def test_classify_names_an_unreadable_image_and_refuses_logits_that_are_not_finite(folder):
    def fail(encoded):
        raise DataError("the file is empty")

    path = str(folder / "b.png")
    with pytest.raises(DataError, match=r"image '.*b\.png': the file is empty"):
        next(classify(Linear(np.ones((3, 2), np.float32)), [path], fail, ["x", "y"], 5, 8))
    with pytest.raises(UserError, match="logits are not finite"):
        next(classify(Linear(np.full((3, 2), np.nan, np.float32)), [path], mean_colour, ["x", "y"], 5, 8))


@pytest.mark.parametrize("batch_size", [1, 2, 50])
def test_classify_leaves_unreadable_images_out_when_told_to(folder, batch_size):
    paths = find_images([str(folder)])
    (folder / "a.JPG").write_bytes(b"")
    (folder / "sub/c.jpeg").unlink()

    def transform(encoded):
        if not encoded:
            raise DataError("the file is empty")
        return mean_colour(encoded)

    network, errors = Linear(np.ones((3, 2), np.float32)), []
    found = list(classify(network, paths, transform, ["x", "y"], 5, batch_size, on_unreadable=errors.append))
    assert [prediction.path for prediction in found] == [str(folder / "b.png"), str(folder / "sub/deep/d.png")]
    assert [str(error) for error in errors] == [
        f"image '{folder}/a.JPG': the file is empty",
        f"image '{folder}/sub/c.jpeg': No such file or directory",
    ]


@pytest.fixture
def predictions(folder):
    return [
        Prediction(str(folder / "b.png"), (2, 0), ("Kätzchen, klein", "ant"), (0.75, 0.25)),
        Prediction(str(folder / "a.JPG"), (0, 1), ("ant", "bee"), (1 / 3, 1e-9)),
    ]


def test_classes_of_folders_finds_true_classes_by_folder_names():
    names = ["ant", "bee"]
    paths = ["x/ant/1.png", "x/bee/deep/2.png", "x/cat/3.png", "x/4.png"]
    assert classes_of_folders(paths, names) == {"x/ant/1.png": 0, "x/bee/deep/2.png": 1}
    assert classes_of_folders(["x/ant/1.png"], names) == {"x/ant/1.png": 0}
    assert classes_of_folders(["ant/x/1.png", "ant/y/1.png"], names) == {}, "a folder that all images share"
    imagenet = ["d/n01440764/1.png", "d/tench/1.png", "d/crane/1.png", "d/goldfish/1.png"]
    assert classes_of_folders(imagenet, imagenet_class_names()) == dict(zip(imagenet[:2] + imagenet[3:], (0, 0, 1)))


def test_draw_predictions_colours_right_and_wrong_classes(predictions, tmp_path):
    (first, second), green, red = predictions, (26, 127, 55), (207, 34, 46)
    for name, truth, colours in (
        ("right", {first.path: first.names[0]}, [green]),
        ("wrong", {first.path: "ant", second.path: "ant"}, [red, green]),
        ("none", {}, []),
    ):
        draw_predictions(predictions, tmp_path / f"{name}.png", truth=truth)
        with Image.open(tmp_path / f"{name}.png") as picture:
            there = {colour for _, colour in picture.convert("RGB").getcolors(1 << 20)}
        assert [colour for colour in (red, green) if colour in there] == colours


def test_draw_predictions_accepts_names_that_are_not_utf8(folder, tmp_path):
    path = os.path.join(folder, os.fsdecode(b"caf\xe9\n.png"))
    Image.new("RGB", (5, 5)).save(os.fsencode(path))
    draw_predictions([Prediction(path, (0,), ("a\nb",), (1.0,))], tmp_path / "p.png")
    assert (tmp_path / "p.png").is_file()


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (5, 3, 2), (24, 6, 4), (30, 6, 4)])
def test_draw_predictions_draws_one_tile_for_each_image(predictions, tmp_path, count, columns, rows):
    draw_predictions((predictions * 15)[:count], tmp_path / "p.png")
    draw_predictions(predictions[:1], tmp_path / "one.png")
    with Image.open(tmp_path / "p.png") as sheet, Image.open(tmp_path / "one.png") as tile:
        assert sheet.size == (columns * tile.width, rows * tile.height)
        first = sheet.crop((0, 0, *tile.size))
        np.testing.assert_array_equal(np.asarray(first), np.asarray(tile))
        blue = (np.asarray(tile.convert("RGB")) == (0, 10, 200)).all(axis=2)
        assert blue.sum() == 224 * 168, "the image, 8 x 6, fitted into 224 x 224"


def test_draw_predictions_says_how_many_are_drawn_when_there_are_more(predictions, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(logger, "info", lambda text, *values: said.append(text % values))
    draw_predictions((predictions * 12)[:24], tmp_path / "p.png")
    assert not said
    draw_predictions((predictions * 26)[:51], tmp_path / "p.png")
    assert said == [f"24 of 51 images are drawn in '{tmp_path}/p.png'"]
