"""Tests of the file that predictions are written to."""

import csv
import json
import os

import pytest

from mindcv.engine.inference import Prediction
from mindcv.engine.prediction_file import prediction_file
from mindcv.utils.errors import UserError

PREDICTIONS = [
    Prediction("folder/b.png", (2, 0), ("Kätzchen, klein", "ant"), (0.75, 0.25)),
    Prediction("folder/a\n.JPG", (0, 1), ("ant", "bee"), (1 / 3, 1e-9)),
]


def write(path, predictions=PREDICTIONS):
    with prediction_file(path) as add:
        for prediction in predictions:
            add(prediction)


def test_prediction_file_has_a_csv_row_for_each_rank(tmp_path):
    write(tmp_path / "new" / "p.CSV")
    with open(tmp_path / "new" / "p.CSV", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    flat = [
        (p.path, rank + 1, p.indices[rank], p.names[rank], p.probabilities[rank])
        for p in PREDICTIONS
        for rank in (0, 1)
    ]
    assert [(r["image"], int(r["rank"]), int(r["class"]), r["name"], float(r["probability"])) for r in rows] == flat


@pytest.mark.parametrize("predictions", [PREDICTIONS, PREDICTIONS[:1], []])
def test_prediction_file_has_the_text_of_a_json_list(predictions, tmp_path):
    write(tmp_path / "p.json", predictions)
    entries = [
        {
            "image": p.path,
            "predictions": [
                {"class": i, "name": n, "probability": q} for i, n, q in zip(p.indices, p.names, p.probabilities)
            ],
        }
        for p in predictions
    ]
    expected = json.dumps(entries, indent=2, ensure_ascii=False) + "\n"
    assert (tmp_path / "p.json").read_bytes() == expected.encode()


def test_prediction_file_keeps_file_names_that_are_not_utf8(tmp_path):
    path = os.fsdecode(b"caf\xe9.png")
    found = [Prediction(path, (0,), ("ant",), (1.0,))]
    write(tmp_path / "p.json", found)
    write(tmp_path / "p.csv", found)
    assert json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))[0]["image"] == path
    assert "caf\\udce9.png,1,0,ant,1.0" in (tmp_path / "p.csv").read_text(encoding="utf-8")


def test_prediction_file_refuses_other_formats(tmp_path):
    with pytest.raises(UserError, match=r"written as \.csv or \.json, not '.*p\.txt'"):
        write(tmp_path / "p.txt")
    assert not (tmp_path / "p.txt").exists()


@pytest.mark.parametrize("name", ["p.csv", "p.json"])
def test_prediction_file_stays_as_it_was_when_the_run_fails(name, tmp_path):
    (tmp_path / name).write_text("of an earlier run")
    with pytest.raises(ZeroDivisionError), prediction_file(tmp_path / name) as add:
        add(PREDICTIONS[0])
        raise ZeroDivisionError
    assert (tmp_path / name).read_text() == "of an earlier run"
    assert os.listdir(tmp_path) == [name]
