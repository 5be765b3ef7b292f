"""Writes a network as an ONNX file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
from mindspore import nn

from mindcv.export.metadata import FEATURE_MAPS, ExportMetadata
from mindcv.export.networks import output_kind
from mindcv.export.onnx_builder import GraphBuilder
from mindcv.export.onnx_network import OnnxNetwork
from mindcv.export.onnx_package import require_onnx
from mindcv.export.onnx_preprocessing import add_preprocessing
from mindcv.utils.files import atomic_files

__all__ = ["INPUT_NAME", "write_onnx"]

INPUT_NAME = "images"

# Operator set 20 is the first one with GELU, and version 9 is the format of files that belongs to it.
_OPSET = 20
_IR_VERSION = 9
# A file is limited to 2 GiB by its format. Weights of more than this many bytes go to a second file beside it.
_MAX_BYTES_INSIDE = 1_800_000_000
_ALIGNMENT = 4096  # runtimes map the second file into memory by pages
_SMALL = 1024  # bytes of a constant that is never moved to the second file


def write_onnx(
    network: nn.Cell,
    path: Union[str, os.PathLike],
    *,
    model: str = "",
    class_names: Sequence[str] = (),
    preprocessing: Optional[Mapping[str, Any]] = None,
    with_preprocess: bool = False,
    with_softmax: bool = False,
    half: bool = False,
    dynamic_batch: bool = True,
) -> ExportMetadata:
    """Write a network as an ONNX file, which takes images of any height and width.

    The input is named `images`, and an output `logits`, `probabilities`, `features` or `feature_0`, `feature_1`, ...
    The properties of the model (`metadata_props`) hold the fields of `ExportMetadata`. If the weights have more than
    1.8 GB, they are in a second file beside the first, whose name ends in `.onnx.data`.

    Args:
        network: a ConvNeXt or a ConvNeXtFeatures in float32.
        path: output file, whose name should end in `.onnx`.
        model, class_names, preprocessing: see `ExportMetadata`. `in_channels` need not be given.
        with_preprocess: whether the graph prepares the images. Its input is then uint8 [N, H, W, 3] of any size.
        with_softmax: whether the outputs are probabilities instead of logits.
        half: whether the graph computes in float16. Its inputs and outputs stay float32.
        dynamic_batch: whether the graph takes any number of images. Otherwise it takes one.

    Returns:
        The metadata in the file.

    Raises:
        UserError: the package onnx is missing, the network cannot be exported, or the file cannot be written.
    """
    kind = output_kind(network, with_softmax)
    preprocessing = {**(preprocessing or {}), "in_channels": network.in_channels}
    metadata = ExportMetadata(model, tuple(class_names), preprocessing, kind, with_preprocess, dynamic_batch, half)
    graph = GraphBuilder()
    images = INPUT_NAME
    if with_preprocess:
        images = add_preprocessing(graph, images, metadata.preprocessing)
    if half:
        with graph.scope("input"):
            images = graph.cast(images, np.float16)
    outputs = OnnxNetwork(graph, np.float16 if half else np.float32).add(network, images)
    with graph.scope("output"):
        if half:
            outputs = [graph.cast(output, np.float32) for output in outputs]
        if with_softmax:
            outputs = [graph.add("Softmax", output, axis=-1) for output in outputs]
        outputs = [graph.rename(output, name) for output, name in zip(outputs, _output_names(kind, len(outputs)))]
    with atomic_files(path) as side:
        _write(graph, _values(network, metadata, outputs), metadata, side)
    return metadata


def _output_names(kind: str, count: int) -> list[str]:
    return [f"feature_{number}" for number in range(count)] if kind == FEATURE_MAPS else [kind]


def _values(network: nn.Cell, metadata: ExportMetadata, outputs: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Return the descriptions of the input and of the outputs."""
    onnx = require_onnx()
    batch = "batch" if metadata.dynamic_batch else 1
    if metadata.takes_pixels:
        taken = (onnx.TensorProto.UINT8, [batch, "height", "width", 3])
    else:
        taken = (onnx.TensorProto.FLOAT, [batch, network.in_channels, "height", "width"])
    if metadata.output == FEATURE_MAPS:
        shapes = [
            [batch, channels, f"{name}_height", f"{name}_width"]
            for name, channels in zip(outputs, network.feature_info.channels())
        ]
    elif network.num_classes:
        shapes = [[batch, network.num_classes]]
    else:
        sides = [] if network.global_pool else ["feature_height", "feature_width"]
        shapes = [[batch, network.num_features, *sides]]
    describe = onnx.helper.make_tensor_value_info
    given = [describe(name, onnx.TensorProto.FLOAT, shape) for name, shape in zip(outputs, shapes)]
    return [describe(INPUT_NAME, *taken)], given


def _write(graph: GraphBuilder, values: tuple[list[Any], list[Any]], metadata: ExportMetadata, path: Path) -> None:
    """Write the file, and the second file of the weights if they are large."""
    onnx = require_onnx()
    is_large = sum(array.nbytes for array in graph.arrays.values()) > _MAX_BYTES_INSIDE
    if is_large:
        tensors = _outside_tensors(graph.arrays, path.with_name(f"{path.name}.data"))
    else:
        tensors = _inside_tensors(graph.arrays)
    inputs, outputs = values
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, metadata.model or "network", inputs, outputs, tensors),
        producer_name="mindcv",
        opset_imports=[onnx.helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
    )
    onnx.helper.set_model_props(proto, metadata.as_texts())
    path.write_bytes(proto.SerializeToString())


def _inside_tensors(arrays: Mapping[str, np.ndarray]) -> list[Any]:
    from_array = require_onnx().numpy_helper.from_array
    return [from_array(array, name) for name, array in arrays.items()]


def _outside_tensors(arrays: Mapping[str, np.ndarray], path: Path) -> list[Any]:
    """Write the arrays to a file, and return tensors that name their places in it. Small ones hold their values."""
    onnx = require_onnx()
    tensors = []
    with open(path, "wb") as file:
        for name, array in arrays.items():
            if array.nbytes <= _SMALL:
                tensors.append(onnx.numpy_helper.from_array(array, name))
                continue
            file.write(bytes(-file.tell() % _ALIGNMENT))
            tensor = onnx.TensorProto(name=name, dims=array.shape)
            tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            place = {"location": path.name, "offset": file.tell(), "length": array.nbytes}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            file.write(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
            tensors.append(tensor)
    return tensors
