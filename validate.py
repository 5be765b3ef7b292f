"""Measure a checkpoint: `python validate.py --ckpt_path FILE.ckpt --data_dir FOLDER [--option value ...]`."""

from __future__ import annotations

import csv
import io
import json

import numpy as np

from mindcv.config import ValidateConfig
from mindcv.convert import fill_weights
from mindcv.engine import Evaluation, apply_amp, evaluate
from mindcv.engine.plots import draw_confusion_matrix, require_matplotlib
from mindcv.models import pack_for_inference
from mindcv.recipe import build_evaluation_loader, build_model, open_weights, read_config
from mindcv.utils.cli import run_script
from mindcv.utils.device import set_device, set_mode
from mindcv.utils.distributed import join_group
from mindcv.utils.files import atomic_write_text, ensure_writable


def main() -> None:
    config = read_config(ValidateConfig)
    if config.confusion_matrix:
        require_matplotlib()
    ensure_writable(config.results_json, config.per_class_csv, config.confusion_matrix)
    config, weights = open_weights(config)
    set_device(config.device_target)
    set_mode(config.mode, config.jit_level)
    group = join_group(config.distribute)

    dataset, loader = build_evaluation_loader(config, group, weights.metadata.get("class_to_idx"))
    network = build_model(config, dataset.num_classes())
    fill_weights(network, weights, config.ckpt_path or config.model)
    network = pack_for_inference(apply_amp(network, config.val_amp_level, dtype=config.amp_dtype), keep_weights=False)
    result = evaluate(network, loader, dataset.num_classes(), group, progress=group.is_main)
    if group.is_main:
        report(config, result, dataset.class_names)


def report(config: ValidateConfig, result: Evaluation, class_names: list[str]) -> None:
    """Print the figures and write what was asked for."""
    counts = result.counts
    print(
        f"Top_1_Accuracy: {counts.top1:.4f}, Top_5_Accuracy: {counts.top5:.4f}, loss: {counts.loss:.4f}, "
        f"images: {counts.num_images}, images/s: {result.images_per_s:.1f}"
    )
    if config.results_json:
        result_of = {"model": config.model, "ckpt_path": config.ckpt_path, **result.as_dict()}
        atomic_write_text(config.results_json, json.dumps(result_of, indent=2) + "\n")
    if config.per_class_csv:
        atomic_write_text(config.per_class_csv, per_class_table(counts.confusion, class_names))
    if config.confusion_matrix:
        draw_confusion_matrix(counts.confusion, class_names, config.confusion_matrix)


def per_class_table(confusion: np.ndarray, class_names: list[str]) -> str:
    """A CSV row a class: images of it, how many were found, and how many were taken for it in all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("class", "name", "images", "correct", "recall", "predicted", "precision"))
    for index, name in enumerate(class_names):
        images, correct, predicted = confusion[index].sum(), confusion[index, index], confusion[:, index].sum()
        recall = f"{correct / images:.4f}" if images else ""
        precision = f"{correct / predicted:.4f}" if predicted else ""
        writer.writerow((index, name, images, correct, recall, predicted, precision))
    return text.getvalue()


if __name__ == "__main__":
    run_script(main)
