"""Loads the scripts of the examples, which are no modules of the package."""

import importlib.util
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "examples"


def load(path):
    """Return the script at `path` in the folder of the examples as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, FOLDER / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
