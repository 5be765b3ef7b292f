"""Augmentation splits: a clean version and several augmented versions of each image, for the JSD loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np

from mindcv.data.transform_base import Compose
from mindcv.utils.random import stream

__all__ = ["SplitTransforms", "Splitter"]


class SplitTransforms(NamedTuple):
    """Transforms that make several versions of an image.

    Attributes:
        shared: transforms that run once, so all versions show the same crop of the image.
        clean: transforms of the first version, after `shared`.
        augmented: transforms of each other version, after `shared`. Each version has its own random numbers.
    """

    shared: list[Callable]
    clean: list[Callable]
    augmented: list[Callable]


class Splitter:
    """Makes `num_splits` versions of one image.

    Source: Hendrycks et al., arXiv 1912.02781, section 3. The consistency loss compares these versions.
    """

    def __init__(self, transforms: SplitTransforms, num_splits: int):
        self.num_splits = num_splits
        self._shared, self._clean, self._augmented = (Compose(part) for part in transforms)

    def __call__(
        self,
        encoded: Any,
        rng: np.random.Generator,
        key: tuple[int, ...],
        outs: Optional[Sequence[Optional[np.ndarray]]] = None,
    ) -> list[np.ndarray]:
        """Return the versions of an image. The clean version is the first.

        Args:
            encoded: contents of an image file, or an array.
            rng: generator for the shared transforms and for the clean version.
            key: key of the sample's random stream. Each augmented version appends its number for a stream of its own.
            outs: argument `out` for each version (see `ArrayTransform`), or None.
        """
        outs = [None] * self.num_splits if outs is None else outs
        image = self._shared(encoded, rng)
        versions = [self._clean(image, rng, outs[0])]
        for split in range(1, self.num_splits):
            versions.append(self._augmented(image, stream(*key, split), outs[split]))
        return versions
