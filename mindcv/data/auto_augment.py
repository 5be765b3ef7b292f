"""Automatic augmentation: RandAugment, AutoAugment, TrivialAugment and AugMix, and the strings that select them."""

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
from mindcv.data.transform_base import RandomTransform
from mindcv.data.transforms import pillow_filter
from mindcv.utils.checks import check_int, check_name, check_number
from mindcv.utils.errors import UserError

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
_NAMES = (*_RAND_NAMES, *POLICIES, _WIDE_NAME, _AUGMIX_NAME)
# A standard deviation of at least this value requests uniform magnitudes instead of normal noise.
_UNIFORM_STD = 100.0


@dataclass(frozen=True)
class RandAugmentPolicy:
    """The settings of RandAugment. The letters in brackets are the fields of the policy string.

    Attributes:
        magnitude [m]: strength of the operations, 0..10.
        num_ops [n]: number of operations for each image.
        weights [w]: None chooses all operations with equal probability, with replacement. 0 chooses without
            replacement by a table of probabilities: rotation 0.3, each shear 0.2, each translation 0.1; Color,
            Sharpness and AutoContrast 0.025 each; Contrast, Brightness, Equalize, Solarize and SolarizeAdd 0.005 each;
            Invert and Posterize 0.
        magnitude_std [mstd]: standard deviation of the noise added to the magnitude of each operation. 0 adds no
            noise. 100 or more draws the magnitude uniformly from 0 to `magnitude` instead.
        magnitude_max [mmax]: upper bound of the magnitude after the noise is added. The lower bound is 0.
        increasing [inc]: with 1, Color, Contrast, Brightness and Sharpness use a factor of 1 - x or 1 + x. x grows
            from 0 (magnitude 0) to 0.9 (magnitude 10). With 0 they use the scale of the first papers: the factor grows
            from 0.1 (magnitude 0; nearly grey, flat, black or blurred) over 1 (magnitude 5; unchanged) to 1.9, so
            magnitude 0 is not weak. In both cases, a greater magnitude makes Posterize and Solarize stronger. timm
            reverses them for inc 0, and MindCV always reverses Posterize.
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
        check_number("RandAugment's m", self.magnitude, low=0, high=MAX_LEVEL)
        check_number("RandAugment's mmax", self.magnitude_max, above=0, high=MAX_LEVEL)
        check_number("RandAugment's mstd", self.magnitude_std, low=0)
        if self.weights is None:
            check_int("RandAugment's n", self.num_ops, 1)
        elif check_int("RandAugment's w", self.weights) != 0:
            raise UserError(f"RandAugment's w must be 0, which is the only table of weights, got {self.weights}")
        else:
            check_int("RandAugment's n", self.num_ops, 1, 13, note=" with w0, which has 13 operations")
        check_int("RandAugment's inc", self.increasing, 0, 1)
        check_number("RandAugment's p", self.prob, low=0, high=1)


def parse_rand_augment(text: str) -> RandAugmentPolicy:
    """Read a policy such as 'randaug-m9-n2-w0-mstd0.5-mmax10-inc1' (MindCV) or 'rand-m9-mstd0.5-inc1' (timm).

    Raises:
        UserError: the name or a field is unknown, a field occurs twice, or a number is malformed or out of range.
    """
    return RandAugmentPolicy(**parse_policy(text, _RAND_NAMES, _RAND_FIELDS))


class _PolicyTransform(RandomTransform):
    """Base of the transforms below.

    Args:
        mean: colour of the pixels that rotation, shear and translation bring in from outside, in 0..255. It is
            rounded.
        interpolation: filter of these three: 'nearest', 'bilinear' or 'bicubic'. Pillow's geometric transforms have no
            other filter, so any other known name selects 'bicubic'.
    """

    def __init__(self, mean: Sequence[float] = tuple(IMAGENET_DEFAULT_MEAN), interpolation: str = "bilinear"):
        fill = tuple(round(x) for x in mean)
        resample = pillow_filter(interpolation)
        if interpolation not in ("nearest", "bilinear", "bicubic"):
            resample = Image.Resampling.BICUBIC
        self.canvas = Canvas(fill if len(fill) > 1 else fill[0], resample)

    def _canvas_repr(self) -> str:
        return f"fill={self.canvas.fill}, {self.canvas.resample.name.lower()}"


class RandAugment(_PolicyTransform):
    """Apply `num_ops` randomly chosen operations, each with probability `prob`, to a Pillow image ('RGB' or 'L').

    Sources: Cubuk et al., arXiv 1909.13719. The probability and the noise on the magnitude come from timm.

    Args:
        policy: choice, number and strength of the operations.
        mean, interpolation: colour and filter of the geometric operations (see `_PolicyTransform`).
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
        for index in self._choose(rng):
            if rng.random() < self.policy.prob:
                image = self._ops[index](image, self._draw_magnitude(rng), self.canvas, rng)
        return image

    def _choose(self, rng: np.random.Generator) -> np.ndarray:
        if self._weights is None:
            return rng.integers(len(self._ops), size=self.policy.num_ops)
        return rng.choice(len(self._ops), self.policy.num_ops, replace=False, p=self._weights)

    def _draw_magnitude(self, rng: np.random.Generator) -> float:
        policy = self.policy
        return _draw_magnitude(policy.magnitude, policy.magnitude_std, rng, policy.magnitude_max)

    def __repr__(self) -> str:
        return f"RandAugment({self.policy}, {self._canvas_repr()})"


