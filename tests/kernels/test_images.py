"""Image kernels give the bits of Pillow and NumPy on every instruction set. tests/data tests their pipelines."""

import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def test_image_kernels_give_the_bits_of_pillow_and_numpy(loadable_library, tmp_path):
    command = [sys.executable, FOLDER / "run_images.py", loadable_library.path, "0"]
    environment = {**os.environ, "MINDCV_KERNELS_ISA": loadable_library.isa}
    run = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert run.returncode == 0, run.stderr[-2000:]
    # The numbers count comparisons of resizing, affine maps, normalisation, blending, tables and enhancements.
    assert run.stdout.split() == ["2400", "1620", "120", "60", "60", "480", "1"]
