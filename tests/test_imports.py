"""Tests of the directions of imports, which are read from the sources, and of `__all__` in each module."""

import ast
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "mindcv").rglob("*.py"))
SCRIPTS = [*sorted(ROOT.glob("*.py")), *sorted((ROOT / "tools").rglob("*.py"))]

DOMAINS = {"data", "loss", "optim", "scheduler"}
BUILT = DOMAINS | {"models", "kernels", "convert", "utils"}
# A package or module of mindcv -> the other parts of mindcv that it may import.
MAY_IMPORT = {
    "utils": set(),
    "convert": {"utils"},
    "kernels": {"utils"},
    "models": {"convert", "kernels", "utils"},  # create_model reads checkpoints
    "export": {"convert", "models", "utils"},
    **{name: {"utils"} for name in DOMAINS},
    "data": {"kernels", "utils"},
    "optim": {"kernels", "utils"},
    "config": {
        "data",
        "engine",
        "export",
        "loss",
        "models",
        "optim",
        "scheduler",
        "utils",
    },  # the names that their options can have
    "engine": BUILT,
    "report": {"engine", "utils"},
    "recipe_checks": {"config", "data", "utils"},
    "recipe_data": {"config", "data", "engine", "export", "recipe_checks", "utils"},
    "recipe": BUILT | {"engine", "config", "recipe_data"},
    "recipe_weights": {"config", "convert", "engine", "models", "optim", "recipe", "utils"},
    "recipe_classifier": {"config", "convert", "data", "engine", "export", "models", "recipe_weights", "utils"},
    "recipe_callbacks": {"config", "data", "engine", "models", "recipe", "recipe_weights", "utils"},
    "recipe_pretraining": {"config", "data", "engine", "models", "recipe", "recipe_callbacks", "recipe_data", "utils"},
    "recipe_classes": {"config", "data", "utils"},
    "recipe_analysis": BUILT | {"config", "engine", "recipe", "recipe_probe", "recipe_weights"},
    "recipe_export": {"config", "convert", "data", "export", "models", "recipe_classes", "recipe_weights", "utils"},
    "recipe_probe": {"config", "convert", "data", "engine", "models", "recipe_data", "recipe_weights", "utils"},
    "recipe_validate": BUILT
    | {"config", "engine", "recipe_classifier", "recipe_data", "recipe_probe", "recipe_weights"},
    "recipe_validate_all": BUILT | {"config", "export", "recipe_validate"},
    "recipe_average": BUILT | {"config", "engine", "recipe", "recipe_data", "recipe_validate", "recipe_weights"},
    "resume": {"recipe", "recipe_data", "engine", "config", "convert", "data", "utils"},
    "compat": BUILT | {"engine"},  # aliases with MindCV's names
    "__init__": BUILT | {"compat", "engine"},
}
# The modules of mindcv.config, each of which imports only those before it.
IN_CONFIG = ["parsing", "checks", "warnings", "sources", "reading", "options", "scripts", "__init__"]
MAY_PRINT = {"mindcv/utils/cli.py", "mindcv/config/reading.py"}


def shown(path):
    return path.relative_to(ROOT).as_posix()


