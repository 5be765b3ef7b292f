"""A network over a data set, every image once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Optional

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

__all__ = ["Evaluation", "evaluate", "predict"]


@dataclass
class Evaluation:
    """What `evaluate` found: the counts over all processes, and the time from the second batch to the last."""

    counts: ClassificationCounts
    images_per_s: float

    def as_dict(self) -> dict[str, float]:
        """Figures by name, ready for JSON."""
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
    """Logits [B, num_classes] float32 of images [B, C, H, W], B <= batch_size.

    A smaller batch is filled up with zeros: the network is compiled for one shape, and no image's logits depend on
    the others.
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
) -> Evaluation:
    """Run `network` over every image of `loader` once.

    Args:
        network: images [B, C, H, W] to logits [B, num_classes]; left in evaluation mode.
        loader: gives images and integer labels; several processes each hold their own share.
        num_classes: width of the logits.
        group: the processes that count together.
        progress: show a bar.
        interruption: looked at after each batch.
        classes: labels, ascending, that alone are counted: the logits of the other classes are dropped, and the counts
            number these classes from 0. None counts all.

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
    images_per_s = group.together(_count, network, loader, counts, progress, interruption, classes) * group.size
    return Evaluation(counts.summed(group), images_per_s)


def _count(
    network: nn.Cell,
    loader: ImageLoader,
    counts: ClassificationCounts,
    progress: bool,
    interruption: Optional[Interruption],
    classes: Optional[np.ndarray],
) -> float:
    """Add this process's share to `counts`; return its images per second."""
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
        if number == 0 and loader.get_dataset_size() > 1:
            # The first batch holds the compilation.
            start, timed_from = time.perf_counter(), counts.num_images
        if interruption is not None and interruption.signal:
            name = interruption.signal.name
            raise Interrupted(interruption.signal, f"by {name} in a validation; --resume auto repeats that")
    seconds = max(time.perf_counter() - start, 1e-9)
    return (counts.num_images - timed_from) / seconds
