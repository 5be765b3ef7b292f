"""The device that networks run on."""

from __future__ import annotations

import mindspore as ms

from mindcv.utils.errors import DeviceError

__all__ = ["set_device"]


def set_device(target: str) -> str:
    """Make `target` ('Ascend', 'GPU' or 'CPU') the device, or with 'auto' leave MindSpore's own choice; return it.

    Raises:
        DeviceError: this installation of MindSpore cannot run on it.
    """
    if target == "auto":
        return ms.get_context("device_target")
    try:
        ms.set_device(target)
    except (RuntimeError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise DeviceError(f"device_target '{target}' is not available to this MindSpore: {first_line}") from None
    return target
