"""Evaluation of a network on a data set. Every image counts once, in any number of processes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Optional

import numpy as np
from mindspore import nn
from tqdm import tqdm

from mindcv.data import ImageLoader
from mindcv.data.loader import check_loader
from mindcv.engine.calibration import Calibration, measure_calibration
from mindcv.engine.handover import as_tensor
from mindcv.engine.metrics import ClassificationCounts
from mindcv.engine.predictions import PredictionLog, Predictions
from mindcv.engine.views import TTA_MODES, average_views, crops_per_image, predict_views
from mindcv.utils.checks import check_int, check_kind, check_name, check_network
from mindcv.utils.distributed import Group

__all__ = ["Evaluation", "OnBatch", "evaluate", "predict"]

OnBatch = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


@dataclass
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        counts: images, correct predictions and losses of all processes together.
        images_per_s: images per second from the second batch to the last; the first batch compiles.
        predictions: prediction for each image, in the order in which one process reads the images. The classes are
            numbered as in `counts`.
    """

    counts: ClassificationCounts
    images_per_s: float
    predictions: Predictions

    @property
    def calibration(self) -> Calibration:
        """The calibration of the predictions, in 15 bins."""
        return measure_calibration(self.predictions)

    def as_dict(self) -> dict[str, Any]:
        """Return the metrics by name, as JSON values."""
        counts, calibration = self.counts, self.calibration
        return {
            "top_1": counts.top1,
            "top_5": counts.top5,
            "loss": counts.loss,
            "num_images": counts.num_images,
            "num_top_1": counts.num_top1,
            "num_top_5": counts.num_top5,
            "ece": calibration.ece,
            "mean_confidence": calibration.mean_confidence,
            "images_per_s": self.images_per_s,
            "calibration": calibration.as_rows(),
        }


def predict(network: nn.Cell, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Return the logits [B, num_classes], float32, of images [B, C, H, W] with B <= batch_size.

    A smaller batch is padded with zeros, because the network is compiled for one shape. The logits of an image do not
    depend on the other images.
    """
    count = len(images)
    if count < batch_size:
        images = np.concatenate([images, np.zeros((batch_size - count, *images.shape[1:]), images.dtype)])
    return network(as_tensor(images)).asnumpy().astype(np.float32)[:count]


def evaluate(
    network: nn.Cell,
    loader: ImageLoader,
    num_classes: int,
    group: Group,
    progress: bool = False,
    classes: Optional[np.ndarray] = None,
    on_batch: Optional[OnBatch] = None,
    tta: str = "none",
) -> Evaluation:
    """Run `network` over every image of `loader` once.

    Args:
        network: maps images [B, C, H, W] to logits [B, num_classes]; it stays in evaluation mode.
        loader: gives images and integer labels; each process has a share of them.
        num_classes: width of the logits.
        group: the processes that evaluate together.
        progress: show a progress bar.
        classes: ascending labels of the only classes to predict. The logits of other classes are dropped, and the
            counts number these classes from 0. None means all classes.
        on_batch: called with the images as the loader gives them, the labels [B] and the logits [B, K] of each batch of
            this process, in the order of the data set. K is the number of the classes that are counted. With several
            views, the logits are the logarithms of the mean probabilities. It may raise an exception to stop.
        tta: mode of test-time augmentation: 'none'; 'flip', which averages the predictions for each image and its
            mirror image; or 'ten_crop', for which the loader gives five crops of each image, [B, 5, C, H, W] (see
            `transforms_imagenet_eval`).

    Raises:
        DataError: an image cannot be read.
        UserError: an argument of another type, or another process has failed.
    """
    check_network("network", network)
    check_loader(loader)
    check_int("num_classes", num_classes, 1)
    check_kind("group", group, Group, "a mindcv.utils.distributed.Group; Group() is a single process")
    check_name("tta", tta, TTA_MODES)
    network.set_train(False)
    counts, log = ClassificationCounts(num_classes if classes is None else len(classes)), PredictionLog()
    run = partial(predict, network, batch_size=loader.get_batch_size() * crops_per_image(tta))

    def count(images: np.ndarray, labels: np.ndarray) -> None:
        logits = predict_views(run, images, tta)
        if classes is not None:
            logits, labels = logits[..., classes], np.searchsorted(classes, labels)
        logits = average_views(logits)
        counts.update(logits, labels)
        log.update(logits, labels)
        if on_batch is not None:
            on_batch(images, labels, logits)

    images_per_s = group.together(_for_each_batch, loader, count, progress) * group.size
    return Evaluation(counts.summed(group), images_per_s, log.gathered(group))


def _for_each_batch(loader: ImageLoader, count: Callable[[np.ndarray, np.ndarray], None], progress: bool) -> float:
    """Call `count` with the images and labels of each batch of this process, and return its images per second."""
    start, num_images, timed_from = time.perf_counter(), 0, 0
    batches = tqdm(
        loader.batches(),
        total=loader.get_dataset_size(),
        desc="validate",
        disable=None if progress else True,
        leave=False,
    )
    for number, (images, labels) in enumerate(batches):
        count(images, labels)
        num_images += len(labels)
        if number == 0 and loader.get_dataset_size() > 1:
            # The first batch includes the compilation.
            start, timed_from = time.perf_counter(), num_images
    seconds = max(time.perf_counter() - start, 1e-9)
    return (num_images - timed_from) / seconds
