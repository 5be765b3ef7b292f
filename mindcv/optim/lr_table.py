"""A table of learning rates that keeps its last rate after its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional, Union

import numpy as np
from mindspore import Tensor, ops
from mindspore.nn.learning_rate_schedule import LearningRateSchedule

from mindcv.utils.checks import check_number, shown
from mindcv.utils.errors import UserError

__all__ = ["LearningRateTable", "Rate", "as_rate"]

Rate = Union[float, Sequence[float], np.ndarray, Tensor, LearningRateSchedule]


class LearningRateTable(LearningRateSchedule):
    """A schedule with one learning rate per step. After the end of the table it keeps the last rate.

    `nn.Optimizer` reads a list with Gather, which raises RuntimeError one step after the end. It also stores the list
    as a Parameter, so loading a checkpoint of the optimizer would restore an old schedule. This class stores the table
    as a constant.

    Args:
        table: the learning rates, one per step, at least one.

    Raises:
        UserError: the table is not one-dimensional, it is empty, or a rate is not a finite number of at least 0.
    """

    def __init__(self, table: Union[Sequence[float], np.ndarray, Tensor]) -> None:
        super().__init__()
        try:
            rates = table.asnumpy() if isinstance(table, Tensor) else np.asarray(table)
        except ValueError:  # rows of different lengths
            rates = np.asarray(None)
        if rates.dtype.kind not in "iuf":
            raise UserError(f"lr must be a number, a table of one rate per step, or a schedule, got {shown(table)}")
        rates = rates.astype(np.float32)
        if rates.ndim != 1 or not rates.size:
            raise UserError(f"a learning-rate table must be a non-empty row of rates, got shape {rates.shape}")
        if not (np.isfinite(rates).all() and (rates >= 0).all()):
            raise UserError("a learning-rate table must hold finite rates of at least 0")
        self.table = Tensor(rates)
        self.last_step = rates.size - 1

    def construct(self, global_step: Tensor) -> Tensor:
        """Return the rate of `global_step` (int32, shape (1,)) as float32 of the same shape."""
        return ops.gather(self.table, ops.minimum(global_step, self.last_step), 0)


def as_rate(lr: Optional[Rate]) -> Union[float, LearningRateSchedule]:
    """Convert a learning rate to a value that `nn.Optimizer` accepts: a float or a schedule Cell.

    Args:
        lr: a number or 0-D array or tensor, a table with one rate per step, or a schedule Cell.

    Raises:
        UserError: `lr` is None or of another type, or a rate is negative or not finite.
    """
    if lr is None:
        raise UserError("lr is required: give a number, a table of one rate per step, or a schedule")
    if isinstance(lr, LearningRateSchedule):
        return lr
    if isinstance(lr, (Tensor, np.ndarray)) and lr.ndim == 0:
        lr = lr.item()
    if isinstance(lr, (int, float, np.number)):
        return float(check_number("lr", lr, low=0))
    return LearningRateTable(lr)
