"""Probes: the accuracy of a simple classifier on frozen features, which shows what a pre-trained network has learned.

`knn_probe` follows Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination" (arXiv
1805.01978), with the 20 neighbours of DINO (arXiv 2104.14294). Decision 0083 says how both probes are made exact.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Union

import numpy as np

from mindcv.engine.features import FeatureRows, Features
from mindcv.engine.metrics import ClassificationCounts
from mindcv.engine.softmax_regression import STRENGTHS, SoftmaxRegression, StandardizedRows
from mindcv.utils.checks import check_int
from mindcv.utils.errors import UserError
from mindcv.utils.logger import logger

__all__ = ["PROBES", "ProbeResult", "check_training_images", "knn_probe", "linear_probe"]

PROBES = ("knn", "linear")
_TEMPERATURE = 0.07
_HELD_OUT = 5  # one of five images of each class chooses the strength of the L2 penalty

_QUERIES = 2048  # images that are compared at a time
_NEIGHBOURS = 2048  # training images that are compared at a time
_UNIT = 2.0**24  # the integer that stands for 1 in a unit vector
_MAX_VOTES = 1 << 23  # largest number of votes in memory


@dataclass
class ProbeResult:
    """The result of a probe.

    Attributes:
        counts: counts of the validation images. The k-NN probe has no loss.
        num_training_images: number of images that the probe learned from.
        settings: settings of the probe and what it chose, as JSON values.
    """

    counts: ClassificationCounts
    num_training_images: int
    settings: dict[str, Union[str, int, float, bool]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Union[str, int, float, bool]]:
        """Return the metrics and the settings by name, as JSON values."""
        counts = self.counts
        return {
            "top_1": counts.top1,
            "top_5": counts.top5,
            "num_images": counts.num_images,
            "num_top_1": counts.num_top1,
            "num_top_5": counts.num_top5,
            "num_training_images": self.num_training_images,
            **self.settings,
        }


def check_training_images(probe: str, labels: np.ndarray, k: int) -> None:
    """Check before any work that there are enough training images for a probe.

    Raises:
        UserError: there are too few.
    """
    if probe == "knn" and k > len(labels):
        raise UserError(
            f"probe_k is {k}, but there are only {len(labels)} training images: give --probe_k {len(labels)} or less"
        )
    if probe == "linear" and not _held_out(labels).any():
        raise UserError(
            "the linear probe holds out one of five training images of a class to choose its L2 penalty, and each "
            f"class has fewer than 3 of the {len(labels)} training images: give more images, or --probe knn"
        )


def knn_probe(training: Features, validation: Features, num_classes: int, k: int = 20) -> ProbeResult:
    """Classify each validation image by the votes of the `k` training images whose features are most similar.

    The similarity is the cosine, and a neighbour votes for its class with exp(similarity / 0.07). Of two equally
    similar images the earlier one is nearer. Equal votes rank by class number, and a class without votes is no
    prediction.

    Raises:
        UserError: `k` is below 1 or above the number of training images.
    """
    check_int("k", k, 1)
    check_training_images("knn", training.labels, k)
    counts = ClassificationCounts(num_classes)
    step = min(_QUERIES, max(1, _MAX_VOTES // num_classes))
    for start in range(0, validation.rows.num_rows, step):
        queries = _as_integers(validation.rows.read(start, start + step))
        similarities, indices = _nearest(queries, training.rows, k)
        votes = np.zeros((len(queries), num_classes))
        rows = np.arange(len(queries))
        for rank in range(k):  # the nearest first, so that the order of the sum is fixed
            votes[rows, training.labels[indices[:, rank]]] += np.exp(similarities[:, rank] / _TEMPERATURE)
        _count_votes(counts, votes, validation.labels[start : start + step])
    return ProbeResult(counts, len(training.labels), {"probe": "knn", "probe_k": k})


def _as_integers(rows: np.ndarray) -> np.ndarray:
    """Scale each row to length 1 and round its values to multiples of 2**-24, which are returned as integers.

    The values are float64, and a product of two rows is below 2**49. So a matrix product of them is exact: it does not
    depend on the order of its sums, and so on threads, processes and the size of blocks.
    """
    rows = rows.astype(np.float64)
    lengths = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    return np.rint(rows * (_UNIT / np.maximum(lengths, np.finfo(np.float64).tiny)))


def _nearest(queries: np.ndarray, bank: FeatureRows, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the cosine and the index [Q, k] of the rows of a bank that are most similar to each query, by rank."""
    count = len(queries)
    products, indices = np.zeros((count, 0)), np.zeros((count, 0), np.int64)
    for start in range(0, bank.num_rows, _NEIGHBOURS):
        found = queries @ _as_integers(bank.read(start, start + _NEIGHBOURS)).T
        # A row that is only as similar as the last neighbour is no candidate, because it comes later.
        if products.shape[1] == k:
            row, place = np.nonzero(found > products[:, -1:])
        else:
            least = np.partition(found, -k, axis=1)[:, [-k]] if found.shape[1] > k else -np.inf
            row, place = np.nonzero(found >= least)
        row = np.concatenate([np.repeat(np.arange(count), products.shape[1]), row])
        index = np.concatenate([indices.ravel(), start + place])
        product = np.concatenate([products.ravel(), found[row[indices.size :], place]])
        order = np.lexsort((index, -product, row))
        firsts = np.searchsorted(row[order], np.arange(count))
        chosen = order[firsts[:, None] + np.arange(min(k, start + found.shape[1]))]
        products, indices = product[chosen], index[chosen]
    return products / _UNIT**2, indices


