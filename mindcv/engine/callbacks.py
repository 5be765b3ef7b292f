"""Callbacks of the trainer: progress log, validation, early stopping, checkpoints and snapshots."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Optional

from mindspore import Parameter, nn
from tqdm import tqdm

from mindcv.convert import weight_parameters
from mindcv.data import ImageLoader
from mindcv.engine.checkpoint import CheckpointManager
from mindcv.engine.compiling import say_compiling
from mindcv.engine.evaluate import evaluate
from mindcv.engine.interruption import Interruption
from mindcv.engine.progress import RunProgress
from mindcv.engine.run_folder import remove_runs
from mindcv.engine.snapshot import Snapshot, SnapshotWriter
from mindcv.utils.checks import check_int, check_name
from mindcv.utils.distributed import ALONE, Group
from mindcv.utils.errors import NotFiniteError
from mindcv.utils.logger import counted, logger

__all__ = [
    "EARLY_STOPPING_METRICS",
    "Callback",
    "Checkpoints",
    "EarlyStopping",
    "ProgressLog",
    "RemovalOfEarlierRun",
    "Snapshots",
    "Validation",
]

# The metrics that early stopping can watch: 1 if a higher value is better, -1 if a lower value is.
EARLY_STOPPING_METRICS = {"top_1": 1.0, "val_loss": -1.0}


class Callback:
    """Base class. The trainer calls the methods with the progress of the run; by default they do nothing."""

    def on_train_begin(self, progress: RunProgress) -> None:
        """Called before the first step."""

    def on_step_end(self, progress: RunProgress) -> None:
        """Called after each step."""

    def reads_weights(self, global_step: int) -> bool:
        """Return whether `on_step_end` must see the weights as step `global_step` leaves them.

        A trainer that runs ahead (`Trainer.runs_ahead`) starts the next step before it calls `on_step_end`, except
        where a callback returns True here. By default, every callback that has an `on_step_end` returns True.
        """
        return type(self).on_step_end is not Callback.on_step_end

    def on_epoch_end(self, progress: RunProgress) -> None:
        """Called after the last step of each epoch."""

    def on_train_end(self, progress: RunProgress) -> None:
        """Called after the last epoch."""

    def on_interrupt(self, progress: RunProgress) -> None:
        """Called when a signal or an error ends the run early, with the progress of the last complete step."""

    def close(self) -> None:
        """Called last, however training ended."""

    def saved(self) -> dict[str, Any]:
        """Return the state that a resumed run needs, as JSON values."""
        return {}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Restore the state that `saved` returned; called before `on_train_begin`."""


class ProgressLog(Callback):
    """Logs loss, learning rate, speed and remaining time.

    On a terminal it shows a progress bar, elsewhere a line after each `log_interval` steps and after each epoch.
    """

    def __init__(self, log_interval: int = 100):
        self.log_interval = check_int("log_interval", log_interval, 1)
        self.is_terminal = sys.stderr.isatty()
        self._bar: Optional[tqdm] = None
        self._first_step = 0  # global_step after the first step of this process
        self._second_step = 0.0

    def on_train_begin(self, progress: RunProgress) -> None:
        """Log that the training step is compiled first."""
        if not progress.is_done:
            say_compiling("the training step")

    def reads_weights(self, global_step: int) -> bool:
        """See `Callback.reads_weights`."""
        return False

    def on_step_end(self, progress: RunProgress) -> None:
        """Update the bar, or log a line when it is due."""
        if not self._first_step:
            self._first_step = progress.global_step
            self._second_step = time.perf_counter()  # the first step compiles, so it says nothing of the time left
        if self.is_terminal:
            if self._bar is None:
                self._bar = tqdm(
                    total=progress.steps_per_epoch,
                    initial=progress.step - 1,
                    desc=f"epoch {progress.epoch}/{progress.num_epochs}",
                    leave=False,
                )
            self._bar.set_postfix_str(self._figures(progress), refresh=False)
            self._bar.update()
        elif progress.step % self.log_interval == 0 and progress.step < progress.steps_per_epoch:
            logger.info("%s  %s", self._place(progress), self._figures(progress))

    def on_epoch_end(self, progress: RunProgress) -> None:
        """Log the line of the epoch."""
        self._close_bar()
        logger.info("%s  %s", self._place(progress), self._figures(progress, progress.train_loss))

    def on_interrupt(self, progress: RunProgress) -> None:
        """Leave the terminal to others."""
        self._close_bar()

    def close(self) -> None:
        """Leave the terminal to others, also where nothing is saved."""
        self._close_bar()

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    @staticmethod
    def _place(progress: RunProgress) -> str:
        return f"epoch {progress.epoch}/{progress.num_epochs} step {progress.step}/{progress.steps_per_epoch}"

    def _figures(self, progress: RunProgress, loss: Optional[float] = None) -> str:
        loss = progress.loss if loss is None else loss
        figures = [f"loss {loss:.4f}", f"lr {progress.lr:.2e}"]
        if not math.isnan(progress.images_per_s):
            figures.append(f"{progress.images_per_s:.1f} images/s")
        # A process that resumes in a validation logs the end of the epoch before it has done a step.
        timed = progress.global_step - self._first_step if self._first_step else 0
        if timed > 0:
            figures.append(f"{self._left(progress, timed)} left")
        return "  ".join(figures)

    def _left(self, progress: RunProgress, timed: int) -> str:
        """Return the remaining time of the run, estimated from the last `timed` steps."""
        steps = progress.num_epochs * progress.steps_per_epoch - progress.global_step
        seconds = round((time.perf_counter() - self._second_step) / timed * steps)
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


