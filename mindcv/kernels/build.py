"""Compiles the kernels with the system's C++ compiler.

setup.py runs this file, so it imports no other module of the package. Each instruction set has its own object files.
The library selects one set when it is loaded.

Floating-point arithmetic follows the C++ standard, with NaN, infinities and signed zeros. The only exception is fused
multiply-add, which the image kernels do not use.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Optional

__all__ = ["INSTRUCTION_SETS", "LIBRARY_NAME", "CompilerError", "Stamp", "build", "compiler", "read_stamp", "sources"]

# ctypes and MindSpore load the library, so one file works for every version of Python. See decision 0037.
LIBRARY_NAME = "_kernels.so"

_SOURCES = Path(__file__).parent / "csrc"
_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-pthread", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
# No function that takes or returns a vector is called from another instruction set, so its ABI does not matter.
_WARNINGS = ["-Wall", "-Wextra", "-Wno-psabi", "-Wno-unknown-warning-option"]
# The image kernels give the bits of Pillow and NumPy, which use no fused multiply-add. See decision 0045.
_EXACT = "-ffp-contract=off"
_AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mprefer-vector-width=512"]
# GCC 12 warns about undefined vectors in its own AVX-512 headers (GCC bug 105593).
_HEADER_WARNINGS = {
    name: ["-Wno-uninitialized", "-Wno-maybe-uninitialized"] for name in ("avx512", "avx512_bf16", "amx")
}
# These sets add products of bfloat16 to avx512 and to generic, so they have no other operators. See decision 0092.
_ONLY_BF16 = ("avx512_bf16", "neon_bf16")
_FILES_WITH_BF16 = ("block_backward", "block_forward", "pack_weight", "patch_conv")

_Set = tuple[str, list[str]]  # the name of the instruction set, and its flags
# Every processor of the compiler's target has the generic set: SSE2 on x86-64, and Advanced SIMD with fused
# multiply-add on aarch64. See decision 0036.
_GENERIC: _Set = ("generic", [])
_X86: list[_Set] = [
    ("avx2", ["-mavx2", "-mfma"]),
    ("avx512", _AVX512),
    ("avx512_bf16", [*_AVX512, "-mavx512bf16"]),
    ("amx", [*_AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"]),
]
_AARCH64: list[_Set] = [("neon_bf16", ["-march=armv8.2-a+bf16"])]
INSTRUCTION_SETS = ("generic", "avx2", "avx512", "avx512_bf16", "amx", "neon_bf16")

_STAMP = re.compile(rb"mindcv-kernels sources=([0-9a-f]{64}) built=([\w,]+) unknown=([\w,]*);")


class CompilerError(Exception):
    """The compiler or linker failed. The message is the command and its output."""


class Stamp(NamedTuple):
    """Describes how a library file was built. The file contains it as text.

    Attributes:
        sources: digest of the sources (see the function `sources`).
        built: names of the instruction sets in the library.
        unknown: names of the instruction sets that the compiler did not support.
    """

    sources: str
    built: tuple[str, ...]
    unknown: tuple[str, ...]

    def __str__(self) -> str:
        return f"mindcv-kernels sources={self.sources} built={','.join(self.built)} unknown={','.join(self.unknown)};"


class _Unit(NamedTuple):
    """A source file and its compiler flags. `name` is the name of the object file without its suffix."""

    name: str
    source: Path
    flags: list[str]


def compiler() -> list[str]:
    """Return the command of the C++ compiler from the environment variable CXX, or g++."""
    return shlex.split(os.environ.get("CXX", "")) or ["g++"]


def sources() -> str:
    """Return the SHA-256 digest of the C++ sources and of their compiler flags."""
    digest = hashlib.sha256(repr([_FLAGS, _EXACT, _GENERIC, _X86, _AARCH64]).encode())
    for path in sorted(path for path in _SOURCES.rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(_SOURCES).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def read_stamp(library: Path) -> Optional[Stamp]:
    """Return the stamp in a library file, or None if there is none. The library is not loaded."""
    found = _STAMP.search(library.read_bytes())
    if found is None:
        return None
    digest, built, unknown = (group.decode() for group in found.groups())
    return Stamp(digest, tuple(built.split(",")), tuple(filter(None, unknown.split(","))))


def build(command: list[str], output: Path) -> Stamp:
    """Compile and link the library, with all instruction sets that the compiler supports.

    Args:
        command: command of the compiler and its first arguments.
        output: path of the library.

    Returns:
        The stamp of the library.

    Raises:
        CompilerError: the compiler cannot be run, or it fails for one of the sources.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sets, unknown = _known_sets(command, folder)
        stamp = Stamp(sources(), tuple(name for name, _ in sets), tuple(unknown))
        objects = _compiled(command, _units(sets, stamp), folder)
        _run([*command, "-shared", "-pthread", *objects, "-o", str(output)])
    return stamp


