"""Mixup and CutMix of whole batches, of pairs, or of each image for itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Optional

import numpy as np

from mindcv.data.transform_base import check_probability, check_range
from mindcv.kernels import images as image_kernels
from mindcv.kernels import is_available
from mindcv.utils.checks import check_flags, check_int, check_name, check_number
from mindcv.utils.errors import UserError

__all__ = ["MIXUP_MODES", "Mix", "Mixup", "one_hot"]

MIXUP_MODES = ("batch", "pair", "elem")


class Mix(NamedTuple):
    """How an image is mixed with its partner.

    Attributes:
        share: weight of the image's own label, and of its own pixels where they are blended.
        box: (top, bottom, left, right) of what is pasted from the partner; None blends all of it.
    """

    share: np.float32
    box: Optional[tuple[int, int, int, int]] = None

    @property
    def is_blend(self) -> bool:
        """Whether all of the partner is blended in."""
        return self.box is None and self is not _UNMIXED


_UNMIXED = Mix(np.float32(1))


class Mixup:
    """Blend each image of a batch with another, or paste a box of the other into it, and mix the labels alike.

    Image i is paired with image B-1-i of the batch; the middle one of an odd batch is paired with itself. Label
    smoothing is the loss's business.

    Sources: Zhang et al., arXiv 1710.09412 (mixup); Yun et al., arXiv 1905.04899 (CutMix); the modes and
    `cutmix_minmax` are timm's.

    Args:
        mixup_alpha: alpha of mixup, 0 for none: an image's own share is drawn from Beta(alpha, alpha).
        cutmix_alpha: alpha of CutMix, 0 for none; not used when `cutmix_minmax` is given.
        prob: probability of mixing, in either way, of what `mode` says. With 0, labels alone change their form.
        switch_prob: when there are both mixup and CutMix, probability of CutMix.
        num_classes: width of the labels returned.
        mode: what is drawn for: 'batch', all images together; 'pair', each pair of partners; 'elem', each image.
        cutmix_minmax: turns CutMix on with boxes of another kind: both sides uniform within these two shares of the
            image's, and wholly inside it.
        correct_lam: CutMix's label follows the pixels that were pasted. False keeps the share drawn, although the
            border may have clipped the box; boxes of `cutmix_minmax` are always counted.
        off_epoch: epoch, from 0, from which on nothing is mixed any more; 0 for never. Labels keep their form.

    Raises:
        UserError: an argument is out of range, or there is no alpha to mix with.
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
                f"mixup and cutmix must not be negative, nor both 0, got {mixup_alpha:g} and {cutmix_alpha:g}"
            )
        check_probability("the probability of mixing (cutmix_prob)", prob)
        check_probability("the probability of CutMix (switch_prob)", switch_prob)
        check_name("mixup mode", mode, MIXUP_MODES)
        check_int("num_classes", num_classes, 1)
        check_int("the epoch that mixing ends at (off_epoch)", off_epoch, 0)
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
            images: (B, C, H, W); left as they are, unless `in_place`.
            labels: (B,) integers, or already (B, num_classes) shares of the classes.
            rng: where all draws come from; None makes a fresh, unseeded one.
            epoch: compared with `off_epoch`.
            in_place: float32 images are mixed where they are, which saves time and the memory of a second batch.

        Returns:
            The mixed images, float32 (B, C, H, W), and soft labels, float32 (B, num_classes).

        Raises:
            UserError: the labels have neither form.
        """
        images = np.asarray(images, np.float32)
        targets = self._targets(np.asarray(labels))
        if self.off_epoch and epoch >= self.off_epoch:
            return images, targets
        mixes = self.draw(len(images), images.shape[2:], np.random.default_rng() if rng is None else rng)
        shares = np.array([mix.share for mix in mixes], np.float32)[:, None]
        if any(mix is not _UNMIXED for mix in mixes):
            images = images if in_place else images.copy()
            _mix_pairs(images, mixes)
        return images, targets * shares + targets[::-1] * (np.float32(1) - shares)

    def _targets(self, labels: np.ndarray) -> np.ndarray:
        if labels.ndim == 2 and labels.shape[1] == self.num_classes:
            return labels.astype(np.float32)
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise UserError(
                f"mixup and cutmix take class numbers, or rows of {self.num_classes} shares, but the labels (of "
                f"target_transform) are {labels.dtype} of shape {labels.shape}"
            )
        return one_hot(labels, self.num_classes)

    def draw(self, size: int, shape: tuple[int, int], rng: np.random.Generator) -> list[Mix]:
        """How each of `size` images of height and width `shape` is to be mixed."""
        if self.mode == "batch":
            return [self._draw_one(shape, rng)] * size
        if self.mode == "elem":
            return [self._draw_one(shape, rng) for _ in range(size)]
        half = [self._draw_one(shape, rng) for _ in range((size + 1) // 2)]
        return half + half[: size // 2][::-1]

    def _draw_one(self, shape: tuple[int, int], rng: np.random.Generator) -> Mix:
        if rng.random() >= self.prob:
            return _UNMIXED
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


def one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """float32 (B, num_classes) with a 1 at each label."""
    targets = np.zeros((len(labels), num_classes), np.float32)
    targets[np.arange(len(labels)), labels] = 1
    return targets


def _mix_pairs(images: np.ndarray, mixes: Sequence[Mix]) -> None:
    """Mix each image with its partner, in place, pair by pair."""
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
    """A span of `share` of the length with its centre anywhere, cut off at the border."""
    half = int(length * share) // 2
    centre = int(rng.integers(length))
    return max(centre - half, 0), min(centre + half, length)


def _inner_span(length: int, limits: tuple[float, float], rng: np.random.Generator) -> tuple[int, int]:
    """A span of between `limits` of the length, in whole pixels, anywhere inside."""
    span = int(rng.integers(round(length * limits[0]), round(length * limits[1]) + 1))
    start = int(rng.integers(length - span + 1))
    return start, start + span
