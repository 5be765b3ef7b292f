"""MindIR files against the network that they were written from, and the opening of exported files."""

import json
import os
import re
import sys

import numpy as np
import onnx
import pytest
from plain_network import build, run_network

from mindcv.export import check_air, open_exported, write_mindir, write_onnx
from mindcv.models import ConvNeXtFeatures
from mindcv.utils.errors import UserError

PREPROCESSING = {"image_resize": 32, "mean": [1.0, 2.0, 3.0]}


def images_of(rng, batch, side=32):
    return rng.standard_normal((batch, 3, side, side)).astype(np.float32)


def test_mindir_file_gives_the_probabilities_of_the_network_for_any_batch(tmp_path, capfd):
    network = build(use_grn=True)
    described = {"model": "small", "class_names": list("abcde"), "preprocessing": PREPROCESSING}
    written = write_mindir(network, tmp_path / "new" / "a.mindir", 32, with_softmax=True, **described)
    assert sorted(os.listdir(tmp_path / "new")) == ["a.json", "a.mindir"]
    exported = open_exported(tmp_path / "new" / "a.mindir")
    assert exported.metadata == written
    capfd.readouterr()
    found = {batch: exported(images_of(np.random.default_rng(batch), batch))[0] for batch in (1, 3)}
    assert capfd.readouterr().err == ""  # MindSpore warns about the products while it compiles
    for batch in (1, 3):
        images = images_of(np.random.default_rng(batch), batch)
        exponentials = np.exp(run_network(network, images)[0])
        expected = exponentials / exponentials.sum(1, keepdims=True)
        np.testing.assert_allclose(found[batch], expected, rtol=0, atol=1e-5)
    assert json.loads((tmp_path / "new" / "a.json").read_text())["class_names"] == list("abcde")


def test_mindir_file_of_a_backbone_gives_its_maps_whatever_its_name(tmp_path, rng):
    network = ConvNeXtFeatures(build(), [1, 3])
    path = tmp_path / "my däta" / "größe 1.mindir"
    write_mindir(network, path, 64, dynamic_batch=False)
    assert sorted(os.listdir(path.parent)) == ["größe 1.json", "größe 1.mindir"]
    images = images_of(rng, 2, 64)
    exported = open_exported(path)
    with pytest.raises(UserError, match=r"float32 \[N, 3, 64, 64\], and got an array float32 \[1, 3, 32, 32\]"):
        exported(images_of(rng, 1))
    found = exported(images)  # one image after the other
    for one, other in zip(found, run_network(network, images)):
        np.testing.assert_allclose(one, other, rtol=0, atol=2e-5)
    assert [array.shape for array in found] == [(2, 16, 8, 8), (2, 32, 2, 2)]


@pytest.mark.slow
def test_mindir_file_in_half_is_smaller_and_leaves_the_network_alone(tmp_path, rng):
    network = build()
    images = images_of(rng, 2)
    expected = run_network(network, images)[0]
    write_mindir(network, tmp_path / "a.mindir", 32)
    write_mindir(network, tmp_path / "half.mindir", 32, half=True)
    found = open_exported(tmp_path / "half.mindir")(images)[0]
    assert found.dtype == np.float32
    assert 1e-5 < np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
    np.testing.assert_array_equal(run_network(network, images)[0], expected)
    sizes = [os.path.getsize(tmp_path / name) for name in ("half.mindir", "a.mindir")]
    assert sizes[1] - sizes[0] > 20_000  # of 127 kB of weights; the sizes of the graphs vary


@pytest.mark.slow
def test_large_weights_of_a_mindir_file_are_in_a_folder_beside_it(tmp_path, rng, monkeypatch):
    monkeypatch.setattr("mindspore.train.serialization.TOTAL_SAVE", 1)  # KiB
    network = build()
    for _ in range(2):  # The second file replaces the first one and its folder.
        write_mindir(network, tmp_path / "ä.mindir", 32, dynamic_batch=False)
    folder, *files = sorted(os.listdir(tmp_path))
    assert re.fullmatch("__[0-9a-f]{8}_variables", folder) and files == ["ä.json", "ä.mindir"]
    images = images_of(rng, 1)
    found = open_exported(tmp_path / "ä.mindir")(images)[0]
    np.testing.assert_allclose(found, run_network(network, images)[0], rtol=0, atol=1e-5)


def test_air_without_an_ascend_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match="writes AIR files on an Ascend only, and the device here is CPU: write a fil"):
        write_mindir(build(), tmp_path / "a.air", 32, file_format="air")
    with pytest.raises(UserError, match="AIR"):
        check_air()
    assert os.listdir(tmp_path) == []


def test_onnx_file_is_opened_with_its_metadata(tmp_path, rng):
    network = build()
    written = write_onnx(network, tmp_path / "a.onnx", class_names=list("abcde"), dynamic_batch=False)
    exported = open_exported(str(tmp_path / "a.onnx"))
    assert exported.metadata == written
    images = images_of(rng, 3, 40)
    np.testing.assert_allclose(exported(images)[0], run_network(network, images)[0], rtol=0, atol=2e-5)


def test_wrong_images_are_refused_in_one_sentence(tmp_path, rng):
    write_onnx(build(), tmp_path / "a.onnx")
    exported = open_exported(tmp_path / "a.onnx")
    for images, got in (
        (np.zeros((2, 3)), r"float64 \[2, 3\]"),
        (np.zeros((1, 4, 32, 32), np.float32), r"float32 \[1, 4, 32, 32\]"),
    ):
        with pytest.raises(UserError, match=rf"a.onnx' takes images float32 \[N, 3, H, W\], and got an array {got}"):
            exported(images)


def test_files_that_cannot_be_opened_are_told_in_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="is no exported file: its name must end in .onnx or .mindir"):
        open_exported(tmp_path / "a.ckpt")
    with pytest.raises(UserError, match="exported file '.*a.onnx' does not exist"):
        open_exported(tmp_path / "a.onnx")
    for name in ("a.onnx", "a.mindir"):
        (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(UserError, match="a.onnx' cannot be read: it is damaged"):
        open_exported(tmp_path / "a.onnx")
    with pytest.raises(UserError, match="a.json', which holds the metadata of '.*a.mindir', cannot be read"):
        open_exported(tmp_path / "a.mindir")
    write_onnx(build(), tmp_path / "b.onnx")
    proto = onnx.load(str(tmp_path / "b.onnx"))
    del proto.metadata_props[:]
    onnx.save(proto, str(tmp_path / "b.onnx"))
    with pytest.raises(UserError, match="b.onnx' does not hold the metadata that tools/export.py writes"):
        open_exported(tmp_path / "b.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r'needs the package onnxruntime: run pip install -e "\.\[onnx\]"'):
        open_exported(tmp_path / "b.onnx")


def test_damaged_mindir_file_is_told_in_one_sentence(tmp_path):
    metadata = write_onnx(build(), tmp_path / "a.onnx")
    (tmp_path / "a.json").write_text(metadata.as_json())
    (tmp_path / "a.mindir").write_bytes(b"something else")
    with pytest.raises(UserError, match="a.mindir' cannot be read: it is damaged"):
        open_exported(tmp_path / "a.mindir")
