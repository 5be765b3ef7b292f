"""Tests of finding image files, in folders with other files and under names that users give."""

from __future__ import annotations

import os

import pytest

from mindcv.data import create_dataset, find_images
from mindcv.data.image_files import walk_images
from mindcv.utils.errors import DataError

IMAGES = ["a.JPG", "b.png", "sub/c.jpeg", "sub/deep/d.png", "x.jpg/e.png"]
HIDDEN = ["._a.JPG", ".ipynb_checkpoints/a.png", "sub/.cache/a.png"]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    for name in [*IMAGES, *HIDDEN, "notes.txt", "sub/Thumbs.db"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    (folder / "empty").mkdir()
    return folder


def relative(paths, folder):
    return [os.path.relpath(path, folder) for path in paths]


def test_find_images_searches_folders_and_skips_hidden_files(folder):
    assert relative(find_images([str(folder)]), folder) == IMAGES
    found = walk_images(str(folder))
    assert found.images == [os.fsencode(name) for name in IMAGES]
    assert found.others == [b"notes.txt", b"sub/Thumbs.db"] and found.loops == []


def test_find_images_accepts_files_and_patterns(folder, monkeypatch):
    assert find_images([f"{folder}/notes.txt"]) == [f"{folder}/notes.txt"], "a file that is named directly is accepted"
    assert relative(find_images([f"{folder}/*.png"]), folder) == ["b.png"]
    assert relative(find_images([f"{folder}/**/*.png"]), folder) == ["b.png", "sub/deep/d.png", "x.jpg/e.png"]
    assert relative(find_images([f"{folder}/s*/**"]), folder) == ["sub/c.jpeg", "sub/deep/d.png"]
    assert relative(find_images([f"{folder}/**/deep/*"]), folder) == ["sub/deep/d.png"]
    assert relative(find_images([f"{folder}/*"]), folder) == ["a.JPG", "b.png"]
    monkeypatch.chdir(folder)
    assert find_images(["**/*.png"]) == ["b.png", "sub/deep/d.png", "x.jpg/e.png"]
    assert find_images(["b.png", "sub", "b.png", "a.JPG"]) == ["b.png", "sub/c.jpeg", "sub/deep/d.png", "a.JPG"]


def test_find_images_names_the_place_without_images(folder):
    with pytest.raises(DataError, match=r"image '.*gone\.png' does not exist"):
        find_images([f"{folder}/b.png", f"{folder}/gone.png"])
    with pytest.raises(DataError, match=r"no image file \(.*\.png.*\) matches the pattern '.*\*\.webp'"):
        find_images([f"{folder}/*.webp"])
    with pytest.raises(DataError, match=r"matches the pattern '.*\*\.txt'; image '.*gone\.png' does not exist"):
        find_images([f"{folder}/*.txt", f"{folder}/b.png", f"{folder}/gone.png"])
    with pytest.raises(DataError, match="folder '.*empty' has no image files"):
        find_images([f"{folder}/empty"])


def test_find_images_and_data_sets_find_the_same_files(folder):
    """Class folders may be links."""
    data = folder.parent / "data" / "train"
    data.mkdir(parents=True)
    os.symlink(folder, data / "linked")
    (data / "plain").mkdir()
    os.symlink(folder / "b.png", data / "plain" / "b.png")
    dataset = create_dataset("", data.parent)
    of_dataset = [dataset.describe(index) for index in range(len(dataset))]
    assert of_dataset == find_images([str(data)])
    assert relative(of_dataset, data) == [*(f"linked/{name}" for name in IMAGES), "plain/b.png"]


def test_walk_images_keeps_broken_links_and_leaves_special_files_out(folder):
    """The error on reading a broken link names it. Reading a pipe would never end."""
    os.symlink("gone.png", folder / "broken.png")
    os.symlink("self.png", folder / "self.png")
    os.mkfifo(folder / "pipe.png")
    found = walk_images(str(folder))
    assert found.images == sorted([*(os.fsencode(name) for name in IMAGES), b"broken.png", b"self.png"])
    assert b"pipe.png" in found.others
    assert f"{folder}/self.png" in find_images([str(folder)])


def test_walk_images_stops_at_links_to_containing_folders(folder):
    os.symlink(folder.parent, folder / "sub" / "up")
    os.symlink("..", folder / "sub" / "deep" / "back")
    os.symlink(folder / "sub" / "deep", folder / "empty" / "twice")
    assert relative(find_images([f"{folder}/**/c.*"]), folder) == ["empty/twice/back/c.jpeg", "sub/c.jpeg"]
    found = walk_images(str(folder))
    assert found.loops == [b"empty/twice/back/deep", b"empty/twice/back/up", b"sub/deep/back", b"sub/up"]
    assert found.images == sorted(
        [*(os.fsencode(name) for name in IMAGES), b"empty/twice/back/c.jpeg", b"empty/twice/d.png"]
    )


def test_walk_images_starts_in_a_linked_folder(folder):
    os.symlink(folder / "sub", folder.parent / "entry")
    os.symlink(folder, folder / "sub" / "up")
    found = walk_images(str(folder.parent / "entry"))
    assert found.images == [b"c.jpeg", b"deep/d.png"] and found.loops == [b"up"]
