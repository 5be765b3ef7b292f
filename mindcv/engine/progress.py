"""The progress of a training run: which step it is at, and the figures so far."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["RunProgress"]


@dataclass
class RunProgress:
    """The progress that the trainer owns and shows to the callbacks. A snapshot of the run holds a copy.

    A step is one update of the weights. Times are in seconds.

    Attributes:
        num_epochs: length of the run.
        steps_per_epoch: number of steps in an epoch.
        images_per_step: number of images in a step, of all processes together.
        epoch: the current epoch, counted from 1; 0 before the run.
        step: number of steps done in the epoch.
        global_step: number of steps done in the run.
        loss: loss of the last step.
        lr: learning rate of the last step.
        loss_sum: sum of the losses of the epoch.
        train_seconds: time that the epoch has trained, without validation and saving.
        timed_steps: number of steps that count for the speed; the first step of a process compiles and does not.
        timed_seconds: time of those steps.
        metrics: the epoch's validation metrics; empty when the epoch was not validated.
        is_epoch_done: whether the callbacks have seen the end of the epoch.
        should_stop: a callback sets it to make the epoch the last one.
    """

    num_epochs: int
    steps_per_epoch: int
    images_per_step: int
    epoch: int = 0
    step: int = 0
    global_step: int = 0
    loss: float = math.nan
    lr: float = math.nan
    loss_sum: float = 0.0
    train_seconds: float = 0.0
    timed_steps: int = 0
    timed_seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    is_epoch_done: bool = True
    should_stop: bool = False

    def begin_epoch(self) -> None:
        """Go to the first step of the next epoch."""
        self.epoch += 1
        self.step, self.loss_sum, self.metrics, self.is_epoch_done = 0, 0.0, {}, False
        self.train_seconds, self.timed_steps, self.timed_seconds = 0.0, 0, 0.0

    def count_step(self, loss: float, lr: float, seconds: float, is_timed: bool) -> None:
        """Take note of a step that took `seconds`; with `is_timed` they count for the speed."""
        self.loss, self.lr = loss, lr
        self.loss_sum += loss
        self.step += 1
        self.global_step += 1
        self.train_seconds += seconds
        if is_timed:
            self.timed_steps += 1
            self.timed_seconds += seconds

    @property
    def train_loss(self) -> float:
        """Mean loss of the epoch's steps so far."""
        return self.loss_sum / self.step if self.step else math.nan

    @property
    def images_per_s(self) -> float:
        """Images trained on per second of the epoch, all processes together; NaN before it can be told."""
        return self.timed_steps * self.images_per_step / self.timed_seconds if self.timed_seconds > 0 else math.nan

    @property
    def is_last_epoch(self) -> bool:
        """Whether the run ends with this epoch; a resumed one may be past the epochs it is given now."""
        return self.should_stop or self.epoch >= self.num_epochs

    @property
    def is_done(self) -> bool:
        """Whether the run has ended."""
        return self.is_epoch_done and self.is_last_epoch

    def as_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    def restore(self, saved: RunProgress) -> None:
        """Continue from `saved`, the progress of an earlier process.

        The length of the run stays that of this process. When a step takes another number of images now, or an epoch
        another number of steps, the step is set to the same share of the epoch, rounded down.
        """
        kept = {name: getattr(self, name) for name in ("num_epochs", "steps_per_epoch", "images_per_step")}
        for name, value in vars(saved).items():
            setattr(self, name, value)
        for name, value in kept.items():
            setattr(self, name, value)
        if (saved.steps_per_epoch, saved.images_per_step) == (self.steps_per_epoch, self.images_per_step):
            return
        if saved.step == saved.steps_per_epoch:
            self.step = self.steps_per_epoch
        else:
            self.step = min(saved.step * saved.images_per_step // self.images_per_step, self.steps_per_epoch)
        self.loss_sum = saved.loss_sum / max(saved.step, 1) * self.step
        self.global_step = max(self.epoch - 1, 0) * self.steps_per_epoch + self.step
