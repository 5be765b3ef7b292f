"""Tests of the folder of compiled training steps. They write the files that MindSpore would write.

tests/test_compile_cache.py compiles real training steps.
"""

import json
import os
import time
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from mindcv.engine import CompileCache
from mindcv.engine import compile_cache as module
from mindcv.utils.distributed import Group
from mindcv.utils.errors import UserError

IMAGES, LABELS = ms.Tensor(shape=(4, 3, 8, 8), dtype=ms.float32), ms.Tensor(shape=(4,), dtype=ms.int32)
KEY = {"options": {"lr": 0.1, "betas": (0.9, 0.999)}, "num_classes": 10}


class Processes(Group):
    """A group whose other processes have the same entries as this process."""

    def sum_integers(self, values):
        return np.asarray(values) * self.size


class Unlike(Group):
    """A group whose other processes have no entries."""

    def sum_integers(self, values):
        return np.asarray(values)


@pytest.fixture(autouse=True)
def graph_mode(monkeypatch):
    """Set graph mode, and forget that this process has used a cache."""
    monkeypatch.setattr(CompileCache, "_has_served", False)
    monkeypatch.delenv("MS_COMPILER_CACHE_ENABLE", raising=False)
    ms.set_context(mode=ms.GRAPH_MODE)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


class Run:
    """A process that trains. It compiles `cells` in turn, each into one file, unless the file exists already."""

    def __init__(self, folder, key=KEY, arguments=(IMAGES, LABELS), cells=1, channels=3, group=Group()):  # noqa: B008
        CompileCache._has_served = False
        self.cache = CompileCache(str(folder), key, group)
        self.cells = [nn.Dense(channels, 2) for _ in range(cells)]
        self.cache.serve(*self.cells)
        self.arguments = arguments
        self.found = []

    def compile(self, number, text="graph"):
        with self.cache.compiling(self.arguments):
            assert os.environ["MS_COMPILER_CACHE_ENABLE"] == "1"
            file = Path(os.environ["MS_COMPILER_CACHE_PATH"]) / f"rank_0/graph_cache/compile_cache_{number}.mindir"
            self.found.append(file.read_text() if file.exists() else None)
            file.parent.mkdir(parents=True, exist_ok=True)
            if text is not None and not file.exists():
                file.write_text(f"{text} {number}")
        assert "MS_COMPILER_CACHE_ENABLE" not in os.environ
        assert "MS_COMPILER_CACHE_PATH" not in os.environ

    def found_by(self):
        """Compile all cells and return the text of the file that each of them found."""
        for number in range(len(self.cells)):
            self.compile(number)
        return self.found


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def test_compile_cache_serves_the_second_run_with_the_graph_of_the_first(folder):
    assert Run(folder).found_by() == [None]
    assert len(entries(folder)) == 1
    assert Run(folder).found_by() == ["graph 0"]
    assert len(entries(folder)) == 1


def test_compile_cache_creates_an_entry_only_when_all_graphs_are_compiled(folder):
    run = Run(folder, cells=2)
    run.compile(0)
    assert [name for name in entries(folder) if not name.startswith(".")] == []
    run.compile(1)
    assert len(entries(folder)) == 1
    assert Run(folder, cells=2).found_by() == ["graph 0", "graph 1"]


@pytest.mark.parametrize(
    "change",
    [
        {"key": {**KEY, "options": {"lr": 0.2, "betas": (0.9, 0.999)}}},
        {"key": {**KEY, "options": {"lr": 0.1, "betas": (0.9, 0.99)}}},
        {"group": Processes(1, 2)},
        {"arguments": (IMAGES, ms.Tensor(shape=(4,), dtype=ms.int64))},
        {"arguments": (ms.Tensor(shape=(2, 3, 8, 8), dtype=ms.float32), LABELS)},
        {"channels": 4},
    ],
    ids=["rate", "betas", "process", "dtype", "batch", "parameter"],
)
def test_compile_cache_makes_another_entry_when_the_step_differs(folder, change):
    Run(folder).found_by()
    assert Run(folder, **change).found_by() == [None]
    assert len(entries(folder)) == 2
    assert Run(folder).found_by() == ["graph 0"]


def test_compile_cache_serves_no_process_when_one_has_no_entry(folder):
    Run(folder, group=Processes(0, 2)).found_by()
    assert Run(folder, group=Unlike(0, 2)).found_by() == [None]
    assert Run(folder, group=Processes(0, 2)).found_by() == ["graph 0"]
    assert len(entries(folder)) == 1


@pytest.mark.parametrize("name", ["MINDCV_KERNELS", "MS_DEV_ANYTHING"])
def test_compile_cache_makes_another_entry_when_the_environment_differs(folder, monkeypatch, name):
    Run(folder).found_by()
    monkeypatch.setenv(name, "off")
    assert Run(folder).found_by() == [None]


def test_compile_cache_ignores_the_address_of_the_scheduler(folder, monkeypatch):
    """Each start of a job may use another port and another address."""
    Run(folder).found_by()
    monkeypatch.setenv("MS_SCHED_PORT", "8119")
    monkeypatch.setenv("MS_NODE_ID", "0")
    assert Run(folder).found_by() == ["graph 0"]


