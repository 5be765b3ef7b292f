"""Pre-train an encoder with FCMAE: `python pretrain.py --config RECIPE.yaml [--option value ...]`."""

from __future__ import annotations

import os
import signal
import time

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C ends the process with a line, also in the imports below and while a graph compiles, which take seconds.
    signal.signal(signal.SIGINT, lambda *_: (os.write(2, b"stopped: by Ctrl-C\n"), os._exit(130)))

import mindspore as ms

from mindcv.config import PretrainConfig
from mindcv.engine import Interruption, ResumableRun, steps_per_epoch
from mindcv.optim import describe_groups
from mindcv.recipe import build_lr_table, hands_over_pixels, prepare_device
from mindcv.recipe_callbacks import log_run, restore_run
from mindcv.recipe_pretraining import (
    build_masked_autoencoder,
    build_pretraining_callbacks,
    build_pretraining_loader,
    build_pretraining_trainer,
    pretraining_description,
)
from mindcv.resume import check_agreement, check_save_dir, read_training_config
from mindcv.utils.cli import run_script, show_and_stop
from mindcv.utils.distributed import join_group
from mindcv.utils.logger import counted, logger


def main() -> None:
    config, snapshot = read_training_config(PretrainConfig)
    device = prepare_device(config)
    group = join_group(config.distribute)
    config = check_save_dir(config, snapshot, group)
    check_agreement(snapshot, group)
    ms.set_seed(config.seed)  # the same in every process: all start from the same weights

    network = build_masked_autoencoder(config)
    dataset, loader = build_pretraining_loader(config, group, network.num_patches, hands_over_pixels(config))
    num_steps = steps_per_epoch(loader, config.gradient_accumulation_steps)
    trainer = build_pretraining_trainer(config, network, build_lr_table(config, num_steps, group), group)
    if config.print_param_groups:
        show_and_stop(describe_groups(trainer.step.optimizer))

    interruption = Interruption()
    run = ResumableRun(network, trainer.step, pretraining_description(config, dataset, started=time.time()))
    callbacks = build_pretraining_callbacks(config, trainer, run, dataset, group)
    progress = trainer.begin(config.epoch_size, loader)
    if snapshot:
        restore_run(run, snapshot, progress, callbacks)
    if group.is_main:
        details = f"{network.num_visible} of {network.num_patches} patches visible, on {device}"
        log_run(config, run, dataset, loader, progress, group, details)

    with interruption.listening():
        trainer.train(config.epoch_size, loader, callbacks, progress, interruption)
    if loader.num_corrupt:
        logger.warning("%s a corrupt image was replaced by another", counted(loader.num_corrupt, "time"))


if __name__ == "__main__":
    run_script(main)
