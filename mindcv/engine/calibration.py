"""Calibration: how well the confidence of a classifier agrees with its accuracy.

Source: Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599, section 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mindcv.engine.predictions import Predictions

__all__ = ["NUM_BINS", "Calibration", "measure_calibration"]

NUM_BINS = 15  # as in the paper


@dataclass(frozen=True)
class Calibration:
    """Sums over the images in bins of equal width. Bin m of M holds the confidences in ((m - 1) / M, m / M].

    Attributes:
        num_images: images in each bin, int64 [M].
        num_correct: images in each bin that are classified correctly, int64 [M].
        confidence_sums: sum of the confidences in each bin, float64 [M].
    """

    num_images: np.ndarray
    num_correct: np.ndarray
    confidence_sums: np.ndarray

    @property
    def accuracies(self) -> np.ndarray:
        """Accuracy in each bin, float64 [M]; NaN for a bin without images."""
        return _means(self.num_correct, self.num_images)

    @property
    def confidences(self) -> np.ndarray:
        """Mean confidence in each bin, float64 [M]; NaN for a bin without images."""
        return _means(self.confidence_sums, self.num_images)

    @property
    def ece(self) -> float:
        """Expected calibration error: mean of |accuracy - confidence| over the bins, weighted by their images."""
        return float(np.abs(self.num_correct - self.confidence_sums).sum() / self.num_images.sum())

    @property
    def mean_confidence(self) -> float:
        """Mean confidence of all images."""
        return float(self.confidence_sums.sum() / self.num_images.sum())

    def as_rows(self) -> list[dict[str, Any]]:
        """Return the bins that have images, as JSON values."""
        edges = np.arange(len(self.num_images) + 1) / len(self.num_images)
        return [
            {
                "above": float(edges[m]),
                "up_to": float(edges[m + 1]),
                "num_images": int(self.num_images[m]),
                "accuracy": float(self.accuracies[m]),
                "confidence": float(self.confidences[m]),
            }
            for m in np.flatnonzero(self.num_images)
        ]


def measure_calibration(predictions: Predictions, num_bins: int = NUM_BINS) -> Calibration:
    """Sort predictions into `num_bins` bins of equal width by their confidence.

    The sums are exact, because confidences are multiples of 2**-32 (see `Predictions`).
    """
    upper_edges = np.arange(1, num_bins + 1) / num_bins
    bins = np.searchsorted(upper_edges, predictions.confidences, side="left")
    return Calibration(
        num_images=np.bincount(bins, minlength=num_bins),
        num_correct=np.bincount(bins[predictions.is_correct], minlength=num_bins),
        confidence_sums=np.bincount(bins, predictions.confidences, minlength=num_bins),
    )


def _means(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
