"""Creates a table of learning rates from the name of a schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable, Optional

from mindcv.scheduler import dynamic_lr
from mindcv.utils.checks import check_flags, check_int, check_name, check_not_negative
from mindcv.utils.errors import UserError
from mindcv.utils.logger import logger

__all__ = ["SCHEDULER_NAMES", "create_scheduler", "lr_at", "min_lr_problem", "warmup_problem", "warmup_start_problem"]


@dataclass(frozen=True)
class _Main:
    """Arguments of `create_scheduler` that the schedule after the warm-up needs.

    `epochs` is the number of epochs after the warm-up.
    """

    lr: float
    min_lr: float
    decay_epochs: int
    decay_rate: float
    milestones: Sequence[int]
    num_cycles: int
    cycle_decay: float
    lr_epoch_stair: bool
    steps_per_epoch: int
    epochs: int

    @property
    def span(self) -> dict[str, int]:
        return {"steps_per_epoch": self.steps_per_epoch, "epochs": self.epochs}


def _constant(main: _Main) -> list[float]:
    return dynamic_lr.constant_lr(1.0, 0, lr=main.lr, **main.span)


def _cosine_decay(main: _Main) -> list[float]:
    table = dynamic_lr.cosine_decay_lr if main.lr_epoch_stair else dynamic_lr.cosine_decay_refined_lr
    cycles = {"num_cycles": main.num_cycles, "cycle_decay": main.cycle_decay}
    return table(main.decay_epochs, main.min_lr, eta_max=main.lr, **cycles, **main.span)


def _exponential_decay(main: _Main) -> list[float]:
    table = dynamic_lr.exponential_lr if main.lr_epoch_stair else dynamic_lr.exponential_refined_lr
    return table(main.decay_rate, lr=main.lr, **main.span)


def _polynomial_decay(main: _Main) -> list[float]:
    table = dynamic_lr.polynomial_lr if main.lr_epoch_stair else dynamic_lr.polynomial_refined_lr
    return table(main.epochs, main.decay_rate, lr=main.lr, **main.span)


def _step_decay(main: _Main) -> list[float]:
    return dynamic_lr.step_lr(main.decay_epochs, main.decay_rate, lr=main.lr, **main.span)


def _multi_step_decay(main: _Main) -> list[float]:
    return dynamic_lr.multi_step_lr(main.milestones, main.decay_rate, lr=main.lr, **main.span)


def _one_cycle(main: _Main) -> list[float]:
    div_factor = 25.0
    return dynamic_lr.one_cycle_lr(
        main.lr, div_factor=div_factor, final_div_factor=main.lr / div_factor / main.min_lr, **main.span
    )


def _cyclic(main: _Main) -> list[float]:
    steps = main.steps_per_epoch * main.epochs
    up = steps // (2 * main.num_cycles)
    down = steps // main.num_cycles - up
    if not up:
        raise UserError(f"scheduler 'cyclic': {steps} steps are too few for num_cycles {main.num_cycles}")
    return dynamic_lr.cyclic_lr(main.min_lr, main.lr, up, down, **main.span)


_SCHEDULES: dict[str, Callable[[_Main], list[float]]] = {
    "constant": _constant,
    "cosine_decay": _cosine_decay,
    "exponential_decay": _exponential_decay,
    "polynomial_decay": _polynomial_decay,
    "step_decay": _step_decay,
    "multi_step_decay": _multi_step_decay,
    "one_cycle": _one_cycle,
    "cyclic": _cyclic,
}
SCHEDULER_NAMES = tuple(_SCHEDULES)
# These schedules include their own warm-up and change the rate at every step.
_WITHOUT_WARMUP = ("one_cycle", "cyclic")


def create_scheduler(
    steps_per_epoch: int,
    scheduler: str = "constant",
    lr: float = 0.01,
    min_lr: float = 1e-6,
    warmup_epochs: int = 3,
    warmup_factor: float = 0.0,
    decay_epochs: int = 10,
    decay_rate: float = 0.9,
    milestones: Optional[Sequence[int]] = None,
    num_epochs: int = 200,
    num_cycles: int = 1,
    cycle_decay: float = 1.0,
    lr_epoch_stair: bool = False,
    warmup_lr: Optional[float] = None,
) -> list[float]:
    """Return the learning rate of every training step: a warm-up, then a schedule, cut after `num_epochs` epochs.

    As in MindCV, epochs of the schedule count from the end of the warm-up: with 3 warm-up epochs, milestone 30 is
    epoch 33. After the end of the table, `lr_at` and the optimizers of `create_optimizer` keep the last rate.

    The papers use `cosine_decay` with `decay_epochs = num_epochs - warmup_epochs`. Of the n steps after the warm-up,
    step i then has the rate `min_lr + (lr - min_lr) (1 + cos(pi i / n)) / 2`. In a warm-up of w steps the rate rises by
    `lr / w` per step, as in the code of ConvNeXt V2; in the code of ConvNeXt it rises by `lr / (w - 1)`. MindSpore's
    trainer of ConvNeXt starts the warm-up at a given rate (`warmup_lr`). Its cosine then falls to 0, and it replaces
    every rate below `min_lr` with `min_lr`, also in the warm-up. Its rates differ from this table by at most `min_lr`.

    Args:
        steps_per_epoch: number of training steps per epoch.
        scheduler: name of the schedule after the warm-up:

            - `constant`: the rate stays at `lr`.
            - `cosine_decay`: `num_cycles` half cosines of `decay_epochs` epochs from `lr` to `min_lr`, then `min_lr`.
            - `exponential_decay`: multiplies the rate by `decay_rate` in each epoch.
            - `polynomial_decay`: falls to 0 at the end of training, as a polynomial of power `decay_rate`.
            - `step_decay`: multiplies the rate by `decay_rate` after every `decay_epochs` epochs.
            - `multi_step_decay`: multiplies the rate by `decay_rate` at each epoch in `milestones`.
            - `one_cycle`: rises to `lr`, then falls to `min_lr`.
            - `cyclic`: `num_cycles` triangles from `min_lr` to `lr` and back.
        lr: learning rate after the warm-up; the highest rate of `one_cycle` and `cyclic`.
        min_lr: lowest rate of `cosine_decay`, `one_cycle` and `cyclic`. The other schedules ignore it.
        warmup_epochs: number of epochs in which the rate rises linearly to `lr`. It must be 0 for `one_cycle` and
            `cyclic`.
        warmup_factor: the warm-up starts at `lr * warmup_factor`, unless `warmup_lr` is given.
        decay_epochs: number of epochs, see `scheduler`.
        decay_rate: factor or power, see `scheduler`.
        milestones: epochs in rising order, see `scheduler`.
        num_epochs: length of the table in epochs, with the warm-up.
        num_cycles: number of cycles, see `scheduler`.
        cycle_decay: each cosine cycle starts at this fraction of the first rate of the cycle before.
        lr_epoch_stair: change the rate once per epoch instead of at every step, also in the warm-up.
        warmup_lr: learning rate at the start of the warm-up; it cannot be combined with `warmup_factor`.

    Returns:
        A list of `steps_per_epoch * num_epochs` learning rates.

    Raises:
        UserError: the schedule is unknown, a value has the wrong type or is out of its range, or two arguments cannot
            be combined.
    """
    name = check_name("scheduler", scheduler, _SCHEDULES, ignore_case=True)
    counts = {"steps_per_epoch": steps_per_epoch, "num_epochs": num_epochs}
    _check_counts(**counts, decay_epochs=decay_epochs, num_cycles=num_cycles)
    milestones = () if milestones is None else dynamic_lr.check_milestones(milestones)
    check_not_negative(lr=lr, min_lr=min_lr, warmup_factor=warmup_factor)
    check_not_negative(decay_rate=decay_rate, cycle_decay=cycle_decay)
    check_int("warmup_epochs", warmup_epochs, 0)
    check_flags(lr_epoch_stair=lr_epoch_stair)
    problems = {
        "scheduler": warmup_problem(name, warmup_epochs, lr_epoch_stair),
        "min_lr": min_lr_problem(name, min_lr),
    }
    for argument, problem in problems.items():
        if problem:
            raise UserError(f"{argument}: {problem}")
    first_rate = _first_rate(lr, warmup_factor, warmup_lr)

    main = _Main(
        lr=lr,
        min_lr=min_lr,
        decay_epochs=decay_epochs,
        decay_rate=decay_rate,
        milestones=milestones,
        num_cycles=num_cycles,
        cycle_decay=cycle_decay,
        lr_epoch_stair=lr_epoch_stair,
        steps_per_epoch=steps_per_epoch,
        epochs=max(num_epochs - warmup_epochs, 0),
    )
    planned = warmup_epochs + (num_cycles * decay_epochs if name == "cosine_decay" else 0)
    if planned > num_epochs:
        logger.warning(
            f"warm-up and decay take {planned} epochs, but training ends after {num_epochs}: the schedule is cut there"
        )
    if warmup_epochs and lr_epoch_stair and not first_rate:
        logger.warning("the whole first epoch has learning rate 0 (lr_epoch_stair with a warm-up from 0)")
    table = _warmup(main, warmup_epochs, first_rate) + (_SCHEDULES[name](main) if main.epochs else [])
    return table[: steps_per_epoch * num_epochs]


def lr_at(table: Sequence[float], step: int) -> float:
    """Return the rate of `step`, counted from 0. After the end of the table it is the last rate."""
    return table[min(step, len(table) - 1)]


def _warmup(main: _Main, warmup_epochs: int, first_rate: float) -> list[float]:
    if not warmup_epochs:
        return []
    rise = dynamic_lr.linear_lr if main.lr_epoch_stair else dynamic_lr.linear_refined_lr
    # The factors multiply a rate of 1, so they are the rates themselves: `lr` may be 0.
    return rise(first_rate, main.lr, warmup_epochs, lr=1.0, steps_per_epoch=main.steps_per_epoch, epochs=warmup_epochs)


def _first_rate(lr: float, warmup_factor: float, warmup_lr: Optional[float]) -> float:
    if warmup_lr is None:
        return lr * warmup_factor
    check_not_negative(warmup_lr=warmup_lr)
    problem = warmup_start_problem(warmup_factor, warmup_lr)
    if problem:
        raise UserError(f"warmup_lr: {problem}")
    return warmup_lr


def _check_counts(**counts: int) -> None:
    for name, value in counts.items():
        check_int(name, value, 1)


def warmup_problem(scheduler: str, warmup_epochs: int, lr_epoch_stair: bool) -> str:
    """Return a clause that says why a schedule does not accept its warm-up or stairs, or '' if it does."""
    if scheduler not in _WITHOUT_WARMUP or not (warmup_epochs or lr_epoch_stair):
        return ""
    return f"{' and '.join(_WITHOUT_WARMUP)} need warmup_epochs: 0 and lr_epoch_stair: False"


def warmup_start_problem(warmup_factor: float, warmup_lr: Optional[float]) -> str:
    """Return a clause that says why the start of the warm-up is ambiguous, or '' if it is not."""
    if warmup_lr is None or not warmup_factor:
        return ""
    return (
        "give the start of the warm-up as warmup_lr or as warmup_factor, not both, "
        f"got {warmup_lr:g} and {warmup_factor:g}"
    )


def min_lr_problem(scheduler: str, min_lr: float) -> str:
    """Return a clause that says why a schedule does not accept `min_lr`, or '' if it does."""
    return "one_cycle ends at this rate, so it must be above 0" if scheduler == "one_cycle" and min_lr <= 0 else ""
