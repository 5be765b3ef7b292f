"""Random calls of all operators and image kernels, on every instruction set; the slow ones under sanitizers."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import has_set

from mindcv.kernels import build

FOLDER = Path(__file__).parent
SEEDS = (1, 2, 3)


def fuzz(path, isa, seed, calls, **environment):
    """The numbers of operator calls, and of calls of image kernels, that ran and that were refused."""
    command = [sys.executable, "-W", "ignore", FOLDER / "run_fuzz.py", path, str(seed), str(calls)]
    run = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "MINDCV_KERNELS_ISA": isa, **environment}
    )
    assert run.returncode == 0, (run.stderr + run.stdout)[:4000]
    used, *counts = run.stdout.split()
    assert used == isa
    return [int(count) for count in counts]


def test_random_calls_are_right_or_refused(library):
    counts = fuzz(library.path, library.isa, 0, 120)
    assert min(counts) > 20, counts


@pytest.fixture(scope="module")
def sanitized_library(tmp_path_factory):
    """The kernels, built with checks of addresses and of undefined behaviour."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("the instruction sets are those of x86-64")
    path = tmp_path_factory.mktemp("sanitized") / "kernels.so"
    flags = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_FLAGS", ["-O1" if flag == "-O3" else flag for flag in build._FLAGS])
        build.build(["g++", *flags], path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("isa", ["generic", "avx2", "avx512", "amx"])
def test_random_calls_pass_sanitizers(sanitized_library, isa):
    if not has_set(isa):
        pytest.skip(f"this processor has no {isa}")
    libraries = [
        subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip()
        for name in ("libasan.so", "libstdc++.so.6")
    ]
    environment = {"LD_PRELOAD": " ".join(libraries), "ASAN_OPTIONS": "detect_leaks=0"}  # Python's own are not ours
    for seed in SEEDS:
        counts = fuzz(sanitized_library, isa, seed, 150, **environment)
        assert min(counts) > 30, counts
