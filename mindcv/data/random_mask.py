"""Draws the masks of masked pre-training."""

from __future__ import annotations

from typing import Any

import numpy as np

from mindcv.data.transform_base import RandomTransform
from mindcv.utils.patch_masks import random_mask

__all__ = ["RandomMask"]


class RandomMask(RandomTransform):
    """A target transform that draws the mask of a sample in the place of its label.

    Args:
        num_patches: number of patches of an image.
        mask_ratio: share of the patches to remove.
    """

    def __init__(self, num_patches: int, mask_ratio: float):
        self.num_patches = num_patches
        self.mask_ratio = mask_ratio

    def transform(self, label: Any, rng: np.random.Generator) -> np.ndarray:
        """Return the mask, float32 [num_patches]."""
        return random_mask(1, self.num_patches, self.mask_ratio, rng)[0]