class Validation(Callback):
    """Validates every `interval` epochs and after the last epoch, and sets the metrics of the progress.

    Args:
        weights: the weights to validate, by name: those of the trained network, or their moving average.
        network: the network that computes with these weights; its number format can differ from the trained network's.
        loader: the validation images.
        num_classes: width of the logits.
        interval: number of epochs between two validations.
        group: the processes that validate together.
        interruption: a single process stops validating when a signal comes. Several processes finish the validation,
            because each has a share of the images.
    """

    def __init__(
        self,
        weights: Mapping[str, Parameter],
        network: nn.Cell,
        loader: ImageLoader,
        num_classes: int,
        interval: int = 1,
        group: Group = ALONE,
        interruption: Optional[Interruption] = None,
    ):
        self.weights = weights
        self.network = network
        self.loader = loader
        self.num_classes = num_classes
        self.interval = check_int("interval", interval, 1)
        self.group = group
        self.interruption = interruption if group.size == 1 else None
        self._has_compiled = False

    def on_epoch_end(self, progress: RunProgress) -> None:
        """Validate, when it is due.

        Raises:
            NotFiniteError: the training has diverged.
        """
        if progress.epoch % self.interval and not progress.is_last_epoch:
            return
        for name, parameter in weight_parameters(self.network).items():
            parameter.set_data(self.weights[name].value())
        if not self._has_compiled:
            say_compiling("the network for validation")
            self._has_compiled = True
        on_batch = self.interruption and self.interruption.stop_validation
        try:
            result = evaluate(self.network, self.loader, self.num_classes, self.group, on_batch=on_batch)
        except NotFiniteError:
            raise NotFiniteError(
                f"the network's logits are not finite in the validation of epoch {progress.epoch}: training stops; "
                "a lower lr, clip_grad or another loss_scale may help"
            ) from None
        progress.metrics = {"val_loss": result.counts.loss, "top_1": result.counts.top1, "top_5": result.counts.top5}
        logger.info(
            "epoch %d/%d validated: %s", progress.epoch, progress.num_epochs, "  ".join(_named(progress.metrics))
        )


class EarlyStopping(Callback):
    """Stops the run when a validation metric has not improved for some validations.

    It comes after `Validation`, which sets the metrics, and before `Checkpoints` and `MetricsTable`, which must know
    that the epoch is the last one. Every process of a run has it, and all see the same metrics. Epochs without
    validation do not count.

    Args:
        patience: number of validations in a row without improvement after which the run stops, at least 1.
        metric: 'top_1', where higher is better, or 'val_loss', where lower is better.

    Raises:
        UserError: an unknown metric, or an option out of its range.
    """

    def __init__(self, patience: int, metric: str = "top_1"):
        self.patience = check_int("patience", patience, 1)
        self.metric = check_name("metric", metric, EARLY_STOPPING_METRICS)
        self.best: Optional[float] = None
        self.best_epoch = 0
        self.num_worse = 0

    def on_epoch_end(self, progress: RunProgress) -> None:
        """Compare the metric of the epoch with the best so far, if the epoch was validated."""
        if self.metric not in progress.metrics:
            return
        value = progress.metrics[self.metric]
        if self._is_better(value):
            self.best, self.best_epoch, self.num_worse = value, progress.epoch, 0
            return
        self.num_worse += 1
        if self.num_worse >= self.patience and not progress.is_last_epoch:
            progress.should_stop = True
            logger.info("epoch %d/%d: training stops, %s", progress.epoch, progress.num_epochs, self._reason())

    def saved(self) -> dict[str, Any]:
        """Return the best value, its epoch, and the number of validations since then."""
        return {"best": self.best, "best_epoch": self.best_epoch, "num_worse": self.num_worse}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """See `Callback.restore`."""
        self.best, self.best_epoch, self.num_worse = saved["best"], saved["best_epoch"], saved["num_worse"]

    def on_train_end(self, progress: RunProgress) -> None:
        """Warn if no epoch was validated. An error would keep the callbacks after this one from saving."""
        if self.best is None and not self.num_worse:
            logger.warning("early stopping saw no validation: it needs one, and has its place after it")

    def _is_better(self, value: float) -> bool:
        if self.best is None:
            return not math.isnan(value)
        return (value - self.best) * EARLY_STOPPING_METRICS[self.metric] > 0  # false for NaN

    def _reason(self) -> str:
        if self.best is None:
            return f"{self.metric} was not finite in {counted(self.num_worse, 'validation')}"
        return (
            f"{self.metric} was best at epoch {self.best_epoch} with {self.best:.4f} and has not improved in "
            f"{counted(self.num_worse, 'validation')}"
        )