def test_compile_cache_makes_another_entry_when_code_changes(folder, tmp_path, monkeypatch):
    """The changed module is imported from a user's folder, not from an installed package."""
    code = tmp_path / "my_own_model.py"
    code.write_text("DEPTH = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    __import__("my_own_model")
    monkeypatch.setitem(module.sys.modules, "my_own_model", module.sys.modules["my_own_model"])
    Run(folder).found_by()
    assert Run(folder).found_by() == ["graph 0"]
    code.write_text("DEPTH = 2\n")
    assert Run(folder).found_by() == [None]


def test_compile_cache_key_includes_the_package_and_the_sources_of_its_kernels():
    files = module._code_files()
    package = Path(module.__file__).parents[1]
    assert {str(package / "models" / "convnext.py"), str(package / "kernels" / "csrc" / "network" / "gelu.h")} <= files
    assert str(Path(__file__)) in files
    assert not [file for file in files if "site-packages" in file or "__pycache__" in file]


@pytest.mark.parametrize("name", ["site-packages", "dist-packages"])
def test_compile_cache_key_leaves_out_packages_of_another_environment(tmp_path, monkeypatch, name):
    """A .pth file may add packages of another environment to the path of this one."""
    folder = tmp_path / "other" / "lib" / name
    folder.mkdir(parents=True)
    (folder / "package_of_another_environment.py").write_text("")
    monkeypatch.syspath_prepend(folder)
    __import__("package_of_another_environment")
    imported = module.sys.modules.pop("package_of_another_environment")
    monkeypatch.setitem(module.sys.modules, "package_of_another_environment", imported)
    assert imported.__file__ not in module._code_files()


@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "more", "no manifest", "broken manifest"])
def test_compile_cache_compiles_again_when_an_entry_is_damaged(folder, damage):
    Run(folder).found_by()
    (entry,) = folder.iterdir()
    (graph,) = entry.rglob("*.mindir")
    if damage == "changed":
        graph.write_text("hparg 0")
    elif damage == "cut":
        graph.write_text("gra")
    elif damage == "gone":
        graph.unlink()
    elif damage == "more":
        graph.with_name("compile_cache_1.mindir").write_text("graph 1")
    elif damage == "no manifest":
        (entry / "entry.json").unlink()
    else:
        (entry / "entry.json").write_text("{")
    assert Run(folder).found_by() == [None]
    assert len(entries(folder)) == 1
    assert Run(folder).found_by() == ["graph 0"]


def test_compile_cache_refuses_an_entry_whose_manifest_holds_another_key(folder):
    """The name of an entry is only a digest of 128 bits. Its manifest holds the whole key."""
    Run(folder).found_by()
    (entry,) = folder.iterdir()
    manifest = json.loads((entry / "entry.json").read_text())
    manifest["key"]["built from"]["options"]["lr"] = 0.3
    (entry / "entry.json").write_text(json.dumps(manifest))
    assert Run(folder).found_by() == [None]


def test_compile_cache_leaves_no_entry_when_compilation_fails(folder):
    run = Run(folder)
    with pytest.raises(RuntimeError), run.cache.compiling(run.arguments):
        raise RuntimeError("no such operator")
    assert "MS_COMPILER_CACHE_ENABLE" not in os.environ
    run.cache._side.cleanup()  # as when the process ends
    assert entries(folder) == []


def test_compile_cache_warns_and_keeps_no_entry_when_mindspore_writes_no_graph(folder, capsys):
    Run(folder).compile(0, text=None)
    assert entries(folder) == []
    assert "has not written" in capsys.readouterr().err


def test_compile_cache_keeps_the_entry_of_the_faster_of_two_runs(folder, capsys):
    slow = Run(folder)
    with slow.cache.compiling(slow.arguments):
        graph = Path(os.environ["MS_COMPILER_CACHE_PATH"]) / "compile_cache_0.mindir"
        graph.write_text("slow")
        environment = {name: os.environ.pop(name) for name in ("MS_COMPILER_CACHE_ENABLE", "MS_COMPILER_CACHE_PATH")}
        Run(folder).found_by()  # in a process of its own, it would be
        os.environ.update(environment)
    assert len(entries(folder)) == 1
    assert Run(folder).found_by() == ["graph 0"]
    assert "cannot write" not in capsys.readouterr().err


def test_compile_cache_removes_old_folders_of_killed_processes(folder):
    for name, age in ((".part-old", 25 * 3600), (".part-new", 60)):
        (folder / name).mkdir(parents=True)
        os.utime(folder / name, (time.time() - age,) * 2)
    Run(folder).found_by()
    assert ".part-new" in entries(folder)
    assert ".part-old" not in entries(folder)


def test_compile_cache_refuses_a_second_step_in_one_process(folder):
    Run(folder)
    with pytest.raises(UserError, match="one cached training step"):
        CompileCache(str(folder), KEY).serve(nn.Dense(2, 2))


def test_compile_cache_refuses_to_replace_the_cache_of_mindspore(folder, monkeypatch):
    monkeypatch.setenv("MS_COMPILER_CACHE_ENABLE", "1")
    with pytest.raises(UserError, match="MS_COMPILER_CACHE_ENABLE"):
        CompileCache(str(folder), KEY)


def test_compile_cache_refuses_pynative_mode(folder):
    ms.set_context(mode=ms.PYNATIVE_MODE)
    with pytest.raises(UserError, match="graph mode"):
        CompileCache(str(folder), KEY)


def test_compile_cache_names_a_folder_that_it_cannot_create(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to folder"):
        CompileCache(str(tmp_path / "file" / "cache"), KEY)
