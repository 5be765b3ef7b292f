"""Kernels are tested with the instruction sets that the processor has and with those that it can emulate."""

import platform
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from library_process import process_of

from mindcv.kernels import build, status
from mindcv.kernels.library import library_path

EMULATED = ["avx512", "avx512_bf16", "amx"]
# As /proc/cpuinfo names what the kernels of a set use.
FLAGS_OF = {"avx2": ["avx2", "fma"], "avx512": ["avx512f", "avx512bw", "avx512vl", "avx512dq"]}
FLAGS_OF["avx512_bf16"] = [*FLAGS_OF["avx512"], "avx512_bf16"]
FLAGS_OF["amx"] = [*FLAGS_OF["avx512_bf16"], "amx_tile", "amx_bf16"]
PARAMS = [(name, False) for name in ("generic", "avx2", *EMULATED)]
PARAMS += [pytest.param((name, True), marks=pytest.mark.slow) for name in [*EMULATED, "neon_bf16"]]


class Library(NamedTuple):
    """A library of kernels, and the name of the instruction set that MINDCV_KERNELS_ISA selects in it."""

    path: Path
    isa: str


@pytest.fixture(autouse=True)
def _needs_kernels():
    if shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler, so there are no kernels")
    assert status().is_used, f"the kernels are not in use: {status().reason}"


@pytest.fixture(scope="session")
def emulating_library(tmp_path_factory):
    """Build kernels with AVX-512 and AMX in plain C++, which any x86-64 processor with AVX2 can run."""
    path = tmp_path_factory.mktemp("emulated") / "kernels.so"
    build_emulating(path)
    return path


def build_emulating(path, *flags):
    """Build emulating kernels with additional flags for the compiler."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("emulation stands on x86-64's own types")
    header = Path(__file__).with_name("emulated.h")
    sets = [(name, ["-mavx2", "-mfma", f"-DEMULATES_{name.upper()}"]) for name, _ in build._X86 if name in EMULATED]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_X86", sets)
        build.build(["g++", "-Wno-psabi", *flags, "-include", str(header)], path)


@pytest.fixture(scope="session")
def aarch64_library(tmp_path_factory):
    """Build kernels for aarch64, and the program that calls them in an emulator."""
    compiler = "aarch64-linux-gnu-g++"
    for program in (compiler, "qemu-aarch64-static"):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program}")
    path = tmp_path_factory.mktemp("aarch64") / "kernels.so"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platform, "machine", lambda: "aarch64")
        patch.setattr(build, "_FLAGS", ["-O2" if flag == "-O3" else flag for flag in build._FLAGS])
        stamp = build.build([compiler], path)
    assert stamp.built == ("generic", "neon_bf16"), stamp
    source, program = Path(__file__).with_name("call_operators.cc"), path.with_name("call_operators")
    subprocess.run([compiler, "-std=c++17", "-O1", "-Wall", "-Werror", source, "-o", program, "-ldl"], check=True)
    return path


@pytest.fixture(params=PARAMS, ids=lambda param: f"{param[0]}-emulated" if param[1] else param[0])
def library(request):
    name, is_emulated = request.param
    fixture = "aarch64_library" if name == "neon_bf16" else "emulating_library"
    path = request.getfixturevalue(fixture) if is_emulated else library_path()
    found = Library(path, name)
    if not is_emulated:
        stamp = status().stamp
        if name in stamp.unknown:
            pytest.skip(f"the compiler does not know {name}")
        is_x86 = platform.machine().lower() in ("x86_64", "amd64")
        assert name in stamp.built or not is_x86, f"the library was built without {name}"
        if not has_set(name):
            pytest.skip(f"this processor has no {name}")
    assert process_of(*found).isa == name
    return found


@pytest.fixture
def loadable_library(library):
    """Return a library that a process on this machine can load."""
    if library.isa == "neon_bf16":
        pytest.skip("this processor runs the library in an emulator only")
    return library


def has_set(name):
    """Return whether the processor has the instruction set, as Linux reports it."""
    if name == "generic":
        return True
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((line.split(":")[1].split() for line in lines if line.startswith("flags")), [])
    return {*FLAGS_OF[name]} <= {*flags}
