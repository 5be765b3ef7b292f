"""Fixtures for tests of data sets, transforms and loaders."""

import pytest

from mindcv.data import batches


@pytest.fixture
def started_workers(monkeypatch):
    """Return a list that records the workers that loaders start: their number, and whether they are processes.

    A test that compares kinds of workers uses it to show that each kind ran. On a machine with one core there are two.
    """
    started = []
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
    for name, are_processes in (("ThreadPoolExecutor", False), ("ProcessPoolExecutor", True)):
        executor = getattr(batches, name)

        def start(number, *args, executor=executor, are_processes=are_processes, **options):
            started.append((number, are_processes))
            return executor(number, *args, **options)

        monkeypatch.setattr(batches, name, start)
    return started
