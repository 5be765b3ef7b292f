"""Evaluation of a network on a data set. Every image counts once, in any number of processes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Optional, TypeVar

import numpy as np
from mindspore import nn
from tqdm import tqdm

from mindcv.data import ImageLoader
from mindcv.data.loader import check_loader
from mindcv.engine.calibration import Calibration, measure_calibration
from mindcv.engine.handover import as_tensor
from mindcv.engine.metrics import ClassificationCounts
from mindcv.engine.predictions import PredictionLog, Predictions
from mindcv.engine.views import TTA_MODES, Finish, average_views, crops_per_image, start_views
from mindcv.utils.checks import check_int, check_kind, check_name, check_network
from mindcv.utils.distributed import Group

__all__ = ["Evaluation", "OnBatch", "evaluate", "predict", "predict_batches", "start_prediction"]

T = TypeVar("T")
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


def start_prediction(network: nn.Cell, images: np.ndarray, batch_size: int) -> Finish:
    """Start a network, and return a function that waits for its logits [B, num_classes] and returns them as float32.

    A device may still be at work when this function returns.

    Args:
        network: maps images [B, C, H, W] to logits [B, num_classes], in evaluation mode.
        images: images [B, C, H, W] with B <= batch_size. A smaller batch is padded with zeros, because the network is
            compiled for one shape. The logits of an image do not depend on the other images.
        batch_size: number of images that the network is compiled for.
    """
    count = len(images)
    if count < batch_size:
        images = np.concatenate([images, np.zeros((batch_size - count, *images.shape[1:]), images.dtype)])
    logits = network(as_tensor(images))
    return lambda: logits.asnumpy().astype(np.float32)[:count]


def predict(network: nn.Cell, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Return the logits [B, num_classes], float32, of images [B, C, H, W]. See `start_prediction`."""
    return start_prediction(network, images, batch_size)()


def predict_batches(
    start: Callable[[np.ndarray], Finish], batches: Iterable[tuple[np.ndarray, T]]
) -> Iterator[tuple[np.ndarray, T, np.ndarray]]:
    """Yield images, label and result of each batch.

    The next batch is started before a result is yielded, so that a device works while the caller uses the result.
    `asnumpy` waits for everything that was started (decision 0089), so the result is asked for before that.

    Args:
        start: starts the network on images, and returns a function that waits for the result.
        batches: pairs of images and label, where a label is anything that belongs to the images.
    """
    running = None
    for images, label in batches:
        ended = None if running is None else (*running[:2], running[2]())
        running = images, label, start(images)
        if ended is not None:
            yield ended
    if running is not None:
        yield *running[:2], running[2]()


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
    start = partial(start_prediction, network, batch_size=loader.get_batch_size() * crops_per_image(tta))

    def count(images: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> None:
        if classes is not None:
            logits, labels = logits[..., classes], np.searchsorted(classes, labels)
        logits = average_views(logits)
        counts.update(logits, labels)
        log.update(logits, labels)
        if on_batch is not None:
            on_batch(images, labels, logits)

    start_all = partial(start_views, start, tta=tta)
    images_per_s = group.together(_for_each_batch, loader, start_all, count, progress) * group.size
    return Evaluation(counts.summed(group), images_per_s, log.gathered(group))


def _for_each_batch(
    loader: ImageLoader,
    start: Callable[[np.ndarray], Finish],
    count: Callable[[np.ndarray, np.ndarray, np.ndarray], None],
    progress: bool,
) -> float:
    """Call `count` with images, labels and logits of each batch of this process, and return its images per second."""
    begin, ends, sizes = time.perf_counter(), [], []

    def start_timed(images: np.ndarray) -> Finish:
        finish = start(images)

        def finish_timed() -> np.ndarray:
            logits = finish()
            ends.append(time.perf_counter())
            return logits

        return finish_timed

    batches = tqdm(
        predict_batches(start_timed, loader.batches()),
        total=loader.get_dataset_size(),
        desc="validate",
        disable=None if progress else True,
        leave=False,
    )
    for images, labels, logits in batches:
        count(images, labels, logits)
        sizes.append(len(labels))
    if len(ends) > 1:
        begin, sizes = ends[0], sizes[1:]  # the first batch includes the compilation
    return sum(sizes) / max(ends[-1] - begin, 1e-9) if ends else 0.0
