"""Objects of a run, built from a configuration, for the scripts and tools.

The factories do not know the configuration; the functions here read it and call the factories.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar, Union

import numpy as np
from mindspore import Parameter, nn

from mindcv.config import COMMAND_OPTIONS, NEUTRAL_OPTIONS, PretrainConfig, RunConfig, TrainConfig, parse_args
from mindcv.convert import (
    CheckpointContents,
    backbone_name,
    fill_weights,
    is_pretraining_name,
    open_backbone,
    open_checkpoint,
    pretraining_name,
    weight_parameters,
)
from mindcv.convert.layouts import rename
from mindcv.data import ImageDataset, create_auto_augment
from mindcv.engine import AccumulatedStep, CompileCache, DistillationLoss, Trainer, TrainStep, create_trainer
from mindcv.engine.event_file import require_tensorboard
from mindcv.engine.run_folder import newest_checkpoint
from mindcv.loss import create_loss
from mindcv.models import create_model, is_model, list_models
from mindcv.models.pretrained import fetch_pretrained, pretrained_options, pretrained_weights, split_tag
from mindcv.optim import create_optimizer, freeze
from mindcv.recipe_data import (
    PREPROCESSING,
    build_evaluation_loader,
    build_training_loader,
    holdout_digest,
    holdout_options,
)
from mindcv.scheduler import create_scheduler
from mindcv.utils.cli import show_and_stop
from mindcv.utils.device import set_device, set_mode
from mindcv.utils.distributed import Group, is_first_process
from mindcv.utils.errors import CheckpointError, UserError, nearest, unknown_name
from mindcv.utils.logger import logger

__all__ = [
    "PREPROCESSING",
    "build_evaluation_loader",
    "build_compile_cache",
    "build_loss",
    "build_lr_table",
    "build_model",
    "build_optimizer",
    "build_teacher",
    "build_trainer",
    "build_training_loader",
    "checkpoint_metadata",
    "open_backbone_weights",
    "open_weights",
    "parse_command_line",
    "prepare_device",
    "read_config",
    "show_if_asked",
    "tell_warnings",
    "validated_weights",
]

_Config = TypeVar("_Config", bound=RunConfig)


def read_config(config_class: type[_Config]) -> _Config:
    """Call `parse_command_line`; with `print_config`, print the configuration and end the process."""
    config = parse_command_line(config_class)
    show_if_asked(config)
    return config


def parse_command_line(config_class: type[_Config]) -> _Config:
    """Return the configuration of the command line of this process.

    Raises:
        ConfigError: as `parse_args`; unknown models and wrong augmentation policies are among the problems it tells.
    """
    config = parse_args(
        config_class=config_class, checks=[_unknown_models, _wrong_policy, _wrong_data_dir, _no_tensorboard]
    )
    tell_warnings(config)
    return config


def tell_warnings(config: RunConfig) -> None:
    """Log each warning of a configuration, in one process of the run."""
    for told in config.warnings if is_first_process() else ():
        logger.warning("%s", told)


def show_if_asked(config: RunConfig) -> None:
    """With `print_config`, print every option and end the process."""
    if config.print_config:
        show_and_stop(config.described())


def _wrong_policy(config: RunConfig) -> list[str]:
    if not config.auto_augment:
        return []
    try:
        create_auto_augment(config.auto_augment, config.mean, config.interpolation)
    except UserError as error:
        return [f"auto_augment: {str(error).removeprefix('auto_augment ')}"]
    return []


def _no_tensorboard(config: RunConfig) -> list[str]:
    if not config.as_dict().get("tensorboard"):
        return []
    try:
        require_tensorboard()
    except UserError as error:
        return [f"tensorboard: {error}"]
    return []


def _wrong_data_dir(config: RunConfig) -> list[str]:
    is_used = "data_dir" in config.as_dict() and config.dataset != "digits" and not config.dataset_download
    is_settled = "data_dir" in config.given or "data_dir" not in config.completed_later()
    path = Path(config.data_dir)
    if path.is_dir() or config.print_config or not (is_used and is_settled):
        return []
    if path.exists():
        return [f"data_dir: '{path}' is a file, and the folder of the data set is expected"]
    near = nearest(path.name, [folder.name for folder in path.parent.glob("*") if folder.is_dir()])
    return [f"data_dir: folder '{path}' does not exist{near}"]


# By whether the script pre-trains.
_WRONG_SCRIPT = {
    False: "'{model}' is a masked autoencoder, which pretrain.py trains and which classifies nothing: give '{other}', "
    "and to start from a pre-trained encoder --pretrained_encoder FILE",
    True: "'{model}' is a classifier: pretrain.py trains masked autoencoders, such as '{other}'",
}


def _counterpart(model: str) -> str:
    """Return the model that the other kind of script trains: the encoder, or the autoencoder of the V2 of this size."""
    if is_pretraining_name(model):
        return backbone_name(model)
    return pretraining_name(model.replace("convnext_", "convnextv2_"))


def _unknown_models(config: RunConfig) -> list[str]:
    model, tag = split_tag(config.model)
    names = {"model:": model, "teacher_model:": config.teacher_model}
    is_pretraining = isinstance(config, PretrainConfig)
    known = [name for name in list_models() if is_pretraining_name(name) == is_pretraining]
    if is_model(model) and model not in known:
        return [f"model: {_WRONG_SCRIPT[is_pretraining].format(model=model, other=_counterpart(model))}"]
    problems = [unknown_name(kind, name, known) for kind, name in names.items() if name and name not in known]
    if tag and not config.pretrained:
        problems.append(f"model: '{config.model}' names published weights: give pretrained: True, or '{model}' alone")
    elif config.pretrained and is_model(model):
        try:
            pretrained_weights(config.model)
        except UserError as error:
            problems.append(f"model: {error}")
    return problems


def prepare_device(config: RunConfig) -> str:
    """Set device and mode, return the device, and warn about float16 on a CPU.

    Raises:
        DeviceError: this installation of MindSpore cannot run on the device.
    """
    device = set_device(config.device_target)
    set_mode(config.mode, config.jit_level)
    names = ["amp_level"] if isinstance(config, (TrainConfig, PretrainConfig)) else []
    names += ["val_amp_level"] if not names or config.val_while_train else []
    slow = [name for name in names if getattr(config, name) != "O0"]
    if slow and device == "CPU" and config.amp_dtype == "float16":
        logger.warning(
            "float16 (%s) is several times slower than float32 on a CPU (convnext_tiny: 3.0 against 17.2 images/s): "
            "give %s",
            ", ".join(f"{name} {getattr(config, name)}" for name in slow),
            " ".join(f"--{name} O0" for name in slow),
        )
    return device


def build_model(config: RunConfig, num_classes: int, with_weights: bool = False) -> nn.Cell:
    """Build the network, and freeze the parameters that the configuration names.

    Args:
        config: configuration of the run.
        num_classes: number of classes of the head.
        with_weights: load the weights to start from, from a checkpoint or from published weights, if the configuration
            names any. The log says where the preprocessing differs from that of published weights.
    """
    pretrained = with_weights and config.pretrained
    network = create_model(
        config.model if pretrained else split_tag(config.model)[0],
        num_classes=num_classes,
        pretrained=pretrained,
        checkpoint_path=config.ckpt_path if with_weights else "",
        **config.subset("in_channels", "patch_size", "drop_rate", "drop_path_rate", "head_init_scale"),
        **config.subset("layer_scale_init_value", "recompute_stages", "seed"),
    )
    if pretrained:
        weights = pretrained_weights(config.model)
        _tell_preprocessing(config, weights.name, "published for", pretrained_options(weights))
    elif with_weights and config.pretrained_encoder:
        _fill_encoder(config, network)
    if config.freeze:
        freeze(network, config.freeze)
    return network


def _fill_encoder(config: RunConfig, network: nn.Cell) -> None:
    """Fill the network with a pre-trained encoder. Its head keeps its initial values."""
    path = config.pretrained_encoder
    path = str(newest_checkpoint(path)) if os.path.isdir(path) else path
    contents = open_backbone(path)
    options = _own_metadata(contents).get("options", {})
    model = split_tag(config.model)[0]
    if options.get("model", model) != model:
        raise CheckpointError(
            f"pretrained_encoder '{path}' is the encoder of {options['model']}, and the model is "
            f"{model}: give --model {options['model']}"
        )
    fill_weights(network, contents, path, replace_head=True, adapt_stem=True)
    _tell_preprocessing(config, path, "pre-trained on", options)


def _tell_preprocessing(config: RunConfig, name: str, purpose: str, theirs: Mapping[str, Any]) -> None:
    """Log how the preprocessing of the run differs from that of the weights `name`, if it does."""
    ours = config.subset(*PREPROCESSING)
    differing = [option for option in PREPROCESSING if option in theirs and not _is_alike(theirs[option], ours[option])]
    if differing:
        listed = ", ".join(f"{option} {theirs[option]} (here {ours[option]})" for option in differing)
        logger.info("%s: these weights were %s other images: %s", name, purpose, listed)


def _is_alike(value: Any, other: Any) -> bool:
    """Whether two values are equal; numbers may differ by the rounding of their decimal form."""
    if isinstance(value, list) and isinstance(other, list):
        return len(value) == len(other) and all(map(_is_alike, value, other))
    return value == other if isinstance(value, str) else math.isclose(value, other, rel_tol=1e-4)


def open_weights(config: _Config) -> tuple[_Config, dict[str, Any], Callable[[], CheckpointContents]]:
    """Open the weights of a classifier, and complete the configuration with the metadata of the checkpoint.

    Published weights are downloaded only when they are read, so that the caller can check its data first.

    Returns:
        The complete configuration, the metadata of the checkpoint, and a function that reads the weights.

    Raises:
        UserError: the weights do not exist or have no classifier, or `num_classes` is not theirs.
        CheckpointError: see `mindcv.convert.open_checkpoint`.
        ConfigError: no model is named, or options do not go together.
    """
    ema = config.ema if "ema" in config.given else None
    if config.pretrained:
        weights = pretrained_weights(config.model)
        if not weights.num_classes:
            raise UserError(f"{weights.name} has no classifier: {_WITHOUT_CLASSIFIER} (train.py --pretrained True)")
        options = pretrained_options(weights)
        config = _completed(config, options, weights.num_classes)
        return config, {"options": options}, lambda: open_checkpoint(fetch_pretrained(weights), ema=ema)
    contents = open_checkpoint(config.ckpt_path, ema=ema)
    metadata = _own_metadata(contents)
    options = dict(metadata.get("options", {}))
    model = str(options.get("model", ""))
    if is_pretraining_name(model):
        raise UserError(
            f"checkpoint '{config.ckpt_path}' holds a masked autoencoder, which has no classifier: "
            f"{_WITHOUT_CLASSIFIER} (train.py --pretrained_encoder FILE)"
        )
    num_classes = _num_classes_of(contents)
    if num_classes:
        options["num_classes"] = num_classes
    return _completed(config, options, num_classes), metadata, lambda: contents


_WITHOUT_CLASSIFIER = "measure its features with validate.py --probe knn, or fine-tune it"


def open_backbone_weights(config: _Config) -> tuple[_Config, dict[str, Any], Callable[[], CheckpointContents]]:
    """Open the weights of a backbone, of which the features are wanted. It is like `open_weights` otherwise.

    The weights may belong to a classifier, to a pre-training network or to an encoder. Their number of classes does not
    matter.

    Raises:
        UserError: the weights do not exist.
        CheckpointError: see `mindcv.convert.open_backbone`.
        ConfigError: no model is named, or options do not go together.
    """
    ema = config.ema if "ema" in config.given else None
    if config.pretrained:
        weights = pretrained_weights(config.model)
        options = {name: value for name, value in pretrained_options(weights).items() if name != "num_classes"}
        config = _completed(config, options, num_classes=0)
        return config, {"options": options}, lambda: open_backbone(fetch_pretrained(weights), ema=ema)
    contents = open_backbone(config.ckpt_path, ema=ema)
    metadata = _own_metadata(contents)
    return _completed(config, metadata.get("options", {}), num_classes=0), metadata, lambda: contents


def _own_metadata(contents: CheckpointContents) -> dict[str, Any]:
    """Return the metadata of this library's files; in the files of others these names may stand for anything."""
    return {name: value for name, value in contents.metadata.items() if isinstance(value, dict)}


