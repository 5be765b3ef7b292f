"""Writes a model of this library as an ONNX file for other runtimes: `python -m benchmarks.export_own_onnx`.

It reads the settings as a JSON line from standard input, as `benchmarks.export_onnx` does for timm's model.
"""

from __future__ import annotations

import json
import sys

from benchmarks.workload import NUM_CLASSES
from mindcv import create_model
from mindcv.export import write_onnx

__all__ = ["main"]


def main() -> None:
    """Write the model to the path `onnx_path`. The file takes any number of images of any size."""
    settings = json.loads(sys.stdin.readline())
    network = create_model(settings["model"], num_classes=NUM_CLASSES).set_train(False)
    write_onnx(network, settings["onnx_path"], model=settings["model"])


if __name__ == "__main__":
    main()
