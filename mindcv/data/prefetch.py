"""Prefetches batches in data-loader workers, which are threads or processes.

Threads cost the least where they suffice, because Pillow's decoder and the kernels release Python's global lock.
Decision 0090 says when processes are used.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cache, partial
from itertools import chain, islice
from typing import Any, NamedTuple, Optional, Union

import numpy as np

from mindcv.data.batch_memory import BatchMemory
from mindcv.data.batches import Batch, BatchMaker
from mindcv.data.lock_meter import Layout, LockMeter
from mindcv.data.process_pool import ProcessPool, can_use_processes, why_not_picklable
from mindcv.utils.errors import UserError
from mindcv.utils.logger import counted, logger

__all__ = ["MULTIPROCESSING_MODES", "Prefetcher"]

MULTIPROCESSING_MODES = ("auto", True, False)

# Threads of each process where processes are asked for, and not chosen by a measurement.
_THREADS_PER_PROCESS = 2
# Images that are read before the first batch: the first gives the size of a batch, the others are timed.
_NUM_TRIED = 4


class _Pending(NamedTuple):
    """A batch that a worker makes: batch `number` of `epoch`, and the pool and its handle."""

    epoch: int
    number: int
    pool: Union[_Threads, ProcessPool]
    handle: Any


class Prefetcher:
    """Yields the batches of epochs in order, while workers make the next ones.

    Args:
        maker: makes the batches.
        num_workers: number of workers, which are threads of this process or of worker processes.
        multiprocessing: True uses worker processes, False threads. 'auto' uses threads and measures them, and processes
            take their place if they wait too long for Python's lock and the reader waits for batches. A single worker
            is always a thread.
        num_epochs: number of epochs that are read in turn. The first batches of each are made while the last ones of
            the epoch before are read. 0 means that this is unknown, and no epoch is begun before it is asked for.

    Raises:
        UserError: processes are asked for, and this system cannot start them.
    """

    def __init__(self, maker: BatchMaker, num_workers: int, multiprocessing: Union[bool, str], num_epochs: int = 0):
        if multiprocessing is True and num_workers > 1 and not can_use_processes():
            raise UserError("python_multiprocessing=True needs Linux or macOS: give False, which uses threads")
        self._maker = maker
        self.num_workers = num_workers
        self.num_epochs = num_epochs
        is_undecided = multiprocessing == "auto" and num_workers > 1 and can_use_processes()
        self._meter = LockMeter(num_workers) if is_undecided else None
        num_processes = -(-num_workers // _THREADS_PER_PROCESS) if num_workers > _THREADS_PER_PROCESS else num_workers
        num_threads = -(-num_workers // num_processes)
        uses_processes = multiprocessing is True and num_workers > 1
        self.layout = Layout(num_processes, num_threads) if uses_processes else None
        self._threads: Optional[_Threads] = None
        self._processes: Optional[ProcessPool] = None
        self._have_started = False
        self._batch_bytes = 0
        self._ahead: deque[_Pending] = deque()
        self._orders: dict[int, np.ndarray] = {}

    @property
    def processes(self) -> Optional[ProcessPool]:
        """The worker processes, or None if there are none."""
        return self._processes

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch, beginning with batch `start`.

        At most `num_workers` + 2 batches exist at a time, however slow the consumer is. An error in a worker is raised
        here, in place of its batch.

        Args:
            epoch: index of the epoch, from 0.
            start: index of the first batch.
        """
        numbers = range(start, self._maker.num_batches)
        ahead = range(self._maker.num_batches) if epoch + 1 < self.num_epochs else ()
        pending = self._take_ahead(epoch, start)
        keys = chain(((epoch, number) for number in numbers), ((epoch + 1, number) for number in ahead))
        to_come = islice(keys, len(pending), None)
        self._orders = {key: order for key, order in self._orders.items() if key in (epoch, epoch + 1)}
        try:
            for number in numbers:
                for key in islice(to_come, self.num_workers + 2 - len(pending)):
                    pending.append(self._submit(*key))
                item = pending.popleft()
                if self._meter is not None:
                    self._meter.count_reader(waits=not item.handle.done())
                batch = item.pool.take(item.handle)
                if number == numbers[-1]:  # a reader who knows the length never asks for more
                    self._ahead, pending = pending, deque()
                yield batch
        except UserError as error:
            if self._processes is not None and self._processes.is_lost:
                self._processes = None  # the next epoch starts others
            raise error from None
        finally:
            self._cancel(pending)
            if not self._ahead or self._have_started:
                self._close_threads()

    def close(self) -> None:
        """End all workers. The next epoch starts others."""
        self._cancel(self._ahead)
        self._close_threads()
        if self._processes is not None:
            self._processes.close()
            self._processes = None

    def _take_ahead(self, epoch: int, start: int) -> deque[_Pending]:
        """Return the batches from batch `start` of the epoch on that were made ahead. Others are forgotten."""
        pending, self._ahead = self._ahead, deque()
        if pending and (pending[0].epoch, pending[0].number) != (epoch, start):
            self._cancel(pending)
        return pending

    def _cancel(self, pending: deque[_Pending]) -> None:
        while pending:
            item = pending.popleft()
            item.pool.cancel(item.handle)

    def _submit(self, epoch: int, number: int) -> _Pending:
        if epoch not in self._orders:
            self._orders[epoch] = self._maker.order(epoch)
        samples = self._maker.samples(self._orders[epoch], number)
        if not self._batch_bytes and (self._meter or self.layout):
            self._try_samples(samples)
        pool = self._pool()
        return _Pending(epoch, number, pool, pool.submit(samples, epoch, number))

    def _pool(self) -> Union[_Threads, ProcessPool]:
        """Return the workers that make the next batch."""
        if self._meter is not None:
            self._decide(self._meter.layout())
        if self.layout is not None and self._are_processes_ready(self.layout):
            return self._processes
        if self._threads is None:
            self._threads = _Threads(self._maker, self.num_workers, self._meter)
        return self._threads

    def _are_processes_ready(self, layout: Layout) -> bool:
        """Start the processes if there are none, and return whether they can take batches.

        Threads go on while the processes start, and also if the processes that `auto` chose cannot start.
        """
        if self._threads is None or self._have_started:
            self._processes = self._processes or self._start_processes(layout)
            return True
        try:
            self._processes = self._processes or self._start_processes(layout)
            self._have_started = self._processes.is_ready()
        except UserError as error:
            self.layout = self._processes = None
            _tell_once(f"data-loader threads go on without processes: {error}")
        return self._have_started

    def _start_processes(self, layout: Layout) -> ProcessPool:
        return ProcessPool(self._maker, layout.num_processes, layout.num_threads, self._batch_bytes)

    def _decide(self, layout: Optional[Layout]) -> None:
        """Use processes if the measurement says so and the loader can be copied to them."""
        if layout is None:
            return
        self._meter = None
        if self._threads is not None:
            self._threads.meter = None
        waited = f"{self.num_workers} data-loader threads wait {layout.waiting:.0%} of their time for Python's lock"
        problem = why_not_picklable(self._maker)
        if problem is not None:
            _tell_once(f"{waited}, and processes cannot take their place, because {problem}")
            return
        processes, threads = counted(layout.num_processes, "process"), counted(layout.num_threads, "thread")
        _tell_once(f"{waited}: {processes} of {threads} take their place")
        self.layout = layout

    def _try_samples(self, samples: np.ndarray) -> None:
        """Read a few samples, which gives the size of a batch and the time that a single thread waits for the disk."""
        samples = self._maker.reader.try_samples(samples[:, 0].tolist())
        self._batch_bytes = 1
        with suppress(Exception):  # a worker raises it again, in place of the batch
            for versions, label in islice(samples, 1):
                self._batch_bytes = self._maker.count_bytes(versions, label)
            if self._meter is not None:
                self._meter.measure_alone(lambda: sum(1 for _ in islice(samples, _NUM_TRIED - 1)))

    def _close_threads(self) -> None:
        if self._threads is not None:
            self._threads.close()
            self._threads = None


class _Threads:
    """Data-loader threads of this process, whose work is measured as long as there is a meter."""

    def __init__(self, maker: BatchMaker, num_workers: int, meter: Optional[LockMeter]):
        self._executor = ThreadPoolExecutor(num_workers, thread_name_prefix="mindcv-data")
        self._closing = weakref.finalize(self, self._executor.shutdown, wait=False)
        self._maker = maker
        self._memory = BatchMemory()
        self.meter = meter

    def submit(self, samples: np.ndarray, epoch: int, batch: int) -> Future:
        return self._executor.submit(self._make, samples, epoch, batch)

    def take(self, future: Future) -> Batch:
        return future.result()

    def cancel(self, future: Future) -> None:
        future.cancel()

    def close(self) -> None:
        """Wait for the batches that are being made, and end the threads."""
        self._closing.detach()
        self._executor.shutdown()

    def _make(self, samples: np.ndarray, epoch: int, batch: int) -> Batch:
        meter = self.meter
        make = partial(self._maker.make, samples, epoch, batch, self._memory.empty)
        return make() if meter is None else meter.measure(lambda: (len(samples), make()))


@cache  # the loaders of one run would log the same line
def _tell_once(message: str) -> None:
    logger.info("%s", message)
