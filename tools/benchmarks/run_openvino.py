"""OpenVINO as a contender, on the timm model's ONNX file."""

from __future__ import annotations

from typing import Any

import numpy as np
import openvino

from benchmarks.workload import Workload

__all__ = ["build"]


def build(settings: dict[str, Any]) -> Workload:
    """The workload of `settings` (see `benchmarks.options`); the first step includes the compilation."""
    shape = (settings["batch_size"], 3, settings["image_size"], settings["image_size"])
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    properties = {
        # Left to itself it takes bfloat16 where the processor has AMX.
        "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[settings["dtype"]],
        "INFERENCE_NUM_THREADS": settings["threads"],
        "PERFORMANCE_HINT": "LATENCY",
    }
    compiled = []

    def step() -> int:
        if not compiled:
            compiled.append(openvino.Core().compile_model(settings["onnx_path"], "CPU", properties))
        return len(compiled[0]([images])[0])

    return Workload(step, step, {"openvino": openvino.__version__.split("-")[0], "numpy": np.__version__})
