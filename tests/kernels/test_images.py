"""The kernels for images give Pillow's and NumPy's bits, on every instruction set; tests/data has their pipelines."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mindcv.kernels import status

FOLDER = Path(__file__).parent
SETS = ["generic", "avx2", "avx512", "amx"]


@pytest.fixture(autouse=True)
def _needs_kernels():
    if shutil.which("g++") is None:
        pytest.skip("there is no C++ compiler, so there are no kernels")
    assert status().is_used, f"the kernels are not in use: {status().reason}"


@pytest.mark.parametrize("isa", SETS)
def test_bits(isa, tmp_path):
    command = [sys.executable, FOLDER / "run_images.py", isa, "0"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    if run.stdout == "skipped":
        pytest.skip(f"this processor has no {isa}")
    # Comparisons of resizing, affine maps, normalisation, blending, tables and enhancements.
    assert run.stdout.split() == ["2400", "1620", "120", "60", "60", "480", "1"]
