"""Random erasing: overwrites rectangles of the normalised image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Optional, Union

import numpy as np

from mindcv.data.transform_base import RandomArrayTransform, check_range, output_array
from mindcv.utils.checks import check_int, check_number
from mindcv.utils.errors import UserError

__all__ = ["NOISES", "RandomErasing"]

NOISES = ("random", "pixel", "rand")


class RandomErasing(RandomArrayTransform):
    """Overwrite rectangles of a normalised image, float32 [C, H, W], with probability `prob`. Use it after `Normalize`.

    Sources: Zhong et al., arXiv 1708.04896. Noise and several rectangles come from timm.

    Args:
        prob: probability that an image is changed.
        scale: smallest and largest erased area, as a fraction of the image's area. With n rectangles, each has 1/n of
            the fraction that is drawn for it. Rectangles may overlap.
        ratio: smallest and largest height / width of a rectangle. The logarithm is drawn uniformly.
        value: new value in units of the normalised image (0 is the mean colour): a number, or a list with one number
            for each channel (timm's mode const). 'pixel' and 'random' give standard normal noise for each pixel and
            channel. 'rand' gives one standard normal colour for each rectangle.
        max_attempts: number of draws for a rectangle. If none fits into the image, the rectangle is left out.
        count: largest number of rectangles. The number is drawn uniformly from 1 to this.

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
        count: int = 1,
    ):
        self.prob = check_number("prob of random erasing", prob, low=0, high=1)
        self.scale = check_range("scale of random erasing", scale, upper=1.0)
        self.ratio = check_range("ratio of random erasing", ratio)
        if isinstance(value, str) and value not in NOISES:
            raise UserError(
                "value of random erasing must be a number, a list of numbers, 'pixel' (or 'random') or 'rand', "
                f"got '{value}'"
            )
        for name, number in (("max_attempts", max_attempts), ("count", count)):
            check_int(f"{name} of random erasing", number, 1)
        self.value = value
        self.max_attempts = max_attempts
        self.count = count

    def transform(self, image: np.ndarray, rng: np.random.Generator, out: Optional[np.ndarray] = None) -> np.ndarray:
        """See `RandomArrayTransform`. The image is float32 [C, H, W] and is not changed, unless it is `out`."""
        self._check(len(image))
        return image if self.is_left_out(rng) else self.erase(image, rng, out)

    def is_left_out(self, rng: np.random.Generator) -> bool:
        """Draw whether the image stays as it is."""
        return rng.random() >= self.prob

    def erase(self, image: np.ndarray, rng: np.random.Generator, out: Optional[np.ndarray] = None) -> np.ndarray:
        """Erase rectangles of the image. The arguments are those of `transform`."""
        channels, height, width = image.shape
        self._check(channels)
        number = int(rng.integers(1, self.count + 1)) if self.count > 1 else 1
        erased = output_array(image.shape, out)
        if erased is not image:
            erased[...] = image
        for _ in range(number):
            box = self._draw_box(height, width, number, rng)
            if box is not None:
                top, left, rows, columns = box
                erased[:, top : top + rows, left : left + columns] = self._fill((channels, rows, columns), rng)
        return erased

    def _check(self, channels: int) -> None:
        if not isinstance(self.value, str) and np.ndim(self.value) and len(self.value) != channels:
            raise UserError(
                f"value of random erasing has {len(self.value)} numbers, but the image has {channels} channels"
            )

    def _draw_box(
        self, height: int, width: int, number: int, rng: np.random.Generator
    ) -> Optional[tuple[int, int, int, int]]:
        """Draw (top, left, rows, columns) of one of `number` rectangles. Return None if no draw fits."""
        for _ in range(self.max_attempts):
            area = height * width * rng.uniform(*self.scale) / number
            aspect = math.exp(rng.uniform(*np.log(self.ratio)))
            rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < rows < height and 0 < columns < width:
                return int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1)), rows, columns
        return None

    def _fill(self, shape: tuple[int, int, int], rng: np.random.Generator) -> np.ndarray:
        if isinstance(self.value, str):
            return rng.standard_normal((shape[0], 1, 1) if self.value == "rand" else shape, np.float32)
        return np.asarray(self.value, np.float32).reshape(-1, 1, 1)

    def __repr__(self) -> str:
        return (
            f"RandomErasing(prob={self.prob}, scale={self.scale}, ratio={self.ratio}, value={self.value!r}, "
            f"max_attempts={self.max_attempts}, count={self.count})"
        )
