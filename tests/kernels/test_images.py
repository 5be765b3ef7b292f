"""The kernels for images give Pillow's and NumPy's bits, on every instruction set; tests/data has their pipelines."""

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def test_bits(library, tmp_path):
    command = [sys.executable, FOLDER / "run_images.py", library.path, "0"]
    environment = {**os.environ, "MINDCV_KERNELS_ISA": library.isa}
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert run.returncode == 0, run.stderr[-2000:]
    # Comparisons of resizing, affine maps, normalisation, blending, tables and enhancements.
    assert run.stdout.split() == ["2400", "1620", "120", "60", "60", "480", "1"]
