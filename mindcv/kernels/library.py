"""Finds and loads the compiled library, and reports why it is not used.

A library is used only together with the sources that it was built from (decision 0037).
"""

from __future__ import annotations

import ctypes
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Optional

from mindcv.kernels.build import INSTRUCTION_SETS, LIBRARY_NAME, Stamp, compiler, read_stamp, sources
from mindcv.kernels.signature_table import SIGNATURES
from mindcv.utils.errors import UserError, nearest
from mindcv.utils.logger import logger

__all__ = ["Status", "is_available", "library_path", "packed_size", "status"]


@dataclass(frozen=True)
class Status:
    """The facts that `python -m mindcv.kernels` reports. Without kernels, only the first two are set.

    Attributes:
        is_used: whether the kernels are used.
        reason: clause that says why, or why not.
        path: path of the library.
        stamp: sources and instruction sets of the library.
        instruction_set: instruction set that runs.
        num_threads: number of threads of the kernels.
    """

    is_used: bool
    reason: str
    path: Optional[Path] = None
    stamp: Optional[Stamp] = None
    instruction_set: Optional[str] = None
    num_threads: Optional[int] = None


def is_available() -> bool:
    """Return whether layers on CPU and image operations use the kernels.

    If they do not, and MINDCV_KERNELS is not 'off', one log line says why.

    Raises:
        UserError: an environment variable is wrong (see `status`).
    """
    current = status()
    if not current.is_used and os.environ.get("MINDCV_KERNELS") != "off":
        _warn_once(current.reason)
    return current.is_used


@cache
def _warn_once(reason: str) -> None:
    logger.warning("the CPU kernels are not used, so everything takes several times as long: %s", reason)


def library_path() -> Path:
    """Return the path of the library. Call it only if `is_available()`."""
    path = status().path
    assert path is not None
    return path


def packed_size(k: int, n: int, bf16: bool) -> int:
    """Return the size of a packed weight [n, k] in float32 values. `bf16` selects the layout for bfloat16 products."""
    function = ctypes.CDLL(str(library_path())).mindcv_packed_floats
    function.restype, function.argtypes = ctypes.c_int64, [ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return function(int(bf16), k, n)


def status() -> Status:
    """Return whether the kernels are used, and why. The first call loads the library.

    Raises:
        UserError: MINDCV_KERNELS is neither 'on' nor 'off', MINDCV_KERNELS_ISA names an instruction set that cannot be
            used, or MINDCV_KERNELS_THREADS or OMP_NUM_THREADS is not a positive whole number.
    """
    wanted = os.environ.get("MINDCV_KERNELS", "on")
    if wanted not in ("on", "off"):
        raise UserError(f"MINDCV_KERNELS must be 'on' or 'off', not {wanted!r}")
    if wanted == "off":
        return Status(False, "MINDCV_KERNELS=off")
    return _loaded()


@cache
def _loaded() -> Status:
    try:
        path = _find()
    except _NoLibraryError as error:
        return Status(False, str(error))
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return Status(False, f"'{path}' cannot be loaded: {error}")
    library.mindcv_kernels_isa.restype = library.mindcv_kernels_usable.restype = ctypes.c_char_p
    library.mindcv_signatures.restype = ctypes.c_char_p
    difference = _signature_difference(library.mindcv_signatures().decode())
    if difference is not None:
        return Status(False, f"'{path}' does not fit 'mindcv/kernels/signature_table.py': {difference}")
    stamp = read_stamp(path)
    _check_wanted_set(stamp.built, library.mindcv_kernels_usable().decode().split())
    name = library.mindcv_kernels_isa().decode()
    return Status(True, "built and loaded", path, stamp, name, library.mindcv_kernels_threads(_wanted_threads()))


def _signature_difference(text: str) -> Optional[str]:
    """Return a clause about the first kernel whose signature differs from the table, or None if all are equal.

    Args:
        text: names and signatures of the library's kernels, one line each.
    """
    built = dict(line.split(" ", 1) for line in text.splitlines())
    for name in sorted({*built, *SIGNATURES}):
        if built.get(name) != SIGNATURES.get(name):
            library, table = (signatures.get(name, "missing") for signatures in (built, SIGNATURES))
            return f"the kernel {name} is '{library}' in the library and '{table}' in the table"
    return None


def _check_wanted_set(built: Sequence[str], usable: Sequence[str]) -> None:
    wanted = os.environ.get("MINDCV_KERNELS_ISA", "")
    if not wanted or wanted in usable:
        return
    if wanted not in INSTRUCTION_SETS:
        lack = f"which is not an instruction set of the kernels{nearest(wanted, usable)}"
    elif wanted in built:
        lack = "but this processor does not have it"
    else:
        lack = "but the library was built without it"
    raise UserError(f"MINDCV_KERNELS_ISA is '{wanted}', {lack} (it can be: {', '.join(usable)})")


def _wanted_threads() -> int:
    """Return the number of threads from MINDCV_KERNELS_THREADS or OMP_NUM_THREADS, in this order, or 0.

    0 means one thread for each core that the process may use. MindSpore sets OMP_NUM_THREADS to 1 in the process, but
    `os.environ` still has the value from the start of Python. OpenMP allows a list with one number for each level of
    nested parallelism. The kernels have one level and take the first number.
    """
    for name in ("MINDCV_KERNELS_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(name, "")
        if name == "OMP_NUM_THREADS":
            text = text.partition(",")[0].strip()
        if text:
            if not text.isdigit() or int(text) < 1:
                raise UserError(f"{name} must be a positive whole number, not {text!r}")
            return int(text)
    return 0


class _NoLibraryError(Exception):
    """There is no usable library. The message says why, and how to build one."""


def _find() -> Path:
    """Return the path of the library that was built from this package's sources.

    The package itself is searched first, and then installed copies of it. A script in a clone imports the package of
    the clone, while `pip install .` builds the library in the installed package.

    Raises:
        _NoLibraryError: there is no such library.
    """
    here = Path(__file__).parent
    installed = (Path(entry).absolute() / "mindcv" / "kernels" for entry in sys.path)
    candidates = [folder / LIBRARY_NAME for folder in (here, *(folder for folder in installed if folder != here))]
    candidates = [path for path in candidates if path.is_file()]
    wanted = sources()
    for path in candidates:
        stamp = read_stamp(path)
        if stamp is not None and stamp.sources == wanted:
            return path
    raise _NoLibraryError(f"{_problem(candidates)}; {_advice(here.parents[1])}")


def _problem(others: Sequence[Path]) -> str:
    if others:
        return f"'{others[0]}' was built from other sources than the ones in '{Path(__file__).parent}'"
    return f"no library was built for '{Path(__file__).parent}'"


def _advice(root: Path) -> str:
    """Return a clause with the command that builds the library. `root` is the folder that contains the package."""
    name = compiler()[0]
    first = "" if shutil.which(name) else f"install a C++ compiler ('{name}' was not found), then "
    if not (root / "setup.py").is_file():
        return f"{first or 'to build it, '}install mindcv again from its sources"
    return f"{first or 'to build it, '}run: {shlex.join([sys.executable, '-m', 'pip', 'install', '-e', str(root)])}"