def _count_votes(counts: ClassificationCounts, votes: np.ndarray, labels: np.ndarray) -> None:
    order = np.argsort(-votes, axis=1, kind="stable")[:, :5]
    hits = (order == labels[:, None]) & (np.take_along_axis(votes, order, axis=1) > 0)
    counts.num_images += len(labels)
    counts.num_top1 += int(hits[:, 0].sum())
    counts.num_top5 += int(hits.sum())
    np.add.at(counts.confusion, (labels, order[:, 0]), 1)


def linear_probe(training: Features, validation: Features, num_classes: int) -> ProbeResult:
    """Classify the validation images by a multinomial logistic regression that is trained on the training features.

    Each feature is standardized by its mean and standard deviation over the training images. The strength of the L2
    penalty is the one of `STRENGTHS` with the highest accuracy on a fifth of the training images of each class, which
    the regression is not trained on meanwhile. Equal accuracies rank by the loss. The regression is then trained on all
    training images.

    Raises:
        UserError: no class has three training images.
    """
    check_training_images("linear", training.labels, k=1)
    rows = StandardizedRows(training.rows, training.labels, num_classes)
    held_out = _held_out(training.labels)
    strength, start = _choose_strength(rows, held_out, num_classes)
    regression = SoftmaxRegression(rows.chosen(np.ones(len(held_out), bool)), num_classes, strength)
    regression.fit(start)
    if not regression.has_converged:
        logger.warning(
            "the linear probe has not converged in %d iterations (largest gradient: %.1e), so its accuracy may be too "
            "low",
            regression.num_iterations,
            regression.largest_gradient,
        )
    counts = _count_logits(regression, rows.like(validation.rows, validation.labels), num_classes)
    settings = {
        "probe": "linear",
        "l2": strength,
        "num_iterations": regression.num_iterations,
        "has_converged": regression.has_converged,
    }
    return ProbeResult(counts, len(training.labels), settings)


def _held_out(labels: np.ndarray) -> np.ndarray:
    """Return which images are held out: the third of each five of a class, in the order of the data set."""
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    places = np.arange(len(labels)) - np.repeat(starts, counts)
    is_held_out = np.zeros(len(labels), bool)
    is_held_out[order] = places % _HELD_OUT == _HELD_OUT // 2
    return is_held_out


def _choose_strength(rows: StandardizedRows, held_out: np.ndarray, num_classes: int) -> tuple[float, np.ndarray]:
    """Return the best strength of the L2 penalty on the held-out images, and the weights that belong to it.

    The strengths are tried from the strongest on, each from the weights of the one before. The search ends after two
    strengths in a row that improve neither accuracy nor loss.
    """
    best, weights = None, None
    best_loss, num_worse = np.inf, 0
    training, validation = rows.chosen(~held_out), rows.chosen(held_out)
    for strength in STRENGTHS:
        regression = SoftmaxRegression(training, num_classes, strength)
        weights = regression.fit(weights)
        counts = _count_logits(regression, validation, num_classes)
        rank = (counts.num_top1, -counts.loss)
        logger.info("linear probe: L2 %g has held-out accuracy %.4f, loss %.4f", strength, counts.top1, counts.loss)
        is_better = best is None or rank > best[0] or counts.loss < best_loss
        num_worse = 0 if is_better else num_worse + 1
        best_loss = min(best_loss, counts.loss)
        if best is None or rank > best[0]:
            best = (rank, strength, weights)
        if num_worse == 2:
            break
    return best[1], best[2]


def _count_logits(
    regression: SoftmaxRegression, rows: Iterable[tuple[np.ndarray, np.ndarray]], num_classes: int
) -> ClassificationCounts:
    counts = ClassificationCounts(num_classes)
    for features, labels in rows:
        counts.update(regression.logits(features), labels)
    return counts
