"""Mixup and CutMix, drawn for a whole batch, for each pair of images, or for each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np

from mindcv.data.transform_base import check_range
from mindcv.kernels import images as image_kernels
from mindcv.kernels.library import is_available
from mindcv.utils.checks import check_flags, check_int, check_name, check_number
from mindcv.utils.errors import UserError

__all__ = ["MIXUP_MODES", "UNMIXED", "Mix", "Mixup", "group_size_problem", "one_hot"]

MIXUP_MODES = ("batch", "pair", "elem")


class Mix(NamedTuple):
    """How an image is mixed with its partner.

    Attributes:
        share: weight of the image's own label, and of its own pixels if the images are blended.
        box: (top, bottom, left, right) of the area that is pasted from the partner; None blends the whole images.
    """

    share: np.float32
    box: Optional[tuple[int, int, int, int]] = None

    @property
    def is_mixed(self) -> bool:
        """Whether the partner has a part in the image."""
        return self is not UNMIXED

    @property
    def is_blend(self) -> bool:
        """Whether the image is blended with the whole partner."""
        return self.box is None and self.is_mixed


UNMIXED = Mix(np.float32(1))


class Mixup:
    """Blend each image of a batch with another one, or paste a box of the other one into it, and mix the labels too.

    Image i is paired with image B-1-i of the batch. The middle image of an odd batch is paired with itself. Label
    smoothing is part of the loss and not done here.

    Sources: Zhang et al., arXiv 1710.09412 (mixup); Yun et al., arXiv 1905.04899 (CutMix). The modes and
    `cutmix_minmax` come from timm.

    Args:
        mixup_alpha: alpha of mixup; 0 turns mixup off. The share of an image is drawn from Beta(alpha, alpha).
        cutmix_alpha: alpha of CutMix; 0 turns CutMix off. It is not used if `cutmix_minmax` is given.
        prob: probability of mixing, by mixup or CutMix, for each draw. With 0, only the labels change their form.
        switch_prob: probability of CutMix if both mixup and CutMix are on.
        num_classes: number of columns of the returned labels.
        mode: one draw applies to all images of a batch ('batch'), to each pair of partners ('pair'), or to each image
            ('elem').
        cutmix_minmax: smallest and largest side of a box, as fractions of the image's side. It turns CutMix on with
            boxes whose sides are uniform between the two, and which lie wholly inside the image.
        correct_lam: whether the label of CutMix follows the number of pixels that were pasted. False keeps the share
            that was drawn, even if the border has clipped the box. Boxes of `cutmix_minmax` are always counted.
        off_epoch: first epoch, counted from 0, in which nothing is mixed any more; 0 means never. Labels keep their
            form.

    Raises:
        UserError: an argument is out of range, or both mixup and CutMix are off.
    """

    def __init__(
        self,
        mixup_alpha: float = 0.8,
        cutmix_alpha: float = 0.0,
        prob: float = 1.0,
        switch_prob: float = 0.5,
        num_classes: int = 1000,
        mode: str = "batch",
        cutmix_minmax: Optional[Sequence[float]] = None,
        correct_lam: bool = True,
        off_epoch: int = 0,
    ):
        check_number("mixup_alpha", mixup_alpha)
        check_number("cutmix_alpha", cutmix_alpha)
        check_flags(correct_lam=correct_lam)
        if mixup_alpha < 0 or cutmix_alpha < 0 or (mixup_alpha + cutmix_alpha == 0 and cutmix_minmax is None):
            raise UserError(
                f"mixup and cutmix must be at least 0 and not both 0, got {mixup_alpha:g} and {cutmix_alpha:g}"
            )
        check_number("the probability of mixing (cutmix_prob)", prob, low=0, high=1)
        check_number("the probability of CutMix (switch_prob)", switch_prob, low=0, high=1)
        check_name("mixup mode", mode, MIXUP_MODES)
        check_int("num_classes", num_classes, 1)
        check_int("the epoch in which mixing ends (off_epoch)", off_epoch, 0)
        self.mixup_alpha = mixup_alpha
        self.cutmix_alpha = cutmix_alpha
        self.prob = prob
        self.switch_prob = switch_prob
        self.num_classes = num_classes
        self.mode = mode
        self.cutmix_minmax = None if cutmix_minmax is None else check_range("cutmix_minmax", cutmix_minmax, upper=1.0)
        self.correct_lam = correct_lam
        self.off_epoch = off_epoch

    def __call__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        rng: Optional[np.random.Generator] = None,
        epoch: int = 0,
        in_place: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Mix one batch of any size.

        Args:
            images: images, [B, C, H, W]. They are not changed, unless `in_place`.
            labels: integers [B], or probabilities of the classes [B, num_classes].
            rng: generator of all draws; None uses a new generator without a seed.
            epoch: index of the epoch, which is compared with `off_epoch`.
            in_place: whether to mix float32 images in their own memory. This saves time and the memory of a second
                batch.

        Returns:
            The mixed images, float32 [B, C, H, W], and soft labels, float32 [B, num_classes].

        Raises:
            UserError: the labels are neither class numbers nor probabilities.
        """
        images = np.asarray(images, np.float32)
        mixes, targets = self.plan(labels, images.shape[2:], rng, epoch)
        if any(mix.is_mixed for mix in mixes):
            images = images if in_place else images.copy()
            _mix_pairs(images, mixes)
        return images, targets

    def plan(
        self, labels: np.ndarray, shape: tuple[int, int], rng: Optional[np.random.Generator] = None, epoch: int = 0
    ) -> tuple[list[Mix], np.ndarray]:
        """Return how each image of a batch is to be mixed with its partner, and the mixed labels.

        Args:
            labels, rng, epoch: see `__call__`.
            shape: (height, width) of the images.
        """
        targets = self._targets(np.asarray(labels))
        if self.off_epoch and epoch >= self.off_epoch:
            return [UNMIXED] * len(targets), targets
        mixes = self.draw(len(targets), shape, np.random.default_rng() if rng is None else rng)
        shares = np.array([mix.share for mix in mixes], np.float32)[:, None]
        return mixes, targets * shares + targets[::-1] * (np.float32(1) - shares)

    def _targets(self, labels: np.ndarray) -> np.ndarray:
        if labels.ndim == 2 and labels.shape[1] == self.num_classes:
            return labels.astype(np.float32)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise UserError(
                f"mixup and cutmix need class numbers, or rows of {self.num_classes} probabilities, but the labels "
                f"(after target_transform) are {labels.dtype} of shape {labels.shape}"
            )
        return one_hot(labels, self.num_classes)

    def draw(self, size: int, shape: tuple[int, int], rng: np.random.Generator) -> list[Mix]:
        """Draw how each of `size` images is mixed. `shape` is their (height, width)."""
        if self.mode == "batch":
            return [self._draw_one(shape, rng)] * size
        if self.mode == "elem":
            return [self._draw_one(shape, rng) for _ in range(size)]
        half = [self._draw_one(shape, rng) for _ in range((size + 1) // 2)]
        return half + half[: size // 2][::-1]

    def _draw_one(self, shape: tuple[int, int], rng: np.random.Generator) -> Mix:
        if rng.random() >= self.prob:
            return UNMIXED
        if not self._draws_cutmix(rng):
            return Mix(np.float32(rng.beta(self.mixup_alpha, self.mixup_alpha)))
        if self.cutmix_minmax is None:
            share = rng.beta(self.cutmix_alpha, self.cutmix_alpha)
            spans = [_clipped_span(length, np.sqrt(1 - share), rng) for length in shape]
        else:
            spans = [_inner_span(length, self.cutmix_minmax, rng) for length in shape]
        (top, bottom), (left, right) = spans
        if self.correct_lam or self.cutmix_minmax is not None:
            share = 1 - (bottom - top) * (right - left) / (shape[0] * shape[1])
        return Mix(np.float32(share), (top, bottom, left, right))

    def _draws_cutmix(self, rng: np.random.Generator) -> bool:
        has_cutmix = self.cutmix_alpha > 0 or self.cutmix_minmax is not None
        if self.mixup_alpha > 0 and has_cutmix:
            return rng.random() < self.switch_prob
        return has_cutmix

    def __repr__(self) -> str:
        return (
            f"Mixup(mixup_alpha={self.mixup_alpha}, cutmix_alpha={self.cutmix_alpha}, prob={self.prob}, "
            f"switch_prob={self.switch_prob}, num_classes={self.num_classes}, mode={self.mode!r}, "
            f"cutmix_minmax={self.cutmix_minmax}, correct_lam={self.correct_lam}, off_epoch={self.off_epoch})"
        )


def group_size_problem(group_size: int, batch_size: int) -> str:
    """Return what is wrong with the number of images that are mixed with each other; '' if it divides a batch."""
    if batch_size % group_size == 0:
        return ""
    return f"must divide batch_size, which is {batch_size}, got {group_size}: images are mixed within one batch only"


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the labels as one-hot rows, float32 [B, num_classes]."""
    targets = np.zeros((len(labels), num_classes), np.float32)
    targets[np.arange(len(labels)), labels] = 1
    return targets


def _mix_pairs(images: np.ndarray, mixes: Sequence[Mix]) -> None:
    """Mix each image with its partner in place, one pair after the other."""
    has_kernel = is_available() and images.flags.c_contiguous
    for first in range((len(images) + 1) // 2):
        second = len(images) - 1 - first
        if has_kernel and mixes[first].is_blend and mixes[second].is_blend:
            image_kernels.mix(images[first], images[second], mixes[first].share, mixes[second].share)
            continue
        original = images[first].copy()
        _mix_one(images[first], images[second] if second != first else original, mixes[first])
        if second != first:
            _mix_one(images[second], original, mixes[second])


def _mix_one(image: np.ndarray, partner: np.ndarray, mix: Mix) -> None:
    if mix.box is not None:
        top, bottom, left, right = mix.box
        image[:, top:bottom, left:right] = partner[:, top:bottom, left:right]
    elif mix.is_blend:
        image *= mix.share
        image += partner * (np.float32(1) - mix.share)


def _clipped_span(length: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    """Draw a span of `share` of the length with a uniform centre. The border clips it."""
    half = int(length * share) // 2
    centre = int(rng.integers(length))
    return max(centre - half, 0), min(centre + half, length)


def _inner_span(length: int, limits: tuple[float, float], rng: np.random.Generator) -> tuple[int, int]:
    """Draw a span inside the length, in whole pixels. Its size is a fraction of the length between the `limits`."""
    span = int(rng.integers(round(length * limits[0]), round(length * limits[1]) + 1))
    start = int(rng.integers(length - span + 1))
    return start, start + span
