"""Tests of the files in the source distribution and the wheel, and of the wheel on a machine without a compiler."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from mindcv.kernels import status
from mindcv.kernels.build import LIBRARY_NAME

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdist")
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", folder, "sdist", "--dist-dir", folder]
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (path,) = folder.glob("*.tar.gz")
    return path


def test_sdist_holds_every_file_of_the_clone_but_its_ci(sdist):
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("this is not a clone")
    files = {name for name in listed.stdout.splitlines() if not name.startswith(".ci/") and (ROOT / name).exists()}
    with tarfile.open(sdist) as archive:
        found = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert files - found == set()
    assert not [name for name in found if name.endswith((".so", ".pyc"))]


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """Build a wheel from the source distribution with the compiler of this machine."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, sdist]
    subprocess.run(command, capture_output=True, text=True, check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
@pytest.mark.skipif(not status().is_used, reason="there are no kernels to compare with")
def test_wheel_of_the_sdist_has_its_kernels_in_use_without_a_compiler(wheel, tmp_path):
    assert wheel.name.split("-")[2:4] == ["py3", "none"] and not wheel.name.endswith("-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "site-packages")
    assert {"mindcv/py.typed", "mindcv/data/imagenet1k_classes.tsv", f"mindcv/kernels/{LIBRARY_NAME}"} <= {*names}
    others = [entry for entry in sys.path if entry and not (Path(entry) / "mindcv").exists()]
    path = os.pathsep.join([str(tmp_path / "site-packages"), *others])
    run = subprocess.run(
        [sys.executable, "-S", "-m", "mindcv.kernels"],
        cwd=tmp_path,
        env={"PYTHONPATH": path, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert "kernels in use: yes" in run.stdout, run.stdout + run.stderr
    assert str(tmp_path / "site-packages") in run.stdout
    assert f"instruction sets built: {', '.join(status().stamp.built)}\n" in run.stdout
