"""Classify images: `python infer.py --ckpt_path FILE.ckpt --image_path IMAGE_OR_FOLDER [--option value ...]`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Ctrl-C ends the process with a line, also in the imports below and while a graph compiles, which take seconds.
    signal.signal(signal.SIGINT, lambda *_: (os.write(2, b"stopped: by Ctrl-C\n"), os._exit(130)))

import numpy as np
from mindspore import nn
from tqdm import tqdm

from mindcv.config import InferConfig
from mindcv.data import UnreadableImages, find_images, set_pixel_limit
from mindcv.engine import say_compiling
from mindcv.engine.heat_maps import HeatMaps, draw_heat_maps
from mindcv.engine.inference import MAX_DRAWN, Prediction, classes_of_folders, classify, draw_predictions
from mindcv.engine.prediction_file import prediction_file
from mindcv.recipe import prepare_device, read_config
from mindcv.recipe_classes import names_of_classes
from mindcv.recipe_classifier import open_classifier
from mindcv.utils.cli import run_script
from mindcv.utils.logger import counted, logger


def main() -> None:
    config = read_config(InferConfig)
    found = find_images(config.image_path)
    set_pixel_limit(config.max_image_pixels)
    unreadable = UnreadableImages(len(found), config.skip_corrupt)
    paths = unreadable.leave_out(found)
    prepare_device(config)
    opened = open_classifier(config)
    config = opened.config
    num_classes = config.num_classes or 1000
    class_names = names_of_classes(config, opened.metadata, num_classes)

    # The gradient of Grad-CAM passes through the stages behind the explained one, and packed weights have no gradient.
    keep_weights = config.explain == "gradcam" and config.explain_stage < 3
    classifier = opened.build(num_classes, keep_weights)
    transform = opened.transform()
    options = (config.top_k, config.batch_size, unreadable.add)
    predictions = classify(classifier, paths, transform, class_names, *options)
    first = report(predictions, config, len(paths), unreadable)
    num_images = len(found) - len(unreadable.errors)
    if config.picture:
        truth = {path: class_names[label] for path, label in classes_of_folders(paths, class_names).items()}
        draw_predictions(first, config.picture, num_images, truth)
        logger.info("saved %s: predictions of %s", config.picture, counted(len(first[:MAX_DRAWN]), "image"))
    if config.explain:
        explain(config, opened.network, first[: config.explain_images], transform, num_images)
    unreadable.check()


def report(
    predictions: Iterable[Prediction], config: InferConfig, num_images: int, unreadable: UnreadableImages
) -> list[Prediction]:
    """Print each prediction as it comes, write it to the results file, and return the first ones for the pictures."""
    first, num_kept = [], max(MAX_DRAWN, config.explain_images if config.explain else 0)
    progress = tqdm(predictions, desc="infer", unit="image", total=num_images, disable=None, leave=False)
    with prediction_file(config.results_file) if config.results_file else nullcontext() as add_to_file:
        for prediction in progress:
            classes = zip(prediction.names, prediction.probabilities)
            line = ", ".join(f"{name} {probability:.4f}" for name, probability in classes)
            tqdm.write(f"{prediction.path}: {line}")
            if add_to_file:
                add_to_file(prediction)
            if len(first) < num_kept:
                first.append(prediction)
        if not first:
            unreadable.check()  # raises an error, so a results file of an earlier run stays
    return first


def explain(
    config: InferConfig,
    network: nn.Cell,
    predictions: Sequence[Prediction],
    transform: Callable[[bytes], np.ndarray],
    num_images: int,
) -> None:
    """Draw the heat maps of the first of `num_images` images."""
    say_compiling("the network for heat maps")
    heat_maps = HeatMaps(network, config.explain, config.explain_stage)
    draw_heat_maps(
        predictions, heat_maps, transform, config.mean, config.std, config.batch_size, config.explain_picture
    )
    more = f"; --explain_images draws more of the {num_images} images" if len(predictions) < num_images else ""
    logger.info("saved %s: heat maps of %s%s", config.explain_picture, counted(len(predictions), "image"), more)


if __name__ == "__main__":
    run_script(main)
