"""The device that networks run on."""

from __future__ import annotations

import mindspore as ms

from mindcv.utils.errors import DeviceError

__all__ = ["set_device"]


def set_device(target: str) -> str:
    """Make `target` ('Ascend', 'GPU', 'CPU', or 'auto' for the first of these that is there) the device; return it.

    Raises:
        DeviceError: this installation of MindSpore cannot run on it.
    """
    if target == "auto":
        target = next(name for name in ("Ascend", "GPU", "CPU") if name == "CPU" or _is_available(name))
    try:
        ms.set_device(target)
    except (RuntimeError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise DeviceError(f"device_target '{target}' is not available to this MindSpore: {first_line}") from None
    return target


def _is_available(target: str) -> bool:
    try:
        return bool(ms.hal.is_available(target))
    except (RuntimeError, ValueError):
        return False
