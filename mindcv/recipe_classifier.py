"""A classifier from a configuration: that of a checkpoint, of published weights or of an exported file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Optional, Union

import mindspore as ms
from mindspore import nn

from mindcv.config import PREPROCESSING, InferConfig, ValidationConfig, exported_file_problems, without_network_options
from mindcv.convert import CheckpointContents, fill_weights
from mindcv.data import Compose, create_pixel_transforms, create_transforms, imagenet_class_names
from mindcv.engine import apply_amp, say_compiling
from mindcv.export import ExportedClassifier, ExportedFile, is_exported, open_exported
from mindcv.models import pack_for_inference
from mindcv.recipe_weights import build_model, complete_config, is_alike, open_weights
from mindcv.utils.errors import ConfigError
from mindcv.utils.logger import counted, logger

__all__ = ["Classifier", "open_classifier"]

_Config = Union[InferConfig, ValidationConfig]


@dataclass
class Classifier:
    """A classifier that is opened and not yet built.

    Attributes:
        config: configuration of the run, completed from the checkpoint or the exported file.
        metadata: metadata of the checkpoint. For an exported file, it has `class_to_idx` at most.
        takes_pixels: whether it prepares the images itself. It then takes one decoded image of any size at a time.
        network: the network itself, as `HeatMaps` needs it, after `build`; None for an exported file.
    """

    config: _Config
    metadata: Mapping[str, Any]
    takes_pixels: bool
    _build: Callable[[int, bool], tuple[nn.Cell, Optional[nn.Cell]]]
    network: Optional[nn.Cell] = None

    def build(self, num_classes: int, keep_weights: bool = False) -> nn.Cell:
        """Return the network that maps prepared images to logits, in evaluation mode and in its number format.

        Args:
            num_classes: number of classes of the head.
            keep_weights: whether to keep the weights beside the packed ones (see `pack_for_inference`).
        """
        classifier, self.network = self._build(num_classes, keep_weights)
        return classifier.set_train(False)

    def transform(self) -> Compose:
        """Return the transform from the content of an image file to the input of the network."""
        if self.takes_pixels:
            return Compose(create_pixel_transforms())
        return Compose(create_transforms(**self.config.subset(*PREPROCESSING)))


def open_classifier(config: _Config) -> Classifier:
    """Open a checkpoint, published weights or an exported file, and complete the configuration from its metadata.

    Raises:
        UserError: see `open_weights` and `mindcv.export.open_exported`; or an exported file is no classifier.
        ConfigError: options do not go together, or contradict an exported file.
    """
    if is_exported(config.ckpt_path):
        return _open_exported_classifier(config)
    config, metadata, read_weights = open_weights(config)
    return Classifier(config, metadata, False, partial(_build_network, config, read_weights))


def _build_network(
    config: _Config, read_weights: Callable[[], CheckpointContents], num_classes: int, keep_weights: bool
) -> tuple[nn.Cell, nn.Cell]:
    network = build_model(config, num_classes)
    fill_weights(network, read_weights(), config.ckpt_path or config.model)
    classifier = apply_amp(network, config.val_amp_level, dtype=config.amp_dtype)
    classifier = pack_for_inference(classifier, keep_weights)
    say_compiling("the network")
    return classifier, network


def _open_exported_classifier(config: _Config) -> Classifier:
    config, left_out = without_network_options(config)
    for sentence in left_out:
        logger.warning("%s", sentence)
    problems = exported_file_problems(config)
    if problems:
        raise ConfigError(problems)
    exported = open_exported(config.ckpt_path, is_foreign_allowed=True)
    classifier, held = ExportedClassifier(exported), exported.metadata
    options = {**held.preprocessing, "model": held.model or os.path.basename(config.ckpt_path)}
    problems = _contradictions(config, exported, options) or _missing_preprocessing(config, options)
    if problems:
        raise ConfigError(problems)
    num_classes = exported.count_classes()
    config = complete_config(config, {**options, "num_classes": num_classes}, num_classes)
    _tell_exported(config, exported)
    if held.takes_pixels:
        config = replace(config, batch_size=1)  # The images of a batch would need one size.
    metadata = {}
    if held.class_names and list(held.class_names) != imagenet_class_names():  # These are known, and some are equal.
        metadata["class_to_idx"] = {name: label for label, name in enumerate(held.class_names)}
    return Classifier(config, metadata, held.takes_pixels, lambda *_: (classifier, None))


def _contradictions(config: _Config, exported: ExportedFile, options: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each option that an exported file has fixed to another value."""
    fixed = exported.fixed_options if not exported.metadata.model else ("model", *exported.fixed_options)
    problems = [
        f"{name}: {getattr(config, name)} is given ({config.given[name]}), but '{config.ckpt_path}' is exported for "
        f"{options[name]}: {_way_out(config, name, options[name])}, or export the checkpoint again"
        for name in fixed
        if name in config.given and name in options and not is_alike(options[name], getattr(config, name))
    ]
    if exported.metadata.takes_pixels and getattr(config, "tta", "none") != "none":
        problems.append(
            f"tta: '{config.ckpt_path}' resizes and crops the images itself, so other views cannot be cut out: leave "
            "tta out, or give a file that was exported without with_preprocess"
        )
    return problems


