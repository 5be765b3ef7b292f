"""Random masks of patches, for masked pre-training. Data-loader processes draw them without MindSpore."""

from __future__ import annotations

from typing import Union

import numpy as np

from mindcv.utils.checks import check_int, check_number
from mindcv.utils.errors import UserError

__all__ = ["mask_ratio_problem", "num_visible_patches", "random_mask"]


def random_mask(
    num_images: int, num_patches: int, mask_ratio: float = 0.6, rng: Union[int, np.random.Generator] = 0
) -> np.ndarray:
    """Draw the patches that are removed: float32 [num_images, num_patches], 1 for a removed patch.

    Each image keeps int(num_patches * (1 - mask_ratio)) patches, those with the smallest of uniform random numbers.

    Args:
        num_images: number of rows.
        num_patches: number of patches of an image.
        mask_ratio: share of the patches to remove, above 0 and below 1.
        rng: a generator, or the seed of a new one.

    Raises:
        UserError: an argument is out of its range, or no patch would be left.
    """
    check_int("num_images", num_images, 1)
    num_visible = num_visible_patches(check_int("num_patches", num_patches, 1), mask_ratio)
    if not isinstance(rng, np.random.Generator):
        rng = np.random.default_rng(check_int("rng", rng, 0))
    order = np.argsort(rng.random((num_images, num_patches)), axis=1, kind="stable")
    mask = np.ones((num_images, num_patches), np.float32)
    np.put_along_axis(mask, order[:, :num_visible], 0.0, axis=1)
    return mask


def num_visible_patches(num_patches: int, mask_ratio: float) -> int:
    """Number of patches of an image that `random_mask` leaves visible, rounded down.

    Raises:
        UserError: the ratio is not above 0 and below 1, or leaves no patch.
    """
    check_number("mask_ratio", mask_ratio, above=0, below=1)
    problem = mask_ratio_problem(mask_ratio, num_patches)
    if problem:
        raise UserError(f"mask_ratio {problem}")
    return int(num_patches * (1 - mask_ratio))


def mask_ratio_problem(mask_ratio: float, num_patches: int) -> str:
    """Return what is wrong with a ratio above 0 and below 1 for images of `num_patches` patches; '' if it is fine."""
    if num_patches == 1:
        return "has no use for images of one patch: give larger images or smaller patches"
    if int(num_patches * (1 - mask_ratio)):
        return ""
    return (
        f"{mask_ratio:g} leaves none of the {num_patches} patches visible: give a smaller mask_ratio, larger images or "
        "smaller patches"
    )
