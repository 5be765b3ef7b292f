"""Measures how long an image of the data pipeline holds Python's lock, in a worker and in the main process.

Threads of one process can make no more images per second than fit into that time, however many cores there are.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable
from unittest import mock

from PIL import Image

from mindcv.data import ImageLoader
from mindcv.data.lock_meter import expected_wait, threads_that_fit
from mindcv.data.prefetch import Prefetcher
from mindcv.kernels import images as image_kernels

__all__ = ["LOCK_FIGURES", "CORE_COUNTS", "lock_figures", "reachable"]

# Figures of `lock_figures`.
LOCK_FIGURES = ("image_ms", "image_lock_ms", "main_lock_ms")
# Numbers of cores for which the rate is derived.
CORE_COUNTS = (2, 8, 24, 96, 192)


def lock_figures(loader: ImageLoader) -> dict[str, float]:
    """Return milliseconds of processor time for an image.

    - `image_ms`: all of the work of a worker.
    - `image_lock_ms`: the part outside of Pillow's decoders and the kernels, which release the lock. It is an upper
      bound, because other functions of NumPy and Pillow release the lock too.
    - `main_lock_ms`: the work of the main process when the workers are two processes. This too is an upper bound.
    """
    maker = loader.source.maker
    order = maker.order(0)
    released = [0.0]
    with _released_time_counted(released):
        for number in range(maker.num_batches + 1):  # the first batch warms up
            if number == 1:
                released[0], num_images, start = 0.0, 0, time.thread_time()
            samples = maker.samples(order, max(number - 1, 0))
            maker.make(samples, 0, max(number - 1, 0))
            if number:
                num_images += len(samples)
        seconds = time.thread_time() - start
    return {
        "image_ms": 1e3 * seconds / num_images,
        "image_lock_ms": 1e3 * (seconds - released[0]) / num_images,
        "main_lock_ms": _main_ms(Prefetcher(maker, 2, True)),
    }


def _main_ms(prefetcher: Prefetcher) -> float:
    """Return the processor time of the main process for an image of worker processes, in milliseconds."""
    for _ in prefetcher.batches(0):  # starts the processes
        pass
    num_images, start = 0, time.thread_time()
    for epoch in (1, 2):
        num_images += sum(len(images) for images, _ in prefetcher.batches(epoch))
    seconds = time.thread_time() - start
    prefetcher.close()
    return 1e3 * seconds / num_images


def reachable(figures: dict[str, float], num_cores: int) -> tuple[float, float, int]:
    """Return the images/s that workers on this number of cores can make, as far as the lock limits them.

    It is an estimate (see `expected_wait`). Memory bandwidth and disks may set lower limits.

    Returns:
        The rate of threads of one process, the rate of processes, and the number of threads of each process.
    """
    busy, hold, main = (figures[name] / 1e3 for name in LOCK_FIGURES)
    num_threads = threads_that_fit(busy, hold, num_cores)
    of_threads = num_cores / (busy + expected_wait(busy, hold, num_cores))
    of_processes = num_cores / (busy + expected_wait(busy, hold, num_threads))
    return of_threads, min(of_processes, 1 / main), num_threads


@contextmanager
def _released_time_counted(total: list[float]) -> Iterator[None]:
    """Add the processor time of calls that release the lock to `total[0]`, inside the block and in one thread."""

    def counted(function: Callable) -> Callable:
        def call(*arguments: Any) -> Any:
            start = time.thread_time()
            try:
                return function(*arguments)
            finally:
                total[0] += time.thread_time() - start

        return call

    get_decoder, library = Image._getdecoder, image_kernels._library()

    def decoder_of(*arguments: Any) -> Any:
        return _Wrapped(get_decoder(*arguments), lambda name: name == "decode", counted)

    kernels = _Wrapped(library, lambda name: name != "mindcv_last_error", counted)
    counted_decoders = mock.patch.object(Image, "_getdecoder", decoder_of)
    counted_kernels = mock.patch.object(image_kernels, "_library", lambda: kernels)
    with counted_decoders, counted_kernels:
        yield


class _Wrapped:
    """Stands for an object, some of whose functions are counted."""

    def __init__(self, wrapped: Any, is_counted: Callable[[str], bool], counted: Callable[[Callable], Callable]):
        self._wrapped, self._is_counted, self._counted = wrapped, is_counted, counted

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._wrapped, name)
        return self._counted(value) if self._is_counted(name) else value
