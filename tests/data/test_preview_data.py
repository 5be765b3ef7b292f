"""Tests of tools/preview_data.py: runs from the command line, and its functions."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mindcv.utils.cli import run_script

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools/preview_data.py"
CELL = 128 + 2 * 8  # width of a tile


@pytest.fixture(scope="module")
def tool(tools):
    spec = importlib.util.spec_from_file_location("preview_data", TOOL)
    module = importlib.util.module_from_spec(spec)
    sys.modules["preview_data"] = module  # dataclasses look up types there
    spec.loader.exec_module(module)
    yield module
    del sys.modules["preview_data"]


def run(cwd, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(TOOL), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd)


def test_preview_data_draws_the_images_of_the_demo_recipe(tmp_path):
    recipe = ROOT / "configs/convnextv2/convnextv2_atto_digits.yaml"
    result = run(tmp_path, "--config", recipe, "--picture", "sheet.png", "--num_images", 7, "--epoch", 2)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("sheet.png: 7 images of epoch 2, ")
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    rows, columns = 3, 3
    assert sheet.shape[1] == columns * CELL and sheet.shape[0] % rows == 0
    height = sheet.shape[0] // rows
    tiles = [sheet[y * height + 8 :, x * CELL + 8 :][:128, :128] for y in range(rows) for x in range(columns)]
    assert [bool((tile != 255).any()) for tile in tiles] == [True] * 7 + [False] * 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--picture", "a.png", "--num_image", "4"], "there is no option 'num_image'; did you mean 'num_images'?"),
        (["--num_images", "4"], "picture: is required"),
        (["--picture", "a.png", "--num_images", "0"], "num_images: expected a whole number, at least 1"),
        (["--picture", "a.txt", "--dataset", "digits"], "picture: must end in .png"),
    ],
)
def test_preview_data_exits_with_status_2_for_wrong_options(tool, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["preview_data.py", *arguments])
    with pytest.raises(SystemExit) as end:
        run_script(tool.main)
    assert end.value.code == 2 and message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_preview_data_exits_with_status_2_for_an_unknown_flag(tmp_path):
    result = run(tmp_path, "--pictur", "a.png")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert result.stderr.startswith("error: --pictur: there is no option 'pictur'; did you mean 'picture'?")


class FakeLoader:
    """Gives one batch of two images in two versions. Their grey levels are 10 and 20, and 30 and 40 when augmented."""

    num_aug_splits = 2

    def batches(self, epoch):
        images = (np.array([10, 20, 30, 40], np.float32) - 100).reshape(4, 1, 1, 1) / 50
        yield np.broadcast_to(images, (4, 3, 5, 6)), np.array([1, 0, 1, 0])


def test_read_samples_undoes_the_normalisation_and_joins_versions(tool):
    samples = list(tool.read_samples(FakeLoader(), 0, ["cat", "dog"], [100] * 3, [50] * 3))
    assert [set(sample.image.flat) for sample in samples] == [{10}, {30}, {20}, {40}]
    assert [sample.lines for sample in samples] == [
        ("dog", "clean"),
        ("dog", "augmented, 1 of 1"),
        ("cat", "clean"),
        ("cat", "augmented, 1 of 1"),
    ]


def test_label_lines_lists_classes_by_weight(tool):
    names = ["cat", "dog", "bee"]
    assert tool.label_lines(np.int32(2), names) == ("bee",)
    assert tool.label_lines(np.array([0.25, 0, 0.75], np.float32), names) == ("0.75 bee", "0.25 cat")
    assert tool.label_lines(np.array([0, 1, 0], np.float32), names) == ("dog",)


def test_draw_sheet_places_images_in_rows_and_shortens_labels(tool):
    images = [np.full((40, 40, 3), 10 * number, np.uint8) for number in range(6)]
    sheet, number = tool.draw_sheet([tool.Sample(image, ("a name much too long for its place",)) for image in images])
    assert number == 6 and sheet.mode == "RGB"
    pixels = np.asarray(sheet)
    columns = sheet.width // (160 + 16)  # 160 is the first multiple of 40 pixels that reaches 128
    height = sheet.height // -(-6 // columns)
    for index in range(6):
        top, left = index // columns * height + 8, index % columns * 176 + 8
        assert (pixels[top : top + 160, left : left + 160] == 10 * index).all()
        assert (pixels[top : top + height - 8, left + 160 : left + 168] == 255).all()  # the text stays inside
