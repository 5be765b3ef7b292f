"""The driver of training: epochs and steps, and when to tell whom."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, Optional

import mindspore as ms
from mindspore import nn

from mindcv.data import ImageLoader
from mindcv.engine.amp import apply_amp
from mindcv.engine.callbacks import Callback
from mindcv.engine.distillation import DistillationNetwork
from mindcv.engine.loss_scale import create_loss_scale
from mindcv.engine.state import TrainState
from mindcv.engine.train_step import TrainStep
from mindcv.scheduler import lr_at
from mindcv.utils.distributed import Group
from mindcv.utils.errors import UserError

__all__ = ["Trainer", "create_trainer"]


class Trainer:
    """Runs a training step over a loader.

    Args:
        step: the training step.
        lr_table: the optimizer's rate of each step, to report; None to report none.
        group: the processes of the run.
    """

    def __init__(self, step: TrainStep, lr_table: Optional[Sequence[float]] = None, group: Group = Group()):  # noqa: B008
        self.step = step
        self.lr_table = lr_table
        self.group = group

    def train(self, num_epochs: int, loader: ImageLoader, callbacks: Sequence[Callback] = ()) -> TrainState:
        """Train for `num_epochs` over `loader`, or until a callback says to stop, and return the final state.

        Callbacks are told in their order: the one that validates, then one that may stop, then those that write.

        Raises:
            UserError: the loss is NaN or infinite.
        """
        state = TrainState(num_epochs, loader.get_dataset_size(), loader.get_batch_size() * self.group.size)
        self.step.set_train(True)
        for callback in callbacks:
            callback.on_train_begin(state)
        for epoch in range(num_epochs):
            self._train_epoch(epoch, loader, state, callbacks)
            for callback in callbacks:
                callback.on_epoch_end(state)
            if state.should_stop:
                break
        for callback in callbacks:
            callback.on_train_end(state)
        return state

    def _train_epoch(self, epoch: int, loader: ImageLoader, state: TrainState, callbacks: Sequence[Callback]) -> None:
        state.epoch, state.step, state.loss_sum, state.metrics = epoch + 1, 0, 0.0, {}
        start = time.perf_counter()
        for images, labels in loader.batches(epoch):
            loss, is_finite = self.step(ms.Tensor(images), ms.Tensor(labels))
            if self.lr_table is not None:
                state.lr = lr_at(self.lr_table, state.global_step)
            state.loss = float(loss.asnumpy())
            state.step += 1
            state.global_step += 1
            state.train_seconds = time.perf_counter() - start
            if state.global_step == 1:
                state.first_step_seconds = state.train_seconds
            if not math.isfinite(state.loss):
                raise UserError(
                    f"the loss is {state.loss} at epoch {state.epoch}, step {state.step}: training stops; "
                    "a lower lr, clip_grad or another loss_scale may help"
                )
            state.loss_sum += state.loss
            for callback in callbacks:
                callback.on_step_end(state)


def create_trainer(
    network: nn.Cell,
    loss: nn.Cell,
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
    group: Group = Group(),  # noqa: B008
    teacher: Optional[nn.Cell] = None,
    amp_dtype: str = "float16",
) -> Trainer:
    """Compose a trainer from its parts.

    Args:
        network: images [B, C, H, W] to logits.
        loss: (logits, labels) to a scalar.
        optimizer: its parameters are those trained.
        metrics: kept for MindCV's callers; `evaluate` counts top-1, top-5 and loss.
        amp_level: see `apply_amp`.
        amp_cast_list: see `apply_amp`.
        loss_scale_type: see `create_loss_scale`.
        loss_scale: see `create_loss_scale`.
        drop_overflow_update: with a fixed scale, skip a step whose gradients are not finite; a dynamic one always does.
        ema: not in this version.
        ema_decay: not in this version.
        clip_grad: bound the global norm of the gradients.
        clip_value: to this.
        gradient_accumulation_steps: not in this version, 1 only.
        lr_table: see `Trainer`.
        group: the processes of the run.
        teacher: a network to learn from; `loss` is then a `DistillationLoss`.
        amp_dtype: 'float16' or 'bfloat16', see `apply_amp`.
    """
    del metrics, ema_decay
    if ema or gradient_accumulation_steps != 1:
        raise UserError("ema and gradient_accumulation_steps come with a later version")
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
    )
    return Trainer(step, lr_table, group)
