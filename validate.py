"""Measure a checkpoint: `python validate.py --ckpt_path FILE.ckpt --data_dir FOLDER [--option value ...]`."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
from typing import Any

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C ends the process with a line, also in the imports below and while a graph compiles, which take seconds.
    signal.signal(signal.SIGINT, lambda *_: (os.write(2, b"stopped: by Ctrl-C\n"), os._exit(130)))

import numpy as np

from mindcv.config import ValidateConfig
from mindcv.convert import fill_weights
from mindcv.engine import Evaluation, apply_amp, evaluate, say_compiling
from mindcv.engine.features import extract_features
from mindcv.engine.metrics import ClassificationCounts
from mindcv.engine.plots import draw_confusion_matrix, require_matplotlib
from mindcv.models import pack_for_inference
from mindcv.recipe import (
    build_evaluation_loader,
    build_model,
    open_backbone_weights,
    open_weights,
    prepare_device,
    read_config,
)
from mindcv.recipe_data import counted_classes, find_class_numbers
from mindcv.recipe_probe import build_feature_network, build_probe_loaders, run_probe
from mindcv.utils.cli import run_script
from mindcv.utils.distributed import join_group
from mindcv.utils.files import atomic_write_text, ensure_writable


def main() -> None:
    config = read_config(ValidateConfig)
    if config.confusion_matrix:
        require_matplotlib()
    ensure_writable(config.results_json, config.per_class_csv, config.confusion_matrix)
    prepare_device(config)
    if config.probe:
        measure_features(config)
    else:
        measure_predictions(config)


def measure_predictions(config: ValidateConfig) -> None:
    """Measure how often a classifier is right."""
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
    result = evaluate(network, loader, num_classes, group, progress=group.is_main, classes=classes)
    if group.is_main:
        labels = range(num_classes) if classes is None else classes.tolist()
        class_names = {label: dataset.class_names[label] for label in labels}
        report(config, result, class_names, num_classes, dataset.num_left_out)


def measure_features(config: ValidateConfig) -> None:
    """Measure the features of a frozen backbone by a probe."""
    config, metadata, read_weights = open_backbone_weights(config)
    group = join_group(config.distribute)
    recorded = metadata.get("held_out", {}).get("digest", "")
    (dataset, training_loader), (validated, loader) = build_probe_loaders(config, group, recorded)
    network = build_feature_network(config, read_weights)
    say_compiling("the network")
    training = extract_features(network, training_loader, network.num_features, group, "training images")
    validation = extract_features(network, loader, network.num_features, group, "validation images")
    if not group.is_main:
        return
    result = run_probe(config, training, validation, dataset.num_classes())
    counts, left_out = result.counts, dataset.num_left_out + validated.num_left_out
    settings = ", ".join(f"{name}: {value}" for name, value in result.settings.items())
    print(
        f"Top_1_Accuracy: {counts.top1:.4f}, Top_5_Accuracy: {counts.top5:.4f}, images: {counts.num_images}, training "
        f"images: {result.num_training_images}, {settings}" + (f", images left out: {left_out}" if left_out else "")
    )
    facts = {"num_features": network.num_features, "num_classes": dataset.num_classes(), "num_left_out": left_out}
    write_results(config, {**result.as_dict(), **facts}, counts, dict(enumerate(dataset.class_names)))


def report(
    config: ValidateConfig, result: Evaluation, class_names: dict[int, str], num_classes: int, num_left_out: int
) -> None:
    """Print the figures and write what was asked for.

    Args:
        config: of the run.
        result: the figures.
        class_names: label and name of each class that was counted.
        num_classes: of the network.
        num_left_out: images that could not be read and were left out (`skip_corrupt`).
    """
    counts = result.counts
    left_out = f", images left out: {num_left_out}" if num_left_out else ""
    restricted = f", classes: {len(class_names)} of {num_classes}" if config.restrict_classes else ""
    print(
        f"Top_1_Accuracy: {counts.top1:.4f}, Top_5_Accuracy: {counts.top5:.4f}, loss: {counts.loss:.4f}, "
        f"images: {counts.num_images}, images/s: {result.images_per_s:.1f}{left_out}{restricted}"
    )
    classes = {"num_classes": num_classes, "num_classes_counted": len(class_names), "num_left_out": num_left_out}
    write_results(config, {**result.as_dict(), **classes}, counts, class_names)


def write_results(
    config: ValidateConfig, metrics: dict[str, Any], counts: ClassificationCounts, class_names: dict[int, str]
) -> None:
    """Write the files that the configuration names: metrics, accuracy of each class, confusion matrix."""
    if config.results_json:
        result_of = {"model": config.model, "ckpt_path": config.ckpt_path, **metrics}
        atomic_write_text(config.results_json, json.dumps(result_of, indent=2) + "\n")
    if config.per_class_csv:
        atomic_write_text(config.per_class_csv, per_class_table(counts.confusion, class_names))
    if config.confusion_matrix:
        draw_confusion_matrix(counts.confusion, list(class_names.values()), config.confusion_matrix)


def per_class_table(confusion: np.ndarray, class_names: dict[int, str]) -> str:
    """A CSV row a class: images of it, how many were found, and how many were taken for it in all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("class", "name", "images", "correct", "recall", "predicted", "precision"))
    for index, (label, name) in enumerate(class_names.items()):
        images, correct, predicted = confusion[index].sum(), confusion[index, index], confusion[:, index].sum()
        recall = f"{correct / images:.4f}" if images else ""
        precision = f"{correct / predicted:.4f}" if predicted else ""
        writer.writerow((label, name, images, correct, recall, predicted, precision))
    return text.getvalue()


if __name__ == "__main__":
    run_script(main)
