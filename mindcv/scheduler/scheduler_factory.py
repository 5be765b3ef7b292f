"""Names of schedules to tables of learning rates."""

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
    """What the part after the warm-up is made from; the fields are `create_scheduler`'s arguments."""

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
# Schedules that include their own warm-up and change the rate at every step.
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
    """The learning rate of every step of a training: warm-up, then a schedule, cut at `num_epochs`.

    Times count from the end of the warm-up, as in MindCV: with 3 warm-up epochs, milestone 30 is epoch 33. A consumer
    that steps past the end stays at the last rate (`lr_at`; the optimizers of `create_optimizer` do so).

    The papers' schedule is `cosine_decay` with `decay_epochs = num_epochs - warmup_epochs`: step i of the n after the
    warm-up has the rate `min_lr + (lr - min_lr) (1 + cos(pi i / n)) / 2`, and the w steps of warm-up rise by `lr / w`
    each, as in the code of ConvNeXt V2; that of ConvNeXt rises by `lr / (w - 1)`. MindSpore's own trainer of
    ConvNeXt warms up from a rate (`warmup_lr`), then lets the cosine fall to 0 and lifts whatever is below `min_lr`, in
    the warm-up too: at most `min_lr` away from the table made here.

    Args:
        steps_per_epoch: training steps an epoch.
        scheduler: `constant`, `cosine_decay` (`num_cycles` times `decay_epochs`, then `min_lr`), `exponential_decay`
            (`decay_rate` an epoch), `polynomial_decay` (power `decay_rate`, to 0 at the end), `step_decay`
            (`decay_rate` every `decay_epochs`), `multi_step_decay` (`decay_rate` at each of `milestones`),
            `one_cycle` (rises to `lr`, ends at `min_lr`) or `cyclic` (`num_cycles` triangles from `min_lr` to `lr`).
        lr: the rate after the warm-up, or the peak.
        min_lr: the lowest rate of `cosine_decay`, `one_cycle` and `cyclic`; the others have no floor.
        warmup_epochs: epochs of linear rise to `lr`; must be 0 for `one_cycle` and `cyclic`.
        warmup_factor: the rise starts at `lr * warmup_factor`, unless `warmup_lr` says where.
        decay_epochs: see `scheduler`.
        decay_rate: see `scheduler`.
        milestones: see `scheduler`; in rising order.
        num_epochs: length of the table in epochs.
        num_cycles: see `scheduler`.
        cycle_decay: each cosine cycle starts at this fraction of the one before.
        lr_epoch_stair: change the rate once an epoch (and not at every step), in the warm-up too.
        warmup_lr: the rate that the rise starts at; excludes `warmup_factor`.

    Returns:
        `steps_per_epoch * num_epochs` rates.

    Raises:
        UserError: an unknown schedule, a value of another type or out of its range, or two that exclude each other.
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
            f"warm-up and decay take {planned} epochs, the training has {num_epochs}: the schedule is cut there"
        )
    if warmup_epochs and lr_epoch_stair and not first_rate:
        logger.warning("the whole first epoch has learning rate 0 (lr_epoch_stair with a warm-up from 0)")
    table = _warmup(main, warmup_epochs, first_rate) + (_SCHEDULES[name](main) if main.epochs else [])
    return table[: steps_per_epoch * num_epochs]


def lr_at(table: Sequence[float], step: int) -> float:
    """The rate of `step` (from 0): that of the table, or its last one past the end."""
    return table[min(step, len(table) - 1)]


def _warmup(main: _Main, warmup_epochs: int, first_rate: float) -> list[float]:
    if not warmup_epochs:
        return []
    rise = dynamic_lr.linear_lr if main.lr_epoch_stair else dynamic_lr.linear_refined_lr
    # Rates in place of factors of a rate of 1: `lr` may be 0.
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
    return "one_cycle ends at it, so it must be above 0" if scheduler == "one_cycle" and min_lr <= 0 else ""
