"""Networks and their weights, from a configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, TypeVar

from mindspore import nn
from mindspore.nn.utils import no_init_parameters

from mindcv.config import PREPROCESSING, RunConfig, TrainConfig
from mindcv.convert import CheckpointContents, fill_weights, is_pretraining_name, open_backbone, open_checkpoint
from mindcv.convert.checkpoint_file import checkpoint_in
from mindcv.convert.layouts import rename
from mindcv.engine.run_folder import newest_checkpoint
from mindcv.models import create_model
from mindcv.models.pretrained import fetch_pretrained, pretrained_options, pretrained_weights, split_tag
from mindcv.optim import freeze
from mindcv.recipe import tell_warnings
from mindcv.utils.errors import CheckpointError, UserError
from mindcv.utils.logger import logger

__all__ = ["build_model", "check_weights", "complete_config", "is_alike", "open_backbone_weights", "open_weights"]

_Config = TypeVar("_Config", bound=RunConfig)


def check_weights(config: TrainConfig, with_weights: bool) -> None:
    """Check, before anything is downloaded, that the files of weights exist and that `freeze` matches parameters.

    Args:
        config: configuration of a training run.
        with_weights: see `build_model`.

    Raises:
        CheckpointError: a file does not exist.
        UserError: see `mindcv.optim.freeze`.
    """
    if config.teacher_model:
        checkpoint_in(Path(config.teacher_ckpt_path))
    if with_weights and config.ckpt_path:
        checkpoint_in(Path(config.ckpt_path))
    if with_weights and config.pretrained_encoder:
        checkpoint_in(_encoder_file(config))
    if config.freeze:
        with no_init_parameters():  # neither the values nor the number of classes change the names
            own = config.subset("in_channels", "patch_size", "layer_scale_init_value")
            network = create_model(split_tag(config.model)[0], num_classes=1, **own)
        freeze(network, config.freeze)


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


def _encoder_file(config: RunConfig) -> Path:
    """Return the file of the pre-trained encoder: of a folder, the newest checkpoint."""
    path = Path(config.pretrained_encoder)
    return newest_checkpoint(path) if path.is_dir() else path


def _fill_encoder(config: RunConfig, network: nn.Cell) -> None:
    """Fill the network with a pre-trained encoder. Its head keeps its initial values."""
    path = str(_encoder_file(config))
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
    differing = [option for option in PREPROCESSING if option in theirs and not is_alike(theirs[option], ours[option])]
    if differing:
        listed = ", ".join(f"{option} {theirs[option]} (here {ours[option]})" for option in differing)
        logger.info("%s: these weights were %s other images: %s", name, purpose, listed)


def is_alike(value: Any, other: Any) -> bool:
    """Whether two values are equal; numbers may differ by the rounding of their decimal form."""
    if isinstance(value, list) and isinstance(other, list):
        return len(value) == len(other) and all(map(is_alike, value, other))
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
        config = complete_config(config, options, weights.num_classes)
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
    return complete_config(config, options, num_classes), metadata, lambda: contents


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
        config = complete_config(config, options, num_classes=0)
        return config, {"options": options}, lambda: open_backbone(fetch_pretrained(weights), ema=ema)
    contents = open_backbone(config.ckpt_path, ema=ema)
    metadata = _own_metadata(contents)
    return complete_config(config, metadata.get("options", {}), num_classes=0), metadata, lambda: contents


def _own_metadata(contents: CheckpointContents) -> dict[str, Any]:
    """Return the metadata of this library's files; in the files of others these names may stand for anything."""
    return {name: value for name, value in contents.metadata.items() if isinstance(value, dict)}


def complete_config(config: _Config, options: Mapping[str, Any], num_classes: int) -> _Config:
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
        is_of_recipe = config.given.get("num_classes", "command line") != "command line"
        way_out = f"give --num_classes {num_classes}" if is_of_recipe else "leave num_classes out"
        raise UserError(
            f"num_classes is {config.num_classes}, but '{config.ckpt_path or config.model}' has {num_classes} classes: "
            f"{way_out}"
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
        if source != "command line" and name in held and not is_alike(held[name], getattr(config, name)):
            logger.warning(
                "%s: %s of %s is used, and not %s, which the weights were trained with",
                name,
                getattr(config, name),
                source,
                held[name],
            )
