"""Mixup and CutMix of whole batches."""

from __future__ import annotations

from typing import Optional

import numpy as np

from mindcv.utils.errors import UserError, unknown_name

__all__ = ["Mixup"]


class Mixup:
    """Blend each image of a batch with another, or paste a box of the other into it, and mix the labels alike.

    Image i is paired with image B-1-i of the batch; the middle one of an odd batch is paired with itself. One ratio
    lambda, drawn from Beta(alpha, alpha), serves the whole batch. Label smoothing is the loss's business.

    Sources: Zhang et al., arXiv 1710.09412 (mixup); Yun et al., arXiv 1905.04899 (CutMix).

    Args:
        mixup_alpha: alpha of mixup, 0 for none.
        cutmix_alpha: alpha of CutMix, 0 for none.
        prob: probability that a batch is mixed at all, in either way.
        switch_prob: when both alphas are positive, probability that a mixed batch gets CutMix.
        num_classes: width of the labels returned.
        mode: 'batch' alone: one ratio a batch.

    Raises:
        UserError: an argument is out of range, or the arguments ask for mixing that can never happen.
    """

    def __init__(
        self,
        mixup_alpha: float = 0.8,
        cutmix_alpha: float = 0.0,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        num_classes: int = 1000,
        mode: str = "batch",
    ):
        if mixup_alpha < 0 or cutmix_alpha < 0 or mixup_alpha + cutmix_alpha == 0:
            raise UserError(
                f"mixup and cutmix must not be negative, nor both 0, got {mixup_alpha:g} and {cutmix_alpha:g}"
            )
        if not 0 < prob <= 1:
            raise UserError(f"the probability of mixing (cutmix_prob) must be above 0 and at most 1, got {prob:g}")
        if not 0 <= switch_prob <= 1:
            raise UserError(f"switch_prob must be within 0..1, got {switch_prob:g}")
        if mode != "batch":
            raise UserError(unknown_name("mixup mode", mode, ["batch"]))
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha
        self.prob = prob
        self.switch_prob = switch_prob
        self.num_classes = num_classes

    def __call__(
        self, images: np.ndarray, labels: np.ndarray, rng: Optional[np.random.Generator] = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mix one batch of any size; the arguments are left as they are.

        Args:
            images: (B, C, H, W).
            labels: (B,) integers.
            rng: where all draws come from; None makes a fresh, unseeded one.

        Returns:
            The mixed images, float32 (B, C, H, W), and soft labels, float32 (B, num_classes).
        """
        rng = rng or np.random.default_rng()
        images = np.asarray(images, np.float32)
        targets = one_hot(labels, self.num_classes)
        if rng.random() >= self.prob:
            return images, targets
        if self._draws_cutmix(rng):
            images, ratio = _cutmix(images, rng.beta(self.cutmix_alpha, self.cutmix_alpha), rng)
        else:
            ratio = np.float32(rng.beta(self.mixup_alpha, self.mixup_alpha))
            images = _blend(images, ratio)
        return images, _blend(targets, ratio)

    def _draws_cutmix(self, rng: np.random.Generator) -> bool:
        if self.mixup_alpha > 0 and self.cutmix_alpha > 0:
            return rng.random() < self.switch_prob
        return self.cutmix_alpha > 0

    def __repr__(self) -> str:
        return (
            f"Mixup(mixup_alpha={self.mixup_alpha}, cutmix_alpha={self.cutmix_alpha}, prob={self.prob}, "
            f"switch_prob={self.switch_prob}, num_classes={self.num_classes})"
        )


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """float32 (B, num_classes) with a 1 at each label."""
    targets = np.zeros((len(labels), num_classes), np.float32)
    targets[np.arange(len(labels)), labels] = 1
    return targets


def _blend(values: np.ndarray, ratio: np.float32) -> np.ndarray:
    return values * ratio + values[::-1] * (np.float32(1) - ratio)


def _cutmix(images: np.ndarray, ratio: float, rng: np.random.Generator) -> tuple[np.ndarray, np.float32]:
    """The images with a box of their partners, and the share of each that is its own.

    The box has sides sqrt(1 - ratio) of the image's and its centre anywhere, so that it may be clipped at the border:
    the share is counted from the box that remains.
    """
    height, width = images.shape[2:]
    top, bottom = _span(height, np.sqrt(1 - ratio), rng)
    left, right = _span(width, np.sqrt(1 - ratio), rng)
    mixed = images.copy()
    mixed[:, :, top:bottom, left:right] = images[::-1, :, top:bottom, left:right]
    return mixed, np.float32(1 - (bottom - top) * (right - left) / (height * width))


def _span(length: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    half = int(length * share) // 2
    centre = int(rng.integers(length))
    return max(centre - half, 0), min(centre + half, length)