def imported(path):
    """Yield the full names of the modules that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{shown(path)}: imports are absolute"
            yield node.module
            # `from mindcv import config` imports a module too.
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "mindcv")


def part_of(path):
    return path.relative_to(ROOT / "mindcv").with_suffix("").parts[0]


def test_import_tests_find_modules_and_scripts():
    assert len(MODULES) > 50 and {"train.py", "pretrain.py", "validate.py", "infer.py"} <= {
        path.name for path in SCRIPTS
    }


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_imports_point_one_way(path):
    own = part_of(path)
    others = {name.split(".")[1] for name in imported(path) if name.startswith("mindcv.")} - {own}
    assert others <= MAY_IMPORT[own]
    scripts = {script.stem for script in SCRIPTS} | {"tools", "tests"}
    assert not scripts & {name.split(".")[0] for name in imported(path)}


def test_imports_inside_config_point_one_way():
    for path in (ROOT / "mindcv" / "config").glob("*.py"):
        before = IN_CONFIG[: IN_CONFIG.index(path.stem)]
        modules = {name.split(".")[2] for name in imported(path) if name.startswith("mindcv.config.")}
        assert modules <= set(before), path.name


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_all_of_each_module_lists_existing_public_names(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).replace(".__init__", "")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    if path.stem == "__init__" and len(tree.body) == 1:
        return  # the module holds only a docstring
    module = importlib.import_module(name)
    assert len(set(module.__all__)) == len(module.__all__)
    missing = [public for public in module.__all__ if not hasattr(module, public)]
    assert not missing
    private = [public for public in module.__all__ if public.startswith("_")]
    assert not private


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_modules_do_not_print_except_through_the_logger(path):
    calls = (node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    lines = [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]
    assert not lines or shown(path) in MAY_PRINT


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS, *sorted((ROOT / "configs").rglob("*.yaml"))], ids=shown)
def test_sources_hold_no_path_of_one_machine(path):
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"(?<![\w.])/(?:home|root|tmp|work|Users|mnt|opt|usr)/\S*", text)


def test_star_import_gives_the_documented_names():
    names = {}
    exec("from mindcv import *", names)
    listed = "create_model create_dataset create_transforms create_loader create_loss create_optimizer " + (
        "create_scheduler create_trainer list_models list_modules is_model is_model_pretrained model_entrypoint "
        "register_model convnext_tiny convnextv2_huge"
    )
    assert set(listed.split()) <= names.keys()


def test_import_refuses_numpy_2_in_one_sentence(tmp_path):
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text("__version__ = '2.1.0'\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run([sys.executable, "-c", "import mindcv"], env=environment, capture_output=True, text=True)
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: mindcv needs numpy below 2, and 2.1.0 is installed")
    assert 'pip install "numpy<2"' in last and run.stderr.count("Traceback") == 1


def test_import_refuses_files_of_mindcv_in_the_package_in_one_sentence(tmp_path):
    assert not (ROOT / "mindcv" / "version.py").exists()
    (tmp_path / "mindcv").mkdir()
    for name in ("__init__.py", "version.py"):  # the second as MindCV has it
        text = (ROOT / "mindcv" / name).read_text() if name == "__init__.py" else '__version__ = "0.3.0"\n'
        (tmp_path / "mindcv" / name).write_text(text)
    run = subprocess.run([sys.executable, "-c", "import mindcv"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: '{tmp_path / 'mindcv'}' holds files of two libraries, this one and MindCV")
    assert "delete that folder and install one of the two" in last


def test_tools_take_the_package_beside_them_when_mindcv_is_installed(tmp_path):
    """The installed package raises an error when it is imported."""
    (tmp_path / "mindcv").mkdir()
    (tmp_path / "mindcv" / "__init__.py").write_text("raise RuntimeError('another library')\n")
    code = "import own_mindcv, mindcv.utils.errors; print(mindcv.__file__)"
    path = os.pathsep.join([str(ROOT / "tools"), str(tmp_path)])
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert run.stdout.splitlines()[-1] == str(ROOT / "mindcv" / "__init__.py"), run.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "tools").glob("*.py")), ids=shown)
def test_tools_import_the_package_beside_them(path):
    names = list(imported(path))
    others = [name for name in names if name.split(".")[0] in ("mindcv", "benchmarks")]
    assert not others or names.index("own_mindcv") < names.index(others[0])


def test_import_pauses_the_garbage_collector_and_restores_its_state():
    code = """
import gc
import mindspore

passes = []
gc.callbacks.append(lambda phase, info: passes.append(info["generation"]) if phase == "start" else None)
{before}
import mindcv

print(passes.count(2), gc.isenabled())
"""
    for before, after in (("gc.enable()", "0 True"), ("gc.disable()", "0 False")):
        command = [sys.executable, "-c", code.format(before=before)]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert run.stdout.splitlines()[-1] == after


def test_import_finds_the_package_when_the_clone_is_in_the_working_folder(tmp_path):
    """Without care, Python would take the folder of a clone, which has no __init__.py, for the package `mindcv`."""
    (tmp_path / "mindcv").symlink_to(ROOT)
    command = [sys.executable, "-c", "import mindcv; print(mindcv.create_model.__name__)"]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert found.stdout == "create_model\n", found.stderr
