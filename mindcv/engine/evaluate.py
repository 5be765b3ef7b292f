"""Evaluation of a network on a data set. Every image counts once, in any number of processes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Callable, Optional

import mindspore as ms
import numpy as np
from mindspore import nn
from tqdm import tqdm

from mindcv.data import ImageLoader
from mindcv.data.loader import check_loader
from mindcv.engine.interruption import Interruption
from mindcv.engine.metrics import ClassificationCounts
from mindcv.utils.checks import check_int, check_kind, check_network
from mindcv.utils.distributed import Group
from mindcv.utils.errors import Interrupted

__all__ = ["Evaluation", "OnBatch", "evaluate", "predict"]

OnBatch = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


@dataclass
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        counts: images, correct predictions and losses of all processes together.
        images_per_s: images per second from the second batch to the last; the first batch compiles.
    """

    counts: ClassificationCounts
    images_per_s: float

    def as_dict(self) -> dict[str, float]:
        """Return the metrics by name, as JSON values."""
        counts = self.counts
        return {
            "top_1": counts.top1,
            "top_5": counts.top5,
            "loss": counts.loss,
            "num_images": counts.num_images,
            "num_top_1": counts.num_top1,
            "num_top_5": counts.num_top5,
            "images_per_s": self.images_per_s,
        }


def predict(network: nn.Cell, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Return the logits [B, num_classes], float32, of images [B, C, H, W] with B <= batch_size.

    A smaller batch is padded with zeros, because the network is compiled for one shape. The logits of an image do not
    depend on the other images.
    """
    count = len(images)
    if count < batch_size:
        images = np.concatenate([images, np.zeros((batch_size - count, *images.shape[1:]), images.dtype)])
    return network(ms.Tensor(images)).asnumpy().astype(np.float32)[:count]


def evaluate(
    network: nn.Cell,
    loader: ImageLoader,
    num_classes: int,
    group: Group,
    progress: bool = False,
    interruption: Optional[Interruption] = None,
    classes: Optional[np.ndarray] = None,
    on_batch: Optional[OnBatch] = None,
) -> Evaluation:
    """Run `network` over every image of `loader` once.

    Args:
        network: maps images [B, C, H, W] to logits [B, num_classes]; it stays in evaluation mode.
        loader: gives images and integer labels; each process has a share of them.
        num_classes: width of the logits.
        group: the processes that evaluate together.
        progress: show a progress bar.
        interruption: checked after each batch.
        classes: ascending labels of the only classes to predict. The logits of other classes are dropped, and the
            counts number these classes from 0. None means all classes.
        on_batch: called with the images [B, C, H, W], the labels [B] and the logits [B, K] of each batch of this
            process, in the order of the data set. K is the number of the classes that are counted.

    Raises:
        Interrupted: a signal asked to stop.
        DataError: an image cannot be read.
        UserError: an argument of another type, or another process has failed.
    """
    check_network("network", network)
    check_loader(loader)
    check_int("num_classes", num_classes, 1)
    check_kind("group", group, Group, "a mindcv.utils.distributed.Group; Group() is a single process")
    network.set_train(False)
    counts = ClassificationCounts(num_classes if classes is None else len(classes))
    images_per_s = group.together(_count, network, loader, counts, progress, interruption, classes, on_batch)
    return Evaluation(counts.summed(group), images_per_s * group.size)


def _count(
    network: nn.Cell,
    loader: ImageLoader,
    counts: ClassificationCounts,
    progress: bool,
    interruption: Optional[Interruption],
    classes: Optional[np.ndarray],
    on_batch: Optional[OnBatch],
) -> float:
    """Add the share of this process to `counts`, and return its images per second."""
    batch_size = loader.get_batch_size()
    start, timed_from = time.perf_counter(), 0
    batches = tqdm(
        loader.batches(),
        total=loader.get_dataset_size(),
        desc="validate",
        disable=None if progress else True,
        leave=False,
    )
    for number, (images, labels) in enumerate(batches):
        logits = predict(network, images, batch_size)
        if classes is not None:
            logits, labels = logits[:, classes], np.searchsorted(classes, labels)
        counts.update(logits, labels)
        if on_batch is not None:
            on_batch(images, labels, logits)
        if number == 0 and loader.get_dataset_size() > 1:
            # The first batch includes the compilation.
            start, timed_from = time.perf_counter(), counts.num_images
        if interruption is not None and interruption.signal:
            name = interruption.signal.name
            raise Interrupted(interruption.signal, f"by {name} in a validation; --resume auto repeats that")
    seconds = max(time.perf_counter() - start, 1e-9)
    return (counts.num_images - timed_from) / seconds
