"""Tests of groups of processes. The test simulates the AllReduce of several processes."""

import numpy as np
import pytest

from mindcv.utils.distributed import Group, join_group
from mindcv.utils.errors import DeviceError, UserError


def test_sum_integers_sends_nothing_in_a_group_of_one(processes):
    values = np.array([[1, 2**59]])
    np.testing.assert_array_equal(Group().sum_integers(values), values)
    assert not processes.sent and Group().is_main and not Group(1, 2).is_main


@pytest.mark.parametrize("size", [2, 3, 64])
def test_sum_integers_is_exact_beyond_float32(processes, size):
    # 2**24 + 1 is the first integer that float32 cannot represent.
    own = [np.array([[0, 1, 2**24 + 1], [2**36 - 1, 2**48 + rank, 2**52 + 3]]) for rank in range(size)]
    sums = processes.run(lambda rank: Group(rank, size).sum_integers(own[rank]), size)
    expected = [[sum(int(o[i, j]) for o in own) for j in range(3)] for i in range(2)]
    for found in sums:
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found, expected)


def test_sum_integers_is_exact_for_the_largest_integer(processes):
    (found, _) = processes.run(lambda rank: Group(rank, 2).sum_integers([2**60 - 1]), 2)
    assert found.tolist() == [2 * (2**60 - 1)]


@pytest.mark.parametrize("size", [2, 3])
def test_gather_gives_the_rows_of_every_process(processes, rng, size):
    own = [rng.standard_normal((3 if rank == 0 else 2, 4)).astype(np.float32) for rank in range(size)]
    expected = np.stack([np.concatenate([rows, np.zeros((5 - len(rows), 4), np.float32)]) for rows in own])
    for found in processes.run(lambda rank: Group(rank, size).gather(own[rank], 5), size):
        np.testing.assert_array_equal(found, expected)


@pytest.fixture
def environment(monkeypatch):
    """Remove the launchers' environment variables. A test can set them again."""
    for name in ("MS_ROLE", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_join_group_warns_when_no_launcher_started_the_process(environment, capsys):
    environment.setattr("sys.argv", ["some/validate.py"])
    assert join_group(False) == Group(0, 1)
    assert capsys.readouterr().err == ""
    assert join_group(True) == Group(0, 1)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: distribute is on, but no launcher started this process") and line.endswith(
        "`msrun --worker_num=N --local_worker_num=N --join=True validate.py ... --distribute True`"
    )


@pytest.mark.parametrize(
    ("variable", "value", "named"), [("MS_ROLE", "MS_WORKER", "msrun"), ("OMPI_COMM_WORLD_SIZE", "2", "mpirun")]
)
def test_join_group_refuses_several_processes_without_distribute(environment, variable, value, named):
    environment.setenv(variable, value)
    with pytest.raises(UserError, match=f"{named} started this process, but distribute is off"):
        join_group(False)


def test_join_group_refuses_mpirun_on_cpu(environment):
    environment.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(DeviceError, match="mpirun cannot start processes on CPU.*use `msrun"):
        join_group(True)


def test_join_group_ignores_mpirun_with_one_process(environment):
    environment.setenv("OMPI_COMM_WORLD_SIZE", "1")
    assert join_group(False) == join_group(True) == Group(0, 1)


def test_wait_communicates_between_all_processes(processes):
    assert processes.run(lambda rank: Group(rank, 3).wait(), 3) == [None] * 3 and processes.sent


def test_together_returns_the_result_of_each_process(processes):
    assert processes.run(lambda rank: Group(rank, 3).together(pow, rank, 2), 3) == [0, 1, 4]
    assert Group().together(pow, 3, 2) == 9


def test_together_fails_in_all_processes_when_one_fails(processes):
    def failure(rank):
        try:
            return Group(rank, 2).together(lambda: 1 / rank)
        except (ZeroDivisionError, UserError) as error:
            return str(error)

    assert processes.run(failure, 2) == ["division by zero", "1 of the 2 processes failed; their logs give the reason"]
    with pytest.raises(ZeroDivisionError):
        Group().together(lambda: 1 / 0)
