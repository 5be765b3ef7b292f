"""Automatic augmentation: RandAugment, AutoAugment, TrivialAugment, AugMix, and the policy strings that name them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np
from PIL import Image

from mindcv.data.augment_ops import MAX_LEVEL, Canvas, make_ops, make_paper_ops, make_wide_ops
from mindcv.data.augment_policies import POLICIES
from mindcv.data.constants import IMAGENET_DEFAULT_MEAN
from mindcv.data.policy_strings import parse_policy, policy_name
from mindcv.data.transform_base import RandomTransform, check_probability
from mindcv.data.transforms import pillow_filter
from mindcv.utils.errors import UserError, unknown_name

__all__ = [
    "AugMix",
    "AugMixPolicy",
    "AutoAugment",
    "RandAugment",
    "RandAugmentPolicy",
    "TrivialAugmentWide",
    "create_auto_augment",
    "parse_rand_augment",
]

_RAND_NAMES = ("randaug", "rand")
_RAND_FIELDS = {
    "m": ("magnitude", float),
    "n": ("num_ops", int),
    "w": ("weights", int),
    "mstd": ("magnitude_std", float),
    "mmax": ("magnitude_max", float),
    "inc": ("increasing", int),
    "p": ("prob", float),
}
_AUTO_FIELDS = {"mstd": ("magnitude_std", float)}
_WIDE_NAME = "trivialaugwide"
_AUGMIX_NAME = "augmix"
_AUGMIX_FIELDS = {
    "m": ("magnitude", float),
    "w": ("width", int),
    "d": ("depth", int),
    "a": ("alpha", float),
    "b": ("blended", int),
    "mstd": ("magnitude_std", float),
}
# A standard deviation of this and more asks for uniform magnitudes instead.
_UNIFORM_STD = 100.0


@dataclass(frozen=True)
class RandAugmentPolicy:
    """What a policy string says. The letters in brackets are its fields.

    Attributes:
        magnitude [m]: strength of the operations, 0..10.
        num_ops [n]: how many operations an image gets.
        weights [w]: None chooses all operations equally often, with replacement. 0 chooses by a table, without
            replacement: rotation 0.3, shears 0.2 each, translations 0.1 each, Color, Sharpness and AutoContrast 0.025
            each, Contrast, Brightness, Equalize, Solarize and SolarizeAdd 0.005 each, Invert and Posterize never.
        magnitude_std [mstd]: standard deviation of the noise added to the magnitude for each operation; 0 adds none,
            and 100 or more draws the magnitude uniformly from 0 to `magnitude` instead.
        magnitude_max [mmax]: the magnitude is kept within 0..magnitude_max after that.
        increasing [inc]: 1 lets Color, Contrast, Brightness and Sharpness move away from the original by a factor of
            1 - x or 1 + x, with x from 0 (magnitude 0) to 0.9 (magnitude 10). 0 is the first papers' scale, a factor
            from 0.1 (magnitude 0, nearly grey, flat, black or blurred) over 1 (magnitude 5, unchanged) to 1.9, so that
            magnitude 0 is not weak. For Posterize and Solarize greater is stronger either way, unlike in timm, where
            0 turns them around, and in MindCV, where Posterize always runs backwards.
        prob [p]: probability that a chosen operation is applied.
    """

    magnitude: float = MAX_LEVEL
    num_ops: int = 2
    weights: Optional[int] = None
    magnitude_std: float = 0.0
    magnitude_max: float = MAX_LEVEL
    increasing: int = 0
    prob: float = 0.5

    def __post_init__(self):
        if not 0 <= self.magnitude <= MAX_LEVEL or not 0 < self.magnitude_max <= MAX_LEVEL:
            raise UserError(f"RandAugment's m must be within 0..10 and mmax above 0 and up to 10, got {self}")
        _check_std("RandAugment", self.magnitude_std)
        if self.num_ops < 1:
            raise UserError(f"RandAugment's n must be at least 1, got {self.num_ops}")
        if self.weights not in (None, 0):
            raise UserError(f"RandAugment's w must be 0, the one table of weights there is, got {self.weights}")
        if self.weights == 0 and self.num_ops > 13:
            raise UserError(f"RandAugment's n can be 13 at most with w0, which has no more operations: {self.num_ops}")
        if self.increasing not in (0, 1):
            raise UserError(f"RandAugment's inc must be 0 or 1, got {self.increasing}")
        check_probability("RandAugment's p", self.prob)


def parse_rand_augment(text: str) -> RandAugmentPolicy:
    """Read a policy such as 'randaug-m9-n2-w0-mstd0.5-mmax10-inc1' (MindCV) or 'rand-m9-mstd0.5-inc1' (timm).

    Raises:
        UserError: the name or a field is unknown, comes twice, or has a malformed or impossible number.
    """
    return RandAugmentPolicy(**parse_policy(text, _RAND_NAMES, _RAND_FIELDS))


class _OnCanvas(RandomTransform):
    """Base of the transforms below.

    Args:
        mean: colour, in 0..255, of what rotation, shear and translation bring in; rounded.
        interpolation: 'nearest', 'bilinear' or 'bicubic' for those three. Pillow's geometric transforms have no
            others, so any other known name stands for 'bicubic' here.
    """

    def __init__(self, mean: Sequence[float] = tuple(IMAGENET_DEFAULT_MEAN), interpolation: str = "bilinear"):
        fill = tuple(round(x) for x in mean)
        resample = pillow_filter(interpolation)
        if interpolation not in ("nearest", "bilinear", "bicubic"):
            resample = Image.Resampling.BICUBIC
        self.canvas = Canvas(fill if len(fill) > 1 else fill[0], resample)

    def _shown_canvas(self) -> str:
        return f"fill={self.canvas.fill}, {self.canvas.resample.name.lower()}"


class RandAugment(_OnCanvas):
    """Apply `num_ops` randomly chosen operations, each with probability `prob`, to a Pillow image ('RGB' or 'L').

    Sources: Cubuk et al., arXiv 1909.13719; the probability and the noise on the magnitude are timm's.

    Args:
        policy: which operations, how many and how strong.
        mean, interpolation: what comes in from outside the image, and how it is turned; see `_OnCanvas`.
    """

    def __init__(
        self,
        policy: RandAugmentPolicy,
        mean: Sequence[float] = tuple(IMAGENET_DEFAULT_MEAN),
        interpolation: str = "bilinear",
    ):
        super().__init__(mean, interpolation)
        self.policy = policy
        self._ops = make_ops(increasing=bool(policy.increasing))
        self._weights = None if policy.weights is None else np.array([op.weight for op in self._ops])
        if self._weights is not None:
            self._weights /= self._weights.sum()

    def transform(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """See `RandomTransform`."""
        for place in self._choose(rng):
            if rng.random() < self.policy.prob:
                image = self._ops[place](image, self._draw_magnitude(rng), self.canvas, rng)
        return image

    def _choose(self, rng: np.random.Generator) -> np.ndarray:
        if self._weights is None:
            return rng.integers(len(self._ops), size=self.policy.num_ops)
        return rng.choice(len(self._ops), self.policy.num_ops, replace=False, p=self._weights)

    def _draw_magnitude(self, rng: np.random.Generator) -> float:
        policy = self.policy
        return _draw_magnitude(policy.magnitude, policy.magnitude_std, rng, policy.magnitude_max)

    def __repr__(self) -> str:
        return f"RandAugment({self.policy}, {self._shown_canvas()})"


class AutoAugment(_OnCanvas):
    """Apply one of a policy's alternatives, each as often as another, to a Pillow image ('RGB' or 'L').

    Sources: Cubuk et al., arXiv 1805.09501; the policies are timm's, under its names and MindCV's.

    Args:
        name: 'autoaug' or 'original', the paper's policy for ImageNet; 'autoaugr' or 'originalr', the same with a
            Posterize that grows with the magnitude; 'v0' and 'v0r', EfficientNet's, likewise; '3a', one of Solarize,
            grey and blur.
        magnitude_std: standard deviation of the noise added to each magnitude; 0 adds none, and 100 or more draws the
            magnitude uniformly from 0 to what the policy says instead.
        mean, interpolation: see `RandAugment`.

    Raises:
        UserError: there is no policy of that name.
    """

    def __init__(
        self,
        name: str = "autoaug",
        magnitude_std: float = 0.0,
        mean: Sequence[float] = tuple(IMAGENET_DEFAULT_MEAN),
        interpolation: str = "bilinear",
    ):
        super().__init__(mean, interpolation)
        if name not in POLICIES:
            raise UserError(unknown_name("auto_augment policy", name, POLICIES))
        self.name = name
        self.magnitude_std = _check_std(name, magnitude_std)
        self.alternatives, bits = POLICIES[name]
        self._ops = {op.name: op for op in make_paper_ops(bits)}

    def transform(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """See `RandomTransform`."""
        for name, prob, magnitude in self.alternatives[rng.integers(len(self.alternatives))]:
            if rng.random() < prob:
                level = _draw_magnitude(magnitude, self.magnitude_std, rng)
                image = self._ops[name](image, level, self.canvas, rng)
        return image

    def __repr__(self) -> str:
        return f"AutoAugment({self.name!r}, magnitude_std={self.magnitude_std}, {self._shown_canvas()})"


class TrivialAugmentWide(_OnCanvas):
    """Apply one operation, each as often as another, at one of 31 strengths to a Pillow image ('RGB' or 'L').

    Source: Mueller and Hutter, arXiv 2103.10158, the wide ranges; there is nothing to tune.

    Args:
        mean, interpolation: see `RandAugment`.
    """

    NUM_BINS = 31

    def __init__(self, mean: Sequence[float] = tuple(IMAGENET_DEFAULT_MEAN), interpolation: str = "bilinear"):
        super().__init__(mean, interpolation)
        self._ops = make_wide_ops()

    def transform(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """See `RandomTransform`."""
        op = self._ops[rng.integers(len(self._ops))]
        level = int(rng.integers(self.NUM_BINS)) * MAX_LEVEL / (self.NUM_BINS - 1)
        return op(image, level, self.canvas, rng)

    def __repr__(self) -> str:
        return f"TrivialAugmentWide({self._shown_canvas()})"


@dataclass(frozen=True)
class AugMixPolicy:
    """What an AugMix string says. The letters in brackets are its fields.

    Attributes:
        magnitude [m]: strength of the operations, 0..10.
        width [w]: number of chains.
        depth [d]: operations in a chain; -1 draws 1, 2 or 3 for each.
        alpha [a]: of the Dirichlet distribution of the chains' weights and of the Beta distribution of their whole.
        blended [b]: 1 blends 8-bit images one after the other: less work, the same weights, but each blend rounds.
        magnitude_std [mstd]: standard deviation of the noise added to the magnitude of each operation. 100 or more,
            the default, draws the magnitude uniformly from 0 to `magnitude` instead, which is how the paper has it.
    """

    magnitude: float = 3.0
    width: int = 3
    depth: int = -1
    alpha: float = 1.0
    blended: int = 0
    magnitude_std: float = _UNIFORM_STD

    def __post_init__(self):
        if not 0 <= self.magnitude <= MAX_LEVEL:
            raise UserError(f"AugMix's m must be within 0..10, got {self.magnitude:g}")
        if self.width < 1:
            raise UserError(f"AugMix's w must be at least 1, got {self.width}")
        if self.depth < 1 and self.depth != -1:
            raise UserError(f"AugMix's d must be at least 1, or -1 for a random depth of 1 to 3, got {self.depth}")
        if self.alpha <= 0:
            raise UserError(f"AugMix's a must be above 0, got {self.alpha:g}")
        if self.blended not in (0, 1):
            raise UserError(f"AugMix's b must be 0 or 1, got {self.blended}")
        _check_std("AugMix", self.magnitude_std)


class AugMix(_OnCanvas):
    """Mix a Pillow image ('RGB' or 'L') with several chains of operations on it.

    The result is (1 - m) * image + m * sum of w_k * chain_k(image), with weights w from a Dirichlet and m from a Beta
    distribution. The operations are RandAugment's with 'inc1', without Invert and SolarizeAdd; the four enhancements
    among them are timm's addition to the paper's.

    Source: Hendrycks et al., arXiv 1912.02781.

    Args:
        policy: how many chains, how long and how strong.
        mean, interpolation: see `RandAugment`.
    """

    def __init__(
        self,
        policy: Optional[AugMixPolicy] = None,
        mean: Sequence[float] = tuple(IMAGENET_DEFAULT_MEAN),
        interpolation: str = "bilinear",
    ):
        super().__init__(mean, interpolation)
        self.policy = policy or AugMixPolicy()
        self._ops = [op for op in make_ops(increasing=True) if op.name not in ("Invert", "SolarizeAdd")]

    def transform(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """See `RandomTransform`."""
        policy = self.policy
        shares = rng.beta(policy.alpha, policy.alpha) * rng.dirichlet([policy.alpha] * policy.width)
        chains = (self._chain(image, rng) for _ in shares)
        return (_blended if policy.blended else _mixed)(image, chains, shares)

    def _chain(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        policy = self.policy
        depth = policy.depth if policy.depth > 0 else rng.integers(1, 4)
        for place in rng.integers(len(self._ops), size=depth):
            level = _draw_magnitude(policy.magnitude, policy.magnitude_std, rng)
            image = self._ops[place](image, level, self.canvas, rng)
        return image

    def __repr__(self) -> str:
        return f"AugMix({self.policy}, {self._shown_canvas()})"


def _mixed(image: Image.Image, chains: Iterable[Image.Image], shares: np.ndarray) -> Image.Image:
    """The sum of shares * chains, the rest of 1 being the image's."""
    mixed = np.float32(1 - shares.sum()) * np.asarray(image, np.float32)
    for chain, share in zip(chains, shares):
        mixed += np.float32(share) * np.asarray(chain, np.float32)
    return Image.fromarray(np.rint(mixed).clip(0, 255).astype(np.uint8))


