"""Embedding of features in the plane by principal component analysis (PCA)."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Union

import numpy as np

from mindcv.engine.features import FeatureRows
from mindcv.utils.files import atomic_write_text

__all__ = ["Embedding", "embed", "write_embeddings"]


@dataclass(frozen=True)
class Embedding:
    """The first two principal components of features.

    Attributes:
        name: name of the weights.
        points: float64 [N, 2].
        shares: share of the variance that each of the two components has.
    """

    name: str
    points: np.ndarray
    shares: tuple[float, float]


def embed(features: FeatureRows, name: str) -> Embedding:
    """Project features [N, D] on their first two principal components, in float64.

    Only a block of features and a matrix [D, D] are in memory. The sign of a component is arbitrary. It is chosen so
    that the largest of its D weights by absolute value is positive.

    Args:
        features: features with at least two values each.
        name: name of the weights.
    """
    num_rows, num_features = features.shape
    mean = sum((block.sum(0, dtype=np.float64) for block in features.blocks()), np.zeros(num_features)) / num_rows
    scatter = np.zeros((num_features, num_features))
    for block in features.blocks():
        centred = block - mean
        scatter += centred.T @ centred
    variances, directions = np.linalg.eigh(scatter)  # in ascending order
    main = directions[:, :-3:-1]
    main = main * np.sign(main[np.abs(main).argmax(0), [0, 1]])
    points = np.concatenate([(block - mean) @ main for block in features.blocks()])
    total = max(float(np.trace(scatter)), np.finfo(np.float64).tiny)
    first, second = (max(float(variance), 0.0) / total for variance in variances[:-3:-1])
    return Embedding(name, points, (first, second))


def write_embeddings(
    embeddings: Sequence[Embedding],
    files: Sequence[str],
    labels: Sequence[int],
    class_names: Sequence[str],
    path: Union[str, os.PathLike],
) -> None:
    """Write a CSV file with a row for each image and each network.

    Args:
        embeddings: one or more embeddings of the same N images.
        files: name of each image.
        labels: label of each image; -1 for none.
        class_names: names of the classes by label.
        path: file to write.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("weights", "image", "class", "component_1", "component_2"))
    for embedding in embeddings:
        for file, label, point in zip(files, labels, embedding.points):
            name = class_names[label] if label >= 0 else ""
            writer.writerow((embedding.name, file, name, *(f"{value:.6g}" for value in point)))
    atomic_write_text(path, text.getvalue())
