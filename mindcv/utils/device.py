"""Selects the device and the mode that networks run in."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Optional

import mindspore as ms

from mindcv.utils.errors import DeviceError

__all__ = [
    "DEVICE_TARGETS",
    "JIT_LEVELS",
    "keep_working_folder_clean",
    "mindspore_log_disabled",
    "native_warnings_hidden",
    "returns_early",
    "runs_on_cpu",
    "set_device",
    "set_mode",
]

DEVICE_TARGETS = ("auto", "Ascend", "GPU", "CPU")
JIT_LEVELS = ("O0", "O1", "O2")


def set_device(target: str) -> str:
    """Select the device `target` ('Ascend', 'GPU' or 'CPU') and return its name. 'auto' keeps MindSpore's own choice.

    Raises:
        DeviceError: this installation of MindSpore does not support the device.
    """
    current = ms.get_context("device_target")
    if target in ("auto", current):
        return current  # MindSpore refuses to set a device again after the first operation
    try:
        with mindspore_log_disabled():
            ms.set_device(target)
    except (RuntimeError, ValueError) as error:
        first_sentence = str(error).strip().splitlines()[0].split(". ")[0]
        raise DeviceError(
            f"this installation of MindSpore does not support device_target '{target}': {first_sentence}"
        ) from None
    return target


def set_mode(mode: int, jit_level: Optional[str] = None) -> None:
    """Select graph mode or PyNative mode (operator by operator). Call it after the device is selected.

    Args:
        mode: `mindspore.GRAPH_MODE` (0) or `mindspore.PYNATIVE_MODE` (1).
        jit_level: optimization level of the graph compiler, 'O0' to 'O2'. None selects O2 on Ascend, which MindCV's
            published runs used, and MindSpore's own choice elsewhere.
    """
    if jit_level is None and mode == ms.GRAPH_MODE and ms.get_context("device_target") == "Ascend":
        jit_level = "O2"
    if mode == ms.GRAPH_MODE:
        keep_working_folder_clean()
    ms.set_context(mode=mode)
    if jit_level is not None:
        ms.set_context(jit_config={"jit_level": jit_level})


def returns_early() -> bool:
    """Return whether MindSpore returns from a network before it has computed its result, with the present settings.

    It does so everywhere but in graph mode on CPU.
    """
    return not runs_on_cpu() or ms.get_context("mode") == ms.PYNATIVE_MODE


def runs_on_cpu() -> bool:
    """Return whether networks run on the CPU, with the present settings."""
    return ms.get_context("device_target") == "CPU"


def keep_working_folder_clean() -> None:
    """Make MindSpore write its analysis of a graph that does not compile to the system's temporary folder.

    Otherwise MindSpore writes to the working folder. It creates the temporary folder when it needs it.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    os.environ.setdefault("MS_OM_PATH", os.path.join(tempfile.gettempdir(), f"mindcv-{user}"))


@contextmanager
def mindspore_log_disabled() -> Iterator[None]:
    """Disable MindSpore's log inside the block. Use it around a call whose exception says everything that is needed.

    Before such an exception, MindSpore logs many lines about each library that it looked for, or about possible faults
    of a disk.
    """
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if "mindspore" in name.lower()]
    disabled = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, was_disabled in zip(loggers, disabled):
            logger.disabled = was_disabled


# A line of MindSpore's C++ code begins with its level, a module and the number of the process.
_NATIVE_WARNING = re.compile(rb"\[WARNING\] \w+\(\d+,")
_NATIVE_WARNING_OR_ERROR = re.compile(rb"\[(WARNING|ERROR)\] \w+\(\d+,")


@contextmanager
def native_warnings_hidden(with_errors: bool = False) -> Iterator[None]:
    """Hide the warnings that MindSpore's C++ code writes to standard error inside the block.

    Other lines of standard error appear after the block. Use it around the compilation of a graph that MindSpore warns
    about although the graph is right.

    Args:
        with_errors: whether to hide lines about errors too, because an exception says everything that is needed.
    """
    hidden = _NATIVE_WARNING_OR_ERROR if with_errors else _NATIVE_WARNING
    with ExitStack() as stack:
        try:
            held = stack.enter_context(tempfile.TemporaryFile())
            terminal = os.dup(2)
        except OSError:  # standard error is closed, or there is no folder for temporary files
            yield
            return
        _flush_standard_error()
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            _flush_standard_error()
            os.dup2(terminal, 2)
            os.close(terminal)
            held.seek(0)
            kept = b"".join(line for line in held if not hidden.match(line))
            with suppress(OSError):
                os.write(2, kept)


def _flush_standard_error() -> None:
    with suppress(AttributeError, OSError, ValueError):  # there is none, its reader is gone, or it is closed
        sys.stderr.flush()
