"""The group of processes that work on one run, and how a process joins it."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from dataclasses import dataclass
from typing import Any, Callable

import mindspore as ms
import numpy as np
from mindspore import ops

from mindcv.utils.errors import DeviceError, UserError
from mindcv.utils.logger import logger
from mindcv.utils.rank_watch import watch_workers

__all__ = ["ALONE", "Group", "is_first_process", "is_launched", "join_group"]

# Launcher -> environment variable that it sets for the processes that it starts.
_LAUNCHERS = {"msrun": "MS_ROLE", "mpirun": "OMPI_COMM_WORLD_SIZE"}
_BITS = 12  # of each part of an integer in `Group.sum_integers`


@dataclass(frozen=True)
class Group:
    """The processes that work on one run.

    Attributes:
        rank: index of this process, from 0.
        size: number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the main process, which writes the files and the log."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes have reached this call."""
        self.sum_integers(np.zeros(1))  # MindSpore has no Barrier on CPU

    def together(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Call `work` in every process, and return its result if it succeeded in all of them.

        If only one process failed, the others would otherwise wait for it in their next AllReduce.

        Raises:
            Exception: the exception that `work` raised in this process.
            UserError: `work` succeeded in this process, but failed in another one.
        """
        result, failure = None, None
        try:
            result = work(*arguments)
        except Exception as error:
            failure = error
        num_failed = int(self.sum_integers(np.array([failure is not None]))[0])
        if failure is not None:
            raise failure
        if num_failed:
            raise UserError(f"{num_failed} of the {self.size} processes failed; their logs give the reason")
        return result

    def sum_integers(self, values: np.ndarray) -> np.ndarray:
        """Sum non-negative integers below 2**60 over all processes, exactly.

        AllReduce on CPU supports only float32, which is exact up to 2**24. Each integer is therefore split into parts
        of 12 bits, so the sums over up to 4096 processes are exact.

        Args:
            values: array of any shape.

        Returns:
            Sums, an int64 array of the same shape.
        """
        values = np.asarray(values, np.int64)
        if self.size == 1:
            return values
        pieces = np.stack([(values >> (_BITS * i)) & (2**_BITS - 1) for i in range(5)]).astype(np.float32)
        summed = ops.AllReduce()(ms.Tensor(pieces)).asnumpy().astype(np.int64)
        return sum(summed[i] << (_BITS * i) for i in range(5))

    def gather(self, rows: np.ndarray, num_rows: int) -> np.ndarray:
        """Return the rows of all processes, exactly.

        AllReduce is used, because a sum in which all but one summand are 0 is exact.

        Args:
            rows: float32 [N, D], with N at most `num_rows`. N may differ between processes.
            num_rows: number of rows of each process in the result.

        Returns:
            float32 [size, num_rows, D]. Rows that a process does not have are 0.
        """
        gathered = np.zeros((self.size, num_rows, rows.shape[1]), np.float32)
        gathered[self.rank, : len(rows)] = rows
        return gathered if self.size == 1 else ops.AllReduce()(ms.Tensor(gathered)).asnumpy()


ALONE = Group()  # the one process of a run without others


def join_group(distribute: bool) -> Group:
    """Join the group of processes that a launcher started. If `distribute` is False, the group is this process alone.

    If no launcher started this process, the group is also this process alone, and a warning says so.

    Raises:
        UserError: a launcher started several processes but `distribute` is False, so all would write the same files.
        DeviceError: mpirun was used on CPU, or the processes could not connect to each other.
    """
    launchers = _launchers()
    if not distribute:
        if launchers:
            raise UserError(f"{launchers[0]} started this process, but distribute is off: add --distribute True")
        return Group()
    if launchers == ["mpirun"] and ms.get_context("device_target") == "CPU":
        raise DeviceError(
            f"mpirun cannot start processes on CPU, because MindSpore has no MPI there: use `{_msrun_command()}`"
        )
    if not launchers:
        logger.warning(
            "distribute is on, but no launcher started this process as one of several, so it runs alone: to use N "
            "processes, start them with `%s`",
            _msrun_command(),
        )
        return Group()
    from mindspore.communication import get_group_size, get_rank, init

    if os.environ.get("MS_ROLE") == "MS_SCHED":
        watch_workers()
    else:
        _end_with_parent()
    try:
        init()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise DeviceError(f"the processes of this job could not connect to each other: {reason}") from None
    group = Group(get_rank(), get_group_size())
    if not group.is_main:
        logger.setLevel(logging.WARNING)  # the main process logs for all
    return group


def is_launched() -> bool:
    """Return whether a launcher started this process as one of several."""
    return bool(_launchers())


def _msrun_command() -> str:
    command = "msrun --worker_num=N --local_worker_num=N --join=True train.py ... --distribute True"
    return command.replace("train.py", os.path.basename(sys.argv[0]))


def _launchers() -> list[str]:
    return [name for name, variable in _LAUNCHERS.items() if os.environ.get(variable, "1") != "1"]


def is_first_process() -> bool:
    """Return whether this will be the main process of its group. It works before the group is joined."""
    if os.environ.get("MS_ROLE") == "MS_SCHED":
        return False
    return os.environ.get("RANK_ID" if "MS_ROLE" in os.environ else "OMPI_COMM_WORLD_RANK", "0") == "0"


def _end_with_parent() -> None:
    """Ask the system for a SIGTERM when the launcher dies. Otherwise its workers would run on unattended."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