def _completed(config: _Config, options: Mapping[str, Any], num_classes: int) -> _Config:
    """Return the configuration, in which options that are not given have the values of a checkpoint.

    Args:
        config: configuration of the run.
        options: option -> value that the checkpoint holds.
        num_classes: number of classes of the checkpoint's head; 0 if it is unknown.
    """
    config = config.completed(options)
    tell_warnings(config)
    _tell_overridden(config, options)
    if num_classes and config.num_classes != num_classes:
        raise UserError(
            f"num_classes is {config.num_classes}, but the checkpoint has {num_classes} classes: leave num_classes out"
        )
    return config


def _num_classes_of(contents: CheckpointContents) -> int:
    """Return the number of classes of the checkpoint's head; 0 if it has no known head, which loading will report."""
    try:
        return rename(contents.arrays).num_classes
    except CheckpointError:
        return 0


def _tell_overridden(config: RunConfig, held: Mapping[str, Any]) -> None:
    """Warn about each preprocessing option of the YAML file that differs from the checkpoint."""
    for name in PREPROCESSING:
        source = config.given.get(name, "command line")
        if source != "command line" and name in held and not _is_alike(held[name], getattr(config, name)):
            logger.warning(
                "%s: %s of %s is used, and not %s, which the weights were trained with",
                name,
                getattr(config, name),
                source,
                held[name],
            )


