"""Builds the workload of OpenVINO, which runs an ONNX file: that of timm's model or that of this library."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino

from benchmarks.workload import Workload

__all__ = ["build"]


def build(settings: dict[str, Any]) -> Workload:
    """Build the workload of `settings` (see `benchmarks.options`). The first step includes the compilation."""
    shape = (settings["batch_size"], 3, settings["image_size"], settings["image_size"])
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    properties = {
        # By default, OpenVINO computes in bfloat16 on processors with AMX.
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[settings["dtype"]],
        "INFERENCE_NUM_THREADS": settings["threads"],
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = []

    def step() -> int:
        if not compiled:
            model = openvino.Core().read_model(settings["onnx_path"])
            # The file of timm's model has only this shape. That of this library takes any, which costs 6 to 10% here.
            model.reshape(shape)
            compiled.append(openvino.Core().compile_model(model, "CPU", properties))
        return len(compiled[0]([images])[0])

    return Workload(step, step, {"openvino": openvino.__version__.split("-")[0], "numpy": np.__version__})
