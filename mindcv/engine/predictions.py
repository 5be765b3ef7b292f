"""The prediction for each image of an evaluation, for results that counts of classes do not give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mindcv.utils.distributed import Group

__all__ = ["PredictionLog", "Predictions"]

_UNIT = 2.0**-32  # confidences are multiples of it, so that their sums are exact in any order


@dataclass(frozen=True)
class Predictions:
    """The predictions for the images of a data set, in the order in which one process reads them.

    Attributes:
        labels: true class of each image, int64 [N].
        predicted: class with the highest probability, int64 [N].
        confidences: probability of that class, float64 [N], rounded to a multiple of 2**-32.
    """

    labels: np.ndarray
    predicted: np.ndarray
    confidences: np.ndarray

    @property
    def is_correct(self) -> np.ndarray:
        """Whether the predicted class is the true class, bool [N]."""
        return self.labels == self.predicted


class PredictionLog:
    """Collects the predictions of one process, batch by batch."""

    def __init__(self):
        self._batches: list[np.ndarray] = []

    def update(self, logits: np.ndarray, labels: np.ndarray) -> None:
        """Add a batch.

        Args:
            logits: finite logits [B, num_classes]. Of equal logits, the class with the smaller number is predicted.
            labels: true classes [B].
        """
        logits = logits.astype(np.float64)
        predicted = logits.argmax(axis=1)
        confidences = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
        self._batches.append(np.stack([labels, predicted, np.rint(confidences / _UNIT)]).astype(np.int64))

    def gathered(self, group: Group) -> Predictions:
        """Return the predictions of all processes; every process gets the same ones.

        Image i of the data set belongs to process i % size, as in the loader.
        """
        own = np.concatenate([np.zeros((3, 0), np.int64), *self._batches], axis=1)
        if group.size > 1:
            counts = np.zeros(group.size, np.int64)
            counts[group.rank] = own.shape[1]
            counts = group.sum_integers(counts)
            table = np.zeros((3, counts.max(), group.size), np.int64)
            table[:, : own.shape[1], group.rank] = own
            is_there = np.arange(counts.max())[:, None] < counts
            own = group.sum_integers(table)[:, is_there]
        labels, predicted, units = own
        return Predictions(labels, predicted, units * _UNIT)
