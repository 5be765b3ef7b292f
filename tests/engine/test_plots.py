"""Pictures are whole files that show what they are of."""

import sys

import numpy as np
import pytest
from PIL import Image

from mindcv.engine.plots import draw_confusion_matrix, draw_learning_curve, require_matplotlib
from mindcv.utils.errors import UserError


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_confusion_matrix(tmp_path):
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


def test_many_classes_and_empty_rows(tmp_path):
    for count in (26, 60):
        draw_confusion_matrix(np.zeros((count, count), int), [f"class {i}" for i in range(count)], tmp_path / "x.png")
        assert pixels(tmp_path / "x.png").shape[0] > 400


@pytest.mark.parametrize("with_validation", [False, True])
def test_learning_curve(tmp_path, with_validation):
    rows = [{"epoch": e, "lr": 0.1 / e, "train_loss": 1.0 / e} for e in range(1, 6)]
    if with_validation:
        rows[-1].update(val_loss=0.5, top_1=0.7, top_5=0.9)
    draw_learning_curve(rows, tmp_path / "curve.png")
    assert pixels(tmp_path / "curve.png").shape[1] > 400
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]


def test_matplotlib_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r'need matplotlib: pip install "mindcv\[plots\]"'):
        require_matplotlib()
