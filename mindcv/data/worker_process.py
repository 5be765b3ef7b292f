"""The data-loader process: makes the batches that `mindcv.data.process_pool` asks for, in a few threads.

It is started as a script, `python worker_process.py CONNECTION MEMORY`, with two inherited file descriptors. It does
not import MindSpore, unless the user's data set or transforms do: it then starts in 0.2 s instead of 1.5 s, and takes
50 MB of memory instead of 400 MB. So it imports nothing of the package before `_Package` takes the place of the
packages' `__init__.py`. The process ends when the connection is closed, also if its parent was killed.

Decision 0090 says why it is no process of multiprocessing.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import mmap
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any, NamedTuple, Optional

__all__ = ["Block", "RaisedError", "Result", "Setup", "Task", "main"]

# The packages whose __init__.py imports MindSpore, directly or not.
_LIGHT_PACKAGES = ("mindcv", "mindcv.data", "mindcv.kernels")


# The messages are plain tuples when they are pickled, because this module is __main__ in the worker.


class Setup(NamedTuple):
    """What a worker receives first.

    Attributes:
        path: `sys.path` of the parent.
        num_threads: number of threads that make batches.
        log_level: level from which messages of the library are reported.
        job: places of the pickled `BatchMaker` and of its buffers in the shared memory: pairs (offset, size).
        image_settings: values of Pillow's global settings, by module and name.
        warning_filters: filters of Python's warnings.
    """

    path: list[str]
    num_threads: int
    log_level: int
    job: list[tuple[int, int]]
    image_settings: dict[tuple[str, str], Any]
    warning_filters: list[tuple]


class Block(NamedTuple):
    """A part of the shared memory, in bytes."""

    offset: int
    size: int


class Task(NamedTuple):
    """A batch to make: the arguments of `BatchMaker.make`, and the block of memory for the result."""

    number: int
    samples: Any
    epoch: int
    batch: int
    block: tuple[int, int]


class Result(NamedTuple):
    """The answer to a task. Task -1 stands for the start of the process.

    Attributes:
        task: number of the task.
        kind: class of the batch: tuple, or a named tuple.
        items: items of the batch. An array that is in the block is a `shared_blocks.Place`.
        error: a `RaisedError` as a tuple, instead of a batch.
        logs: messages of the library, as (level, text).
        num_replaced: number of corrupt images that were replaced since the last answer.
    """

    task: int
    kind: type = tuple
    items: Sequence[Any] = ()
    error: Optional[tuple[Any, ...]] = None
    logs: Sequence[tuple[int, str]] = ()
    num_replaced: int = 0


class RaisedError(NamedTuple):
    """An exception of a worker.

    Attributes:
        pickled: the exception, or None if it cannot be pickled.
        text: its class and message.
        trace: its traceback as text.
    """

    pickled: Optional[bytes]
    text: str
    trace: str


class _Package(ModuleType):
    """Stands for a package without running its `__init__.py`, until a name is used that is none of its modules."""

    _lock = threading.RLock()

    def __init__(self, name: str, folder: str):
        super().__init__(name)
        self.__path__ = [folder]
        self.__file__ = os.path.join(folder, "__init__.py")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        path = os.path.join(self.__path__[0], name)
        if os.path.isdir(path) or os.path.isfile(f"{path}.py"):
            return importlib.import_module(f"{self.__name__}.{name}")
        with _Package._lock:
            if type(self) is _Package:  # no other thread was faster
                self.__class__ = ModuleType
                options = {"submodule_search_locations": self.__path__}
                spec = importlib.util.spec_from_file_location(self.__name__, self.__file__, **options)
                self.__spec__, self.__loader__, self.__package__ = spec, spec.loader, self.__name__
                spec.loader.exec_module(self)
        return getattr(self, name)


def _use_light_packages() -> None:
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    for name in _LIGHT_PACKAGES:
        parent, _, own = name.rpartition(".")
        sys.modules[name] = package = _Package(name, os.path.join(root, *name.split(".")))
        if parent:
            setattr(sys.modules[parent], own, package)


def main(connection: int, memory: int) -> None:
    """Serve the parent at the file descriptor `connection`. `memory` is the file descriptor of the shared memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # only the parent reacts to Ctrl-C and to a closed terminal
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    parent = Connection(connection)
    try:
        setup = Setup(*parent.recv())
        worker = _Worker(parent, memory, setup)
        parent.send(tuple(Result(-1)))
        worker.serve(setup.num_threads)
    except (EOFError, OSError):  # the parent has closed the connection, or has ended
        pass
    except Exception as error:
        with suppress(OSError):
            parent.send(tuple(Result(-1, error=_as_raised(error))))
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(0)  # a thread may be in the middle of a batch


