"""Objects of a run, built from a configuration, for the scripts and tools.

The factories do not know the configuration; the functions here read it and call the factories.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Optional, TypeVar, Union

import numpy as np
from mindspore import Parameter, nn

from mindcv.config import COMMAND_OPTIONS, NEUTRAL_OPTIONS, PretrainConfig, RunConfig, TrainConfig, parse_args
from mindcv.convert import (
    backbone_name,
    fill_weights,
    is_pretraining_name,
    open_checkpoint,
    pretraining_name,
    weight_parameters,
)
from mindcv.data import ImageDataset, create_auto_augment
from mindcv.engine import AccumulatedStep, CompileCache, DistillationLoss, Trainer, TrainStep, create_trainer
from mindcv.engine.event_file import require_tensorboard
from mindcv.loss import create_loss
from mindcv.models import create_model, is_model, list_models
from mindcv.models.pretrained import pretrained_weights, split_tag
from mindcv.optim import create_optimizer
from mindcv.recipe_data import (
    PREPROCESSING,
    build_evaluation_loader,
    build_training_loader,
    hands_over_pixels,
    holdout_digest,
    holdout_options,
)
from mindcv.scheduler import create_scheduler
from mindcv.utils.cli import show_and_stop
from mindcv.utils.device import returns_early, set_device, set_mode
from mindcv.utils.distributed import Group, is_first_process
from mindcv.utils.errors import UserError, nearest, unknown_name
from mindcv.utils.files import file_problem, folder_problem
from mindcv.utils.logger import logger

__all__ = [
    "PREPROCESSING",
    "build_evaluation_loader",
    "build_compile_cache",
    "build_loss",
    "build_lr_table",
    "build_optimizer",
    "build_teacher",
    "build_trainer",
    "build_training_loader",
    "checkpoint_metadata",
    "hands_over_pixels",
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
        ConfigError: as `parse_args`; unknown models, wrong augmentation policies and outputs that cannot be written are
            among the problems it tells.
    """
    checks = [_unknown_models, _wrong_policy, _wrong_data_dir, _no_tensorboard, _unwritable_outputs]
    config = parse_args(config_class=config_class, checks=checks)
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


def _unwritable_outputs(config: RunConfig) -> list[str]:
    if config.print_config or config.print_param_groups:
        return []
    unused = () if config.as_dict().get("explain") else ("explain_picture",)
    paths = {name: getattr(config, name) for name in config.outputs if name not in unused and getattr(config, name)}
    problems, others = [], []
    for name, path in paths.items():
        if name.endswith("_dir"):
            problem = folder_problem(path)
        else:
            problem = file_problem(path, others) or _input_problem(config, path)
        problems += [f"{name}: {problem}"] if problem else []
        others.append(path)
    return problems


def _input_problem(config: RunConfig, path: str) -> str:
    """Return a clause if the result `path` is a file that another option names to be read; '' otherwise."""
    if not os.path.isfile(path):
        return ""
    inputs = {name: value for name, value in config.as_dict().items() if name not in config.outputs}
    for name, value in inputs.items():
        files = [given for given in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(given, str)]
        if any(os.path.isfile(file) and os.path.samefile(file, path) for file in files):
            return f"'{path}' is read as {name}, and would be overwritten: give another path"
    return ""


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
        runs_ahead=config.dataset_sink_mode and returns_early(),
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