class AutoAugment(_PolicyTransform):
    """Apply one alternative of a policy, chosen with equal probability, to a Pillow image ('RGB' or 'L').

    Sources: Cubuk et al., arXiv 1805.09501. The policies are those of timm, under the names of timm and MindCV.

    Args:
        name: name of the policy. 'autoaug' and 'original' are the paper's policy for ImageNet. 'autoaugr' and
            'originalr' are the same policy with a Posterize that becomes stronger with the magnitude. 'v0' and 'v0r'
            are EfficientNet's policy, without and with that change. '3a' applies one of Solarize, grey and blur.
        magnitude_std: standard deviation of the noise added to each magnitude. 0 adds no noise. 100 or more draws the
            magnitude uniformly from 0 to the policy's value instead.
        mean, interpolation: see `RandAugment`.

    Raises:
        UserError: the policy is unknown, or `magnitude_std` is negative.
    """

    def __init__(
        self,
        name: str = "autoaug",
        magnitude_std: float = 0.0,
        mean: Sequence[float] = tuple(IMAGENET_DEFAULT_MEAN),
        interpolation: str = "bilinear",
    ):
        super().__init__(mean, interpolation)
        self.name = check_name("auto_augment policy", name, POLICIES)
        self.magnitude_std = check_number(f"{name}'s mstd", magnitude_std, low=0)
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
        return f"AutoAugment({self.name!r}, magnitude_std={self.magnitude_std}, {self._canvas_repr()})"


