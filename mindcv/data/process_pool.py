"""The parent's side of data-loader processes: starts them, gives them batches to make, and takes the results.

Decision 0090 describes the processes. `mindcv.data.worker_process` is their side.
"""

from __future__ import annotations

import importlib
import math
import os
import pickle
import signal
import subprocess
import sys
import threading
import warnings
import weakref
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from multiprocessing import Pipe
from multiprocessing.connection import wait
from types import FunctionType
from typing import Any, Optional

import numpy as np

from mindcv.data import worker_process
from mindcv.data.batches import Batch, BatchMaker
from mindcv.data.shared_blocks import Place, SharedBlocks
from mindcv.data.worker_process import Result, Setup, Task
from mindcv.utils.errors import UserError
from mindcv.utils.logger import logger

__all__ = ["ProcessPool", "can_use_processes", "why_not_picklable"]

_SECONDS_TO_END = 2  # a worker ends at once, unless a transform does not release Python's global lock
_ADVICE = "threads need no such copy: give python_multiprocessing=False"
# A library would otherwise start one thread for each core in each process.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# Global settings of Pillow, by module and name, which decide how an image is read.
_IMAGE_SETTINGS = (("PIL.Image", "MAX_IMAGE_PIXELS"), ("PIL.ImageFile", "LOAD_TRUNCATED_IMAGES"))


def can_use_processes() -> bool:
    """Return whether this system can pass file descriptors to new processes, as Linux and macOS can."""
    return os.name == "posix" and bool(sys.executable)


def why_not_picklable(maker: BatchMaker) -> Optional[str]:
    """Return a clause about the part of the data set or the transforms that no other process can load, or None."""
    try:
        _pickled(maker)
    except _NotPicklableError as error:
        return str(error)
    return None


class Handle:
    """A batch that a worker makes.

    Attributes:
        block: block of the shared memory for the batch.
        result: the answer of the worker, or None as long as there is none.
        is_cancelled: whether the batch is not wanted any more.
    """

    def __init__(self, block: Any):
        self.block = block
        self.result: Optional[Result] = None
        self.is_cancelled = False


class ProcessPool:
    """Data-loader processes of a few threads each. They live until `close`, or as long as the pool.

    Args:
        maker: makes the batches. Each process gets a copy of it.
        num_processes: number of processes.
        num_threads: number of threads of each process.
        batch_bytes: expected size of the images and labels of a batch in bytes. A batch that is larger is sent through
            a pipe, which takes longer.

    Raises:
        UserError: the data set or the transforms cannot be pickled, or the system starts no more processes.
    """

    def __init__(self, maker: BatchMaker, num_processes: int, num_threads: int, batch_bytes: int):
        self._reader = maker.reader
        self._batch_bytes = batch_bytes
        self._blocks = SharedBlocks()
        self._handles: dict[int, Handle] = {}
        self._num_tasks = 0
        self._talking = threading.Lock()  # for users who read two epochs in two threads
        self._logged: set[str] = set()
        self._lost: Optional[UserError] = None
        try:
            job, buffers = _pickled(maker)
        except _NotPicklableError as error:
            raise UserError(f"python_multiprocessing=True copies the loader to other processes, but {error}") from None
        places = [self._blocks.store(part) for part in (job, *buffers)]
        self._workers: list[_Worker] = []
        self._closing = weakref.finalize(self, _end, self._workers, os.getpid())
        setup = Setup(
            _absolute(sys.path), num_threads, logger.getEffectiveLevel(), places, _image_settings(), _warning_filters()
        )
        try:
            for _ in range(num_processes):
                self._workers.append(_Worker(self._blocks.file, setup))
        except OSError as error:
            self.close()
            raise UserError(
                f"data-loader process {len(self._workers) + 1} of {num_processes} cannot be started "
                f"({error.strerror}): give a smaller num_parallel_workers, or python_multiprocessing=False"
            ) from None

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [worker.process.pid for worker in self._workers]

    def is_ready(self) -> bool:
        """Return whether all processes have started, without waiting for them.

        Raises:
            UserError: a process could not load the data set, or has ended.
        """
        with self._talking:
            self._receive(timeout=0)
        return all(worker.is_ready for worker in self._workers)

    @property
    def is_lost(self) -> bool:
        """Whether a process has ended or failed to start, so that the pool cannot be used any more."""
        return self._lost is not None

    def submit(self, samples: np.ndarray, epoch: int, batch: int) -> Handle:
        """Let a process make a batch. The arguments are those of `BatchMaker.make`.

        Raises:
            UserError: a process has ended.
        """
        with self._talking:
            if self._lost is not None:
                raise self._lost
            worker = min(self._workers, key=lambda worker: worker.num_pending)
            handle = Handle(self._blocks.take(self._batch_bytes))
            self._num_tasks += 1
            self._handles[self._num_tasks] = handle
            worker.num_pending += 1
            task = Task(self._num_tasks, samples, epoch, batch, (handle.block.offset, handle.block.size))
            try:
                worker.connection.send_bytes(pickle.dumps(tuple(task), pickle.HIGHEST_PROTOCOL))
            except OSError:
                raise self._loss(worker) from None
            return handle

    def take(self, handle: Handle) -> Batch:
        """Wait for a batch and return it.

        Raises:
            UserError: a process has ended.
            Exception: the exception that the process raised in place of the batch.
        """
        while handle.result is None:
            with self._talking:
                if handle.result is None:
                    self._receive()
        self._reader.count_replaced(handle.result.num_replaced)
        if handle.result.error is not None:
            self._blocks.give_back(handle.block)
            raise _exception(handle.result.error)
        kind, items = handle.result.kind, handle.result.items
        if any(isinstance(item, np.ndarray) for item in items):  # it did not fit
            self._batch_bytes = max(self._batch_bytes, sum(map(_bytes_of, items)) + 256)
        items = self._blocks.items(handle.block, items)
        return tuple(items) if kind is tuple else kind(*items)

    def cancel(self, handle: Handle) -> None:
        """Forget a batch that is not wanted any more. Its memory is free when the worker has written to it."""
        handle.is_cancelled = True
        if handle.result is not None:
            self._blocks.give_back(handle.block)

    def close(self) -> None:
        """End the processes, even if they are busy."""
        self._closing()

    def _receive(self, timeout: Optional[float] = None) -> None:
        """Read the answers that have arrived, or wait for one."""
        if self._lost is not None:
            raise self._lost
        by_connection = {worker.connection: worker for worker in self._workers}
        for connection in wait(by_connection, timeout):
            worker = by_connection[connection]
            try:
                result = Result(*connection.recv())
            except (EOFError, OSError):
                raise self._loss(worker) from None
            for level, text in result.logs:
                if text not in self._logged:  # each process may find the same corrupt image
                    self._logged.add(text)
                    logger.log(level, "%s", text)
            if result.task == -1:
                worker.is_ready = True
                if result.error is not None:
                    raise self._end_with(
                        f"a data-loader process cannot load the data set: {result.error[1]}; {_ADVICE}"
                    )
                continue
            worker.num_pending -= 1
            handle = self._handles.pop(result.task)
            handle.result = result
            if handle.is_cancelled:
                self._blocks.give_back(handle.block)

    def _loss(self, worker: _Worker) -> UserError:
        """End all processes, and return the error that says how a worker ended."""
        with suppress(subprocess.TimeoutExpired):
            worker.process.wait(_SECONDS_TO_END)
        return self._end_with(f"the data-loader process {worker.process.pid}{_how_it_ended(worker.process.returncode)}")

    def _end_with(self, message: str) -> UserError:
        """End all processes, and return the error with this message, which every later call raises."""
        self.close()
        self._lost = UserError(message)
        return self._lost


