"""The trainer: runs the epochs and steps, and calls the callbacks."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from typing import Any, Callable, Optional, Union

import numpy as np
from mindspore import Tensor, nn
from mindspore.nn.cell import _pynative_executor  # its own module has moved between versions

from mindcv.data import ImageLoader
from mindcv.data.batches import Batch
from mindcv.data.loader import check_loader
from mindcv.engine.amp import apply_amp
from mindcv.engine.callbacks import Callback
from mindcv.engine.compile_cache import CompileCache
from mindcv.engine.distillation import DistillationNetwork
from mindcv.engine.ema import WeightAverage
from mindcv.engine.handover import hand_over
from mindcv.engine.interruption import SIGNALS, Interruption
from mindcv.engine.loss_scale import create_loss_scale
from mindcv.engine.progress import RunProgress
from mindcv.engine.train_step import AccumulatedStep, TrainStep
from mindcv.models.layers import number_samples
from mindcv.scheduler import lr_at
from mindcv.utils.checks import check_flags, check_int, check_network, check_number, shown
from mindcv.utils.distributed import ALONE, Group
from mindcv.utils.errors import Interrupted, NotFiniteError, UserError
from mindcv.utils.logger import counted, logger

__all__ = ["Trainer", "create_trainer", "images_left_out", "steps_per_epoch"]


class Trainer:
    """Runs a training step over a loader.

    Args:
        step: the training step: a `TrainStep`, or an `AccumulatedStep` where it takes several batches.
        lr_table: learning rate of each step, which the log shows; None shows none.
        group: the processes of the run.
        accumulation: number of batches in a step.
        runs_ahead: prepare the next batch and start the next step before the loss of a step is known, so that the
            device does not wait. Losses, weights, callbacks and saved files are the same, because a callback that reads
            the weights of a step is called before the next step is started (see `Callback.reads_weights`).
    """

    def __init__(
        self,
        step: Union[TrainStep, AccumulatedStep],
        lr_table: Optional[Sequence[float]] = None,
        group: Group = ALONE,
        accumulation: int = 1,
        runs_ahead: bool = False,
    ):
        self.step = step
        self.lr_table = lr_table
        self.group = group
        self.accumulation = accumulation
        self.runs_ahead = runs_ahead
        self._has_compiled = False
        self._is_updating = False
        self._losses: deque[Tensor] = deque()  # of the steps that were started and not finished
        self._since = 0.0

    def begin(self, num_epochs: int, loader: ImageLoader) -> RunProgress:
        """The progress of a run of `num_epochs` over `loader` before its first step."""
        images_per_step = loader.get_batch_size() * self.accumulation * self.group.size
        return RunProgress(num_epochs, steps_per_epoch(loader, self.accumulation), images_per_step)

    def train(
        self,
        num_epochs: int,
        loader: ImageLoader,
        callbacks: Sequence[Callback] = (),
        progress: Optional[RunProgress] = None,
        interruption: Optional[Interruption] = None,
    ) -> RunProgress:
        """Train for `num_epochs` over `loader`, or until a callback says to stop, and return the final progress.

        Callbacks are called in their order: first validation, then early stopping, then those that write files.

        Args:
            num_epochs: number of epochs of the run, including those that `progress` has done.
            loader: training images.
            callbacks: called at the begin, after steps and epochs, and at the end.
            progress: where to continue, made by `begin` and restored; None starts a new run.
            interruption: checked after each step.

        When a signal or an error ends training early, `on_interrupt` of the callbacks saves the run before the
        exception leaves this method. Nothing is saved in the middle of an update, which may have changed only some of
        the weights, or after a loss that is not finite.

        Raises:
            UserError: an argument of another type, the loss is NaN or infinite, or another process has failed.
            Interrupted: a signal asked to stop.
        """
        check_int("num_epochs", num_epochs, 0)
        check_loader(loader)
        if not isinstance(callbacks, (list, tuple)) or not all(isinstance(call, Callback) for call in callbacks):
            raise UserError(f"callbacks must be a list of callbacks of mindcv.engine, got {shown(callbacks)}")
        progress = self.begin(num_epochs, loader) if progress is None else progress
        self._losses.clear()
        self._is_updating = False
        self.step.set_train(True)
        # In PyNative mode an exception inside any gradient, as a mistake in a notebook makes it, leaves MindSpore's
        # record of that gradient behind. A float16 step then failed in LayerNormGrad, and others compiled slowly.
        _pynative_executor.clear_res()
        _tell_place(progress, num_epochs)
        for callback in callbacks:
            callback.on_train_begin(progress)
        try:
            while not progress.is_done:
                if progress.is_epoch_done:
                    progress.begin_epoch()
                self._train_epoch(loader, progress, callbacks, interruption)
                self._end_epoch(progress, callbacks)
        except Exception as error:
            self._end_early(error, progress, callbacks)
            raise
        else:
            for callback in callbacks:
                callback.on_train_end(progress)
        finally:
            for callback in callbacks:
                callback.close()
        return progress

    def _train_epoch(
        self,
        loader: ImageLoader,
        progress: RunProgress,
        callbacks: Sequence[Callback],
        interruption: Optional[Interruption],
    ) -> None:
        """Run the steps of an epoch. Decision 0089 says what may happen while a step runs on the device."""
        num_batches = loader.get_dataset_size()
        finish_step = partial(self._finish_step, progress, callbacks, interruption)
        self._since = time.perf_counter()
        with closing(loader.batches(progress.epoch - 1, progress.step * self.accumulation)) as batches:
            for number in range(progress.step, progress.steps_per_epoch):
                if self._must_finish_first(progress.global_step + len(self._losses), callbacks):
                    self._finish_steps(finish_step)
                left = num_batches - number * self.accumulation
                try:
                    inputs = self.group.together(self._last_part, batches, min(self.accumulation, left))
                except Exception:
                    self._finish_steps(finish_step)
                    raise
                self._finish_steps(finish_step, num_left=1)
                # Several processes agree after each step on whether all go on, so that none begins another one alone.
                if self.group.size > 1 or (interruption is not None and interruption.signal):
                    self._finish_steps(finish_step)
                self._start_step(inputs)
                if not self.runs_ahead:
                    self._finish_steps(finish_step)
            self._finish_steps(finish_step)

    def _must_finish_first(self, last_started: int, callbacks: Sequence[Callback]) -> bool:
        """Return whether the steps that were started must be finished before the next batch is fetched.

        Processes have different callbacks, but must wait for each other in the same order. So they always finish all
        steps after they have fetched a batch, or before they accumulate the gradients of a part.
        """
        if self.group.size > 1:
            return self.accumulation > 1
        return any(callback.reads_weights(last_started) for callback in callbacks)

    def _last_part(self, batches: Iterator[Batch], count: int) -> tuple[Tensor, Tensor]:
        """Accumulate the gradients of the next `count` batches except the last one, which is returned."""
        for batch in islice(batches, count - 1):
            self.step.accumulate(*hand_over(batch))
        return hand_over(next(batches))

    def _start_step(self, inputs: tuple[Tensor, Tensor]) -> None:
        """Start to update the weights with the last batch of a step. The device may still be busy afterwards."""
        self._is_updating = True
        loss, _ = self.step(*inputs)
        self._is_updating = False
        self._losses.append(loss)

    def _finish_steps(self, finish_step: Callable[[], None], num_left: int = 0) -> None:
        """Finish the steps that were started, the oldest first, until `num_left` are left."""
        while len(self._losses) > num_left:
            finish_step()

    def _finish_step(
        self, progress: RunProgress, callbacks: Sequence[Callback], interruption: Optional[Interruption]
    ) -> None:
        """Wait for the loss of the oldest step that was started, and call the callbacks.

        Raises:
            NotFiniteError: the loss is not finite.
            Interrupted: a signal asked to stop, and no later step was started.
        """
        self._count_step(progress)
        if not math.isfinite(progress.loss):
            raise NotFiniteError(
                f"the loss is {progress.loss} at epoch {progress.epoch}, step {progress.step}: training stops; "
                "a lower lr, clip_grad or another loss_scale may help"
            )
        self.group.together(_tell, [callback.on_step_end for callback in callbacks], progress)
        if not self._losses:
            self._check_interruption(progress, interruption)

    def _count_step(self, progress: RunProgress) -> None:
        """Wait for the loss of the oldest step that was started, and count the step."""
        self._is_updating = True
        loss = float(self._losses.popleft().asnumpy())
        self._is_updating = False
        lr = math.nan if self.lr_table is None else lr_at(self.lr_table, progress.global_step)
        now = time.perf_counter()
        progress.count_step(loss, lr, now - self._since, is_timed=self._has_compiled)
        self._has_compiled, self._since = True, now

    def _end_epoch(self, progress: RunProgress, callbacks: Sequence[Callback]) -> None:
        """Call the callbacks. If one fails, all are restored, because a resumed run repeats the end of this epoch."""
        before = [callback.saved() for callback in callbacks]
        try:
            self.group.together(_tell, [callback.on_epoch_end for callback in callbacks], progress)
        except Exception:
            progress.metrics = {}
            for callback, saved in zip(callbacks, before):
                callback.restore(saved)
            raise
        progress.is_epoch_done = True

    def _end_early(self, error: Exception, progress: RunProgress, callbacks: Sequence[Callback]) -> None:
        """Let the callbacks save the run before `error` ends it."""
        self._count_steps_left(progress)
        is_not_finite = progress.global_step > 0 and not math.isfinite(progress.loss)
        has_diverged = is_not_finite or isinstance(error, NotFiniteError)
        if self._is_updating or has_diverged:  # no wait for the other processes: they may be waiting in this step
            if progress.global_step:
                logger.warning(
                    "the run is not saved, because its weights %s: --resume auto goes on from the last saved run, and "
                    "--resume FILE from an earlier one",
                    "have diverged" if has_diverged else "may be updated in part",
                )
            return
        if self.accumulation > 1:
            self.step.drop_parts()
        failures = []
        for callback in callbacks:
            try:
                callback.on_interrupt(progress)
            except Exception as failure:  # one that cannot write its line must not keep another from saving
                failures.append(failure)
        if failures and isinstance(error, Interrupted):
            raise failures[0]
        for failure in failures:
            logger.warning("the run could not be saved: %s", failure)
        self.group.wait()  # msrun kills all processes as soon as one has ended, and the first may still be saving

    def _count_steps_left(self, progress: RunProgress) -> None:
        """Count the steps that were started before an error of a callback, because the weights are those after them."""
        try:
            while self._losses and not self._is_updating and math.isfinite(progress.loss):
                self._count_step(progress)
        except Exception as failure:
            logger.warning("a step that had been started failed too: %s", failure)

    def _check_interruption(self, progress: RunProgress, interruption: Optional[Interruption]) -> None:
        """Raise Interrupted in all processes if one of them got a signal."""
        if interruption is None:
            return
        counts = self.group.sum_integers(np.array([interruption.signal == number for number in SIGNALS]))
        for number, count in zip(SIGNALS, counts):
            if count:
                place = f"epoch {progress.epoch}, step {progress.step} of {progress.steps_per_epoch}"
                raise Interrupted(number, f"by {number.name} after {place}; --resume auto goes on from there")


def _tell_place(progress: RunProgress, num_epochs: int) -> None:
    """Say where a resumed run stands, if it has no epoch before it."""
    if progress.epoch <= num_epochs:
        if progress.is_done:
            logger.info("nothing is left to do: the run ended with epoch %d of %d", progress.epoch, num_epochs)
    elif progress.is_done:
        trained = counted(progress.epoch, "epoch")
        logger.info("nothing is left to do: the run has trained %s already, and epoch_size is %d", trained, num_epochs)
    else:
        logger.warning("the run ends with epoch %d, which it was in, and epoch_size is %d", progress.epoch, num_epochs)


def _tell(methods: Sequence[Callable[[RunProgress], None]], progress: RunProgress) -> None:
    for method in methods:
        method(progress)


def steps_per_epoch(loader: ImageLoader, accumulation: int) -> int:
    """Return the number of steps in an epoch.

    A last step with fewer batches is left out if the loader leaves out a last batch with fewer images.

    Raises:
        UserError: an epoch has no step.
    """
    num_batches = loader.get_dataset_size()
    if loader.drop_remainder and num_batches < accumulation:
        raise UserError(
            f"gradient_accumulation_steps is {accumulation}, and an epoch has {num_batches} batches: nothing remains"
        )
    return num_batches // accumulation if loader.drop_remainder else -(-num_batches // accumulation)


def images_left_out(loader: ImageLoader, accumulation: int, num_images: int, num_processes: int = 1) -> int:
    """Return how many images each epoch leaves out, because they fill no step.

    Args:
        loader: loader of the training images.
        accumulation: number of batches in a step.
        num_images: number of images of an epoch of all processes, before any is left out.
        num_processes: number of processes.
    """
    if not loader.drop_remainder:
        return 0
    images_per_step = loader.get_batch_size() * accumulation * num_processes
    return num_images - steps_per_epoch(loader, accumulation) * images_per_step


def create_trainer(
    network: nn.Cell,
    loss: Optional[nn.Cell],
    optimizer: nn.Optimizer,
    metrics: Any = None,
    amp_level: str = "O0",
    amp_cast_list: Sequence[str] = (),
    loss_scale_type: str = "fixed",
    loss_scale: float = 1.0,
    drop_overflow_update: bool = False,
    ema: bool = False,
    ema_decay: float = 0.9999,
    clip_grad: bool = False,
    clip_value: float = 15.0,
    gradient_accumulation_steps: int = 1,
    *,
    lr_table: Optional[Sequence[float]] = None,
    group: Group = ALONE,
    teacher: Optional[nn.Cell] = None,
    amp_dtype: str = "float16",
    ema_warmup: int = 2000,
    compile_cache: Optional[CompileCache] = None,
    runs_ahead: bool = False,
) -> Trainer:
    """Compose a trainer from its parts.

    Args:
        network: images [B, C, H, W] to logits.
        loss: (logits, labels) to a scalar; None for a network such as `FCMAE`, which computes its loss itself.
        optimizer: its parameters are those trained.
        metrics: kept for MindCV's callers; `evaluate` counts top-1, top-5 and loss.
        amp_level: see `apply_amp`.
        amp_cast_list: see `apply_amp`.
        loss_scale_type: see `create_loss_scale`.
        loss_scale: see `create_loss_scale`.
        drop_overflow_update: with a fixed scale, skip a step whose gradients are not finite; a dynamic one always does.
        ema: keep an average of the weights, the step's `ema`.
        ema_decay: see `WeightAverage`.
        clip_grad: bound the global norm of the gradients.
        clip_value: the largest global norm of the gradients, above 0, when `clip_grad` is on.
        gradient_accumulation_steps: batches an update.
        lr_table: see `Trainer`.
        group: the processes of the run.
        teacher: a network to learn from; `loss` is then a `DistillationLoss`.
        amp_dtype: 'float16' or 'bfloat16', see `apply_amp`.
        ema_warmup: see `WeightAverage`.
        compile_cache: where to take the compiled step from; its key must tell of all that is given here.
        runs_ahead: see `Trainer`.

    Raises:
        UserError: an argument is out of its range, or the optimizer holds parameters of another network.
    """
    del metrics
    check_int("gradient_accumulation_steps", gradient_accumulation_steps, 1)
    check_flags(drop_overflow_update=drop_overflow_update, ema=ema, clip_grad=clip_grad, runs_ahead=runs_ahead)
    if clip_grad:
        check_number("clip_value", clip_value, above=0)
    _check_parts(network, loss, optimizer)
    number_samples(network, group.rank, group.size, getattr(loss, "num_splits", 1))
    average = WeightAverage(network, ema_decay, ema_warmup) if ema else None
    is_float16 = amp_level != "O0" and amp_dtype == "float16"
    scale = create_loss_scale(loss_scale_type, loss_scale, is_float16)
    network = apply_amp(network, amp_level, amp_cast_list, dtype=amp_dtype)
    if teacher is not None:
        network = DistillationNetwork(network, apply_amp(teacher, amp_level, amp_cast_list, dtype=amp_dtype))
    step = TrainStep(
        network,
        loss,
        optimizer,
        scale,
        skip_overflow=drop_overflow_update or scale.is_dynamic,
        clip_norm=clip_value if clip_grad else 0.0,
        group=group,
        ema=average,
    )
    if gradient_accumulation_steps > 1:
        step = AccumulatedStep(step)
    if compile_cache is not None:
        step.use_compile_cache(compile_cache)
    return Trainer(step, lr_table, group, gradient_accumulation_steps, runs_ahead)


def _check_parts(network: nn.Cell, loss: Optional[nn.Cell], optimizer: nn.Optimizer) -> None:
    check_network("network", network)
    needs_loss = loss is not None or not getattr(network, "has_loss", False)
    if needs_loss and (not callable(loss) or isinstance(loss, nn.Optimizer)):
        raise UserError(f"loss must be a function of logits and labels, got {type(loss).__name__}")
    if not isinstance(optimizer, nn.Optimizer):
        raise UserError(f"optimizer must be an optimizer, as create_optimizer makes it, got {type(optimizer).__name__}")
    cells = [cell for cell in (network, loss) if isinstance(cell, nn.Cell)]
    known = {id(parameter) for cell in cells for parameter in cell.get_parameters()}
    foreign = [parameter.name for parameter in optimizer.parameters if id(parameter) not in known]
    if foreign:
        raise UserError(
            f"the optimizer holds {len(foreign)} parameters that are not in the network, such as '{foreign[0]}': make "
            "it for this network, after all changes of its structure"
        )
