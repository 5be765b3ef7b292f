"""Fixtures for tests of data sets, transforms and loaders."""

import pytest

from mindcv.data import prefetch


@pytest.fixture
def started_workers(monkeypatch):
    """Return a list that records the workers that loaders start: their number, and whether they are processes.

    A test that compares kinds of workers uses it to show that each kind ran. On a machine with one core there are two.
    """
    started = []
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    executor, pool = prefetch.ThreadPoolExecutor, prefetch.ProcessPool

    def start_threads(number, **options):
        started.append((number, False))
        return executor(number, **options)

    def start_processes(maker, num_processes, num_threads, batch_bytes):
        started.append((num_processes * num_threads, True))
        return pool(maker, num_processes, num_threads, batch_bytes)

    monkeypatch.setattr(prefetch, "ThreadPoolExecutor", start_threads)
    monkeypatch.setattr(prefetch, "ProcessPool", start_processes)
    return started