def _way_out(config: _Config, name: str, value: Any) -> str:
    """Return how the user lets an option have the value of the exported file."""
    if config.given[name] == "command line":
        return f"leave {name} out"
    return f"give --{name} {' '.join(map(str, value)) if isinstance(value, (list, tuple)) else value}"


def _missing_preprocessing(config: _Config, options: Mapping[str, Any]) -> list[str]:
    """Return a sentence if the mean and the deviation of other images than RGB images are unknown."""
    channels = options.get("in_channels", config.in_channels)
    missing = [name for name in ("mean", "std") if name not in options and name not in config.given]
    if channels == 3 or not missing:
        return []
    flags = " and ".join(f"--{name}" for name in missing)
    return [
        f"{' and '.join(missing)}: the images of '{config.ckpt_path}' have {counted(channels, 'channel')}, and the "
        f"file does not say how they are prepared: give {flags}, with one number for each channel"
    ]


def _tell_exported(config: _Config, exported: ExportedFile) -> None:
    """Log what an exported file does not hold, and where it runs."""
    path, held = config.ckpt_path, exported.metadata
    if not held.class_names and not config.class_names_file:
        _tell_unnamed_classes(config)
    absent = [name for name in PREPROCESSING if name not in held.preprocessing and name not in config.given]
    if absent:
        used = ", ".join(f"{name} {getattr(config, name)}" for name in absent)
        logger.warning(
            "'%s' does not say how its images are prepared; these values are used: %s; give other ones as options",
            path,
            used,
        )
    if path.lower().endswith(".onnx"):
        if ms.get_context("device_target") != "CPU":
            logger.warning("'%s' runs on the CPU, since ONNX Runtime runs it and not MindSpore", path)
    else:
        say_compiling("the exported network")


def _tell_unnamed_classes(config: _Config) -> None:
    """Log which classes the outputs of an exported file without class names are taken for."""
    of_imagenet, of_data = "the classes of ImageNet-1k", "the classes of the data set in their order, as sorted folders"
    if isinstance(config, InferConfig):
        taken_for = of_imagenet
        if config.num_classes != 1000:
            return  # `names_of_classes` raises an error
    elif config.num_classes == 1000:
        taken_for = f"{of_imagenet} if a class folder is named like one of them, and otherwise for {of_data}"
    else:
        taken_for = of_data
    logger.warning(
        "'%s' does not name its classes, and its outputs are taken for %s; --class_names_file gives other names",
        config.ckpt_path,
        taken_for,
    )