def build_lr_table(config: RunConfig, steps_per_epoch: int, group: Group) -> list[float]:
    """Return the learning rate of each step; scaled in proportion to the images in a step, if asked for."""
    images_per_step = config.batch_size * config.gradient_accumulation_steps * group.size
    return create_scheduler(
        steps_per_epoch,
        lr=config.lr * (images_per_step / (config.lr_base_batch_size or images_per_step)),
        num_epochs=config.epoch_size,
        milestones=config.multi_step_decay_milestones,
        **config.subset("scheduler", "min_lr", "warmup_epochs", "warmup_factor", "decay_epochs", "decay_rate"),
        **config.subset("num_cycles", "cycle_decay", "lr_epoch_stair", "warmup_lr"),
    )


def build_trainer(config: RunConfig, network: nn.Cell, lr_table: list[float], group: Group) -> Trainer:
    """Build the trainer of `network`, with loss, optimizer, mixed precision and, for distillation, the teacher."""
    return create_trainer(
        network,
        build_loss(config),
        build_optimizer(config, network, lr_table),
        amp_cast_list=config.amp_cast_list or (),
        lr_table=lr_table,
        group=group,
        teacher=build_teacher(config, network.num_classes),
        compile_cache=build_compile_cache(config, network.num_classes, lr_table, group),
        **config.subset("amp_level", "amp_dtype", "loss_scale_type", "loss_scale", "drop_overflow_update"),
        **config.subset("clip_grad", "clip_value", "ema", "ema_decay", "ema_warmup", "gradient_accumulation_steps"),
    )


