"""Five crops of an image, for test-time augmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Optional

import numpy as np
from PIL import Image

from mindcv.data.transform_base import ArrayTransform, Compose, output_array
from mindcv.data.transforms import CenterCrop

__all__ = ["FiveCrop", "five_crop_problem"]

_NUM_CROPS = 5


def five_crop_problem(image_resize: int, crop_pct: float) -> str:
    """Return a sentence if the five crops of an image would be one and the same crop, and "" otherwise."""
    if int(image_resize / crop_pct) > image_resize:
        return ""
    return (
        f"five crops need a resized image that is larger than a crop, and with crop_pct {crop_pct:g} it has the same "
        "size: give a smaller crop_pct, such as --crop_pct 0.875"
    )


class FiveCrop(ArrayTransform):
    """Cut the four corners and the centre out of a Pillow image, and convert each to an array.

    The crops are, in this order: upper left, upper right, lower left, lower right, centre (see `CenterCrop`). Together
    with their mirror images they are the ten crops of Krizhevsky et al. (2012), in the order of torchvision's TenCrop.

    Args:
        size: height and width of a crop, at most those of the image.
        transforms: transforms from a crop to a float32 array [C, size, size].
    """

    def __init__(self, size: int, transforms: Sequence[Callable]):
        self.size = size
        self._centre = CenterCrop(size)
        self._convert = Compose(transforms)

    def __call__(self, image: Image.Image, out: Optional[np.ndarray] = None) -> np.ndarray:
        """Return the crops, float32 [5, C, size, size]."""
        crops = output_array((_NUM_CROPS, len(image.getbands()), self.size, self.size), out)
        for crop, box in zip(crops, self.boxes(*image.size)):
            converted = self._convert(image.crop(box), out=crop)
            if converted is not crop:
                crop[...] = converted
        return crops

    def boxes(self, width: int, height: int) -> list[tuple[int, int, int, int]]:
        """Return (left, top, right, bottom) of each crop in an image of width x height pixels."""
        corners = [(left, top) for top in (0, height - self.size) for left in (0, width - self.size)]
        boxes = [(left, top, left + self.size, top + self.size) for left, top in corners]
        return [*boxes, self._centre.box(width, height)]

    def __repr__(self) -> str:
        return f"FiveCrop({self.size}, {self._convert})"