def _units(sets: list[_Set], stamp: Stamp) -> list[_Unit]:
    """Return the translation units: runtime/ once, and network/ and image/ once for each instruction set.

    Every library contains the generic set. Its units define MINDCV_ONCE and also contain the code that is needed once.
    """
    common = [*_FLAGS, f"-I{_SOURCES}"]
    units = [
        _Unit(f"runtime_{path.stem}", path, [*common, f'-DMINDCV_STAMP="{stamp}"'])
        for path in sorted(_SOURCES.glob("runtime/*.cc"))
    ]
    for name, set_flags in sets:
        flags = [*common, *set_flags, *_HEADER_WARNINGS.get(name, []), f"-DMINDCV_ISA={name}"]
        flags += ["-DMINDCV_ONCE"] if name == "generic" else []
        operators = sorted(_SOURCES.glob("network/*.cc"))
        if name in _ONLY_BF16:
            flags += ["-DMINDCV_ONLY_BF16"]
            operators = [path for path in operators if path.stem in _FILES_WITH_BF16]
        units += [_Unit(f"{name}_{path.stem}", path, flags) for path in operators]
        if name not in (*_ONLY_BF16, "amx"):  # AMX only multiplies matrices. Images use the units of AVX-512 there.
            units += [
                _Unit(f"{name}_{path.stem}", path, [*flags, _EXACT]) for path in sorted(_SOURCES.glob("image/*.cc"))
            ]
    return units


def _compiled(command: list[str], units: list[_Unit], folder: Path) -> list[str]:
    """Compile the units in parallel and return the paths of the object files."""

    def compiled(unit: _Unit) -> str:
        target = str(folder / f"{unit.name}.o")
        _run([*command, *_WARNINGS, *unit.flags, "-c", str(unit.source), "-o", target])
        return target

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # Each compiler needs up to 1 GB.
        futures = [pool.submit(compiled, unit) for unit in units]
        try:
            return [future.result() for future in futures]
        except CompilerError:
            pool.shutdown(cancel_futures=True)
            raise


def _known_sets(command: list[str], folder: Path) -> tuple[list[_Set], list[str]]:
    """Compile an empty file with the flags of each instruction set.

    Returns:
        The instruction sets that the compiler supports, and the names of the others.

    Raises:
        CompilerError: the compiler fails even without such flags.
    """
    empty = folder / "empty.cc"
    empty.touch()
    probe = [*command, "-c", str(empty), "-o", str(folder / "empty.o")]
    _run(probe)  # A compiler that fails here is broken, which says nothing about its instruction sets.
    sets, unknown = [_GENERIC], []
    for candidate in {"x86_64": _X86, "amd64": _X86, "aarch64": _AARCH64}.get(platform.machine().lower(), []):
        name, flags = candidate
        try:
            _run([*probe, *flags])
        except CompilerError:
            unknown.append(name)
        else:
            sets.append(candidate)
    return sets, unknown


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise CompilerError(f"the compiler {command[0]} cannot be run: {error.strerror}") from error
    if done.returncode != 0:
        raise CompilerError(f"{shlex.join(command)}\nfailed with status {done.returncode}:\n{done.stderr}{done.stdout}")
