"""Objects of an analysis of features, built from a configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from mindcv.config import AnalyzeConfig
from mindcv.data import Compose, create_transforms
from mindcv.engine import apply_amp, say_compiling
from mindcv.engine.feature_analysis import BlockFeatures, FeatureAnalysis, analyse_files
from mindcv.models import is_model, list_models
from mindcv.models.pretrained import pretrained_weights, split_tag
from mindcv.recipe import PREPROCESSING
from mindcv.recipe_probe import build_backbone
from mindcv.recipe_weights import open_backbone_weights
from mindcv.utils.errors import ConfigError, DataError, UserError, unknown_name

__all__ = ["analyse_weights", "evenly_spaced", "weights_to_analyse"]


def weights_to_analyse(config: AnalyzeConfig) -> list[AnalyzeConfig]:
    """Return a configuration for each network: that of the run, and one for the weights to compare with.

    Options that are given hold for both networks, except for the model and its weights.

    Raises:
        UserError: the weights to compare with do not exist, or are those of the run.
    """
    if not config.compare_with:
        return [config]
    name = split_tag(config.compare_with)[0]
    given = {option: place for option, place in config.given.items() if option not in ("model", "pretrained")}
    if is_model(name) and not os.path.exists(config.compare_with):
        if config.compare_model:
            raise UserError(f"compare_model: '{config.compare_with}' names a model itself, so leave compare_model out")
        pretrained_weights(config.compare_with)  # raises an error if there are none
        own = {"model": config.compare_with, "pretrained": True, "ckpt_path": ""}
        given = {**given, "model": "compare_with", "pretrained": "compare_with"}
    elif not os.path.exists(config.compare_with):
        raise UserError(f"compare_with '{config.compare_with}' is neither a file nor the name of a model")
    else:
        known = [model for model in list_models() if not model.startswith("fcmae_")]
        if config.compare_model and config.compare_model not in known:
            raise UserError(unknown_name("compare_model", config.compare_model, known))
        own = {"model": config.compare_model or split_tag(config.model)[0], "pretrained": False}
        own["ckpt_path"] = config.compare_with
        given = {**given, "model": "compare_model"} if config.compare_model else given
    other = replace(config, given=given, **own)
    if _source(other) == _source(config):
        raise UserError(f"compare_with '{config.compare_with}' names the weights that it is compared with: give others")
    return [config, other]


def _source(config: AnalyzeConfig) -> str:
    """Return the file of the weights, or the name of published weights."""
    return os.path.realpath(config.ckpt_path) if config.ckpt_path else config.model


def evenly_spaced(paths: Sequence[str], count: int) -> list[str]:
    """Return `count` paths at equal distances, with the first one; all of them if there are fewer."""
    if len(paths) <= count:
        return list(paths)
    return [paths[index * len(paths) // count] for index in range(count)]


def analyse_weights(
    config: AnalyzeConfig, paths: Sequence[str], on_unreadable: Callable[[DataError], None], usual_model: str = ""
) -> tuple[AnalyzeConfig, FeatureAnalysis]:
    """Build the network of a configuration, and run it over image files.

    Args:
        config: one of those that `weights_to_analyse` returns.
        paths: image files.
        on_unreadable: function that is called with the error of each image that cannot be read.
        usual_model: name of the model if neither the configuration nor the checkpoint names one.

    Returns:
        The complete configuration and the result.
    """
    name = config.ckpt_path or config.model
    if usual_model and not config.model:
        config = replace(config, model=split_tag(usual_model)[0])
    try:
        config, _, read_weights = open_backbone_weights(config)
    except ConfigError as error:
        raise ConfigError([f"{problem} ('{name}')" for problem in error.problems]) from None
    network = build_backbone(config, read_weights)
    # O2 and O3 return the network in a Cell that casts its images, and the analysis casts them itself.
    input_type = apply_amp(network, config.val_amp_level, dtype=config.amp_dtype).input_type
    blocks = BlockFeatures(network, input_type).set_train(False)
    transform = Compose(create_transforms(**config.subset(*PREPROCESSING)))
    say_compiling(f"the network of '{name}'")
    return config, analyse_files(blocks, paths, transform, config.batch_size, config.num_drawn, on_unreadable, name)
