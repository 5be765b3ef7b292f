"""The processes of a run."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import ops

from mindcv.utils.logger import logger

__all__ = ["Group", "join_group"]

# What msrun and mpirun set for the processes they start.
_LAUNCHER_VARIABLES = ("MS_ROLE", "OMPI_COMM_WORLD_SIZE")
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


def join_group(distribute: bool) -> Group:
    """Join the processes that a launcher started; a group of one when `distribute` is False.

    A process that no launcher started is a group of one too, and says so.
    """
    if not distribute:
        return Group()
    if not any(name in os.environ for name in _LAUNCHER_VARIABLES):
        logger.info("distribute is on, but this process was not started by msrun or mpirun: it runs alone")
        return Group()
    from mindspore.communication import get_group_size, get_rank, init

    init()
    group = Group(get_rank(), get_group_size())
    if not group.is_main:
        logger.setLevel(logging.WARNING)  # what all would say, one says
    return group
