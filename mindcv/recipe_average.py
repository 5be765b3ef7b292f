"""Averages the weights of checkpoints, from a configuration: all of them, or those of a greedy soup."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Optional

import mindspore as ms
import numpy as np

from mindcv.config import PREPROCESSING, AverageConfig
from mindcv.convert import CheckpointContents, fill_weights, find_checkpoint_files, write_ckpt
from mindcv.convert.averaging import Ingredient, WeightSum, check_alike, file_digest, read_ingredient
from mindcv.convert.layout_tables import own_names
from mindcv.engine import apply_amp, say_compiling
from mindcv.engine.soup import GreedySoup, choose_greedily
from mindcv.recipe import tell_warnings
from mindcv.recipe_data import HOLDOUT_OPTIONS
from mindcv.recipe_validate import build_validation_images, evaluate_images
from mindcv.recipe_weights import build_model
from mindcv.utils.distributed import join_group
from mindcv.utils.errors import CheckpointError, ConfigError
from mindcv.utils.logger import logger

__all__ = ["average_checkpoints"]

_HEAD_BIAS = own_names("head")[1]


@dataclass
class _Scores:
    """The scores of a greedy soup: numbers of correct predictions among `num_images` images."""

    of_files: list[int]
    soup: GreedySoup
    num_images: int


def average_checkpoints(config: AverageConfig) -> list[str]:
    """Write the mean of checkpoints to `config.dst`, and return the lines for the user.

    Raises:
        CheckpointError: a checkpoint cannot be read, or belongs to another architecture than the first.
        ConfigError: the preprocessing of the checkpoints differs, and the options do not say which one is meant.
        UserError: see `build_validation_images`, for a greedy soup.
    """
    files = find_checkpoint_files(config.checkpoints)
    if os.path.realpath(config.dst) in map(os.path.realpath, files):
        raise CheckpointError(
            f"dst '{config.dst}' is one of the checkpoints that are averaged, as a file of an earlier average may be: "
            "give another dst, or name the checkpoints one by one"
        )
    if len(files) < 2:
        raise CheckpointError(
            f"checkpoints: at least two files are needed for an average, and there is only '{files[0]}'"
        )
    files, metadata, num_classes, total = _read_all(files, config)
    config = _completed(config, files, metadata, num_classes)
    network = build_model(config, num_classes)
    fill_weights(network, CheckpointContents(total.mean(), {}), "the mean of the checkpoints")
    scores = None
    kept = list(range(len(files)))
    if config.method == "greedy":
        scores, total = _greedy_soup(config, files, metadata, network)
        kept = list(scores.soup.kept)
    names = [os.path.basename(files[index]) for index in kept]
    ingredients = [{"file": name, "sha256": file_digest(files[index])} for name, index in zip(names, kept)]
    averaged = {"method": config.method, "num_checkpoints": len(files), "ingredients": ingredients}
    if scores is not None:
        averaged["num_images"] = scores.num_images
        for ingredient, index in zip(ingredients, kept):
            ingredient["num_top_1"] = scores.of_files[index]
    tensors = {name: ms.Tensor(array) for name, array in total.mean().items()}
    write_ckpt(config.dst, tensors, {**_common_metadata(config, metadata, num_classes), "averaged": averaged})
    return _lines(config, files, scores)


def _read_all(files: Sequence[str], config: AverageConfig) -> tuple[list[str], list[dict[str, Any]], int, WeightSum]:
    """Return the files with different weights, their metadata, the number of classes, and the sum of the weights.

    The folder of a run has its best epoch twice, and a mean must not count it twice.
    """
    first, file_of, metadata, total = None, {}, [], WeightSum()
    for path in files:
        ingredient = _read(path, config)
        first = first or ingredient
        check_alike(first, ingredient)
        earlier = file_of.setdefault(ingredient.weights_digest(), path)
        if earlier is not path:
            logger.info("'%s' has the same weights as '%s', so it is left out", path, earlier)
            continue
        metadata.append(ingredient.metadata)
        total.add(ingredient.arrays)
    if len(file_of) < 2:
        raise CheckpointError(
            f"checkpoints: the {len(files)} files have the same weights ('{files[0]}' is the first of them), and an "
            "average needs two different ones"
        )
    return list(file_of.values()), metadata, first.arrays[_HEAD_BIAS].size, total


def _read(path: str, config: AverageConfig) -> Ingredient:
    ingredient = read_ingredient(path, config.ema if "ema" in config.given else None)
    # In the files of others, these names may stand for anything.
    own = {name: value for name, value in ingredient.metadata.items() if isinstance(value, dict)}
    return Ingredient(ingredient.path, ingredient.arrays, own)


def _completed(
    config: AverageConfig, files: Sequence[str], metadata: Sequence[Mapping[str, Any]], num_classes: int
) -> AverageConfig:
    """Return the configuration, in which options that are not given have the values that all checkpoints share."""
    options = {"num_classes": num_classes, **_common_options(metadata, ("model", "patch_size", *PREPROCESSING))}
    differing = [
        name
        for name in PREPROCESSING
        if name not in options
        and name not in config.given
        and any(name in each.get("options", {}) for each in metadata)
    ]
    if differing:
        raise ConfigError(
            [
                f"{name}: the checkpoints have different values ({_values(files, metadata, name)}), so give --{name}"
                for name in differing
            ]
        )
    if _is_same_holdout(metadata):
        options |= _common_options(metadata, HOLDOUT_OPTIONS)
    config = config.completed(options)
    tell_warnings(config)
    return config


def _common_options(metadata: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """Return the options that all checkpoints hold with the same value."""
    held = [each.get("options", {}) for each in metadata]
    return {
        name: held[0][name]
        for name in names
        if all(name in options and options[name] == held[0][name] for options in held)
    }


def _is_same_holdout(metadata: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the same images were held out of the training of all checkpoints."""
    held_out = [each.get("held_out") for each in metadata]
    is_same = all(each == held_out[0] for each in held_out)
    if not is_same:
        logger.info("the trainings held different images out, so the mean names none of them")
    return is_same and held_out[0] is not None


