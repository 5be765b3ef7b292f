"""Train a model: `python train.py --config RECIPE.yaml [--option value ...]`."""

from __future__ import annotations

import os
import signal
import time

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C ends the process with a line, also in the imports below and while a graph compiles, which take seconds.
    signal.signal(signal.SIGINT, lambda *_: (os.write(2, b"stopped: by Ctrl-C\n"), os._exit(130)))

import mindspore as ms

from mindcv.engine import Interruption, ResumableRun, steps_per_epoch
from mindcv.optim import describe_groups
from mindcv.recipe import (
    build_evaluation_loader,
    build_lr_table,
    build_trainer,
    build_training_loader,
    hands_over_pixels,
    prepare_device,
)
from mindcv.recipe_callbacks import build_callbacks, log_run, restore_run
from mindcv.recipe_weights import build_model, check_weights
from mindcv.resume import check_agreement, check_classes, check_save_dir, read_training_config, run_description
from mindcv.utils.cli import run_script, show_and_stop
from mindcv.utils.distributed import join_group
from mindcv.utils.logger import counted, logger


def main() -> None:
    config, snapshot = read_training_config()
    device = prepare_device(config)
    group = join_group(config.distribute)
    config = check_save_dir(config, snapshot, group)
    check_agreement(snapshot, group)
    ms.set_seed(config.seed)  # the same in every process: all start from the same weights

    # The weights are downloaded when all else is there, so that mistakes do not cost a download.
    check_weights(config, with_weights=not snapshot)
    dataset, loader = build_training_loader(config, group, hands_over_pixels(config))
    if snapshot:
        check_classes(snapshot, dataset)
    val_loader = build_evaluation_loader(config, group, dataset.class_to_idx)[1] if config.val_while_train else None
    network = build_model(config, dataset.num_classes(), with_weights=not snapshot)
    num_steps = steps_per_epoch(loader, config.gradient_accumulation_steps)
    trainer = build_trainer(config, network, build_lr_table(config, num_steps, group), group)
    if config.print_param_groups:
        show_and_stop(describe_groups(trainer.step.optimizer))

    interruption = Interruption()
    run = ResumableRun(network, trainer.step, run_description(config, dataset, started=time.time()))
    callbacks = build_callbacks(config, trainer, run, dataset, val_loader, group, interruption)
    progress = trainer.begin(config.epoch_size, loader)
    if snapshot:
        restore_run(run, snapshot, progress, callbacks)
    if group.is_main:
        details = f"{dataset.num_classes()} classes, on {device}"
        log_run(config, run, dataset, loader, progress, group, details)

    with interruption.listening():
        trainer.train(config.epoch_size, loader, callbacks, progress, interruption)
    if loader.num_corrupt:
        logger.warning("%s a corrupt image was replaced by another", counted(loader.num_corrupt, "time"))


if __name__ == "__main__":
    run_script(main)
