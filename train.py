"""Train a model: `python train.py --config RECIPE.yaml [--option value ...]`."""

from __future__ import annotations

import mindspore as ms

from mindcv.config import TrainConfig
from mindcv.engine import CheckpointManager, Checkpoints, EarlyStopping, MetricsTable, Progress, Validation, apply_amp
from mindcv.optim import describe_groups
from mindcv.recipe import (
    build_evaluation_loader,
    build_lr_table,
    build_model,
    build_trainer,
    build_training_loader,
    checkpoint_metadata,
    read_config,
)
from mindcv.utils.cli import run_script, show_and_stop
from mindcv.utils.device import set_device
from mindcv.utils.distributed import join_group
from mindcv.utils.files import ensure_writable_dir
from mindcv.utils.logger import logger


def main() -> None:
    config = read_config(TrainConfig)
    device = set_device(config.device_target)
    ms.set_context(mode=config.mode)
    group = join_group(config.distribute)
    ms.set_seed(config.seed)  # the same in every process: all start from the same weights

    dataset, loader = build_training_loader(config, group)
    num_classes = dataset.num_classes()
    network = build_model(config, num_classes, checkpoint_path=config.ckpt_path)
    lr_table = build_lr_table(config, loader.get_dataset_size())
    trainer = build_trainer(config, network, lr_table, group)
    if config.print_param_groups:
        show_and_stop(describe_groups(trainer.step.optimizer))

    callbacks = []
    if config.val_while_train:
        _, val_loader = build_evaluation_loader(config, group, dataset.class_to_idx)
        val_network = apply_amp(build_model(config, num_classes), config.val_amp_level, dtype=config.amp_dtype)
        callbacks.append(Validation(network, val_network, val_loader, num_classes, config.val_interval, group))
    if config.early_stopping_patience is not None:
        callbacks.append(EarlyStopping(config.early_stopping_patience, config.early_stopping_metric))
    if group.is_main:
        save_dir = ensure_writable_dir(config.ckpt_save_dir)
        manager = CheckpointManager(save_dir, config.model, config.ckpt_save_policy, config.keep_checkpoint_max)
        metadata = checkpoint_metadata(config, dataset)
        callbacks.insert(0, Progress(config.log_interval))
        callbacks.append(Checkpoints(manager, network, metadata, config.ckpt_save_interval))
        callbacks.append(MetricsTable(save_dir))
        millions = sum(parameter.size for parameter in network.trainable_params()) / 1e6
        logger.info("%s, %.2f M weights, %d classes, on %s", config.model, millions, num_classes, device)
        steps = f"{loader.get_dataset_size()} steps of {config.batch_size * group.size}"
        logger.info("%d images, %s an epoch, %d epochs, into %s", len(dataset), steps, config.epoch_size, save_dir)

    trainer.train(config.epoch_size, loader, callbacks)
    if loader.num_corrupt:
        logger.warning("%d times a corrupt image was replaced by another", loader.num_corrupt)


if __name__ == "__main__":
    run_script(main)
