"""Writes a timm model as an ONNX file, for the runtimes that read one: `python -m benchmarks.export_onnx`.

A process of its own, so that PyTorch's memory is not counted as the runtime's. The settings are a JSON line on standard
input, as for `benchmarks.worker`.
"""

from __future__ import annotations

import json
import sys
import warnings

import timm
import torch

from benchmarks.workload import NUM_CLASSES

__all__ = ["main"]

# The first with an operator for LayerNorm; without it the runtimes would have to find it among a dozen small ones.
_OPSET = 17


def main() -> None:
    """Write the model of the settings, for exactly their batch and image size, to their `onnx_path`."""
    settings = json.loads(sys.stdin.readline())
    model = timm.create_model(settings["model"], num_classes=NUM_CLASSES, exportable=True).eval()
    images = torch.zeros(settings["batch_size"], 3, settings["image_size"], settings["image_size"])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package is announced as the old one
        torch.onnx.export(
            model, (images,), settings["onnx_path"], input_names=["images"], opset_version=_OPSET, dynamo=False
        )


if __name__ == "__main__":
    main()