class _Worker:
    def __init__(self, parent: Connection, memory: int, setup: Setup):
        self._parent, self._memory = parent, memory
        self._sending = threading.Lock()
        self._maps: dict[tuple[int, int], mmap.mmap] = {}
        self._logs = _Collector()
        sys.path[:] = setup.path
        _use_light_packages()
        logger = importlib.import_module("mindcv.utils.logger").logger
        logger.handlers[:] = [self._logs]
        logger.setLevel(setup.log_level)
        for (module, name), value in setup.image_settings.items():
            setattr(importlib.import_module(module), name, value)
        warnings.filters[:0] = setup.warning_filters
        # The mapping is private, so a data set may write to its arrays, as in a process that is forked.
        parts = [memoryview(_mapped(memory, *place, mmap.MAP_PRIVATE))[: place[1]] for place in setup.job]
        self._maker = pickle.loads(parts[0], buffers=parts[1:])

    def serve(self, num_threads: int) -> None:
        """Make batches until the connection is closed. This thread reads the tasks, and `num_threads` work on them."""
        tasks = queue.SimpleQueue()
        for _ in range(num_threads):
            threading.Thread(target=self._work, args=(tasks,), daemon=True).start()
        while True:
            tasks.put(Task(*pickle.loads(self._parent.recv_bytes())))

    def _work(self, tasks: queue.SimpleQueue) -> None:
        while True:
            task = tasks.get()
            try:
                result = Result(task.number, *self._make(task))
            except BaseException as error:
                result = Result(task.number, error=_as_raised(error))
            result = result._replace(logs=self._logs.take(), num_replaced=self._maker.reader.take_num_replaced())
            try:
                with self._sending:
                    self._parent.send(tuple(result))
            except OSError:  # the parent has ended
                os._exit(0)

    def _make(self, task: Task) -> tuple[type, list[Any]]:
        memory = importlib.import_module("mindcv.data.shared_blocks").BlockWriter(self._map(task.block))
        batch = self._maker.make(task.samples, task.epoch, task.batch, memory.empty)
        return type(batch), [memory.placed(item) for item in batch]

    def _map(self, block: tuple[int, int]) -> mmap.mmap:
        if block not in self._maps:
            self._maps[block] = _mapped(self._memory, *block, mmap.MAP_SHARED)
        return self._maps[block]


class _Collector(logging.Handler):
    """Collects the library's messages, which the parent writes to its own log."""

    def __init__(self):
        super().__init__()
        self._messages: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append((record.levelno, record.getMessage()))

    def take(self) -> list[tuple[int, str]]:
        """Return the messages since the last call."""
        messages, self._messages = self._messages, []
        return messages


def _mapped(memory: int, offset: int, size: int, flags: int) -> mmap.mmap:
    return mmap.mmap(memory, max(size, 1), flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE, offset=offset)


def _as_raised(error: BaseException) -> tuple[Any, ...]:
    """Return a `RaisedError` as a tuple."""
    try:
        # The traceback and the causes stay here: the parent shows them as text.
        pickled = pickle.dumps(error)
        pickle.loads(pickled)  # an exception with its own arguments may fail only here
    except Exception:
        pickled = _pickled_as_base(error)
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return tuple(RaisedError(pickled, text, trace))


def _pickled_as_base(error: BaseException) -> Optional[bytes]:
    """Return the error of a user, pickled as its nearest class that takes only a message, or None for other errors."""
    errors = importlib.import_module("mindcv.utils.errors")
    for kind in (errors.DataError, errors.UserError):
        if isinstance(error, kind):
            return pickle.dumps(kind(str(error)))
    return None


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