class TrivialAugmentWide(_PolicyTransform):
    """Apply one random operation at one of 31 random strengths to a Pillow image ('RGB' or 'L').

    All operations and strengths have equal probability. Source: Mueller and Hutter, arXiv 2103.10158, with the wide
    ranges. There are no parameters to tune.

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
        return f"TrivialAugmentWide({self._canvas_repr()})"


@dataclass(frozen=True)
class AugMixPolicy:
    """The settings of AugMix. The letters in brackets are the fields of the policy string.

    Attributes:
        magnitude [m]: strength of the operations, 0..10.
        width [w]: number of chains.
        depth [d]: number of operations in a chain. -1 draws 1, 2 or 3 for each chain.
        alpha [a]: parameter of the Dirichlet distribution of the chains' weights, and of the Beta distribution of
            their sum.
        blended [b]: with 1, the 8-bit images are blended one after the other. This is less work with the same weights,
            but each blend rounds.
        magnitude_std [mstd]: standard deviation of the noise added to the magnitude of each operation. 100 or more,
            the default, draws the magnitude uniformly from 0 to `magnitude` instead, as in the paper.
    """

    magnitude: float = 3.0
    width: int = 3
    depth: int = -1
    alpha: float = 1.0
    blended: int = 0
    magnitude_std: float = _UNIFORM_STD

    def __post_init__(self):
        check_number("AugMix's m", self.magnitude, low=0, high=MAX_LEVEL)
        check_int("AugMix's w", self.width, 1)
        if self.depth != -1:
            check_int("AugMix's d", self.depth, 1, note=", or -1 for a random depth of 1 to 3")
        check_number("AugMix's a", self.alpha, above=0)
        check_int("AugMix's b", self.blended, 0, 1)
        check_number("AugMix's mstd", self.magnitude_std, low=0)


class AugMix(_PolicyTransform):
    """Mix a Pillow image ('RGB' or 'L') with the results of several chains of operations on it.

    The result is (1 - m) * image + m * sum of w_k * chain_k(image). The weights w come from a Dirichlet distribution,
    and m comes from a Beta distribution. The operations are those of RandAugment with 'inc1', without Invert and
    SolarizeAdd. Like timm, this set adds four enhancements to the operations of the paper.

    Source: Hendrycks et al., arXiv 1912.02781.

    Args:
        policy: number, length and strength of the chains.
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
        return (_mix_by_blending if policy.blended else _mix)(image, chains, shares)

    def _chain(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        policy = self.policy
        depth = policy.depth if policy.depth > 0 else rng.integers(1, 4)
        for index in rng.integers(len(self._ops), size=depth):
            level = _draw_magnitude(policy.magnitude, policy.magnitude_std, rng)
            image = self._ops[index](image, level, self.canvas, rng)
        return image

    def __repr__(self) -> str:
        return f"AugMix({self.policy}, {self._canvas_repr()})"


def _mix(image: Image.Image, chains: Iterable[Image.Image], shares: np.ndarray) -> Image.Image:
    """Return the sum of shares * chains and (1 - sum of shares) * image, computed in float32."""
    mixed = np.float32(1 - shares.sum()) * np.asarray(image, np.float32)
    for chain, share in zip(chains, shares):
        mixed += np.float32(share) * np.asarray(chain, np.float32)
    return Image.fromarray(np.rint(mixed).clip(0, 255).astype(np.uint8))


def _mix_by_blending(image: Image.Image, chains: Iterable[Image.Image], shares: np.ndarray) -> Image.Image:
    """Return the same mixture by successive blends of 8-bit images.

    The factor of a chain is its share divided by 1 - (sum of the later shares), because each later blend scales it.
    """
    later_shares = np.cumsum(shares[::-1])[::-1] - shares
    for chain, share, later in zip(chains, shares, later_shares):
        image = Image.blend(image, chain, float(share / (1 - later)) if later < 1 else 0.0)
    return image


def create_auto_augment(text: str, mean: Sequence[float], interpolation: str) -> RandomTransform:
    """Return the transform for a policy string. `mean` and `interpolation` are those of `RandAugment`.

    A policy string is one of:

    - 'randaug' or 'rand' with fields of `RandAugmentPolicy`, such as 'randaug-m9-mstd0.5-inc1';
    - a policy name of `AutoAugment`, with or without the field mstd, such as 'autoaug-mstd0.5';
    - 'trivialaugwide', which has no fields;
    - 'augmix' with fields of `AugMixPolicy`, such as 'augmix-m5-w4-d2'.

    Raises:
        UserError: the policy is unknown or malformed.
    """
    name = check_name("auto_augment policy", policy_name(text), _NAMES)
    if name in _RAND_NAMES:
        return RandAugment(parse_rand_augment(text), mean, interpolation)
    if name in POLICIES:
        values = parse_policy(text, POLICIES, _AUTO_FIELDS)
        return AutoAugment(name, mean=mean, interpolation=interpolation, **values)
    if name == _WIDE_NAME:
        parse_policy(text, [_WIDE_NAME], {})
        return TrivialAugmentWide(mean, interpolation)
    policy = AugMixPolicy(**parse_policy(text, [_AUGMIX_NAME], _AUGMIX_FIELDS))
    return AugMix(policy, mean, interpolation)


def _draw_magnitude(magnitude: float, std: float, rng: np.random.Generator, upper: float = MAX_LEVEL) -> float:
    """Draw the magnitude of one operation, within 0..`upper`."""
    if std >= _UNIFORM_STD:
        magnitude = rng.uniform(0, magnitude)
    elif std > 0:
        magnitude = rng.normal(magnitude, std)
    return float(min(max(magnitude, 0.0), upper))
