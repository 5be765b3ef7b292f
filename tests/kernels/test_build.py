"""Tests of how kernels are built: which failures are errors, what is left out, and the stamp of the library."""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mindcv.kernels import build, status

ROOT = Path(__file__).parents[2]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma"]
FLAGS = {"avx2": ["-mavx2", "-mfma"], "avx512": AVX512, "avx512_bf16": [*AVX512, "-mavx512bf16"]}
FLAGS["amx"] = [*FLAGS["avx512_bf16"], "-mamx-tile", "-mamx-bf16"]
IS_X86 = platform.machine().lower() in ("x86_64", "amd64")
x86_only = pytest.mark.skipif(not IS_X86, reason="other processors have one instruction set")


@pytest.fixture
def small_sources(tmp_path, monkeypatch):
    """Replace csrc by small files in the same folders, which compile quickly."""
    folder = tmp_path / "csrc"
    for name in ("image/image.cc", "network/operator.cc", "runtime/dispatch.cc"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("")
    (folder / "runtime" / "dispatch.cc").write_text("extern const char stamp[];\nconst char stamp[] = MINDCV_STAMP;\n")
    monkeypatch.setattr(build, "_SOURCES", folder)
    return folder


def compiler_script(tmp_path, text):
    """Write a compiler script that runs `text` first and then g++."""
    path = tmp_path / "compiler"
    path.write_text(f'#!/bin/sh\n{text}\nexec g++ "$@"\n')
    path.chmod(0o755)
    return str(path)


@x86_only
def test_library_has_every_instruction_set_that_the_compiler_knows(tmp_path):
    empty = tmp_path / "empty.cc"
    empty.touch()
    known = ["generic"]
    for name, flags in FLAGS.items():
        command = [*build.compiler(), *flags, "-c", empty, "-o", tmp_path / "empty.o"]
        if subprocess.run(command, capture_output=True).returncode == 0:
            known.append(name)
    stamp = status().stamp
    assert list(stamp.built) == known
    assert sorted([*stamp.built, *stamp.unknown, "neon_bf16"]) == sorted(build.INSTRUCTION_SETS)


@x86_only
@pytest.mark.parametrize(("macro", "source"), [("__AVX2__", "network/operator.cc"), ("__AVX512F__", "image/image.cc")])
def test_build_fails_when_a_source_of_one_instruction_set_is_broken(macro, source, small_sources, tmp_path):
    (small_sources / source).write_text(f"#ifdef {macro}\nint broken = undeclared_name;\n#endif\n")
    with pytest.raises(build.CompilerError, match="undeclared_name"):
        build.build(["g++"], tmp_path / "kernels.so")
    assert not (tmp_path / "kernels.so").exists()


@x86_only
def test_build_leaves_out_what_the_compiler_does_not_know(small_sources, tmp_path):
    compiler = compiler_script(tmp_path, 'case "$*" in *-mamx*) echo "unrecognized option" >&2; exit 1;; esac')
    stamp = build.build([compiler], tmp_path / "kernels.so")
    assert stamp.built == ("generic", "avx2", "avx512", "avx512_bf16") and stamp.unknown == ("amx",)
    assert build.read_stamp(tmp_path / "kernels.so") == stamp


def test_build_fails_when_the_compiler_compiles_nothing(small_sources, tmp_path):
    compiler = compiler_script(tmp_path, 'echo "a planted failure" >&2; exit 3')
    with pytest.raises(build.CompilerError, match="failed with status 3:\na planted failure"):
        build.build([compiler], tmp_path / "kernels.so")


def test_stamp_of_the_library_changes_with_sources_and_flags(small_sources, tmp_path, monkeypatch):
    stamp = build.build(["g++"], tmp_path / "kernels.so")
    assert build.read_stamp(tmp_path / "kernels.so") == stamp
    assert stamp.sources == build.sources()
    (small_sources / "runtime" / "dispatch.h").write_text("// another\n")
    changed = build.sources()
    monkeypatch.setattr(build, "_FLAGS", [*build._FLAGS, "-O2"])
    assert len({stamp.sources, changed, build.sources()}) == 3
    (tmp_path / "other.so").write_bytes(b"\x7fELF")
    assert build.read_stamp(tmp_path / "other.so") is None


def units():
    sets = [build._GENERIC, *(build._X86 if IS_X86 else [])]
    return build._units(sets, build.Stamp("0" * 64, ("generic",), ()))


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
@pytest.mark.parametrize("unit", units(), ids=lambda unit: unit.name)
def test_kernel_sources_compile_without_warnings(compiler, unit):
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no {compiler}")
    command = [compiler, *build._WARNINGS, "-Werror", *unit.flags, "-fsyntax-only", unit.source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_library_compiles_without_warnings_when_optimised(tmp_path):
    """The compiler gives some warnings only when it optimises."""
    build.build([*build.compiler(), "-Werror"], tmp_path / "kernels.so")


def build_ext(tmp_path, **environment):
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", tmp_path / "lib", "--build-temp", tmp_path]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **environment})


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"CXX": "no-such-compiler"}, "there is no C++ compiler 'no-such-compiler'"),
        ({"MINDCV_KERNELS": "off"}, "'off'"),
    ],
)
def test_setup_installs_without_kernels_and_says_why(environment, reason, tmp_path):
    done = build_ext(tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert "mindcv is installed without its CPU kernels" in done.stderr and reason in done.stderr
    assert not list(tmp_path.rglob("*.so"))


def test_setup_fails_with_the_message_of_a_compiler_that_fails(tmp_path):
    done = build_ext(tmp_path, CXX=compiler_script(tmp_path, 'echo "a planted failure" >&2; exit 1'))
    assert done.returncode == 1
    assert "the CPU kernels of mindcv cannot be built" in done.stderr and "\na planted failure\n" in done.stderr


@pytest.mark.slow
def test_pip_fails_with_the_message_of_a_compiler_that_fails(tmp_path):
    compiler = compiler_script(tmp_path, 'echo "a planted failure" >&2; exit 1')
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, ROOT]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "CXX": compiler})
    assert done.returncode == 1 and "a planted failure" in done.stderr + done.stdout
