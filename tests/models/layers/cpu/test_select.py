"""The selector is the one way from the plain layers to the forms for CPU."""

import ast
from pathlib import Path

import pytest

MODELS = Path(__file__).parents[4] / "mindcv" / "models"
MODULES = sorted(path.relative_to(MODELS).as_posix() for path in MODELS.rglob("*.py"))
# Packing replaces whole stages by kernels that hold their weights. FCMAE's form for CPU is made of kernels.
MAY_IMPORT_KERNELS = {"packing.py", "layers/cpu/select.py", "layers/cpu/visible.py"}


def imported(path):
    tree = ast.parse((MODELS / path).read_text(encoding="utf-8"))
    return {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("path", MODULES)
def test_models_reach_kernels_and_operator_forms_through_the_selector(path):
    kernels = {name for name in imported(path) if name.startswith("mindcv.kernels")} - {"mindcv.kernels.form"}
    forms = {name for name in imported(path) if name.startswith("mindcv.models.layers.cpu")}
    assert not kernels or path in MAY_IMPORT_KERNELS
    if not path.startswith("layers/cpu/"):
        assert forms <= {"mindcv.models.layers.cpu.select"}


def test_convnext_module_imports_no_form():
    assert {"mindcv.models.layers", "mindcv.models.registry"} <= imported("convnext.py")
    assert not any(name.startswith(("mindcv.kernels", "mindcv.models.layers.")) for name in imported("convnext.py"))
