"""Augmentation splits: a clean version of each image and others augmented each in its own way, for the loss JSD."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional

import numpy as np

from mindcv.data.transform_base import Compose
from mindcv.utils.random import stream

__all__ = ["SplitTransforms", "Splitter"]


class SplitTransforms(NamedTuple):
    """Transforms of an image that is wanted in several versions.

    Attributes:
        shared: done once, so that the versions show the same crop of the image.
        clean: done after that for the first version.
        augmented: done after `shared` for each other version, with random numbers of its own.
    """

    shared: list[Callable]
    clean: list[Callable]
    augmented: list[Callable]


class Splitter:
    """Makes `num_splits` versions of one image.

    Source: Hendrycks et al., arXiv 1912.02781, section 3 (the versions that the consistency loss compares).
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
        """The versions, the clean one first.

        Args:
            encoded: the contents of an image file, or an array.
            rng: for what all versions share, and for the clean one.
            key: of the sample's random stream; the number of a version after it makes that version's own.
            outs: one `out` a version, see `ArrayTransform`; None: none.
        """
        outs = [None] * self.num_splits if outs is None else outs
        image = self._shared(encoded, rng)
        versions = [self._clean(image, rng, outs[0])]
        for split in range(1, self.num_splits):
            versions.append(self._augmented(image, stream(*key, split), outs[split]))
        return versions
