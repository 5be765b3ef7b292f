"""Where a training run is."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

__all__ = ["TrainState"]


@dataclass
class TrainState:
    """What the trainer tells its callbacks.

    `epoch` is the one under way or just done, from 1; `step` the steps done in it; `global_step` the steps done in
    all. `loss` and `lr` are the last step's. Times are in seconds; `train_seconds` is the epoch's time in training,
    without validation and saving. `metrics` holds the epoch's validation figures, empty when there was none. A callback
    that sets `should_stop` makes the epoch the last.
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
    first_step_seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)
    should_stop: bool = False

    @property
    def train_loss(self) -> float:
        """Mean loss of the epoch's steps so far."""
        return self.loss_sum / self.step if self.step else math.nan

    @property
    def images_per_s(self) -> float:
        """Images trained on per second of the epoch, all processes together; NaN before the first can be told.

        The first step of a run compiles the network and is left out.
        """
        skipped = 1 if self.step == self.global_step else 0
        seconds = self.train_seconds - self.first_step_seconds * skipped
        steps = self.step - skipped
        return steps * self.images_per_step / seconds if steps > 0 and seconds > 0 else math.nan

    @property
    def is_last_epoch(self) -> bool:
        """Whether the run ends with this epoch."""
        return self.should_stop or self.epoch == self.num_epochs
