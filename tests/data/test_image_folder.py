"""Tests of image folders, which the tests write."""

from __future__ import annotations

import logging
import os

import pytest
from PIL import Image

from mindcv.data import create_dataset
from mindcv.utils.errors import DataError, UserError
from mindcv.utils.logger import logger


def write(path, colour=(0, 0, 0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), colour).save(path)


@pytest.fixture
def root(tmp_path):
    for name in ("train/dog/b.jpg", "train/dog/a.PNG", "train/dog/sub/deeper/c.webp", "train/cat/1.gif"):
        write(tmp_path / name)
    write(tmp_path / "val/dog/1.bmp")
    write(tmp_path / "val/cat/1.tiff")
    return tmp_path


@pytest.fixture
def log(caplog):
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, "mindcv"):
        yield caplog
    logger.removeHandler(caplog.handler)


def contents(dataset):
    return [
        (os.path.relpath(dataset.describe(i), dataset.images.folder), dataset.read(i)[1]) for i in range(len(dataset))
    ]


def test_image_folder_separates_classes_whose_names_begin_alike(tmp_path):
    """As paths, the images of a-b come before those of a."""
    names = ["a-b/1.png", "a/2.png", "a/sub/3.png", "a.b/4.png", "a0/5.png", "ab/6.png"]
    for name in [*names, "7.png"]:
        write(tmp_path / "train" / name)
    dataset = create_dataset("", tmp_path)
    expected = sorted(names, key=lambda name: (name.split("/")[0], name))
    assert contents(dataset) == [(name, dataset.class_to_idx[name.split("/")[0]]) for name in expected]
    assert dataset.class_names == ["a", "a-b", "a.b", "a0", "ab"]


def test_image_folder_orders_and_labels_its_images(root, log):
    dataset = create_dataset("imagenet", root)
    assert contents(dataset) == [("cat/1.gif", 0), ("dog/a.PNG", 1), ("dog/b.jpg", 1), ("dog/sub/deeper/c.webp", 1)]
    assert dataset.class_to_idx == {"cat": 0, "dog": 1} and dataset.class_names == ["cat", "dog"]
    assert dataset.num_classes() == 2 and dataset.get_dataset_size() == 4
    for i in range(4):
        with open(dataset.describe(i), "rb") as file:
            assert dataset.read(i)[0] == file.read()
    assert not log.records


def test_image_folder_reads_splits_and_class_names(root):
    assert len(create_dataset("", str(root), split="val")) == 2
    assert len(create_dataset("Folder", root / "train", split="")) == 4


def test_image_folder_skips_other_files_and_logs_it(root, log):
    for name in ("train/.hidden/x.jpg", "train/dog/.hidden.jpg", "train/dog/.cache/x.jpg"):
        write(root / name)
    assert len(create_dataset("", root)) == 4 and not log.records
    (root / "train/dog/notes.txt").write_text("x")
    (root / "train/dog/sub/Thumbs.db").write_text("x")
    write(root / "train/lost.jpg")
    assert len(create_dataset("", root)) == 4
    (record,) = log.records
    assert record.getMessage().startswith("3 file(s)") and "lost.jpg" in record.getMessage()


def test_image_folder_follows_class_indexing(root):
    dataset = create_dataset("", root, class_indexing={"dog": 0, "emu": 1, "cat": 2})
    assert [label for _, label in contents(dataset)] == [2, 0, 0, 0]
    assert dataset.class_names == ["dog", "emu", "cat"] and dataset.num_classes() == 3
    with pytest.raises(DataError, match="none of class_indexing's 1 classes: 'cat'.*the classes are 'dog'"):
        create_dataset("", root, class_indexing={"dog": 0})
    with pytest.raises(UserError, match="class_indexing must number its 2 classes from 0"):
        create_dataset("", root, class_indexing={"dog": 1, "cat": 2})


def test_image_folder_errors_name_folders_splits_and_classes(root):
    with pytest.raises(DataError, match="folder '.*/nowhere' does not exist"):
        create_dataset("", root / "nowhere")
    with pytest.raises(DataError, match="no folder 'tarin'.*did you mean 'train'.* 'train', 'val'"):
        create_dataset("", root, split="tarin")
    with pytest.raises(
        DataError,
        match="no folder 'valid'.*if the images or their class .* in '.*' itself, give '' as the split",
    ):
        create_dataset("", root, split="valid")
    (root / "outer").mkdir()
    os.symlink(root, root / "outer/images")
    with pytest.raises(DataError, match=f"no folder 'train'.*; '{root}/outer/images' has one: give that folder"):
        create_dataset("", root / "outer")
    with pytest.raises(DataError, match="'.*/deeper' has no class folders"):
        create_dataset("", root / "train/dog/sub/deeper", split="")
    (root / "train/emu/sub").mkdir(parents=True)
    with pytest.raises(DataError, match="class folder.* without images: 'emu'; add images"):
        create_dataset("", root)
    with pytest.raises(UserError, match=r"needs root \(data_dir\)"):
        create_dataset("folder")


def test_image_folder_names_a_file_that_was_deleted(root):
    dataset = create_dataset("", root)
    (root / "train/cat/1.gif").unlink()
    with pytest.raises(DataError, match="cannot read '.*cat/1.gif': No such file"):
        dataset.read(0)


def test_image_folder_reads_names_that_are_not_utf8(root):
    folder = os.fsencode(root / "train/dog")
    os.link(root / "train/dog/b.jpg", os.path.join(folder, b"z\xff.jpg"))
    dataset = create_dataset("", root)
    assert len(dataset) == 5 and dataset.read(4)[0] == dataset.read(2)[0]


def test_image_folder_keeps_classes_apart_when_one_name_begins_another(root):
    """The character '-' sorts before the '/' at the end of a folder's name."""
    write(root / "train/dog-b/1.png")
    assert [path for path, _ in contents(create_dataset("", root))] == [
        "cat/1.gif",
        "dog/a.PNG",
        "dog/b.jpg",
        "dog/sub/deeper/c.webp",
        "dog-b/1.png",
    ]


def test_image_folder_follows_links_except_to_a_containing_folder(root, log):
    os.symlink(root / "val/dog", root / "train/emu")
    os.symlink(root, root / "train/up")
    os.symlink(root / "train", root / "train/cat/all")
    dataset = create_dataset("", root)
    assert dataset.class_names == ["cat", "dog", "emu"] and len(dataset) == 5
    assert [record.getMessage() for record in log.records] == [
        f"'{root}/train/cat/all' is a link to '{root}/train', a folder that contains it: the link is not followed",
        f"'{root}/train/up' is a link to '{root}', a folder that contains it: the link is not followed",
    ]


def test_image_folder_matches_other_names_of_imagenet_classes(root):
    (root / "train/dog").rename(root / "train/n02102040")
    (root / "train/cat").rename(root / "train/Tench")
    dataset = create_dataset("", root, class_indexing={"n01440764": 1, "English springer, English springer spaniel": 0})
    assert [label for _, label in contents(dataset)] == [1, 0, 0, 0]
    assert dataset.class_names == ["English springer, English springer spaniel", "n01440764"]