class _Worker:
    """A process, and the connection to it."""

    def __init__(self, memory: int, setup: Setup):
        self.connection, other = Pipe()
        with other:
            # Without a terminal of its own session, Ctrl-C reaches the parent only. It ends its workers.
            self.process = subprocess.Popen(
                [sys.executable, worker_process.__file__, str(other.fileno()), str(memory)],
                pass_fds=(other.fileno(), memory),
                stdin=subprocess.DEVNULL,
                env={**os.environ, **dict.fromkeys(_THREAD_VARIABLES, "1")},
                start_new_session=True,
            )
        self.num_pending = 0
        self.is_ready = False
        self.connection.send(tuple(setup))


class _NotPicklableError(Exception):
    """A part of the data set or the transforms cannot be pickled. The message is a clause."""


class _Pickler(pickle.Pickler):
    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, (type, FunctionType)) and thing.__module__ == "__main__":
            raise _NotPicklableError(
                f"'{thing.__qualname__}' is defined in the script that runs, which they cannot import: move it to a "
                "module of its own"
            )
        return NotImplemented


def _pickled(maker: BatchMaker) -> tuple[bytes, list[memoryview]]:
    """Return the pickled maker, and the contents of its arrays, which are kept apart."""
    stream, buffers = BytesIO(), []
    try:
        _Pickler(stream, 5, buffer_callback=buffers.append).dump(maker)
        return stream.getvalue(), [buffer.raw() for buffer in buffers]
    except _NotPicklableError:
        raise
    except Exception as error:  # pickle raises PicklingError, AttributeError, TypeError and what __reduce__ raises
        raise _NotPicklableError(f"a part of the data set or the transforms cannot be pickled ({error})") from None


def _absolute(path: Sequence[str]) -> list[str]:
    return [os.path.abspath(entry) for entry in path]


def _image_settings() -> dict[tuple[str, str], Any]:
    modules = {module: importlib.import_module(module) for module, _ in _IMAGE_SETTINGS}
    return {(module, name): getattr(modules[module], name) for module, name in _IMAGE_SETTINGS}


def _warning_filters() -> list[tuple]:
    """Return the filters for warnings of Python and Pillow. Others may need modules that a worker does not import."""
    return [entry for entry in warnings.filters if entry[2].__module__.split(".")[0] in ("builtins", "PIL")]


def _exception(error: Sequence[Any]) -> Exception:
    """Return the exception of a worker. Unless the user made the mistake, its cause shows the worker's traceback."""
    error = worker_process.RaisedError(*error)
    exception = RuntimeError(error.text) if error.pickled is None else pickle.loads(error.pickled)
    if not isinstance(exception, UserError):
        exception.__cause__ = _TracebackOfWorker(error.trace)
    return exception


def _bytes_of(item: Any) -> int:
    if isinstance(item, Place):
        return math.prod(item.shape) * np.dtype(item.kind).itemsize
    return getattr(item, "nbytes", 0)


class _TracebackOfWorker(Exception):
    """Shows the traceback of a worker process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _how_it_ended(status: Optional[int]) -> str:
    if status is None:
        return " does not answer"
    if status >= 0:
        return f" ended with status {status}"
    name = signal.Signals(-status).name
    if -status != signal.SIGKILL:
        return f" was ended by {name}"
    return (
        f" was ended by {name}, as the system does when memory runs out: give a smaller num_parallel_workers, or "
        "threads with python_multiprocessing=False"
    )


def _end(workers: list[_Worker], owner: int) -> None:
    """End the processes. A process that was forked from the owner leaves them alone."""
    if os.getpid() != owner:
        return
    for worker in workers:
        worker.connection.close()
    for worker in workers:
        try:
            worker.process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
