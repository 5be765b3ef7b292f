"""ONNX files against the MindSpore network that they were written from, and against formulas in NumPy."""

import json
import os
import sys

import mindspore as ms
import numpy as np
import onnx
import onnxruntime
import pytest
from mindspore import nn
from plain_network import build, run_formulas, run_network

from mindcv.engine import apply_amp
from mindcv.export import ExportMetadata, write_onnx
from mindcv.models import ConvNeXtFeatures, create_model, list_models, pack_for_inference
from mindcv.utils.errors import UserError

VARIANTS = list_models(module="convnext")
# (height, width) of images: the smallest, odd ones, and a wide one.
SIZES = [(32, 32), (97, 130), (33, 200)]


def run_file(path, images):
    """Return the outputs of an ONNX file as a list of arrays."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images})


def images_of(rng, batch, size, channels=3):
    return rng.standard_normal((batch, channels, *size)).astype(np.float32)


NETWORKS = {
    "V1": lambda: build(),
    "V2": lambda: build(use_grn=True),
    "grey": lambda: build(in_channels=1),
    "features": lambda: build(use_grn=True, num_classes=0),
    "map": lambda: build(num_classes=0, global_pool=""),
    "drop_path": lambda: build(drop_path_rate=0.5, drop_rate=0.5),
    "patch_size": lambda: build(patch_size=2),
    "all_maps": lambda: ConvNeXtFeatures(build(use_grn=True)),
    "some_maps": lambda: ConvNeXtFeatures(build(), [0, -2]),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_file_gives_the_outputs_of_the_network_for_any_batch_and_size(kind, tmp_path, rng, capfd):
    network = NETWORKS[kind]()
    write_onnx(network, tmp_path / "a.onnx")
    onnx.checker.check_model(str(tmp_path / "a.onnx"), full_check=True)
    for batch, size in enumerate(SIZES, 1):
        images = images_of(rng, batch, size, network.in_channels)
        expected, found = run_network(network, images), run_file(tmp_path / "a.onnx", images)
        assert [array.shape for array in found] == [array.shape for array in expected]
        for one, other in zip(found, expected):
            np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * max(1, np.abs(other).max()))
    assert os.listdir(tmp_path) == ["a.onnx"]
    assert capfd.readouterr().err == ""  # onnxruntime writes its warnings there


@pytest.mark.parametrize("use_grn", [False, True])
def test_file_equals_the_formulas_of_the_layers(use_grn, tmp_path, rng):
    network = build(use_grn)
    write_onnx(network, tmp_path / "a.onnx")
    images = images_of(rng, 2, (37, 70))
    expected = run_formulas(network, images)
    np.testing.assert_allclose(run_file(tmp_path / "a.onnx", images)[0], expected, rtol=0, atol=1e-5)


def test_softmax_gives_probabilities(tmp_path, rng):
    network = build()
    metadata = write_onnx(network, tmp_path / "a.onnx", with_softmax=True)
    images = images_of(rng, 2, (32, 32))
    exponentials = np.exp(run_network(network, images)[0].astype(np.float64))
    expected = exponentials / exponentials.sum(1, keepdims=True)
    np.testing.assert_allclose(run_file(tmp_path / "a.onnx", images)[0], expected, atol=1e-6)
    assert metadata.output == "probabilities"
    with pytest.raises(UserError, match="with_softmax needs a network with a classifier"):
        write_onnx(build(num_classes=0), tmp_path / "b.onnx", with_softmax=True)


@pytest.mark.parametrize("use_grn", [False, True])
def test_half_stores_and_computes_in_float16(use_grn, tmp_path, rng):
    network = build(use_grn)
    write_onnx(network, tmp_path / "a.onnx")
    write_onnx(network, tmp_path / "half.onnx", half=True)
    images = images_of(rng, 2, (64, 64))
    found, expected = run_file(tmp_path / "half.onnx", images)[0], run_network(network, images)[0]
    assert found.dtype == np.float32
    assert 1e-5 < np.abs(found - expected).max() < 0.02 * np.abs(expected).max()
    sizes = [os.path.getsize(tmp_path / name) for name in ("half.onnx", "a.onnx")]
    assert sizes[0] < 0.7 * sizes[1]


def test_norms_of_grn_do_not_overflow_in_half(tmp_path):
    """The squares of this map add up to more than 65504, the largest float16."""
    network = build(use_grn=True)
    write_onnx(network, tmp_path / "half.onnx", half=True)
    images = np.full((1, 3, 256, 256), 3, np.float32)
    found, expected = run_file(tmp_path / "half.onnx", images)[0], run_network(network, images)[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.02 * np.abs(expected).max())


def test_file_holds_its_metadata(tmp_path):
    preprocessing = {"image_resize": 224, "crop_pct": 0.875, "interpolation": "bicubic", "mean": [1.0, 2.0, 3.0]}
    names = ["cat", "Hündin", "a, b", "d", "e"]
    written = write_onnx(
        build(), tmp_path / "a.onnx", model="small", class_names=names, preprocessing=preprocessing, dynamic_batch=False
    )
    proto = onnx.load(str(tmp_path / "a.onnx"))
    texts = {entry.key: entry.value for entry in proto.metadata_props}
    assert texts["model"] == "small" and json.loads(texts["class_names"]) == names
    assert json.loads(texts["preprocessing"]) == {**preprocessing, "in_channels": 3}
    assert ExportMetadata.from_texts(texts, "a.onnx") == written
    assert ExportMetadata.from_json(written.as_json(), "a.json") == written
    assert proto.opset_import[0].version >= 17
    assert [dim.dim_value for dim in proto.graph.input[0].type.tensor_type.shape.dim] == [1, 3, 0, 0]


@pytest.mark.parametrize("text", ["{}", "[]", "3", "{", '{"output": "x"}'])
def test_other_metadata_is_refused_in_one_sentence(text):
    with pytest.raises(UserError, match="'a.json' does not hold the metadata that tools/export.py writes"):
        ExportMetadata.from_json(text, "a.json")
    with pytest.raises(UserError, match="'a.onnx' does not hold the metadata that tools/export.py writes"):
        ExportMetadata.from_texts({"class_names": text}, "a.onnx")


def test_large_weights_are_in_a_second_file(tmp_path, rng, monkeypatch):
    """Two networks are written to one name, so that the second one must replace both files."""
    monkeypatch.setattr("mindcv.export.onnx_file._MAX_BYTES_INSIDE", 10_000)
    write_onnx(build(), tmp_path / "large.onnx")
    network = build(use_grn=True)
    write_onnx(network, tmp_path / "large.onnx")
    assert sorted(os.listdir(tmp_path)) == ["large.onnx", "large.onnx.data"]
    onnx.checker.check_model(str(tmp_path / "large.onnx"), full_check=True)
    images = images_of(rng, 2, (32, 48))
    found, expected = run_file(tmp_path / "large.onnx", images)[0], run_network(network, images)[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_packed_network_is_exported_if_it_has_its_weights(tmp_path, rng):
    network = pack_for_inference(build())
    images = images_of(rng, 1, (32, 32))
    expected = run_network(network, images)[0]
    write_onnx(network, tmp_path / "a.onnx")
    np.testing.assert_allclose(run_file(tmp_path / "a.onnx", images)[0], expected, rtol=0, atol=2e-5)
    network = pack_for_inference(build(), keep_weights=False)
    if any(section.packed is not None for section in network.feature):
        with pytest.raises(UserError, match="was packed with keep_weights=False"):
            write_onnx(network, tmp_path / "a.onnx")


def test_networks_that_cannot_be_exported_are_refused_in_one_sentence(tmp_path):
    path = tmp_path / "new" / "a.onnx"
    other = build()
    other.feature[1][0].act = nn.ReLU()
    with pytest.raises(UserError, match=r"layer 'feature.1.0.act' is a ReLU, which the ONNX export does not know"):
        write_onnx(other, path)
    replaced = build(use_grn=True)
    replaced.feature[3][0].grn = nn.Identity()
    with pytest.raises(UserError, match=r"layer 'feature.3.0.grn' is a Identity, and the ONNX export expects a GRN"):
        write_onnx(replaced, path)
    with pytest.raises(UserError, match="export it before apply_amp"):
        write_onnx(apply_amp(build(), "O1", dtype="float16"), path)
    with pytest.raises(UserError, match="network must be a ConvNeXt or a ConvNeXtFeatures.*got"):
        write_onnx(nn.Dense(3, 4), path)
    assert not path.parent.exists()


def test_missing_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r'needs the package onnx: run pip install -e "\.\[onnx\]"'):
        write_onnx(build(), tmp_path / "a.onnx")


def test_folder_that_cannot_be_written_is_told_in_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot save '.*a.onnx': "):
        write_onnx(build(), tmp_path / "file" / "a.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_and_its_backbone_give_the_outputs_of_the_network(name, tmp_path, rng):
    network = create_model(name, num_classes=10)
    for parameter in network.get_parameters():
        if parameter.name.endswith(("gamma_", "grn.gamma", "grn.beta")):  # otherwise the blocks would not matter
            parameter.set_data(ms.Tensor(0.3 * rng.standard_normal(parameter.shape).astype(np.float32)))
    network.set_train(False)
    images = images_of(rng, 2, (97, 130))
    for kind in (network, ConvNeXtFeatures(network)):
        expected = run_network(kind, images)
        write_onnx(kind, tmp_path / "a.onnx")
        found = run_file(tmp_path / "a.onnx", images)
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * max(1, np.abs(other).max()))
    assert (tmp_path / "a.onnx.data").exists() == (name == "convnextv2_huge")


@pytest.mark.slow
@pytest.mark.parametrize("kind", NETWORKS)
def test_openvino_gives_the_outputs_of_the_network(kind, tmp_path, rng):
    openvino = pytest.importorskip("openvino")
    network = NETWORKS[kind]()
    write_onnx(network, tmp_path / "a.onnx")
    # Without this hint, OpenVINO computes in bfloat16 on processors that have it.
    compiled = openvino.compile_model(str(tmp_path / "a.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for batch, size in enumerate(SIZES, 1):
        images = images_of(rng, batch, size, network.in_channels)
        for one, other in zip(compiled(images).values(), run_network(network, images)):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-4 * max(1, np.abs(other).max()))
