"""Tests of tools/export_digits.py, run from the command line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).parents[2]


def run(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(ROOT / "tools/export_digits.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=arguments[1])


def test_export_digits_writes_held_out_digits_of_all_classes(tmp_path):
    result = run("--dir", tmp_path, "--num", 20, "--size", 32)
    assert result.returncode == 0, result.stderr
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 20 == len(result.stdout.splitlines())
    package, labels = load_digits(), []
    for name in names:
        number, label = map(int, re.fullmatch(r"sample_(\d{4})_is_(\d)\.png", name).groups())
        labels.append(label)
        assert number % 5 == 4 and package.target[number] == label
        image = Image.open(tmp_path / name)
        assert image.size == (32, 32) and image.mode == "L"
        small = np.asarray(image.resize((8, 8), Image.Resampling.BOX)).astype(float)
        distances = np.abs(package.images * 255 / 16 - small).mean((1, 2))
        assert distances.argmin() == number
    assert sorted(labels) == sorted(list(range(10)) * 2)


def test_export_digits_of_split_train_writes_no_held_out_digit(tmp_path):
    result = run("--dir", tmp_path, "--num", 30, "--split", "train")
    assert result.returncode == 0, result.stderr
    numbers = [int(re.match(r"sample_(\d{4})", path.name)[1]) for path in tmp_path.iterdir()]
    assert len(numbers) == 30 and all(number % 5 != 4 for number in numbers)


def test_export_digits_reports_a_mistake_in_one_line(tmp_path):
    result = run("--dir", tmp_path, "--num", 1000)
    assert result.returncode == 1
    assert result.stderr == "error: --num must be from 1 to 359 and --size at least 1, got 1000 and 64\n"
