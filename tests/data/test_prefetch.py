"""Tests of the prefetcher: batches of the next epoch are made ahead, and `auto` chooses the kind of workers."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest
import worker_parts

from mindcv.data import create_dataset, create_loader, create_transforms, prefetch
from mindcv.data.batches import BatchMaker
from mindcv.data.lock_meter import Layout, LockMeter
from mindcv.data.process_pool import ProcessPool
from mindcv.data.transforms import Decode, ToArray
from mindcv.utils.errors import UserError
from mindcv.utils.logger import logger

PLAIN = [Decode("L"), ToArray()]


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)


@pytest.fixture
def log(caplog):
    prefetch._tell_once.cache_clear()
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, "mindcv"):
        yield caplog
    logger.removeHandler(caplog.handler)


def loader_of(transform=None, num_samples=40, **options):
    if transform is None:
        transform = create_transforms("digits", 12, True, "rand-m9-mstd0.5-inc1", in_channels=1, re_prob=0.5)
    options = {"mixup": 0.8, "cutmix_prob": 1.0, "num_parallel_workers": 2, **options}
    dataset = create_dataset("digits", num_samples=num_samples, seed=3)
    return create_loader(dataset, 4, is_training=True, num_classes=10, transform=transform, **options)


def bits(batches):
    return [(images.tobytes(), labels.tobytes()) for images, labels in batches]


def test_batches_of_the_next_epoch_are_made_ahead():
    made = threading.Semaphore(0)

    def counted(image):
        made.release()
        return np.zeros((1, 2, 2), np.float32)

    loader = loader_of(counted, num_epochs=2)
    batches = loader.batches(0)
    for _ in range(10):
        next(batches)
    batches.close()  # as the trainer does, which does not ask for an eleventh batch
    for _ in range(40 + 12):  # a hang means that nothing was made ahead: three batches follow the last one
        assert made.acquire(timeout=60)
    assert len(list(loader.batches(1))) == 10
    assert made.acquire(timeout=60) and sum(made.acquire(blocking=False) for _ in range(99)) == 40 - 12 - 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mindcv-data")]


@pytest.mark.parametrize("processes", [False, True])
def test_batches_made_ahead_have_the_same_bits(processes):
    loader = loader_of(num_epochs=5, python_multiprocessing=processes)
    expected = loader_of(num_parallel_workers=1)
    for epoch in (0, 1, 2):
        assert bits(loader.batches(epoch)) == bits(expected.batches(epoch))
    # Another epoch or batch than the one that was begun is asked for, and an epoch is left early.
    assert bits(loader.batches(1)) == bits(expected.batches(1))
    assert bits(loader.batches(2, start=3)) == bits(expected.batches(2, start=3))
    next(loader.batches(3))
    both = zip(loader.batches(3), loader.batches(4))
    assert [bits(pair) for pair in both] == [bits(pair) for pair in zip(expected.batches(3), expected.batches(4))]
    loader.close()
    assert bits(loader.batches(4)) == bits(expected.batches(4))


def test_auto_replaces_threads_by_processes_in_the_middle_of_an_epoch(monkeypatch, started_workers, log):
    monkeypatch.setattr(LockMeter, "layout", lambda self: Layout(2, 1, 0.4) if self._together else None)
    is_ready = ProcessPool.is_ready
    monkeypatch.setattr(ProcessPool, "is_ready", lambda self: any(is_ready(self) for _ in iter(int, 1)))
    loader = loader_of(python_multiprocessing="auto")
    made_here = []
    make = BatchMaker.make
    monkeypatch.setattr(BatchMaker, "make", lambda self, *args: made_here.append(args[2]) or make(self, *args))
    batches = bits(loader.batches(0))
    assert 0 in made_here and max(made_here) < 9, "the last batches are made elsewhere"
    assert batches == bits(loader_of(num_parallel_workers=1).batches(0))
    assert started_workers == [(2, False), (2, True), (1, False)]
    assert [record.getMessage() for record in log.records] == [
        "2 data-loader threads wait 40% of their time for Python's lock: 2 processes of 1 thread take their place"
    ]
    list(loader.batches(1))
    assert started_workers == [(2, False), (2, True), (1, False)], "the processes are kept"


def test_auto_keeps_threads_and_says_so_when_the_loader_cannot_be_copied(monkeypatch, started_workers, log):
    monkeypatch.setattr(LockMeter, "layout", lambda self: Layout(2, 1, 0.4))
    loader = loader_of([Decode("L"), lambda image: image, ToArray()], python_multiprocessing="auto")
    for epoch in range(2):
        assert len(list(loader.batches(epoch))) == 10
    assert set(started_workers) == {(2, False)}
    (record,) = log.records
    assert record.getMessage().startswith("2 data-loader threads wait 40% of their time for Python's lock, and ")
    assert "cannot be pickled" in record.getMessage()


def test_auto_keeps_threads_and_says_so_when_the_processes_cannot_start(monkeypatch, started_workers, log):
    monkeypatch.setattr(LockMeter, "layout", lambda self: Layout(2, 1, 0.4) if self._together else None)
    is_ready = ProcessPool.is_ready
    monkeypatch.setattr(ProcessPool, "is_ready", lambda self: any(is_ready(self) for _ in iter(int, 1)))
    loader = loader_of(worker_parts.Unpicklable(), python_multiprocessing="auto")
    for epoch in range(2):
        assert len(list(loader.batches(epoch))) == 10
    assert started_workers == [(2, False), (2, True), (2, False)]
    assert log.records[1].getMessage() == (
        "data-loader threads go on without processes: a data-loader process cannot load the data set: RuntimeError: "
        "not in this process; threads need no such copy: give python_multiprocessing=False"
    )


def test_auto_measures_threads_and_their_reader(monkeypatch, started_workers):
    meters = []
    monkeypatch.setattr(LockMeter, "layout", lambda self: meters.append(self))
    loader = loader_of(PLAIN, python_multiprocessing="auto", num_epochs=2)
    for epoch in range(2):
        assert len(list(loader.batches(epoch))) == 10
    assert started_workers == [(2, False)]
    meter = meters[0]
    assert len(meters) == 20 and meter._alone.images == 3
    assert [usage.images for usage in meter._together] == [4] * 4 and len(meter._waits) == 4


def test_auto_stops_measuring_when_it_has_decided(monkeypatch, log):
    measured = []
    monkeypatch.setattr(LockMeter, "layout", lambda self: Layout(2, 1, 0.4) if len(measured) > 2 else None)
    monkeypatch.setattr(LockMeter, "measure", lambda self, work: measured.append(1) or work()[1])
    transform = [Decode("L"), lambda image: image, ToArray()]
    loader = loader_of(transform, python_multiprocessing="auto", num_epochs=3)
    for epoch in range(3):
        assert len(list(loader.batches(epoch))) == 10
    assert 2 < len(measured) < 12


@pytest.mark.parametrize("mode", [True, "auto"])
def test_a_single_worker_is_a_thread(mode, started_workers):
    assert len(list(loader_of(PLAIN, num_parallel_workers=1, python_multiprocessing=mode).batches())) == 10
    assert started_workers == [(1, False)]


def test_create_loader_refuses_other_modes():
    with pytest.raises(UserError, match="python_multiprocessing must be True, False or 'auto', got 'yes'"):
        loader_of(PLAIN, python_multiprocessing="yes")
    with pytest.raises(UserError, match="num_epochs must be a whole number of at least 0"):
        loader_of(PLAIN, num_epochs=-1)


def test_many_workers_are_processes_of_two_threads():
    make = prefetch.Prefetcher
    layouts = [make(loader_of(PLAIN).source.maker, workers, True).layout for workers in (2, 3, 8, 9)]
    assert [(layout.num_processes, layout.num_threads) for layout in layouts] == [(2, 1), (2, 2), (4, 2), (5, 2)]
