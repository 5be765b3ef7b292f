"""Whether the current device is a CPU, and whether the kernels are in use there."""

from __future__ import annotations

import mindspore as ms

from mindcv.kernels.library import is_available

__all__ = ["is_on_cpu", "uses_kernels"]


def is_on_cpu() -> bool:
    """Whether MindSpore's current device is the CPU, where its convolutions are slow."""
    return ms.get_context("device_target") == "CPU"


def uses_kernels() -> bool:
    """Whether layers and optimizers made now run as this library's C++ kernels."""
    return is_on_cpu() and is_available()
