"""Validation of a checkpoint from a configuration: the predictions of a classifier, or the features of a backbone."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Optional

from mindcv.config import ValidateConfig
from mindcv.convert import fill_weights
from mindcv.engine import Evaluation, apply_amp, evaluate, say_compiling
from mindcv.engine.evaluate import OnBatch
from mindcv.engine.features import extract_features
from mindcv.engine.metrics import ClassificationCounts, per_class_table
from mindcv.engine.plots import draw_confusion_matrix, draw_reliability, require_matplotlib
from mindcv.models import pack_for_inference
from mindcv.recipe import build_model, open_backbone_weights, open_weights
from mindcv.recipe_data import build_evaluation_loader, counted_classes, find_class_numbers
from mindcv.recipe_probe import build_feature_network, build_probe_loaders, run_probe
from mindcv.utils.distributed import join_group
from mindcv.utils.files import atomic_write_text, ensure_writable

__all__ = [
    "Measured",
    "describe_evaluation",
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
    """

    config: ValidateConfig
    summary: str
    metrics: dict[str, Any]
    counts: ClassificationCounts
    class_names: dict[int, str]
    evaluation: Optional[Evaluation] = None


def prepare_results(config: ValidateConfig) -> None:
    """Check before any work that the results can be written.

    Raises:
        UserError: a file cannot be written, or matplotlib is missing.
    """
    if config.confusion_matrix or config.reliability_plot:
        require_matplotlib()
    ensure_writable(config.results_json, config.per_class_csv, config.confusion_matrix, config.reliability_plot)


def measure_predictions(config: ValidateConfig, on_batch: Optional[OnBatch] = None) -> Optional[Measured]:
    """Measure how often a classifier is right. The result is None in all processes but the main one.

    Args:
        config: configuration of the run.
        on_batch: called with each batch of this process, see `evaluate`.
    """
    config, metadata, read_weights = open_weights(config)
    group = join_group(config.distribute)

    recorded = metadata.get("held_out", {}).get("digest", "")
    class_to_idx = find_class_numbers(config, metadata)
    dataset, loader = build_evaluation_loader(config, group, class_to_idx, recorded)
    classes = counted_classes(config, dataset)
    network = build_model(config, dataset.num_classes())
    fill_weights(network, read_weights(), config.ckpt_path or config.model)
    network = pack_for_inference(apply_amp(network, config.val_amp_level, dtype=config.amp_dtype), keep_weights=False)
    num_classes = dataset.num_classes()
    say_compiling("the network")
    result = evaluate(network, loader, num_classes, group, progress=group.is_main, classes=classes, on_batch=on_batch)
    if not group.is_main:
        return None
    labels = range(num_classes) if classes is None else classes.tolist()
    class_names = {label: dataset.class_names[label] for label in labels}
    return describe_evaluation(config, result, class_names, num_classes, dataset.num_left_out)


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


def describe_evaluation(
    config: ValidateConfig, result: Evaluation, class_names: dict[int, str], num_classes: int, num_left_out: int
) -> Measured:
    """Put the figures of an evaluation into words and JSON values.

    Args:
        config: configuration of the run.
        result: figures of the evaluation.
        class_names: label and name of each class that was counted.
        num_classes: number of classes of the network.
        num_left_out: number of images that could not be read and were left out (`skip_corrupt`).
    """
    counts = result.counts
    left_out = f", images left out: {num_left_out}" if num_left_out else ""
    restricted = f", classes: {len(class_names)} of {num_classes}" if config.restrict_classes else ""
    summary = (
        f"Top_1_Accuracy: {counts.top1:.4f}, Top_5_Accuracy: {counts.top5:.4f}, loss: {counts.loss:.4f}, "
        f"ECE: {result.calibration.ece:.4f}, images: {counts.num_images}, images/s: {result.images_per_s:.1f}"
        f"{left_out}{restricted}"
    )
    classes = {"num_classes": num_classes, "num_classes_counted": len(class_names), "num_left_out": num_left_out}
    return Measured(config, summary, {**result.as_dict(), **classes}, counts, class_names, result)


def write_results(measured: Measured) -> None:
    """Write the files that the configuration names."""
    config, confusion, class_names = measured.config, measured.counts.confusion, measured.class_names
    if config.results_json:
        result_of = {"model": config.model, "ckpt_path": config.ckpt_path, **measured.metrics}
        atomic_write_text(config.results_json, json.dumps(result_of, indent=2) + "\n")
    if config.per_class_csv:
        atomic_write_text(config.per_class_csv, per_class_table(confusion, class_names))
    if config.confusion_matrix:
        draw_confusion_matrix(confusion, list(class_names.values()), config.confusion_matrix)
    if config.reliability_plot:
        draw_reliability(measured.evaluation.calibration, config.reliability_plot)