class Checkpoints(Callback):
    """Saves a checkpoint every `interval` epochs and after the last epoch, and the best validated epoch.

    Args:
        manager: writes and removes files.
        weights: the weights to save, by name.
        metadata: JSON values that each file holds beside the weights; epoch, step and metrics are added.
        interval: number of epochs between two checkpoints.
    """

    def __init__(
        self,
        manager: CheckpointManager,
        weights: Mapping[str, Parameter],
        metadata: Mapping[str, Any],
        interval: int = 1,
    ):
        self.manager = manager
        self.weights = weights
        self.metadata = dict(metadata)
        self.interval = check_int("interval", interval, 1)

    def on_epoch_end(self, progress: RunProgress) -> None:
        """Save, when it is due or when the epoch is the best so far."""
        metadata = {**self.metadata, "epoch": progress.epoch, "step": progress.global_step, "metrics": progress.metrics}
        score = progress.metrics.get("top_1")
        if progress.epoch % self.interval and not progress.is_last_epoch:
            self.manager.save_best(self.weights, metadata, progress.epoch, score)
            return
        path = self.manager.save(self.weights, metadata, progress.epoch, progress.step, score)
        if progress.is_last_epoch:
            logger.info("saved %s", path)

    def on_train_end(self, progress: RunProgress) -> None:
        """Say which epoch was the best, and where its weights are."""
        manager = self.manager
        if manager.best_score is not None:
            epoch = f"epoch {manager.best_epoch} of {progress.epoch}" if manager.best_epoch else "an earlier epoch"
            logger.info("best: %s with top_1 %.4f, saved as %s", epoch, manager.best_score, manager.best_path)

    def saved(self) -> dict[str, Any]:
        """Return the names of the kept files and the best score."""
        return self.manager.saved()

    def restore(self, saved: Mapping[str, Any]) -> None:
        """See `Callback.restore`."""
        self.manager.restore(saved)


class RemovalOfEarlierRun(Callback):
    """Removes an earlier run from a folder after the first step of the new run; it is the first callback.

    A new run that fails before, for example at an image that cannot be read, removes nothing.

    Args:
        folder: the folder, see `remove_runs`.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.is_done = False

    def reads_weights(self, global_step: int) -> bool:
        """See `Callback.reads_weights`. The removal may fail, and then no later step may have been started."""
        return not self.is_done

    def on_step_end(self, progress: RunProgress) -> None:
        """Remove the earlier run after the first step."""
        if not self.is_done:
            remove_runs(self.folder)
        self.is_done = True


class Snapshots(Callback):
    """Saves a snapshot of the run at the end of epochs, and when the run is interrupted.

    It is the last callback, because a snapshot holds what the others have made of the epoch.

    Args:
        writer: writes the snapshots.
        capture: takes a snapshot of the run at a progress.
        interval: number of epochs between two snapshots; the last epoch is saved in any case.
        step_interval: number of steps between two snapshots within an epoch; None for none.
    """

    def __init__(
        self,
        writer: SnapshotWriter,
        capture: Callable[[RunProgress], Snapshot],
        interval: int = 1,
        step_interval: Optional[int] = None,
    ):
        self.writer = writer
        self.capture = capture
        self.interval = check_int("interval", interval, 1)
        self.step_interval = None if step_interval is None else check_int("step_interval", step_interval, 1)
        self._first_step = 0  # global_step when this process began

    def on_train_begin(self, progress: RunProgress) -> None:
        """Remember the first step of this process, and mark the folder if the run is new."""
        self._first_step = progress.global_step
        if not progress.global_step:
            self.writer.begin()

    def reads_weights(self, global_step: int) -> bool:
        """See `Callback.reads_weights`."""
        return self.step_interval is not None and global_step % self.step_interval == 0

    def on_step_end(self, progress: RunProgress) -> None:
        """Save a snapshot, when it is due. The last step of an epoch is saved at the end of the epoch."""
        if self.reads_weights(progress.global_step) and progress.step < progress.steps_per_epoch:
            self._save(progress)

    def on_epoch_end(self, progress: RunProgress) -> None:
        """Save a snapshot, when it is due."""
        if progress.epoch % self.interval == 0 or progress.is_last_epoch:
            self._save(replace(progress, is_epoch_done=True))

    def on_interrupt(self, progress: RunProgress) -> None:
        """Save a snapshot, if this process has done a step."""
        if progress.global_step > self._first_step:
            logger.info("saved %s, from which --resume auto goes on", self._save(progress))
        elif not progress.global_step:
            self.writer.end_without_save()

    def _save(self, progress: RunProgress) -> Path:
        return self.writer.save(self.capture(progress))


def _named(figures: Mapping[str, float]) -> list[str]:
    return [f"{name} {value:.4f}" for name, value in figures.items()]
