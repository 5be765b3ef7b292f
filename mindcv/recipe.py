"""From a config to the objects it describes: what the scripts and tools share.

The factories know no config and the config knows no factory; here one is read to call the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Optional, TypeVar

from mindspore import nn

from mindcv.config import RunConfig, parse_args
from mindcv.convert import load_weights
from mindcv.data import (
    ImageDataset,
    ImageLoader,
    create_auto_augment,
    create_dataset,
    create_loader,
    create_transforms,
)
from mindcv.engine import DistillationLoss, Trainer, create_trainer
from mindcv.loss import create_loss
from mindcv.models import create_model, is_model, list_models
from mindcv.optim import create_optimizer, freeze
from mindcv.scheduler import create_scheduler
from mindcv.utils.cli import show_and_stop
from mindcv.utils.distributed import Group
from mindcv.utils.errors import DataError, UserError, unknown_name

__all__ = [
    "PREPROCESSING",
    "build_evaluation_loader",
    "build_loss",
    "build_lr_table",
    "build_model",
    "build_optimizer",
    "build_teacher",
    "build_trainer",
    "build_training_loader",
    "check_num_classes",
    "checkpoint_metadata",
    "read_config",
]

_Config = TypeVar("_Config", bound=RunConfig)

# The options that say how an image becomes the network's input when it is not augmented; they travel with weights.
PREPROCESSING = ("image_resize", "crop_pct", "interpolation", "mean", "std", "in_channels")


def read_config(config_class: type[_Config]) -> _Config:
    """The config of this process's command line; with `print_config` it is shown, and the process ends.

    Raises:
        ConfigError: as `parse_args`; unknown models and wrong augmentation policies are among the problems it tells.
    """
    config = parse_args(config_class=config_class, checks=[_unknown_models, _wrong_policy])
    if config.print_config:
        show_and_stop(config.described())
    return config


def _wrong_policy(config: RunConfig) -> list[str]:
    if not config.auto_augment:
        return []
    try:
        create_auto_augment(config.auto_augment, config.mean, config.interpolation)
    except UserError as error:
        return [f"auto_augment: {error}"]
    return []


def _unknown_models(config: RunConfig) -> list[str]:
    names = {"model:": config.model, "teacher_model:": config.teacher_model}
    return [unknown_name(kind, name, list_models()) for kind, name in names.items() if name and not is_model(name)]


def build_training_loader(config: RunConfig, group: Group) -> tuple[ImageDataset, ImageLoader]:
    """The training images, and the loader that augments them.

    Raises:
        DataError: they are not there, or are not of `num_classes` classes.
    """
    dataset = create_dataset(
        config.dataset,
        config.data_dir,
        config.train_split,
        num_shards=group.size,
        shard_id=group.rank,
        download=config.dataset_download,
        num_aug_repeats=config.aug_repeats,
        **config.subset("shuffle", "num_samples", "seed"),
    )
    check_num_classes(config, dataset)
    augmentation = config.subset("auto_augment", "scale", "ratio", "hflip", "vflip", "color_jitter", "interpolation")
    erasing = config.subset("re_prob", "re_scale", "re_ratio", "re_value", "re_max_attempts", "re_count")
    normalization = config.subset("mean", "std", "in_channels")
    transform = create_transforms(
        config.dataset,
        config.image_resize,
        is_training=True,
        separate=config.aug_splits > 0,
        **augmentation,
        **erasing,
        **normalization,
    )
    loader = create_loader(
        dataset,
        is_training=True,
        num_classes=dataset.num_classes(),
        transform=transform,
        separate=config.aug_splits > 0,
        num_aug_splits=config.aug_splits,
        **config.subset("batch_size", "drop_remainder", "num_parallel_workers", "skip_corrupt"),
        **config.subset("mixup", "cutmix", "cutmix_prob", "mixup_mode", "mixup_switch_prob", "mixup_off_epoch"),
        **config.subset("cutmix_minmax"),
    )
    return dataset, loader


def build_evaluation_loader(
    config: RunConfig, group: Group, class_to_idx: Optional[Mapping[str, int]] = None
) -> tuple[ImageDataset, ImageLoader]:
    """The validation images and their loader.

    Args:
        config: of the run.
        group: the processes that share the images.
        class_to_idx: numbers of the classes as the network learned them; None to number the folders found.
    """
    dataset = create_dataset(
        config.dataset,
        config.data_dir,
        config.val_split,
        shuffle=config.eval_shuffle,
        num_shards=group.size,
        shard_id=group.rank,
        download=config.dataset_download,
        seed=config.seed,
        class_indexing=class_to_idx,
    )
    check_num_classes(config, dataset)
    loader = create_loader(
        dataset,
        config.batch_size,
        num_classes=dataset.num_classes(),
        transform=create_transforms(config.dataset, **config.subset(*PREPROCESSING)),
        num_parallel_workers=config.num_parallel_workers,
    )
    return dataset, loader


def check_num_classes(config: RunConfig, dataset: ImageDataset) -> None:
    """Raise a `DataError` when the config names another number of classes than the data have."""
    found = dataset.num_classes()
    if config.num_classes is not None and config.num_classes != found:
        raise DataError(
            f"num_classes is {config.num_classes}, but {config.dataset} in '{config.data_dir}' has {found} classes; "
            f"give --num_classes {found} or leave it out"
        )


def build_model(config: RunConfig, num_classes: int, checkpoint_path: str = "") -> nn.Cell:
    """The network of the config, with the parameters frozen that it says."""
    network = create_model(
        config.model,
        num_classes=num_classes,
        checkpoint_path=checkpoint_path,
        **config.subset("pretrained", "in_channels", "drop_rate", "drop_path_rate", "head_init_scale"),
        **config.subset("layer_scale_init_value", "recompute_stages", "seed"),
    )
    if config.freeze:
        freeze(network, config.freeze)
    return network


def build_lr_table(config: RunConfig, steps_per_epoch: int) -> list[float]:
    """The learning rate of each step of the run."""
    return create_scheduler(
        steps_per_epoch,
        num_epochs=config.epoch_size,
        milestones=config.multi_step_decay_milestones,
        **config.subset("scheduler", "lr", "min_lr", "warmup_epochs", "warmup_factor", "decay_epochs", "decay_rate"),
        **config.subset("num_cycles", "cycle_decay", "lr_epoch_stair", "warmup_lr"),
    )


def build_trainer(config: RunConfig, network: nn.Cell, lr_table: list[float], group: Group) -> Trainer:
    """Loss, optimizer and mixed precision of the config, around `network`, with the teacher if there is one."""
    return create_trainer(
        network,
        build_loss(config),
        build_optimizer(config, network, lr_table),
        amp_cast_list=config.amp_cast_list or (),
        lr_table=lr_table,
        group=group,
        teacher=build_teacher(config, network.num_classes),
        **config.subset("amp_level", "amp_dtype", "loss_scale_type", "loss_scale", "drop_overflow_update"),
        **config.subset("clip_grad", "clip_value"),
    )


def build_optimizer(config: RunConfig, network: nn.Cell, lr_table: list[float]) -> nn.Optimizer:
    """The optimizer of the parameters that are not frozen."""
    return create_optimizer(
        network,
        lr=lr_table,
        nesterov=config.use_nesterov,
        **config.subset("opt", "weight_decay", "momentum", "weight_decay_filter", "eps"),
        **config.subset("betas", "layer_decay", "layer_decay_type"),
    )


def build_loss(config: RunConfig) -> nn.Cell:
    """The loss; of a student and its teacher, if there is one."""
    own = {}
    if config.loss == "BCE":
        own = {"target_threshold": config.bce_target_threshold}
    elif config.loss == "JSD":
        own = {"num_splits": config.aug_splits}
    loss = create_loss(config.loss, **config.subset("reduction", "label_smoothing", "aux_factor"), **own)
    if not config.teacher_model:
        return loss
    return DistillationLoss(loss, config.distillation_type, config.distillation_alpha, config.distillation_tau)


def build_teacher(config: RunConfig, num_classes: int) -> Optional[nn.Cell]:
    """The network to learn from, with its weights, or None.

    Raises:
        CheckpointError: the teacher's checkpoint is of another model or number of classes.
    """
    if not config.teacher_model:
        return None
    teacher = create_model(config.teacher_model, num_classes=num_classes, in_channels=config.in_channels)
    load_weights(teacher, config.teacher_ckpt_path)
    return teacher


def checkpoint_metadata(config: RunConfig, dataset: ImageDataset) -> dict[str, Any]:
    """What a reader of the run's weights must know, as JSON values."""
    options = {"model": config.model, "num_classes": dataset.num_classes(), **config.subset(*PREPROCESSING)}
    return {"options": options, "class_to_idx": dict(dataset.class_to_idx)}
