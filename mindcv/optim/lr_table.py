"""A learning-rate table that may be read past its end."""

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
    """One rate a step; past the last, the last.

    `nn.Optimizer` reads a bare list with Gather, which raises RuntimeError one step past the end, and keeps it as a
    Parameter, so that a checkpoint of the optimizer would bring an old schedule back. This holds a constant.

    Args:
        table: the rates, one a step, at least one.

    Raises:
        UserError: the table is not one-dimensional, is empty, or holds something else than finite rates of at least 0.
    """

    def __init__(self, table: Union[Sequence[float], np.ndarray, Tensor]) -> None:
        super().__init__()
        try:
            rates = table.asnumpy() if isinstance(table, Tensor) else np.asarray(table)
        except ValueError:  # rows of different lengths
            rates = np.asarray(None)
        if rates.dtype.kind not in "iuf":
            raise UserError(f"lr must be a number, a table of one rate a step, or a schedule, got {shown(table)}")
        rates = rates.astype(np.float32)
        if rates.ndim != 1 or not rates.size:
            raise UserError(f"a learning-rate table must be a non-empty row of rates, got shape {rates.shape}")
        if not (np.isfinite(rates).all() and (rates >= 0).all()):
            raise UserError("a learning-rate table must hold finite rates of at least 0")
        self.table = Tensor(rates)
        self.last_step = rates.size - 1

    def construct(self, global_step: Tensor) -> Tensor:
        """Rate of `global_step` (int32, shape (1,)), float32 of the same shape."""
        return ops.gather(self.table, ops.minimum(global_step, self.last_step), 0)


def as_rate(lr: Optional[Rate]) -> Union[float, LearningRateSchedule]:
    """What `nn.Optimizer` takes for a rate (number or 0-D), a table of one rate a step, or a schedule Cell.

    Raises:
        UserError: None, a rate that is negative or not finite, or something that is neither rate, table nor schedule.
    """
    if lr is None:
        raise UserError("lr is required")
    if isinstance(lr, LearningRateSchedule):
        return lr
    if isinstance(lr, (Tensor, np.ndarray)) and lr.ndim == 0:
        lr = lr.item()
    if isinstance(lr, (int, float, np.number)):
        return float(check_number("lr", lr, low=0))
    return LearningRateTable(lr)
