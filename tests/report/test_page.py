"""Tests of the page: well-formed, complete, escaped, without any address, and with the numbers of the files."""

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from run_starts import write_start

from mindcv.engine.progress import RunProgress
from mindcv.report import Example, Validated, read_run, report_page

HEAD = "epoch,step,lr,train_loss,val_loss,top_1,top_5,images_per_s,seconds\n"
VOID = {"br", "img", "meta"}
EVIL = ['<script>alert("1")</script>', 'a & b\'s "cat"', "</style><img src=x onerror=alert(1)>"]


class Page(HTMLParser):
    """Reads a page: checks that elements are closed in order, and collects texts, tables and attributes."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.texts, self.attributes, self.tables, self.names = [], {}, [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.names.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        parent = self.open[-1] if self.open else ""
        self.texts.setdefault(parent, []).append(data)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data

    def table_with(self, *columns):
        (found,) = (table for table in self.tables if tuple(table[0]) == columns)
        return found[1:]


@pytest.fixture
def folder(tmp_path):
    """The folder of a run of three epochs, the second without validation."""
    rows = [
        "1,10,0.1,2.51234567,1.5,0.5,0.75,99.5,30",
        "2,20,0.05,1.25,,,,101.25,31",
        "3,30,0.01,0.5,0.75,0.625,1,98,32",
    ]
    (tmp_path / "metrics.csv").write_text(HEAD + "".join(f"{row}\n" for row in rows))
    facts = {
        "time": "2026-01-02T03:04:05+00:00",
        "command": ["train.py", "--data_dir", "my <images>"],
        "options": {
            "model": "convnext_atto",
            "epoch_size": 5,
            "data_dir": "my <images>",
            "std": [57.120000000000005, 2],
            "resume": "",
        },
        "option_sources": {"data_dir": "command line", "model": "recipes/a.yaml:3"},
        "versions": {"mindspore": "2.10.0"},
        "git": {"revision": "0123456789abcdef", "has_changes": True},
        "device": "CPU",
        "machine": {"processor": "Some Processor 9000", "kernels": None},
    }
    write_start(tmp_path, facts, RunProgress(5, 10, 4))
    write_start(tmp_path, facts, RunProgress(5, 10, 4, epoch=1, step=7, global_step=7))
    (tmp_path / "convnext_atto_best.ckpt").write_bytes(b"1234567")
    return tmp_path


def validated(names, size=2):
    count = len(names)
    confusion = np.zeros((count, count), np.int64)
    confusion[0, 0], confusion[0, 1], confusion[1, 1] = 3, 2, 5
    pixels = np.full((size, size, 3), 200, np.uint8)
    wrong, right = Example(3, 0, 1, 0.875, "val/<x>.png", pixels), Example(4, 1, 1, 0.5, "", pixels[:, :, :1])
    return Validated("m_best.ckpt", {"top_1": 0.8, "num_images": 10}, names, confusion, [wrong], [right])


def check_self_contained(text):
    page = Page(text)
    assert not {"script", "link", "iframe", "object", "form", "a"} & set(page.names)
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert value.startswith(("data:image/jpeg;base64,", "data:image/png;base64,")), (tag, name)
    without_data = re.sub(r'"data:image/(jpeg|png);base64,[\w+/=]*"', '""', text)
    assert not re.search(r"https?:|//\w|url\(|@import", without_data)
    return page


def test_page_holds_the_numbers_of_metrics_csv(folder):
    page = check_self_contained(report_page(read_run(folder)))
    with open(folder / "metrics.csv", newline="") as file:
        columns, *rows = csv.reader(file)
    assert page.table_with(*columns) == rows
    words = " ".join(page.texts["dd"] + page.texts["small"])
    assert "0.6250" in words and "0.7500" in words and "0.5000" in words and "93 s" in words and "98.0" in words
    assert page.names.count("svg") == 4
    assert "Epoch 3 of 5 is complete." in page.texts["strong"]


def test_page_tells_options_starts_versions_and_checkpoints(folder):
    page = check_self_contained(report_page(read_run(folder)))
    assert page.table_with("option and source", "value") == [
        ["model a.yaml:3", "convnext_atto"],
        ["data_dir command line", "my <images>"],
    ]
    others = page.table_with("option", "value")
    assert ["std", "57.12, 2"] in others and ["resume", "''"] in others and ["epoch_size", "5"] in others
    words = " ".join(page.texts["p"] + page.texts["code"])
    assert page.texts["h3"].count("2026-01-02T03:04:05+00:00") == 2 and "train.py --data_dir 'my <images>'" in words
    assert "Begins at the first step, commit" in words and "Begins at epoch 1, step 7, commit" in words
    assert "0123456789ab" in words and " with changes" in words
    facts = page.table_with("fact", "value")
    assert (
        ["processor", "Some Processor 9000"] in facts
        and ["kernels", "unknown"] in facts
        and ["mindspore", "2.10.0"] in facts
    )
    assert page.table_with("file", "size", "written")[0][:2] == ["convnext_atto_best.ckpt", "7 bytes"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"dataset": "imagenet", "data_dir": "a/my data/"}, ", images in folder my data."),
        ({"dataset": "", "data_dir": "photos"}, ", images in folder photos."),
        ({"dataset": "cifar10", "data_dir": "photos"}, ", data set cifar10."),
        ({"model": "convnext_atto"}, "."),
    ],
)
def test_page_names_the_folder_of_images_and_not_the_default_of_dataset(folder, options, expected):
    page = report_page(replace(read_run(folder), name="a_run", options=options))
    assert f"Training run in folder a_run{expected}</p>" in re.sub("</?code>", "", page)


def test_page_draws_no_top_5_accuracy_that_is_always_one(folder):
    assert "top-5" in report_page(read_run(folder))
    text = (folder / "metrics.csv").read_text()
    (folder / "metrics.csv").write_text(text.replace("0.5,0.75,", "0.5,1.0,").replace("0.625,1,", "0.625,1.0,"))
    assert "top-5" not in report_page(read_run(folder))


def test_page_tells_the_browser_to_load_nothing(folder):
    page = Page(report_page(read_run(folder)))
    assert ("meta", "http-equiv", "Content-Security-Policy") in page.attributes
    assert ("meta", "content", "default-src 'none'; img-src data:; style-src 'unsafe-inline'") in page.attributes


def test_page_fits_phones_and_follows_dark_mode(folder):
    page = Page(report_page(read_run(folder)))
    assert ("meta", "name", "viewport") in page.attributes
    assert ("meta", "content", "width=device-width, initial-scale=1") in page.attributes
    (style,) = page.texts["style"]
    assert "@media (prefers-color-scheme: dark)" in style
    used = set(re.findall(r"var\((--\w+)\)", style))
    light, dark = (
        style.split("@media (prefers-color-scheme: dark)")[0],
        style.split("@media (prefers-color-scheme: dark)")[1],
    )
    for variables in (light, dark[: dark.index("} }")]):
        assert used <= set(re.findall(r"(--\w+):", variables)), "each colour has a value in both modes"
    classes = {name for _, kind, value in page.attributes if kind == "class" for name in value.split()}
    assert {"scroll", "curves", "facts"} <= classes


def test_page_escapes_names_from_files(folder):
    (folder / "<b>.json").write_text(json.dumps({"top_1": 0.5, "num_images": 1, "<i>": "<u>"}))
    (folder / "c&d.csv").write_text("class,name,images,correct\n0,<script>x</script>,1,1\n")
    text = report_page(read_run(folder), validated(EVIL))
    page = check_self_contained(text)
    assert not {"b", "u", "script"} & set(page.names)
    (matrix,) = (table for table in page.tables if table[0][0] == "true \\ predicted")
    assert matrix[0][1:] == EVIL and [row[0] for row in matrix[1:]] == EVIL
    assert [row[1:] for row in matrix[1:]] == [["3", "2", ""], ["", "5", ""], ["", "", ""]]
    assert page.table_with("true", "predicted", "images") == [[EVIL[0], EVIL[1], "2"]]


def test_page_tells_recall_and_precision_of_each_class(folder):
    page = Page(report_page(read_run(folder), validated(["cat", "dog", "owl"])))
    assert page.table_with("class", "images", "correct", "recall", "precision") == [
        ["cat", "5", "3", "0.6000", "1.0000"],
        ["dog", "5", "5", "1.0000", "0.7143"],
        ["owl", "0", "0", "", ""],
    ]


def test_page_shows_examples_with_their_true_class(folder):
    page = check_self_contained(report_page(read_run(folder), validated(["cat", "dog"])))
    words = "".join(page.texts["figcaption"] + page.texts["strong"] + page.texts["small"])
    assert "87.5%" in words and "true: " in words and "val/<x>.png" in words
    alternatives = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert alternatives == ["true cat, predicted dog", "true dog, predicted dog"]


def test_page_draws_the_matrix_of_many_classes_as_a_picture(folder):
    page = check_self_contained(report_page(read_run(folder), validated([f"class {k}" for k in range(40)])))
    alternatives = [value for tag, name, value in page.attributes if (tag, name) == ("img", "alt")]
    assert alternatives[0] == "Confusion matrix of 40 classes"
    assert not any(table[0][0] == "true \\ predicted" for table in page.tables)


@pytest.mark.parametrize("name", ["metrics.csv", "run.json", "convnext_atto_best.ckpt"])
def test_page_of_a_folder_with_one_file(folder, name):
    for path in folder.iterdir():
        if path.name != name:
            path.unlink()
    page = check_self_contained(report_page(read_run(folder)))
    (told,) = (text for text in page.texts["strong"] if "epoch" in text.lower())
    assert told.startswith("Epoch 3" if name == "metrics.csv" else "No epoch is complete.")


def test_page_of_a_pretraining_run_shows_the_first_and_the_last_reconstruction(folder):
    (folder / "run.json").unlink()
    (folder / "metrics.csv").write_text(HEAD + "1,10,0.1,2.5,,,,9,3\n")
    for epoch in (1, 9, 10):
        Image.new("RGB", (40, 20), (10 * epoch, 0, 0)).save(folder / f"reconstruction-{epoch}.png")
    (folder / "damaged.png").write_bytes(b"no picture")
    page = check_self_contained(report_page(read_run(folder)))
    titles = [text for text in page.texts["h3"] if "Reconstructions" in text]
    assert titles == ["Reconstructions after epoch 10", "Reconstructions after epoch 1"]
    assert page.names.count("svg") == 3, "there is no accuracy"
    assert any("damaged.png cannot be read" in text for text in page.texts["p"])
    assert "--data_dir" not in " ".join(page.texts["p"])
