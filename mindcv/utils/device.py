"""The device that networks run on."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Optional

import mindspore as ms

from mindcv.utils.errors import DeviceError

__all__ = ["DEVICE_TARGETS", "JIT_LEVELS", "keep_working_folder_clean", "mindspore_log_held", "set_device", "set_mode"]

DEVICE_TARGETS = ("auto", "Ascend", "GPU", "CPU")
JIT_LEVELS = ("O0", "O1", "O2")


def set_device(target: str) -> str:
    """Make `target` ('Ascend', 'GPU' or 'CPU') the device, or with 'auto' leave MindSpore's own choice; return it.

    Raises:
        DeviceError: this installation of MindSpore cannot run on it.
    """
    current = ms.get_context("device_target")
    if target in ("auto", current):
        return current  # setting it again is an error once something has run
    try:
        with mindspore_log_held():
            ms.set_device(target)
    except (RuntimeError, ValueError) as error:
        first_sentence = str(error).strip().splitlines()[0].split(". ")[0]
        raise DeviceError(f"device_target '{target}' is not available to this MindSpore: {first_sentence}") from None
    return target


def set_mode(mode: int, jit_level: Optional[str] = None) -> None:
    """Run networks as graphs (`mindspore.GRAPH_MODE`) or operator by operator, on the device that is set.

    Args:
        mode: 0 or 1.
        jit_level: how much graph mode's compiler does, 'O0' to 'O2'. None takes O2 on Ascend, as MindCV's published
            runs were made, and MindSpore's own choice elsewhere.
    """
    if jit_level is None and mode == ms.GRAPH_MODE and ms.get_context("device_target") == "Ascend":
        jit_level = "O2"
    if mode == ms.GRAPH_MODE:
        keep_working_folder_clean()
    ms.set_context(mode=mode)
    if jit_level is not None:
        ms.set_context(jit_config={"jit_level": jit_level})


def keep_working_folder_clean() -> None:
    """Have MindSpore write its analysis of a graph that does not compile to the system's temporary folder.

    MindSpore writes below the working folder otherwise. It makes the folder when it is needed.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    os.environ.setdefault("MS_OM_PATH", os.path.join(tempfile.gettempdir(), f"mindcv-{user}"))


@contextmanager
def mindspore_log_held() -> Iterator[None]:
    """Leaves out what MindSpore logs meanwhile, for a call whose exception says all: before it raises, MindSpore tells
    at length of each library it looked for, or what may be wrong with a disk."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if "mindspore" in name.lower()]
    disabled = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, was_disabled in zip(loggers, disabled):
            logger.disabled = was_disabled
