"""Where a training run is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["TrainState"]


@dataclass
class TrainState:
    """What the trainer tells its callbacks, and takes up again when a run is resumed.

    A step is an update of the weights. `epoch` is the one under way or just done, from 1; `step` the steps done in it;
    `global_step` the steps done in all. `loss` and `lr` are the last step's. Times are in seconds; `train_seconds` is
    the epoch's time in training, without validation and saving; `timed_steps` and `timed_seconds` leave out the first
    step of a process, which compiles. `metrics` holds the epoch's validation figures, empty when there was none.
    `is_epoch_done` says that callbacks have seen the epoch's end. A callback that sets `should_stop` makes the epoch
    the last.
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

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Go to where `saved`, of `as_dict`, was.

        The length of the run stays this one's. When a step takes another number of images, or an epoch another number
        of steps, the place is the same share of the epoch, rounded down to a whole step.
        """
        kept = {name: getattr(self, name) for name in ("num_epochs", "steps_per_epoch", "images_per_step")}
        for name, value in saved.items():
            setattr(self, name, value)
        for name, value in kept.items():
            setattr(self, name, value)
        if (saved["steps_per_epoch"], saved["images_per_step"]) == (self.steps_per_epoch, self.images_per_step):
            return
        if saved["step"] == saved["steps_per_epoch"]:
            self.step = self.steps_per_epoch
        else:
            self.step = min(saved["step"] * saved["images_per_step"] // self.images_per_step, self.steps_per_epoch)
        self.loss_sum = saved["loss_sum"] / max(saved["step"], 1) * self.step
        self.global_step = max(self.epoch - 1, 0) * self.steps_per_epoch + self.step
