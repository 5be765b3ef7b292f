"""All operators and image kernels are called with random arguments on every instruction set, also under sanitizers."""

import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from conftest import EMULATED, build_emulating, has_set

from mindcv.kernels import build

FOLDER = Path(__file__).parent
SEEDS = (1, 2, 3)


def fuzz(path, isa, seed, calls, **environment):
    """Return how many calls of operators and of image kernels ran, and how many were refused."""
    command = [sys.executable, "-W", "ignore", FOLDER / "run_fuzz.py", path, str(seed), str(calls)]
    run = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "MINDCV_KERNELS_ISA": isa, **environment}
    )
    assert run.returncode == 0, (run.stderr + run.stdout)[:4000]
    used, *counts = run.stdout.split()
    assert used == isa
    return [int(count) for count in counts]


def test_random_kernel_calls_give_correct_results_or_are_refused(loadable_library):
    counts = fuzz(loadable_library.path, loadable_library.isa, 0, 120)
    assert min(counts) > 20, counts


SANITIZED_SETS = [(name, False) for name in ("generic", "avx2", "avx512", "avx512_bf16", "amx")]
SANITIZED_SETS += [(name, True) for name in EMULATED]


@pytest.fixture(scope="module")
def sanitized_library(tmp_path_factory):
    """Return a function that builds kernels with sanitizers for addresses and undefined behaviour."""

    @cache
    def built(is_emulated):
        path = tmp_path_factory.mktemp("sanitized") / "kernels.so"
        flags = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(build, "_FLAGS", ["-O1" if flag == "-O3" else flag for flag in build._FLAGS])
            if is_emulated:
                build_emulating(path, *flags)
            else:
                build.build(["g++", *flags], path)
        return path

    return built


@pytest.mark.slow
@pytest.mark.parametrize(
    ("isa", "is_emulated"), SANITIZED_SETS, ids=[f"{name}-emulated" if is_e else name for name, is_e in SANITIZED_SETS]
)
def test_random_kernel_calls_pass_sanitizers(sanitized_library, isa, is_emulated):
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("the instruction sets are those of x86-64")
    if not is_emulated and not has_set(isa):
        pytest.skip(f"this processor has no {isa}")
    libraries = [
        subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip()
        for name in ("libasan.so", "libstdc++.so.6")
    ]
    environment = {"LD_PRELOAD": " ".join(libraries), "ASAN_OPTIONS": "detect_leaks=0"}  # ignore leaks of Python
    for seed in SEEDS:
        counts = fuzz(sanitized_library(is_emulated), isa, seed, 150, **environment)
        assert min(counts) > 30, counts
