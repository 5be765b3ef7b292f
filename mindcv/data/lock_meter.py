"""Measures how long data-loader threads wait for each other, and derives how many processes would make more batches.

Threads of one process share Python's global lock. Each image holds it for some time, so more threads than fit into
that time only wait.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Optional

__all__ = ["Layout", "LockMeter", "Usage", "estimate_hold", "expected_wait", "threads_that_fit"]

# Processes need memory and time to start, so they must be faster than threads by at least this share.
_WORTHWHILE_GAIN = 0.25
# Share of an image's processor time that threads of one worker process may wait for the lock.
_TOLERABLE_WAIT = 0.1


@dataclass(frozen=True)
class Usage:
    """Seconds that threads used for images: processor time, and time in which they waited for the lock or the disk.

    Time in which all cores were busy with other work does not count.
    """

    images: int = 0
    busy: float = 0.0
    idle: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.images + other.images, self.busy + other.busy, self.idle + other.idle)


@dataclass(frozen=True)
class Layout:
    """How the workers are spread over processes.

    Attributes:
        num_processes: number of processes.
        num_threads: number of threads of each process.
        waiting: share of their time for which the measured threads waited for the lock.
    """

    num_processes: int
    num_threads: int
    waiting: float = 0.0


class LockMeter:
    """Measures the latest batches of a loader, whose workers are threads of this process.

    Args:
        num_workers: number of threads.
    """

    def __init__(self, num_workers: int):
        self.num_workers = num_workers
        self._alone = Usage()
        self._together: deque[Usage] = deque(maxlen=2 * num_workers)
        self._waits: deque[bool] = deque(maxlen=num_workers + 2)
        self._adding = threading.Lock()

    def measure_alone(self, work: Callable[[], int]) -> None:
        """Do some work and measure it, while no other worker runs. `work` returns its number of images."""
        self._alone = _measured(work)[1]

    def measure(self, work: Callable[[], tuple[int, object]]) -> object:
        """Do the work of one batch in a worker thread and measure it.

        `work` returns the number of images and the batch, and the batch is returned.
        """
        result, usage = _measured(work)
        with self._adding:
            self._together.append(usage)
        return result

    def count_reader(self, waits: bool) -> None:
        """Take note of whether the reader of the batches must wait for the next one."""
        self._waits.append(waits)

    def layout(self) -> Optional[Layout]:
        """Return the processes that would make more batches, or None if threads suffice or too little is measured.

        Threads suffice if they do not wait long for the lock, or if the reader does not wait for batches.
        """
        with self._adding:
            measured = list(self._together)
        if len(measured) < 2 * self.num_workers or 2 * sum(self._waits) < self.num_workers + 2:
            return None
        total = sum(measured, Usage())
        busy = total.busy / total.images
        disk = self._alone.idle / self._alone.images if self._alone.images else 0.0
        wait = max(total.idle / total.images - disk, 0.0)
        if wait < _WORTHWHILE_GAIN * busy:
            return None
        hold = estimate_hold(busy, wait, self.num_workers)
        num_threads = threads_that_fit(busy, hold, self.num_workers)
        return Layout(-(-self.num_workers // num_threads), num_threads, wait / (busy + wait))


def threads_that_fit(busy: float, hold: float, limit: int) -> int:
    """Return how many threads, at most `limit`, can share a lock and hardly wait for it (see `expected_wait`)."""
    return max(n for n in range(1, limit + 1) if expected_wait(busy, hold, n) <= _TOLERABLE_WAIT * busy)


def expected_wait(busy: float, hold: float, num_threads: int) -> float:
    """Return the time for which a thread waits for the lock for each image.

    It is Schweitzer's approximation of a closed queue (mean value analysis). Each of n threads works for `busy` -
    `hold` without the lock and for `hold` with it. It finds (n - 1) / n of the mean number of threads at the lock.

    Args:
        busy: processor time of an image, with and without the lock.
        hold: part of it that needs the lock.
        num_threads: number of threads that share the lock.
    """
    others = num_threads - 1
    slack = busy - hold * others
    return (math.sqrt(slack * slack + 4 * hold * hold * others) - slack) / 2


def estimate_hold(busy: float, wait: float, num_threads: int) -> float:
    """Return the time that an image needs the lock. It is the inverse of `expected_wait`."""
    hold = (math.sqrt(wait * wait + 4 * wait * (busy + wait) / (num_threads - 1)) - wait) / 2
    return min(hold, busy)


def _measured(work: Callable[[], object]) -> tuple[object, Usage]:
    """Do some work and measure this thread. `work` returns the number of images, or a pair of it and a result."""
    start = _clocks()
    result = work()
    wall, busy, without_core = (after - before for after, before in zip(_clocks(), start))
    images, result = result if isinstance(result, tuple) else (result, None)
    return result, Usage(images, busy, max(wall - busy - without_core, 0.0))


def _clocks() -> tuple[float, float, float]:
    return time.perf_counter(), time.thread_time(), _seconds_without_core()


def _seconds_without_core() -> float:
    """Return for how long this thread was ready to run while other threads had all cores, or 0 if that is unknown."""
    try:
        with open("/proc/thread-self/schedstat", "rb", buffering=0) as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):  # not Linux, or a kernel without these statistics
        return 0.0
