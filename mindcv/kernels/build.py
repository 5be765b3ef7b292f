"""Compiles the kernels with the system's C++ compiler. setup.py runs this file, so it imports nothing of the package.

Each instruction set gets its own object files; which of them run is chosen when the library is loaded. Floating-point
arithmetic is C++'s own but for one freedom, fused multiply-add, which the image kernels do without; NaN, infinities and
signs are kept.
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

# The library is loaded by ctypes and MindSpore, not imported: one file serves every version of Python.
LIBRARY_NAME = "_kernels.so"

_SOURCES = Path(__file__).parent / "csrc"
_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-pthread", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
# No function that takes or returns a vector is called from another instruction set, so its ABI does not matter.
_WARNINGS = ["-Wall", "-Wextra", "-Wno-psabi", "-Wno-unknown-warning-option"]
# What is to have the bits of Pillow or NumPy, which do without that freedom.
_EXACT = "-ffp-contract=off"
_AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mprefer-vector-width=512"]
# GCC 12 warns of the undefined vectors in its own AVX-512 headers (GCC bug 105593).
_HEADER_WARNINGS = {name: ["-Wno-uninitialized", "-Wno-maybe-uninitialized"] for name in ("avx512", "amx")}

_Set = tuple[str, list[str]]  # the name of the instruction set, and its flags
# The generic set is what every processor of the compiler's target has: SSE2 on x86-64, and on aarch64 Advanced SIMD,
# whose multiply-add is fused.
_GENERIC: _Set = ("generic", [])
_X86: list[_Set] = [
    ("avx2", ["-mavx2", "-mfma"]),
    ("avx512", _AVX512),
    ("amx", [*_AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"]),
]
INSTRUCTION_SETS = ("generic", "avx2", "avx512", "amx")

_STAMP = re.compile(rb"mindcv-kernels sources=([0-9a-f]{64}) built=([\w,]+) unknown=([\w,]*);")


class CompilerError(Exception):
    """The compiler or linker failed. The message is the command and all that it printed."""


class Stamp(NamedTuple):
    """What a library file says about itself."""

    sources: str  # see `sources`
    built: tuple[str, ...]  # the instruction sets in it
    unknown: tuple[str, ...]  # those that were left out because the compiler did not know their flags

    def __str__(self) -> str:
        return f"mindcv-kernels sources={self.sources} built={','.join(self.built)} unknown={','.join(self.unknown)};"


class _Unit(NamedTuple):
    """A source file and the flags that it is compiled with; `name` is the name of the object file."""

    name: str
    source: Path
    flags: list[str]


def compiler() -> list[str]:
    """The command of the C++ compiler: CXX, else g++."""
    return shlex.split(os.environ.get("CXX", "")) or ["g++"]


def sources() -> str:
    """A SHA-256 digest of the C++ sources beside this file and of the flags that they are compiled with."""
    digest = hashlib.sha256(repr([_FLAGS, _EXACT, _GENERIC, _X86]).encode())
    for path in sorted(path for path in _SOURCES.rglob("*") if path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(_SOURCES).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def read_stamp(library: Path) -> Optional[Stamp]:
    """What the library was built from; None if the file does not say it. The library is not loaded."""
    found = _STAMP.search(library.read_bytes())
    if found is None:
        return None
    digest, built, unknown = (group.decode() for group in found.groups())
    return Stamp(digest, tuple(built.split(",")), tuple(filter(None, unknown.split(","))))


def build(command: list[str], output: Path) -> Stamp:
    """Compile and link the library to `output`, with all instruction sets whose flags the compiler knows.

    Args:
        command: the compiler and the first of its arguments.

    Returns:
        What the library says about itself.

    Raises:
        CompilerError: the compiler cannot be run, or it refuses one of the sources.
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
    """The translation units: runtime/ once, network/ and image/ once for each instruction set.

    The units of the generic set, which every library has, define MINDCV_ONCE: they also hold what is needed once.
    """
    common = [*_FLAGS, f"-I{_SOURCES}"]
    units = [
        _Unit(f"runtime_{path.stem}", path, [*common, f'-DMINDCV_STAMP="{stamp}"'])
        for path in sorted(_SOURCES.glob("runtime/*.cc"))
    ]
    for name, set_flags in sets:
        flags = [*common, *set_flags, *_HEADER_WARNINGS.get(name, []), f"-DMINDCV_ISA={name}"]
        flags += ["-DMINDCV_ONCE"] if name == "generic" else []
        units += [_Unit(f"{name}_{path.stem}", path, flags) for path in sorted(_SOURCES.glob("network/*.cc"))]
        if name != "amx":  # whose tiles are for products of matrices; images use AVX-512 there
            units += [
                _Unit(f"{name}_{path.stem}", path, [*flags, _EXACT]) for path in sorted(_SOURCES.glob("image/*.cc"))
            ]
    return units


def _compiled(command: list[str], units: list[_Unit], folder: Path) -> list[str]:
    """Compiles several units at a time; returns the object files."""

    def compiled(unit: _Unit) -> str:
        target = str(folder / f"{unit.name}.o")
        _run([*command, *_WARNINGS, *unit.flags, "-c", str(unit.source), "-o", target])
        return target

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # a compiler takes up to 1 GB
        futures = [pool.submit(compiled, unit) for unit in units]
        try:
            return [future.result() for future in futures]
        except CompilerError:
            pool.shutdown(cancel_futures=True)
            raise


def _known_sets(command: list[str], folder: Path) -> tuple[list[_Set], list[str]]:
    """The instruction sets whose flags the compiler takes, and the names of the others, tried with an empty file."""
    empty = folder / "empty.cc"
    empty.touch()
    probe = [*command, "-c", str(empty), "-o", str(folder / "empty.o")]
    _run(probe)  # a compiler that fails without the flags as well is no compiler that does not know them
    sets, unknown = [_GENERIC], []
    for candidate in _X86 if platform.machine().lower() in ("x86_64", "amd64") else []:
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
        raise CompilerError(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode != 0:
        raise CompilerError(f"{shlex.join(command)}\nfailed with status {done.returncode}:\n{done.stderr}{done.stdout}")
