"""The device that networks run on."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import mindspore as ms

from mindcv.utils.errors import DeviceError

__all__ = ["set_device"]


def set_device(target: str) -> str:
    """Make `target` ('Ascend', 'GPU' or 'CPU') the device, or with 'auto' leave MindSpore's own choice; return it.

    Raises:
        DeviceError: this installation of MindSpore cannot run on it.
    """
    current = ms.get_context("device_target")
    if target in ("auto", current):
        return current  # setting it again is an error once something has run
    try:
        with _mindspore_log_held():
            ms.set_device(target)
    except (RuntimeError, ValueError) as error:
        first_sentence = str(error).strip().splitlines()[0].split(". ")[0]
        raise DeviceError(f"device_target '{target}' is not available to this MindSpore: {first_sentence}") from None
    return target


@contextmanager
def _mindspore_log_held() -> Iterator[None]:
    """Leaves out what MindSpore logs meanwhile: before it raises, it tells at length of each library it looked for."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if "mindspore" in name.lower()]
    disabled = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, was_disabled in zip(loggers, disabled):
            logger.disabled = was_disabled
