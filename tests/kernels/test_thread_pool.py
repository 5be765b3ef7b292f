"""Tests of the kernels' thread pool by itself: workers that lose their core, forked processes, exceptions."""

import os
import subprocess
from pathlib import Path

import pytest

from mindcv.kernels import build

CHECKS = ("stopped_worker", "sleeping_caller", "shared_core", "fork", "many_jobs")
SECONDS = 120  # a pool that waits for ever is ended then


@pytest.fixture(scope="module", params=["plain", "thread sanitizer"])
def program(request, tmp_path_factory):
    """Compile the checks with the pool, once as the library has it and once with the thread sanitizer."""
    path = tmp_path_factory.mktemp("pool") / "checks"
    sources = [Path(__file__).with_name("pool_checks.cc"), build._SOURCES / "runtime" / "thread_pool.cc"]
    flags = ["-g", "-fsanitize=thread"] if request.param == "thread sanitizer" else []
    command = [*build.compiler(), *build._FLAGS, *flags, f"-I{build._SOURCES}", *map(str, sources), "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if flags and "cannot find" in done.stderr:
        pytest.skip("the compiler has no thread sanitizer")
    assert done.returncode == 0, done.stderr
    return path


def run(program, check):
    # The sanitizer refuses new threads in a forked process by default.
    environment = {**os.environ, "TSAN_OPTIONS": "die_after_fork=0 halt_on_error=1"}
    return subprocess.run([program, check], capture_output=True, text=True, timeout=SECONDS, env=environment)


@pytest.mark.parametrize("check", CHECKS)
def test_pool_check_holds(program, check):
    """The checks are the functions `check_...` of pool_checks.cc."""
    done = run(program, check)
    assert done.returncode == 0, done.stderr[:4000]
