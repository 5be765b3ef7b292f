"""Random erasing of a rectangle of the normalised image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Union

import numpy as np

from mindcv.data.transforms import RandomTransform, check_probability, check_range
from mindcv.utils.errors import UserError

__all__ = ["RandomErasing"]


class RandomErasing(RandomTransform):
    """With probability `prob`, overwrite one rectangle of a float32 (C, H, W) image, after `Normalize`.

    Source: Zhong et al., arXiv 1708.04896; 'random' is what timm calls pixel mode.

    Args:
        prob: probability that an image is erased.
        scale: least and greatest share of the image's area to erase.
        ratio: least and greatest height / width of the rectangle; its logarithm is drawn uniformly.
        value: in units of the normalised image (0 is the mean colour): a number, a list of one a channel, or
            'random': standard normal noise, drawn for each pixel and channel.
        max_attempts: how often to draw a rectangle when it does not fit into the image; then it stays whole.

    Raises:
        UserError: an argument is out of its range.
    """

    def __init__(
        self,
        prob: float = 0.5,
        scale: Sequence[float] = (0.02, 0.33),
        ratio: Sequence[float] = (0.3, 3.3),
        value: Union[float, Sequence[float], str] = 0,
        max_attempts: int = 10,
    ):
        self.prob = check_probability("prob of random erasing", prob)
        self.scale = check_range("scale of random erasing", scale, upper=1.0)
        self.ratio = check_range("ratio of random erasing", ratio)
        if isinstance(value, str) and value != "random":
            raise UserError(f"value of random erasing must be a number, a list of numbers or 'random', got '{value}'")
        if max_attempts < 1:
            raise UserError(f"max_attempts of random erasing must be at least 1, got {max_attempts}")
        self.value = value
        self.max_attempts = max_attempts

    def transform(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """See `RandomTransform`; image: float32 (C, H, W), left as it is."""
        channels, height, width = image.shape
        if not isinstance(self.value, str) and np.ndim(self.value) and len(self.value) != channels:
            raise UserError(f"value of random erasing has {len(self.value)} numbers for {channels} channels")
        if rng.random() >= self.prob:
            return image
        for _ in range(self.max_attempts):
            area = height * width * rng.uniform(*self.scale)
            aspect = math.exp(rng.uniform(*np.log(self.ratio)))
            rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < rows < height and 0 < columns < width:
                top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
                erased = image.copy()
                erased[:, top : top + rows, left : left + columns] = self._fill((channels, rows, columns), rng)
                return erased
        return image

    def _fill(self, shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
        if isinstance(self.value, str):
            return rng.standard_normal(shape, np.float32)
        return np.asarray(self.value, np.float32).reshape(-1, 1, 1)

    def __repr__(self) -> str:
        return (
            f"RandomErasing(prob={self.prob}, scale={self.scale}, ratio={self.ratio}, value={self.value!r}, "
            f"max_attempts={self.max_attempts})"
        )
