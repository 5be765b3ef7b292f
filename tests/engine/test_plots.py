"""Plots are complete image files that show their data."""

import re
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from mindcv.engine import plots
from mindcv.engine.calibration import measure_calibration
from mindcv.engine.plots import draw_confusion_matrix, draw_learning_curve, draw_reliability, require_matplotlib
from mindcv.engine.predictions import Predictions
from mindcv.utils.errors import UserError


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_confusion_matrix_draws_large_counts_as_dark_cells(tmp_path):
    shown = {}
    for name, confusion in {"right": [[9, 0], [0, 9]], "wrong": [[0, 9], [9, 0]]}.items():
        draw_confusion_matrix(np.array(confusion), ["cat", "dog"], tmp_path / f"{name}.png")
        shown[name] = pixels(tmp_path / f"{name}.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["right.png", "wrong.png"]
    # The dark cells, left of the scale of colours, change their places from one diagonal to the other.
    dark = {}
    for name, picture in shown.items():
        cells = picture[:, : picture.shape[1] * 3 // 4]
        dark[name] = (cells[..., 0] < 60) & (cells[..., 2] > 90)
    assert dark["right"].sum() > 1000 and dark["wrong"].sum() > 1000
    assert not (dark["right"] & dark["wrong"]).any()


@pytest.mark.filterwarnings("error")
def test_confusion_matrix_shows_any_name_as_it_is(tmp_path):
    """A dollar sign starts no formula. A letter without a font or an invalid byte raises no error."""
    names = ["$5_$bill", "K\u00e4tzchen", "\u732b", "caf\udce9\n"]
    draw_confusion_matrix(np.eye(4, dtype=int), names, tmp_path / "m.svg")
    text = (tmp_path / "m.svg").read_text(encoding="utf-8")
    for shown in ("$5_$bill", "K\u00e4tzchen", "caf\\udce9\\n"):
        assert f"<!-- {shown} -->" in text
    draw_confusion_matrix(np.eye(4, dtype=int), names, tmp_path / "m.png")
    assert pixels(tmp_path / "m.png").shape[0] > 300


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("count", [2, 12])
def test_confusion_matrix_shortens_very_long_names(tmp_path, count):
    """The labels leave room for the cells and for a margin, and matplotlib warns of nothing."""
    names = [f"{i} English springer, English springer spaniel {'w' * 200}" for i in range(count)]
    draw_confusion_matrix(np.eye(count, dtype=int), names, tmp_path / "m.svg")
    shown = re.findall("<!-- (0 English.*) -->", (tmp_path / "m.svg").read_text(encoding="utf-8"))
    assert len(shown) == 2 and all(re.fullmatch(r"0 English springer, .*\.\.\.", text) for text in shown)
    draw_confusion_matrix(np.eye(count, dtype=int), names, tmp_path / "m.png")
    picture = pixels(tmp_path / "m.png")
    is_dark = (picture[..., 0] < 60) & (picture[..., 2] > 90)
    cells = is_dark[:, : picture.shape[1] * 3 // 4]
    assert cells.sum() > 2500 * count / 2
    assert (picture[-4:] > 250).all() and (picture[:, :4] > 250).all(), "nothing touches the border"


def test_confusion_matrix_takes_letters_from_the_fonts_that_have_them(monkeypatch):
    roman = str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "STIXGeneral.ttf")
    monkeypatch.setattr(plots, "font_file_for", lambda letter: roman if letter == "x" else None)
    assert plots.font_families(["box", "cat"]) == ["DejaVu Sans", "STIXGeneral"]
    assert plots.font_families(["cat"]) == ["DejaVu Sans"]


def test_confusion_matrix_draws_many_classes_and_empty_rows(tmp_path):
    for count in (26, 60):
        draw_confusion_matrix(np.zeros((count, count), int), [f"class {i}" for i in range(count)], tmp_path / "x.png")
        assert pixels(tmp_path / "x.png").shape[0] > 400


@pytest.mark.parametrize("with_validation", [False, True])
def test_learning_curve_is_drawn_with_and_without_validation(tmp_path, with_validation):
    rows = [{"epoch": e, "lr": 0.1 / e, "train_loss": 1.0 / e} for e in range(1, 6)]
    if with_validation:
        rows[-1].update(val_loss=0.5, top_1=0.7, top_5=0.9)
    draw_learning_curve(rows, tmp_path / "curve.png")
    assert pixels(tmp_path / "curve.png").shape[1] > 400
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]


def test_reliability_plot_draws_a_bar_as_high_as_the_accuracy(tmp_path):
    """All images are in the last of 15 bins. Their blue bar grows with the accuracy, and the red gap shrinks."""
    blue, red = {}, {}
    for accuracy in (0.25, 0.75):
        is_correct = np.arange(100) < 100 * accuracy
        predictions = Predictions(np.where(is_correct, 1, 0), np.ones(100, int), np.full(100, 0.95))
        draw_reliability(measure_calibration(predictions), tmp_path / "r.png")
        picture = pixels(tmp_path / "r.png")[:, pixels(tmp_path / "r.png").shape[1] * 9 // 10 :]
        blue[accuracy] = ((picture == (31, 119, 180)).all(axis=2)).sum()
        red[accuracy] = (picture == (255, 138, 128)).all(axis=2).sum()
    assert blue[0.75] == pytest.approx(3 * blue[0.25], rel=0.05) and blue[0.25] > 2000
    assert red[0.25] == pytest.approx(3.5 * red[0.75], rel=0.1)


def test_reliability_plot_draws_the_whole_accuracy_when_it_is_above_the_confidence(tmp_path):
    """The right classifier is sure of 70% only. Its bar is as high as that of a sure one, and the gap leaves room."""
    heights, shares = {}, {}
    for confidence in (0.7, 0.99):
        predictions = Predictions(np.ones(100, int), np.ones(100, int), np.full(100, confidence))
        draw_reliability(measure_calibration(predictions), tmp_path / "r.png")
        is_blue = (pixels(tmp_path / "r.png") == (31, 119, 180)).all(axis=2)
        rows = is_blue[:, is_blue.shape[1] // 2 :].sum(axis=1)  # without the legend
        heights[confidence], shares[confidence] = (rows > 10).sum(), rows[rows > 10].min() / rows.max()
    assert heights[0.7] == heights[0.99] > 200
    assert 0.4 < shares[0.7] < 0.8, "the red bar and its edges leave room on both sides"


def test_learning_curve_leaves_out_a_top_5_accuracy_of_one(tmp_path):
    """Five classes or fewer have no other one. The picture is that of a run that has no such column."""
    shown = {}
    for name, top_5 in {"none": None, "one": 1.0, "less": 0.9}.items():
        rows = [{"epoch": e, "lr": 0.1, "train_loss": 1.0 / e, "val_loss": 1.0, "top_1": 0.3} for e in (1, 2)]
        draw_learning_curve([{**row, **({"top_5": top_5} if top_5 else {})} for row in rows], tmp_path / f"{name}.png")
        shown[name] = pixels(tmp_path / f"{name}.png")
    np.testing.assert_array_equal(shown["one"], shown["none"])
    assert (shown["less"] != shown["none"]).any()


def test_require_matplotlib_names_the_extra_when_matplotlib_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r'need matplotlib: run pip install -e "\.\[plots\]"'):
        require_matplotlib()