def build_compile_cache(
    config: RunConfig, num_classes: int, lr_table: list[float], group: Group
) -> Optional[CompileCache]:
    """Build the compile cache, if one is asked for. Its key holds every option that can change the step."""
    if not config.compile_cache_dir:
        return None
    built_from = {
        "options": {n: v for n, v in config.as_dict().items() if n not in COMMAND_OPTIONS + NEUTRAL_OPTIONS},
        "num_classes": num_classes,
        "lr_table": hashlib.sha256(np.asarray(lr_table, np.float64).tobytes()).hexdigest(),
    }
    return CompileCache(config.compile_cache_dir, built_from, group)


def validated_weights(
    config: RunConfig, network: nn.Cell, step: Union[TrainStep, AccumulatedStep]
) -> dict[str, Parameter]:
    """Return the weights that validation uses, by name: the moving averages, if the run has them."""
    return step.ema.averages if step.ema and config.val_ema else weight_parameters(network)


def build_optimizer(config: RunConfig, network: nn.Cell, lr_table: list[float]) -> nn.Optimizer:
    """Build the optimizer of the parameters that are not frozen."""
    return create_optimizer(
        network,
        lr=lr_table,
        nesterov=config.use_nesterov,
        **config.subset("opt", "weight_decay", "momentum", "weight_decay_filter", "eps"),
        **config.subset("betas", "layer_decay", "layer_decay_type"),
    )


def build_loss(config: RunConfig) -> nn.Cell:
    """Build the loss; with a teacher, the distillation loss."""
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
    """Build the teacher with its weights; None without distillation.

    The size of its stem's patches is read from its checkpoint, because `patch_size` is that of the student.

    Raises:
        CheckpointError: the teacher's checkpoint is for another model or number of classes.
    """
    if not config.teacher_model:
        return None
    contents = open_checkpoint(config.teacher_ckpt_path)
    options = contents.metadata.get("options")
    patch_size = options.get("patch_size", RunConfig.patch_size) if isinstance(options, dict) else RunConfig.patch_size
    teacher = create_model(
        config.teacher_model, num_classes=num_classes, in_channels=config.in_channels, patch_size=patch_size
    )
    fill_weights(teacher, contents, config.teacher_ckpt_path)
    return teacher


def checkpoint_metadata(config: RunConfig, dataset: ImageDataset) -> dict[str, Any]:
    """Return what a reader of the weights must know, as JSON values."""
    model = split_tag(config.model)[0]
    options = {"model": model, "num_classes": dataset.num_classes(), **config.subset("patch_size", *PREPROCESSING)}
    metadata = {"options": {**options, **holdout_options(config)}, "class_to_idx": dict(dataset.class_to_idx)}
    if config.val_fraction:
        metadata["held_out"] = {"digest": holdout_digest(dataset)}
    if config.val_while_train:
        # Readers take these by default: the figures beside them are theirs.
        metadata["validated_weights"] = "ema" if config.ema and config.val_ema else "online"
    return metadata
