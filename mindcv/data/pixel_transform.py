"""Transforms whose last part, the normalisation, is left to the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy as np

from mindcv.data.pixels import to_bytes
from mindcv.data.random_erasing import RandomErasing
from mindcv.data.transform_base import Compose
from mindcv.data.transforms import Normalize, ToArray

__all__ = ["PixelTransform"]


class PixelTransform:
    """Runs transforms up to the pixels of the image, which are not normalised yet.

    Random erasing writes values that no pixel has. So an image that it changes is returned in a second version, which
    is normalised and erased. The random numbers are those of the whole pipeline.

    Args:
        transforms: transforms of one image that end with `ToArray`, `Normalize` and, optionally, `RandomErasing`.

    Raises:
        ValueError: the transforms end in another way (see `is_possible`).
    """

    def __init__(self, transforms: Sequence[Callable]):
        if not self.is_possible(transforms):
            raise ValueError("the transforms must end with ToArray, Normalize and, optionally, RandomErasing")
        end = _end(transforms)
        self._before = Compose(transforms[: -len(end)])
        self.normalize: Normalize = end[1]
        self._erasing: Optional[RandomErasing] = end[2] if len(end) > 2 else None

    @staticmethod
    def is_possible(transforms: Any) -> bool:
        """Return whether the end of the transforms is known."""
        if not isinstance(transforms, (list, tuple)):
            return False
        return [type(transform) for transform in _end(transforms)][:2] == [ToArray, Normalize]

    def __call__(
        self, encoded: Any, rng: np.random.Generator, outs: Optional[Sequence[Optional[np.ndarray]]] = None
    ) -> list[np.ndarray]:
        """Return the pixels, uint8 [C, H, W], and also the finished image, float32 [C, H, W], if it was erased.

        Args:
            encoded: contents of an image file, or an array.
            rng: generator of all draws.
            outs: a list with an array that the pixels are written to if its shape fits, or with None.
        """
        image = self._before(encoded, rng)
        pixels = to_bytes(image, outs[0] if outs else None)
        self.normalize.check_channels(len(pixels))
        if self._erasing is None or self._erasing.is_left_out(rng):
            return [pixels]
        finished = self.normalize.of_image(image, None)
        return [pixels, self._erasing.erase(finished, rng, finished)]


def _end(transforms: Sequence[Callable]) -> Sequence[Callable]:
    has_erasing = len(transforms) > 0 and type(transforms[-1]) is RandomErasing
    return transforms[-3:] if has_erasing else transforms[-2:]
