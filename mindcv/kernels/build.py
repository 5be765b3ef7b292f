"""Compiles the kernels with the system's C++ compiler. Called by setup.py, so it imports nothing of the package.

Each instruction set gets its own object file; which of them runs is chosen when the library is loaded. Floating-point
arithmetic is C++'s own but for one freedom, fused multiply-add; NaN, infinities and signs are kept.
"""

from __future__ import annotations

import platform
import subprocess
import tempfile
from pathlib import Path

__all__ = ["build"]

_SOURCES = Path(__file__).parent / "csrc"
_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-pthread", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
_AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mprefer-vector-width=512"]

# Name of the instruction set, its table in kernels.h, its flags.
_X86 = [
    ("generic", "kGenericKernels", []),
    ("avx2", "kAvx2Kernels", ["-mavx2", "-mfma"]),
    ("avx512", "kAvx512Kernels", _AVX512),
    ("amx", "kAmxKernels", [*_AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"]),
]


def build(compiler: list[str], output: Path) -> None:
    """Compile and link the library to `output`.

    Raises:
        OSError: the compiler is not there.
        subprocess.CalledProcessError: it failed; its messages are in `stderr`.
    """
    variants = _X86 if platform.machine().lower() in ("x86_64", "amd64") else _X86[:1]
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        objects = []
        running = []
        for name, table, flags in variants:
            defines = [f"-DMINDCV_ISA={name}", f"-DMINDCV_TABLE={table}"]
            objects.append(f"{folder}/{name}.o")
            running.append([*_FLAGS, *flags, *defines, "-c", str(_SOURCES / "kernels.cc"), "-o", objects[-1]])
        for name in ("pool", "operators"):
            objects.append(f"{folder}/{name}.o")
            running.append([*_FLAGS, "-c", str(_SOURCES / f"{name}.cc"), "-o", objects[-1]])
        for arguments in running:
            _run([*compiler, *arguments])
        _run([*compiler, "-shared", "-pthread", *objects, "-o", str(output)])


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
