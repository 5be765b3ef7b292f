"""Builds the workload of ONNX Runtime, which runs an ONNX file: that of timm's model or that of this library."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime

from benchmarks.workload import Workload

__all__ = ["build"]


def build(settings: dict[str, Any]) -> Workload:
    """Build the workload of `settings` (see `benchmarks.options`). The first step includes optimising the session."""
    shape = (settings["batch_size"], 3, settings["image_size"], settings["image_size"])
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings["threads"]
    options.log_severity_level = 3  # 3: only errors
    sessions = []

    def step() -> int:
        if not sessions:
            path = settings["onnx_path"]
            sessions.append(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
        (logits,) = sessions[0].run(None, {"images": images})
        return len(logits)

    return Workload(step, step, {"onnxruntime": onnxruntime.__version__, "numpy": np.__version__})
