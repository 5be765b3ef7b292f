"""Files of features are read back by NumPy and by the reader of safetensors, and are written in blocks."""

import json
import os
import tracemalloc
import zipfile

import numpy as np
import pytest

from mindcv.convert import read_safetensors
from mindcv.engine import feature_file
from mindcv.engine import features as features_module
from mindcv.engine.feature_file import classes_of_sub_folders, write_features
from mindcv.engine.features import FeatureRows, extract_from_files
from mindcv.utils.errors import UserError

FILES = [os.path.join("cat", "größe.png"), os.path.join("dog", "a", "1.png"), "2.png", os.fsdecode(b"cat/\xff.png"),
         "dog/long name with a\nline.png"]  # fmt: skip
METADATA = {"model": "convnext_atto", "image_resize": 32}


@pytest.fixture
def rows(rng, monkeypatch):
    """Five rows of three features, in blocks of two rows."""
    monkeypatch.setattr(features_module, "_BLOCK_BYTES", 2 * 3 * 4)
    monkeypatch.setattr(feature_file, "_NAMES_AT_A_TIME", 2)
    kept = FeatureRows(3)
    kept.append(rng.standard_normal((5, 3)).astype(np.float32))
    return kept


def test_classes_of_sub_folders_numbers_the_first_folders():
    labels, class_names = classes_of_sub_folders(FILES)
    assert class_names == ["cat", "dog"] and labels.tolist() == [0, 1, -1, 0, 1]
    labels, class_names = classes_of_sub_folders(["a.png"])
    assert class_names == [] and labels.tolist() == [-1]


def test_write_features_to_npz(tmp_path, rows):
    labels, class_names = classes_of_sub_folders(FILES)
    for name in ("a.npz", "b.NPZ"):
        write_features(tmp_path / name, rows, labels, FILES, class_names, METADATA)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.NPZ").read_bytes()
    assert zipfile.ZipFile(tmp_path / "a.npz").testzip() is None
    with np.load(tmp_path / "a.npz") as found:  # NumPy refuses pickles by default
        np.testing.assert_array_equal(found["features"], rows.read(0, 9))
        assert found["features"].dtype == np.float32
        assert found["labels"].tolist() == [0, 1, -1, 0, 1]
        assert found["files"].tolist() == FILES
        assert found["class_names"].tolist() == ["cat", "dog"]
        assert json.loads(str(found["metadata"])) == METADATA


def test_write_features_to_safetensors(tmp_path, rows):
    labels, class_names = classes_of_sub_folders(FILES)
    path = tmp_path / "a.safetensors"
    write_features(path, rows, labels, FILES, class_names, METADATA)
    arrays, texts = read_safetensors(path)  # which verifies the digest
    np.testing.assert_array_equal(arrays["features"], rows.read(0, 9))
    assert arrays["labels"].tolist() == [0, 1, -1, 0, 1]
    assert [os.fsdecode(name) for name in arrays["files"].tobytes().split(b"\0")] == FILES
    assert json.loads(texts["class_names"]) == ["cat", "dog"] and json.loads(texts["metadata"]) == METADATA
    numpy = pytest.importorskip("safetensors.numpy")
    np.testing.assert_array_equal(numpy.load_file(path)["features"], rows.read(0, 9))


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors"])
def test_write_features_leaves_the_old_file_when_it_fails(tmp_path, rows, monkeypatch, name):
    path = tmp_path / name
    path.write_text("old")
    monkeypatch.setattr(FeatureRows, "read", lambda *args: (_ for _ in ()).throw(UserError("the disk is gone")))
    with pytest.raises(UserError, match="the disk is gone"):
        write_features(path, rows, np.zeros(5, np.int64), FILES, ["cat"], METADATA)
    assert path.read_text() == "old" and [file.name for file in tmp_path.iterdir()] == [name]


def test_extract_from_files_leaves_out_files_that_cannot_be_read(tmp_path):
    paths = []
    for number in range(7):
        paths.append(str(tmp_path / f"{number}.bin"))
        (tmp_path / f"{number}.bin").write_bytes(bytes([number] * 3))
    os.remove(paths[4])
    errors, shapes = [], set()

    def network(images):
        shapes.add(images.shape)
        return images * 2

    kept = FeatureRows(3)
    transform = lambda data: np.frombuffer(data, np.uint8).astype(np.float32)  # noqa: E731
    assert extract_from_files(network, paths, transform, 3, kept, errors.append) == [0, 1, 2, 3, 5, 6]
    assert kept.read(0, 9)[:, 0].tolist() == [0, 2, 4, 6, 10, 12]
    assert [str(error) for error in errors] == [f"image '{paths[4]}': No such file or directory"]
    assert shapes == {(3, 3)}, "the network would be compiled again"


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors"])
def test_write_features_does_not_hold_all_rows_in_memory(tmp_path, name):
    kept = FeatureRows(1024)
    for _ in range(8):
        kept.append(np.ones((2048, 1024), np.float32))
    assert kept.nbytes == 1 << 26
    files = [f"{number}.png" for number in range(kept.num_rows)]
    tracemalloc.start()
    try:
        write_features(tmp_path / name, kept, np.zeros(kept.num_rows, np.int64), files, [], {})
        assert tracemalloc.get_traced_memory()[1] < 0.7 * kept.nbytes
    finally:
        tracemalloc.stop()
