"""The compiled library: where it is, whether it is used, and why not."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Optional

from mindcv.utils.errors import UserError
from mindcv.utils.logger import logger

__all__ = ["Status", "is_available", "library_path", "packed_size", "status"]

_NAME = "_kernels"


@dataclass(frozen=True)
class Status:
    """What `python -m mindcv.kernels` tells."""

    is_used: bool
    reason: str
    path: Optional[Path] = None
    instruction_set: Optional[str] = None
    num_threads: Optional[int] = None


def is_available() -> bool:
    """Whether layers on CPU and work on images run as kernels. When they could and do not, one log line says why."""
    current = status()
    if not current.is_used and os.environ.get("MINDCV_KERNELS") != "off":
        _say_why_not(current.reason)
    return current.is_used


@cache
def _say_why_not(reason: str) -> None:
    logger.info("CPU kernels are not used: %s; MindSpore's operators and Pillow serve, several times slower", reason)


def library_path() -> Path:
    """The library's file; only called where `is_available`."""
    path = status().path
    assert path is not None
    return path


def packed_size(k: int, n: int, bf16: bool) -> int:
    """Of a packed weight [n, k], in float32 values."""
    function = ctypes.CDLL(str(library_path())).mindcv_packed_floats
    function.restype, function.argtypes = ctypes.c_int64, [ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return function(int(bf16), k, n)


def status() -> Status:
    """Whether the kernels are used, and why.

    Raises:
        UserError: MINDCV_KERNELS is neither 'on' nor 'off', or a number of threads is not one.
    """
    wanted = os.environ.get("MINDCV_KERNELS", "on")
    if wanted not in ("on", "off"):
        raise UserError(f"MINDCV_KERNELS must be 'on' or 'off', not {wanted!r}")
    if wanted == "off":
        return Status(False, "MINDCV_KERNELS=off")
    return _loaded()


@cache
def _loaded() -> Status:
    path = _find()
    if path is None:
        return Status(False, "they were not built; `pip install .` builds them where there is a C++ compiler (g++)")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return Status(False, f"{path} cannot be loaded: {error}")
    library.mindcv_kernels_isa.restype = ctypes.c_char_p
    name = library.mindcv_kernels_isa().decode()
    return Status(True, "built and loaded", path, name, library.mindcv_kernels_threads(_wanted_threads()))


def _wanted_threads() -> int:
    """MINDCV_KERNELS_THREADS, else OMP_NUM_THREADS, else 0: one thread for each core that the process may use.

    OMP_NUM_THREADS is read as it was when Python started: MindSpore sets it to 1 in the process itself.
    """
    for name in ("MINDCV_KERNELS_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "")
        if text:
            if not text.isdigit() or int(text) < 1:
                raise UserError(f"{name} must be a positive whole number, not {text!r}")
            return int(text)
    return 0


def _find() -> Optional[Path]:
    for suffix in EXTENSION_SUFFIXES:
        path = Path(__file__).with_name(_NAME + suffix)
        if path.is_file():
            return path
    return None
