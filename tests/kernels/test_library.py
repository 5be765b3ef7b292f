"""The package uses only a library that was built from its own sources, in the package or in an installed one."""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mindcv.kernels import library
from mindcv.kernels.build import LIBRARY_NAME, Stamp, sources
from mindcv.kernels.signature_table import SIGNATURES
from mindcv.utils.errors import UserError
from mindcv.utils.logger import logger

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """Put the package into a clone without a library, and let Python look for installed packages in one folder."""
    folder = tmp_path / "clone" / "mindcv" / "kernels"
    folder.mkdir(parents=True)
    (tmp_path / "clone" / "setup.py").touch()
    monkeypatch.setattr(library, "__file__", str(folder / "library.py"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "clone"), str(tmp_path / "site-packages")])
    monkeypatch.setenv("CXX", "sh")  # a program that every machine has
    return tmp_path / "clone"


def put_library(root, digest):
    path = root / "mindcv" / "kernels" / LIBRARY_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x7fELF" + str(Stamp(digest, ("generic",), ())).encode() + b"\0")
    return path


def test_library_of_the_imported_package_is_used_before_another_installed_one(clone, tmp_path):
    put_library(tmp_path / "site-packages", sources())
    path = put_library(clone, sources())
    assert library._find() == path


@pytest.mark.parametrize("is_stale", [False, True])
def test_library_of_the_installed_package_is_used_when_the_clone_has_none_of_its_sources(is_stale, clone, tmp_path):
    if is_stale:
        put_library(clone, "0" * 64)
    path = put_library(tmp_path / "site-packages", sources())
    assert library._find() == path


@pytest.mark.parametrize("place", ["clone", "site-packages"])
def test_library_of_other_sources_is_refused(place, clone, tmp_path):
    path = put_library(tmp_path / place, "0" * 64)
    with pytest.raises(library._NoLibraryError) as caught:
        library._find()
    assert str(caught.value) == (
        f"'{path}' was built from other sources than the ones in '{clone / 'mindcv' / 'kernels'}'; "
        f"to build it, run: {shlex.join([sys.executable, '-m', 'pip', 'install', '-e', str(clone)])}"
    )


def test_library_without_a_stamp_is_refused(clone):
    path = put_library(clone, sources())
    path.write_bytes(b"\x7fELF")
    with pytest.raises(library._NoLibraryError, match="was built from other sources"):
        library._find()


def test_missing_library_is_reported_with_the_command_that_builds_one(clone, monkeypatch):
    with pytest.raises(library._NoLibraryError, match="no library was built for '.*'; to build it, run: .* -m pip"):
        library._find()
    monkeypatch.setenv("CXX", "no-such-compiler")
    words = r"install a C\+\+ compiler \('no-such-compiler' was not found\), then run: .* -m pip install -e .*clone"
    with pytest.raises(library._NoLibraryError, match=words):
        library._find()
    (clone / "setup.py").unlink()
    with pytest.raises(library._NoLibraryError, match="was not found\\), then install mindcv again from its sources"):
        library._find()


def test_unused_kernels_are_warned_of_once(monkeypatch):
    said = []
    monkeypatch.setattr(logger, "warning", lambda text, *values: said.append(text % values))
    monkeypatch.delenv("MINDCV_KERNELS", raising=False)
    monkeypatch.setattr(library, "_loaded", lambda: library.Status(False, "a reason"))
    library._warn_once.cache_clear()
    assert not library.is_available() and not library.is_available()
    assert said == ["the CPU kernels are not used, so everything takes several times as long: a reason"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"Norm": SIGNATURES["Norm"].replace("gamma[C] beta[C]", "beta[C] gamma[C]")},
            "the kernel Norm is 'x[...,C] gamma",
        ),
        ({"NoSuchKernel": "x[N] -> out[N]"}, "the kernel NoSuchKernel is 'missing' in the library"),
        ({"AdamW": None}, "and 'missing' in the table"),
    ],
    ids=["two arguments of one shape swapped", "missing in the library", "missing in the table"],
)
def test_library_is_refused_when_its_signatures_differ_from_the_table(changes, words, monkeypatch):
    monkeypatch.delenv("MINDCV_KERNELS_ISA", raising=False)
    assert library._loaded.__wrapped__().is_used
    changed = {name: text for name, text in {**SIGNATURES, **changes}.items() if text is not None}
    monkeypatch.setattr(library, "SIGNATURES", changed)
    refused = library._loaded.__wrapped__()
    assert not refused.is_used and "signature_table.py" in refused.reason and words in refused.reason


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("avx3", "'avx3', which is not an instruction set of the kernels; did you mean 'avx2'"),
        ("AVX2", "'AVX2', which is not an instruction set"),
        ("avx512", "'avx512', but this processor does not have it"),
        ("amx", "'amx', but the library was built without it"),
    ],
)
def test_instruction_set_that_cannot_be_used_is_an_error(wanted, words, monkeypatch):
    monkeypatch.setenv("MINDCV_KERNELS_ISA", wanted)
    with pytest.raises(UserError, match=words) as caught:
        library._check_wanted_set(["generic", "avx2", "avx512"], ["avx2", "generic"])
    assert str(caught.value).endswith("(it can be: avx2, generic)")


@pytest.mark.parametrize("wanted", ["", "avx2"])
def test_instruction_set_of_the_processor_is_no_error(wanted, monkeypatch):
    monkeypatch.setenv("MINDCV_KERNELS_ISA", wanted)
    library._check_wanted_set(["generic", "avx2"], ["avx2", "generic"])


def test_script_in_a_clone_uses_the_kernels_of_the_installed_package(tmp_path):
    """After `pip install .`, Python finds the package of the clone first, which has no library."""
    shutil.copytree(
        ROOT / "mindcv", tmp_path / "clone" / "mindcv", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )
    installed = tmp_path / "site-packages" / "mindcv" / "kernels"
    installed.mkdir(parents=True)
    shutil.copy(library.library_path(), installed)
    # The folders of this environment come first, without those of the project, so that no other library is found.
    code = "import mindcv.kernels as k; print(k.__file__); print(k.status().path)"
    others = [entry for entry in sys.path if entry and not (Path(entry) / "mindcv").exists()]
    path = os.pathsep.join([str(tmp_path / "site-packages"), *others])
    run = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path / "clone",
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'clone'}{os.pathsep}{path}"},
        capture_output=True,
        text=True,
    )
    package, found = run.stdout.splitlines()[-2:]
    assert Path(package).is_relative_to(tmp_path / "clone") and Path(found) == installed / LIBRARY_NAME, run.stderr


@pytest.mark.parametrize(
    ("own", "openmp", "wanted"),
    [("", "", 0), ("", "4,2", 4), ("", " 4 , 2", 4), ("", "3", 3), ("2", "4,2", 2), ("1", "", 1)],
)
def test_number_of_threads_is_the_first_of_openmps_list(own, openmp, wanted, monkeypatch):
    monkeypatch.setenv("MINDCV_KERNELS_THREADS", own)
    monkeypatch.setenv("OMP_NUM_THREADS", openmp)
    assert library._wanted_threads() == wanted


@pytest.mark.parametrize(("own", "openmp"), [("4,2", ""), ("", "0,2"), ("", "many")])
def test_number_of_threads_that_is_none_is_an_error(own, openmp, monkeypatch):
    monkeypatch.setenv("MINDCV_KERNELS_THREADS", own)
    monkeypatch.setenv("OMP_NUM_THREADS", openmp)
    with pytest.raises(UserError, match="_THREADS must be a positive whole number"):
        library._wanted_threads()
