"""A cache on disk of the compiled training step, for later runs that would compile the same step.

MindSpore's compile cache stores and loads the graphs. It identifies a graph only by the text of the script and by the
order of compilation: with another learning rate it would load the old graph and train at the old rate. Therefore it is
enabled for the training step only, with a separate folder for each combination of everything that the graph depends on
(decision 0065).
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import distribution
from pathlib import Path
from typing import Any, ClassVar

import mindspore as ms
from mindspore import Tensor, nn

from mindcv.kernels import status
from mindcv.utils.distributed import ALONE, Group
from mindcv.utils.errors import UserError
from mindcv.utils.files import ensure_writable_dir
from mindcv.utils.logger import logger

__all__ = ["CompileCache"]

# MindSpore reads both at each compilation, but keeps the first folder that it is given.
_ENABLE, _FOLDER = "MS_COMPILER_CACHE_ENABLE", "MS_COMPILER_CACHE_PATH"
# Where the processes of a job meet: another place each time, and a graph knows its process by rank and size only.
_LAUNCHER = ("MS_ROLE", "MS_WORKER", "MS_SERVER", "MS_SCHED", "MS_NODE", "MS_TOPO")
_MANIFEST = "entry.json"
_SIDE = ".part-"
# Folders that installers put packages into; the second is Debian's.
_PACKAGES = frozenset({"site-packages", "dist-packages"})
_ABANDONED = 24 * 3600.0  # seconds after which the folder of a compilation must be that of a killed process


class CompileCache:
    """A folder of compiled training steps. One step of this process loads its graphs from there, or stores them.

    An entry is a folder that appears only when it is complete. It holds the SHA-256 of each file, and a damaged entry
    is replaced. Entries may be deleted at any time.

    Args:
        folder: folder of the cache, which is created if it does not exist.
        key: JSON values of everything that the step is built from: options, classes, learning rates. The cache adds
            code, versions, environment, device, process, and the parameters and inputs of the step.
        group: the processes of the run. Each has its own entries, and either all load theirs or none does: a process
            that waits for another one to compile gives up within 15 s on CPU.

    Raises:
        UserError: the folder cannot be written to, MindSpore's compile cache is in use already, or not graph mode.
    """

    _has_served: ClassVar[bool] = False

    def __init__(self, folder: str, key: Mapping[str, Any], group: Group = ALONE):
        if os.environ.get(_ENABLE) == "1" or ms.get_context("enable_compile_cache"):
            raise UserError(f"compile_cache_dir: not while MindSpore's own compile cache is on ({_ENABLE})")
        if ms.get_context("mode") != ms.GRAPH_MODE:
            raise UserError("compile_cache_dir: only graph mode compiles the training step")
        self._folder = ensure_writable_dir(folder)
        self._group = group
        self._key: dict[str, Any] = {"built from": dict(key), "process": [group.rank, group.size]}
        self._num_graphs = self._num_compiled = 0
        self._seconds = 0.0
        self._is_hit = False

    def serve(self, *cells: nn.Cell) -> None:
        """Let these cells make their first calls, in this order, inside `compiling`; see `graph_cache`.

        Raises:
            UserError: this process already used a cache; MindSpore keeps the first folder for the whole process.
        """
        if CompileCache._has_served:
            raise UserError("compile_cache_dir: a process has one cached training step, and this is its second")
        CompileCache._has_served = True
        self._num_graphs = len(cells)
        for cell in cells:
            cell.graph_cache = self
        self._key["parameters"] = [
            [name, list(parameter.shape), str(parameter.dtype), parameter.requires_grad]
            for cell in cells
            for name, parameter in cell.parameters_dict().items()
        ]

    @contextmanager
    def compiling(self, arguments: tuple[Tensor, ...]) -> Iterator[None]:
        """Enable the cache for the first call of one of the cells, with these arguments."""
        if self._num_compiled == 0:
            self._open(arguments)
        start = time.perf_counter()
        os.environ.update({_ENABLE: "1", _FOLDER: str(self._files)})
        try:
            yield
        finally:
            del os.environ[_ENABLE], os.environ[_FOLDER]
        self._seconds += time.perf_counter() - start
        self._num_compiled += 1
        if self._num_compiled == self._num_graphs:
            self._close()

    def _open(self, arguments: tuple[Tensor, ...]) -> None:
        """Find the entry and copy it to the folder that MindSpore uses, which is never the entry itself."""
        self._key["inputs"] = [[list(argument.shape), str(argument.dtype)] for argument in arguments]
        self._key.update(_surroundings())
        self._entry = self._folder / _sha256(json.dumps(self._key, sort_keys=True).encode())[:32]
        _remove_abandoned(self._folder)
        self._side = tempfile.TemporaryDirectory(prefix=_SIDE, dir=self._folder)
        self._files = Path(self._side.name) / "files"
        num_hits = self._group.sum_integers([self._copy_entry()])[0]
        self._is_hit = num_hits == self._group.size
        if self._is_hit:
            logger.info("compile cache: taking the training step from '%s'", self._entry)
        else:
            shutil.rmtree(self._files, ignore_errors=True)
            self._files.mkdir()
            logger.info("compile cache: compiling the training step for '%s'", self._entry)

    def _copy_entry(self) -> bool:
        """Copy the entry, if it exists and is not damaged."""
        if not self._entry.is_dir():
            return False
        try:
            shutil.copytree(self._entry, self._files)
            manifest = json.loads((self._files / _MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            manifest = None
        if manifest == self._manifest():
            return True
        logger.warning("compile cache: '%s' is damaged, and made anew", self._entry)
        shutil.rmtree(self._entry, ignore_errors=True)
        return False

    def _manifest(self) -> dict[str, Any]:
        """Return the manifest of the files as JSON values: the key and the SHA-256 of each file."""
        paths = (path for path in self._files.rglob("*") if path.is_file() and path.name != _MANIFEST)
        files = {path.relative_to(self._files).as_posix(): _sha256(path.read_bytes()) for path in paths}
        return json.loads(json.dumps({"key": self._key, "files": files}))

    def _close(self) -> None:
        """Store the compiled step as an entry. A run continues if that fails."""
        logger.info("compile cache: the first training step took %.1f s", self._seconds)
        if not self._is_hit:
            self._publish()
        self._side.cleanup()

    def _publish(self) -> None:
        if len(list(self._files.rglob("*.mindir"))) < self._num_graphs:
            logger.warning("compile cache: MindSpore has not written the training step for '%s'", self._entry)
            return
        try:
            (self._files / _MANIFEST).write_text(json.dumps(self._manifest(), indent=1), encoding="utf-8")
            self._files.rename(self._entry)
        except OSError as error:
            if not self._entry.is_dir():  # else another run has made the same meanwhile
                logger.warning("compile cache: cannot write '%s': %s", self._entry, error.strerror)


def _surroundings() -> dict[str, Any]:
    """Return what a graph depends on beside the key, as JSON values."""
    environment = {name: value for name, value in os.environ.items() if name.startswith(("MINDCV_", "MS_"))}
    return {
        "code": {file: _sha256(Path(file).read_bytes()) for file in _code_files()},
        "environment": {name: value for name, value in environment.items() if not name.startswith(_LAUNCHER)},
        "device": ms.get_context("device_target"),
        "kernels": str(status()),
        "machine": platform.machine(),
        "python": sys.version,
        # The list of a package's files has their hashes, so that two builds of one version differ.
        "mindspore": _sha256((distribution("mindspore").read_text("RECORD") or ms.__version__).encode()),
    }


def _code_files() -> set[str]:
    """Return the files of this package, with its library, and of all loaded modules that are not installed packages."""
    package = Path(__file__).parents[1]
    files = {str(path) for path in package.rglob("*") if path.is_file() and path.parent.name != "__pycache__"}
    installed = tuple(sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    for module in list(sys.modules.values()):
        file = os.path.abspath(getattr(module, "__file__", None) or "")
        # A .pth file can add the packages of another environment to the path of this one.
        is_installed = file.startswith(installed) or not _PACKAGES.isdisjoint(file.split(os.sep))
        if not is_installed and os.path.isfile(file):
            files.add(file)
    return files


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _remove_abandoned(folder: Path) -> None:
    """Remove the folders that killed processes left during a compilation."""
    for path in folder.glob(f"{_SIDE}*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _ABANDONED:
                shutil.rmtree(path, ignore_errors=True)
