"""Tells whether the current device is a CPU, and whether layers use the kernels there."""

from __future__ import annotations

import mindspore as ms

from mindcv.kernels.library import is_available

__all__ = ["is_on_cpu", "uses_kernels"]


def is_on_cpu() -> bool:
    """Return whether MindSpore's current device is the CPU."""
    return ms.get_context("device_target") == "CPU"


def uses_kernels() -> bool:
    """Return whether new layers and optimizers use this library's C++ kernels."""
    return is_on_cpu() and is_available()
