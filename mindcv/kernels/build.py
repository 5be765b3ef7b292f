"""Compiles the kernels with the system's C++ compiler. Called by setup.py, so it imports nothing of the package.

Each instruction set gets its own object files; which of them run is chosen when the library is loaded. Floating-point
arithmetic is C++'s own but for one freedom, fused multiply-add, which the image kernels do without; NaN, infinities and
signs are kept.
"""

from __future__ import annotations

import platform
import subprocess
import tempfile
from pathlib import Path

__all__ = ["build"]

_SOURCES = Path(__file__).parent / "csrc"
_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-pthread", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]
# What is to have the bits of Pillow or NumPy, which do without that freedom.
_EXACT = "-ffp-contract=off"
_AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mprefer-vector-width=512"]

# Name of the instruction set, its table in kernels.h, its flags. The generic one is what every processor of the
# compiler's target has: SSE2 on x86-64, and on aarch64 Advanced SIMD, whose multiply-add is fused.
_GENERIC = ("generic", "kGenericKernels", [])
_X86 = [
    ("avx2", "kAvx2Kernels", ["-mavx2", "-mfma"]),
    ("avx512", "kAvx512Kernels", _AVX512),
    ("amx", "kAmxKernels", [*_AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"]),
]


def build(compiler: list[str], output: Path) -> None:
    """Compile and link the library to `output`. Instruction sets that the compiler does not know are left out.

    Raises:
        OSError: the compiler is not there.
        subprocess.CalledProcessError: it failed; its messages are in `stderr`.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:

        def compiled(name: str, source: str, *flags: str) -> str:
            target = f"{folder}/{name}.o"
            _run([*compiler, *_FLAGS, *flags, "-c", str(_SOURCES / source), "-o", target])
            return target

        def tables_of(name: str, table: str, flags: list[str]) -> list[str]:
            flags = [*flags, f"-DMINDCV_ISA={name}"]
            kernels = compiled(name, "kernels.cc", *flags, f"-DMINDCV_TABLE={table}")
            return [kernels, compiled(f"{name}_images", "image_kernels.cc", *flags, _EXACT)]

        objects = [*tables_of(*_GENERIC), compiled("pool", "pool.cc"), compiled("images", "images.cc", _EXACT)]
        known = []
        for variant in _X86 if platform.machine().lower() in ("x86_64", "amd64") else []:
            try:
                objects += tables_of(*variant)
            except subprocess.CalledProcessError:
                continue
            known.append(f"-DMINDCV_HAS_{variant[0].upper()}")
        objects.append(compiled("operators", "operators.cc", *known))
        _run([*compiler, "-shared", "-pthread", *objects, "-o", str(output)])


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
