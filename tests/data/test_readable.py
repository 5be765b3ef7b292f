"""Tests of the search for images that cannot be read."""

import os

import pytest
from PIL import Image

from mindcv.data import UnreadableImages, find_unreadable_files


def test_find_unreadable_files_gives_the_error_of_each_file_in_order(tmp_path):
    Image.new("RGB", (8, 6)).save(tmp_path / "good.png")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    names = ["text.png", "good.png", "gone.png", "empty.jpg"]
    errors = find_unreadable_files([str(tmp_path / name) for name in names])
    assert {os.path.basename(path): str(error).partition("': ")[2] for path, error in errors.items()} == {
        "text.png": "it is not an image of a known format, or its header is damaged",
        "gone.png": "No such file or directory",
        "empty.jpg": "the file is empty",
    }
    assert [os.path.basename(path) for path in errors] == ["text.png", "gone.png", "empty.jpg"]


def test_find_unreadable_files_does_not_read_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # to open it would wait for a writer
    assert find_unreadable_files([str(tmp_path / "pipe")]) == {}


@pytest.mark.parametrize("num_images", [0, 1, 3])
def test_unreadable_images_are_no_error_when_there_are_none(num_images):
    UnreadableImages(num_images, may_skip=False).check()
