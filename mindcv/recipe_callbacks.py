"""The callbacks of a training run, from its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Optional

from mindspore import nn

from mindcv.config import RunConfig, TrainConfig
from mindcv.data import ImageDataset, ImageLoader
from mindcv.engine import (
    Callback,
    CheckpointManager,
    Checkpoints,
    EarlyStopping,
    EventFile,
    Interruption,
    MetricsTable,
    ProgressLog,
    RemovalOfEarlierRun,
    ResumableRun,
    RunRecord,
    Snapshots,
    SnapshotWriter,
    Trainer,
    Validation,
    apply_amp,
    describe_start,
    weights_to_save,
)
from mindcv.engine.progress import RunProgress
from mindcv.engine.snapshot import Snapshot
from mindcv.engine.trainer import images_left_out
from mindcv.models.pretrained import split_tag
from mindcv.recipe import checkpoint_metadata, validated_weights
from mindcv.recipe_weights import build_model
from mindcv.utils.distributed import Group
from mindcv.utils.files import ensure_writable_dir, remove_side_files
from mindcv.utils.logger import counted, logger

__all__ = ["build_callbacks", "build_opening_callbacks", "build_saving_callbacks", "log_run", "restore_run"]


def build_callbacks(
    config: TrainConfig,
    trainer: Trainer,
    run: ResumableRun,
    dataset: ImageDataset,
    val_loader: Optional[ImageLoader],
    group: Group,
    interruption: Interruption,
) -> list[Callback]:
    """Build the callbacks of a run in the order in which the trainer calls them.

    1. `RemovalOfEarlierRun` removes an earlier run before anything of this run is written.
    2. `RunRecord` writes `run.json`.
    3. `ProgressLog` logs the step or the epoch before the metrics of its validation.
    4. `Validation` sets the metrics of the epoch, which all callbacks after it use.
    5. `EarlyStopping` may make the epoch the last one, which the callbacks after it must know.
    6. `Checkpoints` saves the weights.
    7. `MetricsTable` writes the row of the epoch.
    8. `EventFile` writes the same row for TensorBoard.
    9. `Snapshots` saves the whole run, with what the callbacks before it save.

    All processes have 4, if there are validation images, and 5, if the configuration asks for it. Only the main process
    has the others.

    Args:
        config: configuration of the run.
        trainer: the trainer of the run.
        run: what snapshots are taken of.
        dataset: the training images.
        val_loader: makes batches of the validation images; None means no validation.
        group: the processes of the run.
        interruption: ends a validation early when a signal comes.
    """
    callbacks: list[Callback] = []
    validation = None
    if val_loader is not None:
        validation = _build_validation(config, trainer, run.network, val_loader, group, interruption)
    if group.is_main:
        callbacks += build_opening_callbacks(config, group)
    if validation is not None:
        callbacks.append(validation)
    if config.early_stopping_patience is not None:
        callbacks.append(EarlyStopping(config.early_stopping_patience, config.early_stopping_metric))
    if group.is_main:
        metadata = checkpoint_metadata(config, dataset)
        callbacks += build_saving_callbacks(config, trainer, run, metadata, callbacks)
    return callbacks


def build_opening_callbacks(config: RunConfig, group: Group) -> list[Callback]:
    """Build the callbacks of the main process that come before all others, and make the folder of the run."""
    save_dir = ensure_writable_dir(config.ckpt_save_dir)
    remove_side_files(save_dir)
    removal = [RemovalOfEarlierRun(save_dir)] if config.overwrite else []
    record = RunRecord(save_dir, describe_start(config.as_dict(), config.given, group.size))
    return [*removal, record, ProgressLog(config.log_interval)]


def build_saving_callbacks(
    config: RunConfig,
    trainer: Trainer,
    run: ResumableRun,
    metadata: Mapping[str, Any],
    others: Sequence[Callback],
) -> list[Callback]:
    """Build the callbacks of the main process that write the results of a run, and come after all others.

    Args:
        config: configuration of the run.
        trainer: the trainer of the run.
        run: what snapshots are taken of.
        metadata: what a reader of the weights must know.
        others: the callbacks before these, whose state the snapshots hold too.
    """
    save_dir, model = Path(config.ckpt_save_dir), split_tag(config.model)[0]
    manager = CheckpointManager(save_dir, model, config.ckpt_save_policy, config.keep_checkpoint_max)
    weights = weights_to_save(run.network, trainer.step)
    table = MetricsTable(save_dir)
    saving: list[Callback] = [Checkpoints(manager, weights, metadata, config.ckpt_save_interval), table]
    if config.tensorboard:
        saving.append(EventFile(save_dir, table))
    capture = partial(run.capture, callbacks=(*others, *saving))
    writer = SnapshotWriter(save_dir, model)
    return [*saving, Snapshots(writer, capture, config.ckpt_save_interval, config.save_every_steps)]


def _build_validation(
    config: TrainConfig,
    trainer: Trainer,
    network: nn.Cell,
    loader: ImageLoader,
    group: Group,
    interruption: Interruption,
) -> Validation:
    num_classes = network.num_classes
    val_network = apply_amp(build_model(config, num_classes), config.val_amp_level, dtype=config.amp_dtype)
    weights = validated_weights(config, network, trainer.step)
    return Validation(weights, val_network, loader, num_classes, config.val_interval, group, interruption)


def log_run(
    config: RunConfig,
    run: ResumableRun,
    dataset: ImageDataset,
    loader: ImageLoader,
    progress: RunProgress,
    group: Group,
    details: str,
) -> None:
    """Log what a run trains, on how many images, and how many of them an epoch leaves out.

    Args:
        config: configuration of the run.
        run: the run, which holds the network.
        dataset: the training images.
        loader: makes batches of them.
        progress: progress before the first step.
        group: the processes of the run.
        details: words about the network and the device.
    """
    millions = sum(parameter.size for parameter in run.network.trainable_params()) / 1e6
    logger.info("%s, %.2f M weights, %s", config.model, millions, details)
    steps = f"{counted(progress.steps_per_epoch, 'step')} of {progress.images_per_step}"
    images, epochs = counted(len(dataset), "image"), counted(config.epoch_size, "epoch")
    logger.info("%s, %s an epoch, %s, into %s", images, steps, epochs, Path(config.ckpt_save_dir))
    left_out = images_left_out(loader, config.gradient_accumulation_steps, len(dataset), group.size)
    if left_out:
        told = "images left out of each epoch, because they do not fill a step: %d (see drop_remainder)"
        logger.info(told, left_out)


def restore_run(run: ResumableRun, snapshot: Snapshot, progress: RunProgress, callbacks: list[Callback]) -> None:
    """Put a snapshot back into a run and its callbacks, and copy its best checkpoint from another folder.

    Raises:
        CheckpointError: see `ResumableRun.restore`.
    """
    run.restore(snapshot, progress, callbacks)
    for callback in callbacks:
        if isinstance(callback, Checkpoints):
            callback.manager.take_best_from(snapshot.folder)
