"""Tests of the lock meter: its model of waiting threads, and what it chooses."""

from __future__ import annotations

import random

import pytest

from mindcv.data.lock_meter import LockMeter, Usage, estimate_hold, expected_wait


def simulated_wait(busy, hold, num_threads, images=20000):
    """Return the mean wait for a lock that serves in the order of arrival. Times are exponential."""
    draw = random.Random(0).expovariate
    arrivals = [draw(1 / (busy - hold)) for _ in range(num_threads)]
    free, waited = 0.0, 0.0
    for _ in range(images):
        thread = min(range(num_threads), key=arrivals.__getitem__)
        start = max(free, arrivals[thread])
        waited += start - arrivals[thread]
        free = start + draw(1 / hold)
        arrivals[thread] = free + draw(1 / (busy - hold))
    return waited / images


@pytest.mark.parametrize("hold", [0.1, 0.3, 0.8])
@pytest.mark.parametrize("num_threads", [2, 4, 16])
def test_expected_wait_is_near_a_simulation(hold, num_threads):
    wait, simulated = expected_wait(3.0, hold, num_threads), simulated_wait(3.0, hold, num_threads)
    assert abs(wait - simulated) < 0.1 * (3.0 + simulated)
    assert estimate_hold(3.0, wait, num_threads) == pytest.approx(hold)


def test_expected_wait_is_zero_alone_and_bounded_by_the_lock():
    assert expected_wait(3.0, 1.0, 1) == 0
    assert expected_wait(3.0, 1.0, 1000) == pytest.approx(997, rel=0.01), "1000 threads make one image in 1.0"


def meter_of(num_workers, usage, alone=None, count=None, waits=True):
    meter = LockMeter(num_workers)
    meter._alone = alone or Usage()
    meter._together.extend([usage] * (2 * num_workers if count is None else count))
    for _ in range(num_workers + 2):
        meter.count_reader(waits)
    return meter


def test_lock_meter_chooses_processes_when_threads_wait_for_the_lock():
    """24 threads make images of 3 ms that hold the lock for 0.5 ms: they make 2 images/ms instead of 8."""
    usage = Usage(100, 0.3, 100 * expected_wait(0.003, 0.0005, 24))
    layout = meter_of(24, usage).layout()
    assert layout.waiting == pytest.approx(0.76, abs=0.02)
    assert (layout.num_processes, layout.num_threads) == (8, 3)
    few = Usage(100, 0.3, 100 * expected_wait(0.003, 0.0005, 2))
    assert meter_of(2, few).layout() is None


def test_lock_meter_keeps_threads_as_long_as_little_is_measured_or_the_reader_does_not_wait():
    usage = Usage(100, 0.3, 0.9)
    assert meter_of(3, usage).layout() is not None
    assert meter_of(3, usage, count=5).layout() is None
    assert meter_of(3, usage, waits=False).layout() is None
    meter = meter_of(3, usage, waits=False)
    for number in range(3):  # half of the latest five
        assert meter.layout() is None, number
        meter.count_reader(True)
    assert meter.layout() is not None


def test_lock_meter_forgets_early_batches():
    meter = meter_of(2, Usage(100, 0.3, 0.9))
    for _ in range(4):
        assert meter.layout() is not None
        meter._together.append(Usage(100, 0.3, 0.0))
    assert meter.layout() is None


def test_lock_meter_chooses_single_threads_for_transforms_in_pure_python():
    usage = Usage(100, 0.3, 100 * expected_wait(0.003, 0.003, 4))
    layout = meter_of(4, usage).layout()
    assert (layout.num_processes, layout.num_threads) == (4, 1)


def test_lock_meter_does_not_count_the_wait_for_the_disk():
    waits = Usage(10, 0.03, 0.05)
    assert meter_of(8, waits).layout() is not None
    assert meter_of(8, waits, alone=Usage(3, 0.009, 0.015)).layout() is None


def test_lock_meter_measures_the_work_of_a_thread():
    meter = LockMeter(1)
    meter.measure_alone(lambda: 4)
    assert meter.measure(lambda: (5, "batch")) == "batch"
    (usage,), alone = meter._together, meter._alone
    assert usage.images == 5 and alone.images == 4 and usage.busy > 0 and usage.idle >= 0
