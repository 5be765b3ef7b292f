"""Validation of a checkpoint from a configuration: the predictions of a classifier, or the features of a backbone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, Optional

import numpy as np
from mindspore import nn
from PIL import Image

from mindcv.config import ValidateConfig, ValidationConfig
from mindcv.data import ImageDataset, ImageLoader, RealLabels, decode, read_real_labels
from mindcv.engine import Evaluation, evaluate, say_compiling
from mindcv.engine.confused_pairs import draw_confused_pairs
from mindcv.engine.evaluate import OnBatch
from mindcv.engine.features import extract_features
from mindcv.engine.metrics import ClassificationCounts, per_class_table
from mindcv.engine.plots import draw_confusion_matrix, draw_reliability, require_matplotlib
from mindcv.recipe_classifier import open_classifier
from mindcv.recipe_data import build_evaluation_loader, counted_classes, find_class_numbers
from mindcv.recipe_probe import build_feature_network, build_probe_loaders, run_probe
from mindcv.recipe_weights import open_backbone_weights
from mindcv.utils.distributed import Group, join_group
from mindcv.utils.errors import UserError
from mindcv.utils.files import atomic_write_text
from mindcv.utils.logger import counted, logger

__all__ = [
    "Measured",
    "ValidationImages",
    "build_validation_images",
    "describe_evaluation",
    "evaluate_images",
    "measure_features",
    "measure_predictions",
    "prepare_results",
    "write_results",
]


@dataclass
class Measured:
    """The result of a validation.

    Attributes:
        config: configuration of the run, completed from the checkpoint.
        summary: the line for the user.
        metrics: metrics by name, as JSON values.
        counts: counts of the correct predictions.
        class_names: label and name of each class that was counted.
        evaluation: the evaluation of a classifier; None for a probe.
        read_image: function that returns image i of the evaluation's predictions; None for a probe.
        image_name: function that returns the name of image i; None for a probe.
    """

    config: ValidationConfig
    summary: str
    metrics: dict[str, Any]
    counts: ClassificationCounts
    class_names: dict[int, str]
    evaluation: Optional[Evaluation] = None
    read_image: Optional[Callable[[int], Image.Image]] = None
    image_name: Optional[Callable[[int], str]] = None


def prepare_results(config: ValidateConfig) -> None:
    """Check before any work that the results can be drawn.

    Raises:
        UserError: matplotlib is missing.
    """
    if config.confusion_matrix or config.reliability_plot:
        require_matplotlib()


@dataclass(frozen=True)
class ValidationImages:
    """The images that a classifier is measured on.

    Attributes:
        dataset: data set of the images.
        loader: loader of the share of this process.
        classes: labels of the only classes to predict; None means all.
        real: ReaL labels of the images, in the order in which one process reads them; None without.
    """

    dataset: ImageDataset
    loader: ImageLoader
    classes: Optional[np.ndarray]
    real: Optional[RealLabels]

    @property
    def class_names(self) -> dict[int, str]:
        """Label and name of each class that is counted."""
        labels = range(self.dataset.num_classes()) if self.classes is None else self.classes.tolist()
        return {label: self.dataset.class_names[label] for label in labels}

    def read_image(self, position: int) -> Image.Image:
        """Return the image that one process reads as number `position`."""
        encoded, _ = self.dataset.read(int(self.loader.sample_order()[position]))
        return decode(encoded)

    def image_name(self, position: int) -> str:
        """Return the name of the image that one process reads as number `position`."""
        return self.dataset.describe(int(self.loader.sample_order()[position]))


def build_validation_images(
    config: ValidationConfig, metadata: Mapping[str, Any], group: Group, takes_pixels: bool = False
) -> ValidationImages:
    """Build the data set and the loader for a classifier whose configuration is completed from its checkpoint.

    Args:
        config: configuration of the run.
        metadata: metadata of the checkpoint.
        group: the processes that validate together.
        takes_pixels: whether the classifier prepares the images itself (see `build_evaluation_loader`).

    Raises:
        DataError: see `build_evaluation_loader`; or the images or the classes are not ImageNet's, for `real_labels`.
        UserError: the file of the ReaL labels cannot be used.
    """
    real_labels = read_real_labels(config.real_labels) if config.real_labels else None
    recorded = metadata.get("held_out", {}).get("digest", "")
    class_numbers = find_class_numbers(config, metadata)
    dataset, loader = build_evaluation_loader(config, group, class_numbers, recorded, takes_pixels)
    classes = counted_classes(config, dataset)
    if real_labels is None:
        return ValidationImages(dataset, loader, classes, None)
    names = [dataset.describe(index) for index in loader.sample_order().tolist()]
    return ValidationImages(dataset, loader, classes, RealLabels(real_labels, names, dataset.class_names))


def measure_predictions(config: ValidationConfig, on_batch: Optional[OnBatch] = None) -> Optional[Measured]:
    """Measure how often a classifier is right. The result is None in all processes but the main one.

    Args:
        config: configuration of the run.
        on_batch: called with each batch of this process, see `evaluate`.

    Raises:
        UserError: see `open_classifier` and `build_validation_images`; or `on_batch` is given, and the classifier is an
            exported file that prepares the images itself, so that there are no prepared images.
    """
    classifier = open_classifier(config)
    config = classifier.config
    if on_batch is not None and classifier.takes_pixels:
        raise UserError(
            f"'{config.ckpt_path}' prepares the images itself, so the input of its network cannot be shown: give the "
            "checkpoint, or a file that was exported without with_preprocess"
        )
    group = join_group(config.distribute)
    images = build_validation_images(config, classifier.metadata, group, classifier.takes_pixels)
    network = classifier.build(images.dataset.num_classes())
    result = evaluate_images(config, network, images, group, on_batch)
    return describe_evaluation(config, result, images) if group.is_main else None


def evaluate_images(
    config: ValidationConfig,
    network: nn.Cell,
    images: ValidationImages,
    group: Group,
    on_batch: Optional[OnBatch] = None,
) -> Evaluation:
    """Run a classifier over validation images (see `evaluate`)."""
    options = {"progress": group.is_main, "classes": images.classes, "on_batch": on_batch, "tta": config.tta}
    return evaluate(network, images.loader, images.dataset.num_classes(), group, **options)


def measure_features(config: ValidateConfig) -> Optional[Measured]:
    """Measure the features of a frozen backbone by a probe. The result is None in all processes but the main one."""
    config, metadata, read_weights = open_backbone_weights(config)
    group = join_group(config.distribute)
    recorded = metadata.get("held_out", {}).get("digest", "")
    (dataset, training_loader), (validated, loader) = build_probe_loaders(config, group, recorded)
    network = build_feature_network(config, read_weights)
    say_compiling("the network")
    training = extract_features(network, training_loader, network.num_features, group, "training images")
    validation = extract_features(network, loader, network.num_features, group, "validation images")
    if not group.is_main:
        return None
    result = run_probe(config, training, validation, dataset.num_classes())
    counts, left_out = result.counts, dataset.num_left_out + validated.num_left_out
    settings = ", ".join(f"{name}: {value}" for name, value in result.settings.items())
    summary = (
        f"Top_1_Accuracy: {counts.top1:.4f}, Top_5_Accuracy: {counts.top5:.4f}, images: {counts.num_images}, training "
        f"images: {result.num_training_images}, {settings}" + (f", images left out: {left_out}" if left_out else "")
    )
    facts = {"num_features": network.num_features, "num_classes": dataset.num_classes(), "num_left_out": left_out}
    return Measured(config, summary, {**result.as_dict(), **facts}, counts, dict(enumerate(dataset.class_names)))


def describe_evaluation(config: ValidationConfig, result: Evaluation, images: ValidationImages) -> Measured:
    """Put the figures of an evaluation into words and JSON values.

    Args:
        config: configuration of the run.
        result: figures of the evaluation.
        images: images of the evaluation.
    """
    counts, dataset, class_names = result.counts, images.dataset, images.class_names
    left_out = f", images left out: {dataset.num_left_out}" if dataset.num_left_out else ""
    restricted = f", classes: {len(class_names)} of {dataset.num_classes()}" if config.restrict_classes else ""
    real_metrics, real = {}, ""
    if images.real is not None:
        num_images, num_correct = images.real.count(np.array(list(class_names))[result.predictions.predicted])
        accuracy = num_correct / num_images if num_images else 0.0
        real_metrics = {"real_top_1": accuracy, "num_real_images": num_images, "num_real_top_1": num_correct}
        real = f", ReaL_Accuracy: {accuracy:.4f} of {num_images} images"
    summary = (
        f"Top_1_Accuracy: {counts.top1:.4f}, Top_5_Accuracy: {counts.top5:.4f}, loss: {counts.loss:.4f}, "
        f"ECE: {result.calibration.ece:.4f}, images: {counts.num_images}, images/s: {result.images_per_s:.1f}"
        f"{real}{left_out}{restricted}"
    )
    settings = {
        "tta": config.tta,
        "num_classes": dataset.num_classes(),
        "num_classes_counted": len(class_names),
        "num_left_out": dataset.num_left_out,
    }
    metrics = {**result.as_dict(), **real_metrics, **settings}
    return Measured(config, summary, metrics, counts, class_names, result, images.read_image, images.image_name)


def write_results(measured: Measured) -> None:
    """Write the files that the configuration names. The log names each of them."""
    config, confusion, class_names = measured.config, measured.counts.confusion, measured.class_names
    num_classes = counted(len(class_names), "class")
    if config.results_json:
        result_of = {"model": config.model, "ckpt_path": config.ckpt_path, **measured.metrics}
        atomic_write_text(config.results_json, json.dumps(result_of, indent=2) + "\n")
        _tell_saved(config.results_json, "the metrics")
    if config.per_class_csv:
        atomic_write_text(config.per_class_csv, per_class_table(confusion, class_names))
        _tell_saved(config.per_class_csv, f"accuracy of {num_classes}")
    if config.confusion_matrix:
        draw_confusion_matrix(confusion, list(class_names.values()), config.confusion_matrix)
        _tell_saved(config.confusion_matrix, f"confusion matrix of {num_classes}")
    if config.reliability_plot:
        draw_reliability(measured.evaluation.calibration, config.reliability_plot)
        _tell_saved(config.reliability_plot, "reliability plot")
    if config.confused_pairs:
        names = list(class_names.values())
        predictions = measured.evaluation.predictions
        num_pairs = draw_confused_pairs(predictions, confusion, names, measured.read_image, config.confused_pairs)
        if num_pairs:  # else the log says already that there is nothing to draw
            _tell_saved(config.confused_pairs, counted(num_pairs, "confused pair"))


def _tell_saved(path: str, content: str) -> None:
    logger.info("saved %s: %s", path, content)