def _blended(image: Image.Image, chains: Iterable[Image.Image], shares: np.ndarray) -> Image.Image:
    """The same by Pillow's blends: a chain's factor is its share of what the later ones leave over."""
    later = np.cumsum(shares[::-1])[::-1] - shares
    for chain, share, taken in zip(chains, shares, later):
        image = Image.blend(image, chain, float(share / (1 - taken)) if taken < 1 else 0.0)
    return image


def create_auto_augment(text: str, mean: Sequence[float], interpolation: str) -> RandomTransform:
    """The transform that a policy string names; `mean` and `interpolation` as in `RandAugment`.

    - 'randaug' or 'rand' and the fields of `RandAugmentPolicy`: 'randaug-m9-mstd0.5-inc1';
    - a name of `AutoAugment`, with or without the field mstd: 'autoaug-mstd0.5';
    - 'trivialaugwide', which has no fields;
    - 'augmix' and the fields of `AugMixPolicy`: 'augmix-m5-w4-d2'.

    Raises:
        UserError: the policy is unknown or malformed.
    """
    name = policy_name(text)
    if name in _RAND_NAMES:
        return RandAugment(parse_rand_augment(text), mean, interpolation)
    if name in POLICIES:
        values = parse_policy(text, POLICIES, _AUTO_FIELDS)
        return AutoAugment(name, mean=mean, interpolation=interpolation, **values)
    if name == _WIDE_NAME:
        parse_policy(text, [_WIDE_NAME], {})
        return TrivialAugmentWide(mean, interpolation)
    if name == _AUGMIX_NAME:
        policy = AugMixPolicy(**parse_policy(text, [_AUGMIX_NAME], _AUGMIX_FIELDS))
        return AugMix(policy, mean, interpolation)
    raise UserError(unknown_name("auto_augment policy", name, [*_RAND_NAMES, *POLICIES, _WIDE_NAME, _AUGMIX_NAME]))


def _draw_magnitude(magnitude: float, std: float, rng: np.random.Generator, upper: float = MAX_LEVEL) -> float:
    """The magnitude of one operation, within 0..`upper`."""
    if std >= _UNIFORM_STD:
        magnitude = rng.uniform(0, magnitude)
    elif std > 0:
        magnitude = rng.normal(magnitude, std)
    return float(min(max(magnitude, 0.0), upper))


def _check_std(name: str, std: float) -> float:
    if std < 0:
        raise UserError(f"{name}'s mstd must not be negative, got {std:g}")
    return std
