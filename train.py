"""Train a model: `python train.py --config RECIPE.yaml [--option value ...]`."""

from __future__ import annotations

import os
import signal
import time

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C ends the process with a line, also in the imports below and while a graph compiles, which take seconds.
    signal.signal(signal.SIGINT, lambda *_: (os.write(2, b"stopped: by Ctrl-C\n"), os._exit(130)))

import mindspore as ms

from mindcv.engine import (
    CheckpointManager,
    Checkpoints,
    EarlyStopping,
    Interruption,
    MetricsTable,
    Progress,
    RemovalOfEarlierRun,
    RunState,
    RunStates,
    StateFiles,
    Validation,
    apply_amp,
    steps_per_epoch,
    weights_to_save,
)
from mindcv.models.pretrained import split_tag
from mindcv.optim import describe_groups
from mindcv.recipe import (
    build_evaluation_loader,
    build_lr_table,
    build_model,
    build_trainer,
    build_training_loader,
    checkpoint_metadata,
    prepare_device,
    validated_weights,
)
from mindcv.resume import check_agreement, check_classes, check_save_dir, read_training_config, run_description
from mindcv.utils.cli import run_script, show_and_stop
from mindcv.utils.distributed import join_group
from mindcv.utils.files import ensure_writable_dir, remove_side_files
from mindcv.utils.logger import counted, logger


def main() -> None:
    config, saved = read_training_config()
    device = prepare_device(config)
    group = join_group(config.distribute)
    config = check_save_dir(config, saved, group)
    check_agreement(saved, group)
    ms.set_seed(config.seed)  # the same in every process: all start from the same weights

    dataset, loader = build_training_loader(config, group)
    if saved:
        check_classes(saved, dataset)
    num_classes = dataset.num_classes()
    network = build_model(config, num_classes, with_weights=not saved)
    num_steps = steps_per_epoch(loader, config.gradient_accumulation_steps)
    trainer = build_trainer(config, network, build_lr_table(config, num_steps, group), group)
    if config.print_param_groups:
        show_and_stop(describe_groups(trainer.step.optimizer))

    callbacks, interruption = [], Interruption()
    if config.val_while_train:
        _, val_loader = build_evaluation_loader(config, group, dataset.class_to_idx)
        val_network = apply_amp(build_model(config, num_classes), config.val_amp_level, dtype=config.amp_dtype)
        weights = validated_weights(config, network, trainer.step)
        callbacks.append(
            Validation(weights, val_network, val_loader, num_classes, config.val_interval, group, interruption)
        )
    if config.early_stopping_patience is not None:
        callbacks.append(EarlyStopping(config.early_stopping_patience, config.early_stopping_metric))
    if group.is_main:
        save_dir, model = ensure_writable_dir(config.ckpt_save_dir), split_tag(config.model)[0]
        remove_side_files(save_dir)
        manager = CheckpointManager(save_dir, model, config.ckpt_save_policy, config.keep_checkpoint_max)
        weights, metadata = weights_to_save(network, trainer.step), checkpoint_metadata(config, dataset)
        callbacks.insert(0, Progress(config.log_interval))
        if config.overwrite:
            callbacks.insert(0, RemovalOfEarlierRun(save_dir))
        callbacks.append(Checkpoints(manager, weights, metadata, config.ckpt_save_interval))
        callbacks.append(MetricsTable(save_dir))

    run = RunState(network, trainer.step, callbacks, run_description(config, dataset, started=time.time()))
    state = trainer.begin(config.epoch_size, loader)
    if saved:
        run.restore(saved, state)
        if group.is_main:
            manager.take_best_from(saved[1]["folder"])
    if group.is_main:
        files = StateFiles(save_dir, model)
        callbacks.append(RunStates(files, run.capture, config.ckpt_save_interval, config.save_every_steps))
        millions = sum(parameter.size for parameter in network.trainable_params()) / 1e6
        logger.info("%s, %.2f M weights, %d classes, on %s", config.model, millions, num_classes, device)
        steps = f"{counted(num_steps, 'step')} of {state.images_per_step}"
        images, epochs = counted(len(dataset), "image"), counted(config.epoch_size, "epoch")
        logger.info("%s, %s an epoch, %s, into %s", images, steps, epochs, save_dir)

    with interruption.listening():
        trainer.train(config.epoch_size, loader, callbacks, state, interruption)
    if loader.num_corrupt:
        logger.warning("%s a corrupt image was replaced by another", counted(loader.num_corrupt, "time"))


if __name__ == "__main__":
    run_script(main)
