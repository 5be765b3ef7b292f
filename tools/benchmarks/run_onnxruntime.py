"""ONNX Runtime as a contender, on the timm model's ONNX file."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime

from benchmarks.workload import Workload

__all__ = ["build"]


def build(settings: dict[str, Any]) -> Workload:
    """The workload of `settings` (see `benchmarks.options`); the first step includes the session's optimisation."""
    shape = (settings["batch_size"], 3, settings["image_size"], settings["image_size"])
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings["threads"]
    options.log_severity_level = 3  # errors
    sessions = []

    def step() -> int:
        if not sessions:
            path = settings["onnx_path"]
            sessions.append(onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"]))
        (logits,) = sessions[0].run(None, {"images": images})
        return len(logits)

    return Workload(step, step, {"onnxruntime": onnxruntime.__version__, "numpy": np.__version__})
