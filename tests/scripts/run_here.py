"""Runs scripts in the process of the tests."""

import contextlib
import importlib.util
import io
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mindcv.utils.cli import run_script

ROOT = Path(__file__).parents[2]


def run_here(script, *argv):
    """Run one of the main scripts in this process in PyNative mode, so that nothing is compiled."""
    return run_main(f"{script}.py", *argv, "--mode", "1")


def run_main(path, *argv):
    """Run a script in this process. `path` is its path in the repository."""
    spec = importlib.util.spec_from_file_location(f"script_{Path(path).stem}", ROOT / path)
    module = importlib.util.module_from_spec(spec)
    out, err, arguments, state = io.StringIO(), io.StringIO(), sys.argv, np.random.get_state()
    sys.argv = [path, *map(str, argv)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as end:
            spec.loader.exec_module(module)
            run_script(module.main)
    finally:
        sys.argv = arguments
        np.random.set_state(state)
    return SimpleNamespace(status=end.value.code, out=out.getvalue(), err=err.getvalue())
