"""Counts of the correct predictions of a classifier, summed exactly."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field

import numpy as np

from mindcv.utils.distributed import Group
from mindcv.utils.errors import NotFiniteError

__all__ = ["ClassificationCounts", "per_class_table"]


@dataclass
class ClassificationCounts:
    """Sums over images; counts of several processes add up to those of one.

    `confusion[t, p]` counts images of class t taken for class p. `loss_sum` is the cross entropy in float64, plain:
    no smoothing or weights, so that runs with other losses compare.
    """

    num_classes: int
    num_images: int = 0
    num_top1: int = 0
    num_top5: int = 0
    loss_sum: float = 0.0
    confusion: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.confusion = np.zeros((self.num_classes, self.num_classes), np.int64)

    def update(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Add the predictions for a batch.

        Args:
            logits: [B, num_classes]; equal logits rank by class number, the smaller first.
            labels: [B], integers.

        Raises:
            NotFiniteError: a logit is NaN or infinite.
        """
        logits = logits.astype(np.float64)
        if not np.isfinite(logits).all():
            raise NotFiniteError("the network's logits are not finite: its weights or the input hold NaN or infinity")
        order = np.argsort(-logits, axis=1, kind="stable")[:, :5]
        hits = order == labels[:, None]
        self.num_images += len(labels)
        self.num_top1 += int(hits[:, 0].sum())
        self.num_top5 += int(hits.sum())
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(shifted).sum(axis=1))
        self.loss_sum += float((log_sum - shifted[np.arange(len(labels)), labels]).sum())
        np.add.at(self.confusion, (labels, order[:, 0]), 1)

    def summed(self, group: Group) -> ClassificationCounts:
        """Return the counts of all processes together; every process gets the same counts."""
        if group.size == 1:
            return self
        # The loss is also summed as an integer, in units finer than a millionth of a nat.
        scalars = [self.num_images, self.num_top1, self.num_top5, round(self.loss_sum * 2**20)]
        totals = group.sum_integers(np.concatenate([scalars, self.confusion.ravel()]))
        result = ClassificationCounts(
            self.num_classes, int(totals[0]), int(totals[1]), int(totals[2]), float(totals[3]) / 2**20
        )
        result.confusion = totals[4:].reshape(self.confusion.shape)
        return result

    @property
    def top1(self) -> float:
        """Share of the images whose true class has the highest logit."""
        return self.num_top1 / self.num_images

    @property
    def top5(self) -> float:
        """Share of the images whose true class has one of the five highest logits; 1 for at most five classes."""
        return self.num_top5 / self.num_images

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats."""
        return self.loss_sum / self.num_images


def per_class_table(confusion: np.ndarray, class_names: dict[int, str]) -> str:
    """Return CSV text with a row for each class: its images, how many were found, and how many were taken for it."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("class", "name", "images", "correct", "recall", "predicted", "precision"))
    for index, (label, name) in enumerate(class_names.items()):
        images, correct, predicted = confusion[index].sum(), confusion[index, index], confusion[:, index].sum()
        recall = f"{correct / images:.4f}" if images else ""
        precision = f"{correct / predicted:.4f}" if predicted else ""
        writer.writerow((label, name, images, correct, recall, predicted, precision))
    return text.getvalue()
