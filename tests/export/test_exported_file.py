"""Exported files that do not do what they should, as small hand-made ONNX graphs."""

import json

import numpy as np
import onnx
import pytest
from mindspore import Tensor
from onnx import TensorProto, helper

from mindcv.export import ExportedClassifier, ExportMetadata, files_of_exported, open_exported
from mindcv.utils.errors import UserError

POOL = ("GlobalAveragePool", ["x"], ["pooled"], {})


def write_graph(path, nodes, shape=("n", 3, "h", "w"), returned=("m", 3), metadata=None):
    """Write a graph from the input `x` to the output `y`, with the metadata of this library if it is given."""
    nodes = [helper.make_node(kind, given, made, **options) for kind, given, made, options in nodes]
    inputs = [] if shape is None else [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, returned)]
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    helper.set_model_props(proto, metadata.as_texts() if metadata else {})
    onnx.save(proto, str(path))
    return path


def test_exported_file_refuses_rows_that_are_not_one_for_each_image(tmp_path):
    mean_of_all = [POOL, ("ReduceMean", ["pooled"], ["mean"], {"keepdims": 1})]
    mean_of_all.append(("Flatten", ["mean"], ["y"], {"axis": 1}))
    path = write_graph(tmp_path / "collapse.onnx", mean_of_all, returned=(1, 1))
    exported = open_exported(path, is_foreign_allowed=True)
    with pytest.raises(UserError, match=r"collapse.onnx' returned 1 row for 12 images, and one row for each image"):
        exported(np.zeros((12, 3, 8, 8), np.float32))
    assert exported(np.zeros((1, 3, 8, 8), np.float32))[0].shape == (1, 1)


@pytest.mark.parametrize("returned", [("m", 3), ("m", "classes")])
@pytest.mark.parametrize("names", [("a", "b"), ("a", "b", "c", "d")])
def test_exported_classifier_refuses_class_names_that_are_not_one_for_each_output(tmp_path, names, returned):
    nodes = [POOL, ("Flatten", ["pooled"], ["y"], {"axis": 1})]
    path = write_graph(tmp_path / "a.onnx", nodes, returned=returned, metadata=ExportMetadata(class_names=names))
    with pytest.raises(UserError, match=rf"a.onnx' has {len(names)} class names for 3 outputs"):
        ExportedClassifier(open_exported(path))(Tensor(np.zeros((2, 3, 8, 8), np.float32)))


@pytest.mark.parametrize("metadata", [None, ExportMetadata()])
def test_open_exported_refuses_a_file_without_inputs(tmp_path, metadata):
    nodes = [("Constant", [], ["y"], {"value": onnx.numpy_helper.from_array(np.zeros((1, 3), np.float32))})]
    path = write_graph(tmp_path / "a.onnx", nodes, shape=None, returned=(1, 3), metadata=metadata)
    sentence = "is damaged" if metadata else "comes from other software and takes no input; only a classifier"
    with pytest.raises(UserError, match=sentence):
        open_exported(path, is_foreign_allowed=True)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("image_resize", "64", "a whole number above 0"),
        ("in_channels", True, "a whole number above 0"),
        ("crop_pct", None, "a number above 0"),
        ("interpolation", 3, "text"),
        ("mean", [0.5, "0.5", 0.5], "a list of numbers"),
        ("std", 1.0, "a list of numbers"),
    ],
)
def test_metadata_names_the_field_with_a_wrong_value(name, value, expected):
    metadata = ExportMetadata(preprocessing={name: value})
    sentence = f"the metadata of 'a.onnx' is damaged: {name} is {json.dumps(value)}, and {expected} is expected"
    for read, held in (
        (ExportMetadata.from_texts, metadata.as_texts()),
        (ExportMetadata.from_json, metadata.as_json()),
    ):
        with pytest.raises(UserError) as error:
            read(held, "a.onnx")
        assert str(error.value).startswith(sentence)


def test_metadata_refuses_a_text_in_the_place_of_the_class_names():
    texts = {**ExportMetadata().as_texts(), "class_names": '"cat"'}
    with pytest.raises(UserError, match='class_names is "cat", and a list of names is expected'):
        ExportMetadata.from_texts(texts, "a.onnx")


def test_exported_file_tells_its_channels_when_the_metadata_does_not(tmp_path):
    nodes = [POOL, ("Flatten", ["pooled"], ["y"], {"axis": 1})]
    path = write_graph(tmp_path / "a.onnx", nodes, ("n", 1, "h", "w"), ("m", 1), ExportMetadata())
    assert open_exported(path).metadata.preprocessing == {"in_channels": 1}


def test_open_exported_names_the_end_that_mindspore_reads(tmp_path):
    (tmp_path / "UP.MINDIR").write_bytes(b"")
    with pytest.raises(UserError, match="UP.MINDIR' cannot be read: MindSpore reads only names that end in .mindir"):
        open_exported(tmp_path / "UP.MINDIR")


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("a.onnx", ["a.onnx.data"]),
        ("a.onnx", ["a.onnx_data"]),
        ("a.mindir", ["a.json", "a_variables/data_0"]),
    ],
)
def test_files_of_exported_are_those_that_belong_to_it(tmp_path, name, beside):
    for each in (name, *beside, "b.onnx.data", "b.json"):
        (tmp_path / each).parent.mkdir(exist_ok=True)
        (tmp_path / each).write_bytes(b"")
    assert [str(path.relative_to(tmp_path)) for path in files_of_exported(tmp_path / name)] == [name, *beside]


def test_open_exported_tells_a_damaged_mindir_file_in_one_sentence(tmp_path, capfd):
    (tmp_path / "a.mindir").write_bytes(b"no graph")
    (tmp_path / "a.json").write_text(ExportMetadata(preprocessing={"image_resize": 32, "in_channels": 3}).as_json())
    with pytest.raises(UserError, match="a.mindir' cannot be read: it is damaged"):
        open_exported(tmp_path / "a.mindir")
    assert capfd.readouterr().err == ""
