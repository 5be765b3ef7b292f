"""The processes of a run."""

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

# What the launchers set for the processes they start.
_LAUNCHERS = {"msrun": "MS_ROLE", "mpirun": "OMPI_COMM_WORLD_SIZE"}
_BITS = 12


@dataclass(frozen=True)
class Group:
    """The processes that work on one run, and which of them this is."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes files and lines."""
        return self.rank == 0

    def wait(self) -> None:
        """Until all processes have come here."""
        self.sum_integers(np.zeros(1))  # on CPU there is no Barrier

    def together(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Call `work` in every process; return its result if it succeeded in all of them.

        Without this, a process that fails alone would leave the others waiting for it in their next AllReduce.

        Raises:
            Exception: what `work` raised here.
            UserError: it failed in another process, and not here.
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
            raise UserError(f"{num_failed} of the {self.size} processes failed; the log of each says why")
        return result

    def sum_integers(self, values: np.ndarray) -> np.ndarray:
        """The exact sum over all processes of non-negative integers below 2**60; same shape, int64.

        AllReduce on CPU takes float32 only, which is exact up to 2**24: the integers travel in pieces of 12 bits, so
        that sums over up to 4096 processes stay exact.
        """
        values = np.asarray(values, np.int64)
        if self.size == 1:
            return values
        pieces = np.stack([(values >> (_BITS * i)) & (2**_BITS - 1) for i in range(5)]).astype(np.float32)
        summed = ops.AllReduce()(ms.Tensor(pieces)).asnumpy().astype(np.int64)
        return sum(summed[i] << (_BITS * i) for i in range(5))


ALONE = Group()  # the one process of a run without others


def join_group(distribute: bool) -> Group:
    """Join the processes that a launcher started; a group of one when `distribute` is False.

    A process that no launcher started is a group of one too, and says so.

    Raises:
        UserError: a launcher started several processes, but `distribute` is False: all would write the same files.
        DeviceError: mpirun was used on CPU, or the processes could not be joined.
    """
    launchers = _launchers()
    if not distribute:
        if launchers:
            raise UserError(f"{launchers[0]} started this process, and distribute is off: add --distribute True")
        return Group()
    if launchers == ["mpirun"] and ms.get_context("device_target") == "CPU":
        raise DeviceError(
            "mpirun cannot start processes on CPU, where MindSpore has no MPI: "
            "use `msrun --worker_num=N --local_worker_num=N --join=True train.py ... --distribute True`"
        )
    if not launchers:
        logger.info("distribute is on, but this process was not started by msrun or mpirun: it runs alone")
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
        raise DeviceError(f"the processes of this job could not be joined: {reason}") from None
    group = Group(get_rank(), get_group_size())
    if not group.is_main:
        logger.setLevel(logging.WARNING)  # what all would say, one says
    return group


def is_launched() -> bool:
    """Whether a launcher started this process, as one of several."""
    return bool(_launchers())


def _launchers() -> list[str]:
    return [name for name, variable in _LAUNCHERS.items() if os.environ.get(variable, "1") != "1"]


def is_first_process() -> bool:
    """Whether this process will be the main one of its group, as its launcher says before the group is joined."""
    if os.environ.get("MS_ROLE") == "MS_SCHED":
        return False
    return os.environ.get("RANK_ID" if "MS_ROLE" in os.environ else "OMPI_COMM_WORLD_RANK", "0") == "0"


def _end_with_parent() -> None:
    """Get a SIGTERM when the launcher dies, which would otherwise leave its workers running unattended."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