def _values(files: Sequence[str], metadata: Sequence[Mapping[str, Any]], name: str) -> str:
    """Return the different values of an option, each with the first file that has it."""
    found: dict[str, str] = {}
    for file, each in zip(files, metadata):
        found.setdefault(str(each.get("options", {}).get(name, "none")), os.path.basename(file))
    return ", ".join(f"{value} in '{file}'" for value, file in found.items())


def _greedy_soup(
    config: AverageConfig, files: Sequence[str], metadata: Sequence[Mapping[str, Any]], network: Any
) -> tuple[_Scores, WeightSum]:
    """Return the scores of a greedy soup and the sum of its weights."""
    group = join_group(distribute=False)
    images = build_validation_images(config, _common_metadata(config, metadata, network.num_classes), group)
    # The network is not packed, because its weights change for each measurement.
    network = apply_amp(network, config.val_amp_level, dtype=config.amp_dtype)
    say_compiling("the network")

    @lru_cache(maxsize=1)  # a checkpoint that joins the soup has been measured just before
    def arrays_of(index: int) -> dict[str, np.ndarray]:
        return _read(files[index], config).arrays

    def score(arrays: Mapping[str, np.ndarray]) -> int:
        fill_weights(network, CheckpointContents(dict(arrays), {}), "the mean of the checkpoints")
        return evaluate_images(config, network, images, group).counts.num_top1

    scores = []
    for index, path in enumerate(files):
        scores.append(score(arrays_of(index)))
        logger.info("%s: %d of %d images correct", path, scores[-1], len(images.dataset))
    total = WeightSum()
    soup = choose_greedily(
        scores,
        score_with=lambda index: score(total.mean(arrays_of(index))),
        keep=lambda index: total.add(arrays_of(index)),
    )
    return _Scores(scores, soup, len(images.dataset)), total


def _common_metadata(config: AverageConfig, metadata: Sequence[Mapping[str, Any]], num_classes: int) -> dict[str, Any]:
    """Return the metadata of the mean, apart from its ingredients."""
    options = {"num_classes": num_classes, **config.subset("model", "patch_size", *PREPROCESSING)}
    held = {}
    if config.given.get("val_fraction") == "checkpoint" and metadata[0].get("held_out") is not None:
        options |= config.subset(*HOLDOUT_OPTIONS)
        held["held_out"] = metadata[0]["held_out"]
    classes = next((each["class_to_idx"] for each in metadata if "class_to_idx" in each), None)
    return {"options": options, **({"class_to_idx": classes} if classes else {}), **held}


def _lines(config: AverageConfig, files: Sequence[str], scores: Optional[_Scores]) -> list[str]:
    if scores is None:
        return [f"{config.dst}: the mean of {len(files)} checkpoints of {config.model}"]
    lines = []
    for index in scores.soup.order:
        kept = "in the soup" if index in scores.soup.kept else "left out"
        lines.append(f"{files[index]}: Top_1_Accuracy: {scores.of_files[index] / scores.num_images:.4f}, {kept}")
    lines.append(
        f"{config.dst}: the mean of {len(scores.soup.kept)} of {len(files)} checkpoints of {config.model}, "
        f"Top_1_Accuracy: {scores.soup.score / scores.num_images:.4f}, images: {scores.num_images}"
    )
    return lines
