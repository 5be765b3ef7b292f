"""The one place that looks at the device: which form of a layer or an optimizer runs there."""

from __future__ import annotations

from typing import Optional

import mindspore as ms
from mindspore import nn

from mindcv.kernels.library import is_available

__all__ = ["is_on_cpu", "kernel_is_bf16", "uses_kernels"]


def is_on_cpu() -> bool:
    """Whether MindSpore's current device is the CPU, where its convolutions are slow."""
    return ms.get_context("device_target") == "CPU"


def uses_kernels() -> bool:
    """Whether layers and optimizers made now run as this library's C++ kernels."""
    return is_on_cpu() and is_available()


def kernel_is_bf16(kernel: Optional[nn.Cell], compute_type: Optional[ms.Type]) -> Optional[bool]:
    """Whether a layer's kernel takes numbers rounded to bfloat16; None if it has none, or none for that type."""
    if kernel is None or compute_type not in (None, ms.bfloat16):
        return None
    return compute_type == ms.bfloat16
