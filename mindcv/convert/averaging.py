"""The mean of the weights of several checkpoints of one architecture."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Optional, Union

import numpy as np

from mindcv.convert.checkpoint_file import open_checkpoint
from mindcv.convert.digest import digest_of
from mindcv.convert.layouts import rename
from mindcv.convert.load import as_float32
from mindcv.utils.errors import CheckpointError, shorten

__all__ = ["Ingredient", "WeightSum", "check_alike", "file_digest", "read_ingredient"]


@dataclass(frozen=True)
class Ingredient:
    """One of the checkpoints that are averaged.

    Attributes:
        path: path of its file.
        arrays: weights of a classifier under this library's names, float32.
        metadata: metadata of the file.
    """

    path: str
    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]

    def weights_digest(self) -> str:
        """Return a digest that two files share if their weights are equal, whatever else they hold."""
        return digest_of(self.arrays, {})


class WeightSum:
    """The sum of the weights of checkpoints, in float64. The memory does not grow with the number of checkpoints."""

    def __init__(self):
        self.count = 0
        self._sums: dict[str, np.ndarray] = {}

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Add the weights of one checkpoint."""
        for name, array in arrays.items():
            if self.count:
                self._sums[name] += array
            else:
                self._sums[name] = array.astype(np.float64)
        self.count += 1

    def mean(self, candidate: Optional[Mapping[str, np.ndarray]] = None) -> dict[str, np.ndarray]:
        """Return the mean of the weights that were added, and of a candidate that is not added; float32."""
        if candidate is None:
            return {name: (total / self.count).astype(np.float32) for name, total in self._sums.items()}
        if not self.count:
            return dict(candidate)
        means = {name: (total + candidate[name]) / (self.count + 1) for name, total in self._sums.items()}
        return {name: mean.astype(np.float32) for name, mean in means.items()}


def read_ingredient(path: Union[str, os.PathLike], ema: Optional[bool] = None) -> Ingredient:
    """Read a checkpoint of a classifier, of any format and layout.

    Args:
        path: path of its file.
        ema: see `read_checkpoint`.

    Raises:
        CheckpointError: the file cannot be read, does not hold a classifier alone, or a weight is not finite.
    """
    contents = open_checkpoint(path, ema=ema)
    try:
        renamed = rename(contents.arrays)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint '{path}': {error}") from None
    if renamed.unexpected or renamed.left_out or not renamed.num_classes:
        others = shorten(renamed.unexpected) or renamed.parts_left_out()
        found = f"it also holds {others}" if others else "it has no head"
        raise CheckpointError(f"checkpoint '{path}' is not that of a classifier: {found}")
    arrays = {name: as_float32(array) for name, array in renamed.arrays.items()}
    not_finite = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if not_finite:
        raise CheckpointError(f"checkpoint '{path}' holds NaN or infinity, and so would a mean: {shorten(not_finite)}")
    return Ingredient(os.fspath(path), arrays, contents.metadata)


def check_alike(first: Ingredient, other: Ingredient) -> None:
    """Check that two checkpoints belong to the same architecture and the same classes.

    Raises:
        CheckpointError: they do not. The message names both files and the first difference.
    """
    pair = f"checkpoints '{first.path}' and '{other.path}' cannot be averaged"
    models = [each.metadata.get("options", {}).get("model") for each in (first, other)]
    if None not in models and models[0] != models[1]:
        raise CheckpointError(f"{pair}: they are of the models {models[0]} and {models[1]}")
    for name in sorted(first.arrays.keys() | other.arrays.keys()):
        shapes = [list(each.arrays[name].shape) if name in each.arrays else None for each in (first, other)]
        if shapes[0] != shapes[1]:
            found = [f"has the shape {shape}" if shape is not None else "is missing" for shape in shapes]
            raise CheckpointError(f"{pair}: {name} {found[0]} in the first and {found[1]} in the second")
    classes = [each.metadata.get("class_to_idx") for each in (first, other)]
    if None not in classes and classes[0] != classes[1]:
        raise CheckpointError(f"{pair}: their classes have other names or another order")


def file_digest(path: Union[str, os.PathLike]) -> str:
    """Return the SHA-256 digest of the bytes of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
