"""The one place that looks at the device: which form of a layer runs there."""

import mindspore as ms

from mindcv.kernels import is_available

__all__ = ["is_on_cpu", "uses_kernels"]


def is_on_cpu() -> bool:
    """Whether MindSpore's current device is the CPU, where its convolutions are slow."""
    return ms.get_context("device_target") == "CPU"


def uses_kernels() -> bool:
    """Whether layers made now run as this library's C++ kernels."""
    return is_on_cpu() and is_available()
