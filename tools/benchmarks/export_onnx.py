"""Writes a timm model as an ONNX file for the runtimes that read this format: `python -m benchmarks.export_onnx`.

It runs in a process of its own, so that PyTorch's memory does not count as the runtime's. It reads the settings as a
JSON line from standard input, as `benchmarks.worker` does.
"""

from __future__ import annotations

import json
import sys
import warnings

import timm
import torch

from benchmarks.workload import NUM_CLASSES

__all__ = ["main"]

# The first operator set with LayerNorm. With an older one, the runtimes would have to recognise
# LayerNorm in a dozen small operators.
_OPSET = 17


def main() -> None:
    """Write the model for exactly the batch size and image size in the settings, to the path `onnx_path`."""
    settings = json.loads(sys.stdin.readline())
    model = timm.create_model(settings["model"], num_classes=NUM_CLASSES, exportable=True).eval()
    images = torch.zeros(settings["batch_size"], 3, settings["image_size"], settings["image_size"])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter that needs no further package warns that it is old
        torch.onnx.export(
            model, (images,), settings["onnx_path"], input_names=["images"], opset_version=_OPSET, dynamo=False
        )


if __name__ == "__main__":
    main()
