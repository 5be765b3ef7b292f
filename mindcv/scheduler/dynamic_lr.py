"""Learning-rate schedules as tables: pure functions that return one learning rate for each training step.

Each function takes `steps_per_epoch` and `epochs` and returns a list of `steps_per_epoch * epochs` floats. Most
functions change the rate once per epoch. The functions `*_refined_lr`, `cosine_annealing_warm_restarts_lr`,
`one_cycle_lr` and `cyclic_lr` change it at every step; their time in epochs is `step / steps_per_epoch`. In the
docstrings, t is this time, and the time of the other functions is the epoch, from 0.

Names and arguments are the same as in MindCV. The values equal those of the PyTorch schedulers of the same names,
stepped once per epoch or once per step.

An argument of the wrong type or out of its range raises a UserError. Rates and factors must be numbers of at least 0.
Lengths that a function divides by must be above 0. `steps_per_epoch` and `epochs` must be whole numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Callable, Optional

from mindcv.utils.checks import (
    check_flags,
    check_int,
    check_ints,
    check_name,
    check_not_negative,
    check_number,
    check_positive,
)
from mindcv.utils.errors import UserError

__all__ = [
    "check_milestones",
    "constant_lr",
    "cosine_annealing_lr",
    "cosine_annealing_warm_restarts_lr",
    "cosine_decay_lr",
    "cosine_decay_refined_lr",
    "cyclic_lr",
    "exponential_lr",
    "exponential_refined_lr",
    "linear_lr",
    "linear_refined_lr",
    "multi_step_lr",
    "one_cycle_lr",
    "polynomial_lr",
    "polynomial_refined_lr",
    "step_lr",
]


def check_milestones(milestones: Sequence[int]) -> tuple[int, ...]:
    """Return the milestones of `multi_step_lr`, in epochs, as a tuple.

    Raises:
        UserError: they are not whole numbers of at least 0 in rising order.
    """
    epochs = check_ints("milestones", milestones, low=0)
    problem = milestones_problem(epochs)
    if problem:
        raise UserError(f"milestones: {problem}")
    return epochs


def milestones_problem(milestones: Sequence[int]) -> str:
    """Return a clause that says why the order of milestones is wrong, or '' if it is right."""
    if list(milestones) == sorted(milestones):
        return ""
    return f"the epochs must be in rising order, got {list(milestones)}"


def _check_span(steps_per_epoch: int, epochs: int) -> None:
    check_int("steps_per_epoch", steps_per_epoch, 1)
    check_int("epochs", epochs, 0)


def _by_epoch(rate: Callable[[float], float], steps_per_epoch: int, epochs: int) -> list[float]:
    """Return `rate(epoch)` for each step; all steps of an epoch have the same rate."""
    _check_span(steps_per_epoch, epochs)
    return [value for epoch in range(epochs) for value in [rate(epoch)] * steps_per_epoch]


def _by_step(rate: Callable[[float], float], steps_per_epoch: int, epochs: int) -> list[float]:
    """Return `rate(time)` for each step, where `time` is the number of epochs and has a fraction."""
    _check_span(steps_per_epoch, epochs)
    return [rate(step / steps_per_epoch) for step in range(steps_per_epoch * epochs)]


def _half_cosine(start: float, end: float, fraction: float) -> float:
    """Return the value of a half cosine that goes from `start` at fraction 0 to `end` at fraction 1."""
    return end + (start - end) * (1.0 + math.cos(math.pi * fraction)) / 2.0


def constant_lr(factor: float, total_iters: int, *, lr: float, steps_per_epoch: int, epochs: int) -> list[float]:
    """Return the table with `lr * factor` for the first `total_iters` epochs and `lr` after them."""
    check_not_negative(factor=factor, total_iters=total_iters, lr=lr)
    return _by_epoch(lambda t: lr * (factor if t < total_iters else 1.0), steps_per_epoch, epochs)


def _linear(start_factor: float, end_factor: float, total_iters: int, lr: float) -> Callable[[float], float]:
    check_positive(total_iters=total_iters)
    check_not_negative(start_factor=start_factor, end_factor=end_factor, lr=lr)
    return lambda t: lr * (start_factor + (end_factor - start_factor) * min(t, total_iters) / total_iters)


def linear_lr(
    start_factor: float, end_factor: float, total_iters: int, *, lr: float, steps_per_epoch: int, epochs: int
) -> list[float]:
    """Return rates that go linearly from `lr * start_factor` to `lr * end_factor` in `total_iters` epochs.

    The rate changes once per epoch and stays constant after `total_iters`.
    """
    return _by_epoch(_linear(start_factor, end_factor, total_iters, lr), steps_per_epoch, epochs)


def linear_refined_lr(
    start_factor: float, end_factor: float, total_iters: int, *, lr: float, steps_per_epoch: int, epochs: int
) -> list[float]:
    """Return the same schedule as `linear_lr`, but the rate changes at every step."""
    return _by_step(_linear(start_factor, end_factor, total_iters, lr), steps_per_epoch, epochs)


def _polynomial(total_iters: int, power: float, lr: float) -> Callable[[float], float]:
    check_positive(total_iters=total_iters)
    check_not_negative(power=power, lr=lr)
    return lambda t: lr * (1.0 - min(t, total_iters) / total_iters) ** power


def polynomial_lr(total_iters: int, power: float, *, lr: float, steps_per_epoch: int, epochs: int) -> list[float]:
    """Return rates that fall from `lr` to 0 in `total_iters` epochs, as `lr * (1 - t / total_iters) ** power`.

    The rate changes once per epoch and stays 0 after `total_iters`.
    """
    return _by_epoch(_polynomial(total_iters, power, lr), steps_per_epoch, epochs)


def polynomial_refined_lr(
    total_iters: int, power: float, *, lr: float, steps_per_epoch: int, epochs: int
) -> list[float]:
    """Return the same schedule as `polynomial_lr`, but the rate changes at every step."""
    return _by_step(_polynomial(total_iters, power, lr), steps_per_epoch, epochs)


def exponential_lr(gamma: float, *, lr: float, steps_per_epoch: int, epochs: int) -> list[float]:
    """Return the rates `lr * gamma ** t`, which change once per epoch."""
    check_not_negative(gamma=gamma, lr=lr)
    return _by_epoch(lambda t: lr * gamma**t, steps_per_epoch, epochs)


def exponential_refined_lr(gamma: float, *, lr: float, steps_per_epoch: int, epochs: int) -> list[float]:
    """Return the same schedule as `exponential_lr`, but the rate changes at every step."""
    check_not_negative(gamma=gamma, lr=lr)
    return _by_step(lambda t: lr * gamma**t, steps_per_epoch, epochs)


def step_lr(step_size: int, gamma: float, *, lr: float, steps_per_epoch: int, epochs: int) -> list[float]:
    """Return rates that start at `lr` and are multiplied by `gamma` after every `step_size` epochs."""
    check_positive(step_size=step_size)
    check_not_negative(gamma=gamma, lr=lr)
    return _by_epoch(lambda t: lr * gamma ** (t // step_size), steps_per_epoch, epochs)


def multi_step_lr(
    milestones: Sequence[int], gamma: float, *, lr: float, steps_per_epoch: int, epochs: int
) -> list[float]:
    """Return rates that start at `lr` and are multiplied by `gamma` at each epoch in `milestones`.

    The milestones must be in rising order. A milestone that appears twice multiplies twice.
    """
    milestones = check_milestones(milestones)
    check_not_negative(gamma=gamma, lr=lr)
    return _by_epoch(lambda t: lr * gamma ** sum(t >= epoch for epoch in milestones), steps_per_epoch, epochs)


def cosine_annealing_lr(
    t_max: int, eta_min: float, *, eta_max: float, steps_per_epoch: int, epochs: int
) -> list[float]:
    """Return a cosine between `eta_max` and `eta_min` with a half period of `t_max` epochs.

    The rate changes once per epoch. After `t_max` epochs it rises again.
    """
    check_positive(t_max=t_max)
    check_not_negative(eta_min=eta_min, eta_max=eta_max)
    return _by_epoch(lambda t: _half_cosine(eta_max, eta_min, t / t_max), steps_per_epoch, epochs)


def cosine_annealing_warm_restarts_lr(
    te: int, tm: int, eta_min: float, *, eta_max: float, steps_per_epoch: int, epochs: int
) -> list[float]:
    """Return half cosines from `eta_max` to `eta_min` with warm restarts (SGDR, arXiv 1608.03983).

    The first half cosine lasts `te` epochs, and each later one is `tm` times as long as the one before. The rate
    changes at every step.
    """
    check_positive(te=te)
    check_not_negative(eta_min=eta_min, eta_max=eta_max)
    check_int("tm", tm, 1)

    def rate(t: float) -> float:
        start, length = 0, te
        while t >= start + length:
            start, length = start + length, length * tm
        return _half_cosine(eta_max, eta_min, (t - start) / length)

    return _by_step(rate, steps_per_epoch, epochs)


def _cosine_decay(
    decay_epochs: int, eta_min: float, eta_max: float, num_cycles: int, cycle_decay: float
) -> Callable[[float], float]:
    check_positive(decay_epochs=decay_epochs)
    check_not_negative(eta_min=eta_min, eta_max=eta_max, cycle_decay=cycle_decay)
    check_int("num_cycles", num_cycles, 1)

    def rate(t: float) -> float:
        cycle = int(t // decay_epochs)
        if cycle >= num_cycles:
            return eta_min
        return _half_cosine(eta_max * cycle_decay**cycle, eta_min, t / decay_epochs - cycle)

    return rate


def cosine_decay_lr(
    decay_epochs: int,
    eta_min: float,
    *,
    eta_max: float,
    steps_per_epoch: int,
    epochs: int,
    num_cycles: int = 1,
    cycle_decay: float = 1.0,
) -> list[float]:
    """Return `num_cycles` half cosines from `eta_max` to `eta_min`, then `eta_min` until the end.

    Each half cosine lasts `decay_epochs` epochs, and its first rate is `cycle_decay` times that of the one before. The
    rate changes once per epoch.
    """
    return _by_epoch(_cosine_decay(decay_epochs, eta_min, eta_max, num_cycles, cycle_decay), steps_per_epoch, epochs)


def cosine_decay_refined_lr(
    decay_epochs: int,
    eta_min: float,
    *,
    eta_max: float,
    steps_per_epoch: int,
    epochs: int,
    num_cycles: int = 1,
    cycle_decay: float = 1.0,
) -> list[float]:
    """Return the same schedule as `cosine_decay_lr`, but the rate changes at every step."""
    return _by_step(_cosine_decay(decay_epochs, eta_min, eta_max, num_cycles, cycle_decay), steps_per_epoch, epochs)


def one_cycle_lr(
    max_lr: float,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 10000.0,
    three_phase: bool = False,
    *,
    steps_per_epoch: int,
    epochs: int,
) -> list[float]:
    """Return the rates of the one-cycle policy (arXiv 1708.07120), which change at every step.

    Args:
        max_lr: highest rate, reached after the share `pct_start` of the steps.
        pct_start: share of the steps in which the rate rises, from 0 to 1.
        anneal_strategy: shape of the rise and the fall, `"cos"` (half cosines) or `"linear"`.
        div_factor: the first rate is `max_lr / div_factor`.
        final_div_factor: the last rate is the first rate divided by this factor.
        three_phase: after the rise, fall back to the first rate in as many steps, then fall to the last rate.
        steps_per_epoch: number of training steps per epoch.
        epochs: length of the table in epochs.

    Raises:
        UserError: `anneal_strategy` has another value, or another argument is out of its range.
    """
    check_name("anneal_strategy", anneal_strategy, ("cos", "linear"))
    check_not_negative(max_lr=max_lr)
    check_number("pct_start", pct_start, low=0, high=1)
    check_positive(div_factor=div_factor, final_div_factor=final_div_factor)
    check_flags(three_phase=three_phase)
    _check_span(steps_per_epoch, epochs)
    anneal = _half_cosine if anneal_strategy == "cos" else lambda start, end, f: start + (end - start) * f
    total = steps_per_epoch * epochs
    first, rise_end = max_lr / div_factor, pct_start * total - 1
    # Each phase is (its last step, the rate at that step). The first phase starts at step 0 with
    # the rate `first`.
    if three_phase:
        phases = [(rise_end, max_lr), (2 * rise_end, first), (total - 1, first / final_div_factor)]
    else:
        phases = [(rise_end, max_lr), (total - 1, first / final_div_factor)]

    def rate(step: int) -> float:
        start_step, start = 0.0, first
        for end_step, end in phases[:-1]:
            if step <= end_step:
                break
            start_step, start = end_step, end
        else:
            end_step, end = phases[-1]
        # A phase of zero length ends immediately.
        return anneal(start, end, (step - start_step) / (end_step - start_step) if end_step > start_step else 1.0)

    return [rate(step) for step in range(total)]


def cyclic_lr(
    base_lr: float,
    max_lr: float,
    step_size_up: int = 2000,
    step_size_down: Optional[int] = None,
    mode: str = "triangular",
    gamma: float = 1.0,
    scale_fn: Optional[Callable[[float], float]] = None,
    scale_mode: str = "cycle",
    *,
    steps_per_epoch: int,
    epochs: int,
) -> list[float]:
    """Return cyclical rates (arXiv 1506.01186), which rise from `base_lr` to `max_lr` and fall again, step by step.

    Args:
        base_lr: lowest rate.
        max_lr: highest rate of the first cycle.
        step_size_up: number of steps in which the rate rises.
        step_size_down: number of steps in which the rate falls; None means `step_size_up`.
        mode: height of the cycles: `"triangular"` (all equal), `"triangular2"` (each half as high as the one before) or
            `"exp_range"` (multiplied by `gamma ** step`). It has no effect if `scale_fn` is given.
        gamma: base of the power in `"exp_range"`.
        scale_fn: function that returns the factor of the height from the number of the cycle (from 1) or of the step.
        scale_mode: argument of `scale_fn`: `"cycle"` passes the cycle, `"iterations"` the step.
        steps_per_epoch: number of training steps per epoch.
        epochs: length of the table in epochs.

    Raises:
        UserError: `mode` or `scale_mode` has another value, or another argument is out of its range.
    """
    check_not_negative(base_lr=base_lr, max_lr=max_lr, gamma=gamma)
    _check_span(steps_per_epoch, epochs)
    shapes = {
        "triangular": (lambda cycle: 1.0, "cycle"),
        "triangular2": (lambda cycle: 0.5 ** (cycle - 1), "cycle"),
        "exp_range": (lambda step: gamma**step, "iterations"),
    }
    if scale_fn is None:
        scale_fn, scale_mode = shapes[check_name("mode", mode, shapes)]
    check_name("scale_mode", scale_mode, ("cycle", "iterations"))
    step_size_down = step_size_up if step_size_down is None else step_size_down
    check_positive(step_size_up=step_size_up, step_size_down=step_size_down)
    period = step_size_up + step_size_down

    def rate(step: int) -> float:
        cycle, position = divmod(step, period)
        height = position / step_size_up if position <= step_size_up else (period - position) / step_size_down
        return base_lr + (max_lr - base_lr) * height * scale_fn(cycle + 1 if scale_mode == "cycle" else step)

    return [rate(step) for step in range(steps_per_epoch * epochs)]
