"""The handwritten digits of scikit-learn: 1797 grey images of 8x8 pixels, for demonstrations and tests."""

from __future__ import annotations

import numpy as np

from mindcv.data.dataset import ArrayImages
from mindcv.utils.checks import check_name
from mindcv.utils.extras import import_extra

__all__ = ["read_digits"]


def read_digits(split: str) -> ArrayImages:
    """Return the digits of one split, with pixel values scaled from the package's 0..16 to 0..255.

    The split is fixed. The 359 samples whose index leaves the remainder 4 when divided by 5 are held out; both 'val'
    and 'test' select them. The other 1438 are 'train'. Messages number the samples as the package does.

    Raises:
        UserError: the split is unknown, or scikit-learn is not installed.
    """
    check_name("split of digits", split, ("train", "val", "test"))
    need = "data set 'digits' is part of scikit-learn, which is not installed"
    digits = import_extra("sklearn.datasets", "demo", need).load_digits()
    is_held_out = np.arange(len(digits.target)) % 5 == 4
    numbers = np.flatnonzero(~is_held_out if split == "train" else is_held_out)
    images = np.rint(digits.images[numbers] * (255 / 16)).astype(np.uint8)
    return ArrayImages("digits", images, digits.target[numbers], [str(name) for name in digits.target_names], numbers)
