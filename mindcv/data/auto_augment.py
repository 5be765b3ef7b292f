"""RandAugment, and the policy strings that name it.

AutoAugment, TrivialAugment and AugMix are for a later version; their strings are refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

import numpy as np
from PIL import Image

from mindcv.data.augment_ops import MAX_LEVEL, Canvas, make_ops
from mindcv.data.constants import IMAGENET_DEFAULT_MEAN
from mindcv.data.transforms import RandomTransform, check_probability, pillow_filter
from mindcv.utils.errors import UserError, unknown_name

__all__ = ["RandAugment", "RandAugmentPolicy", "create_auto_augment", "parse_rand_augment"]

_RAND_NAMES = ("randaug", "rand")
_LATER_NAMES = ("autoaug", "autoaugr", "original", "originalr", "3a", "trivialaugwide", "augmix")
# Field of a policy string -> attribute of RandAugmentPolicy and the type of its number.
_FIELDS = {
    "m": ("magnitude", float),
    "n": ("num_ops", int),
    "w": ("weights", int),
    "mstd": ("magnitude_std", float),
    "mmax": ("magnitude_max", float),
    "inc": ("increasing", int),
    "p": ("prob", float),
}


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
    name, *fields = text.split("-")
    if name not in _RAND_NAMES:
        raise UserError(unknown_name("auto_augment policy", name, _RAND_NAMES))
    values = {}
    for field in fields:
        match = re.fullmatch(r"([a-z]*)(.*)", field)
        key, number = match.groups()
        if key not in _FIELDS:
            raise UserError(f"auto_augment '{text}': {unknown_name('field', key or field, _FIELDS)}")
        attribute, kind = _FIELDS[key]
        pattern = r"\d+" if kind is int else r"\d+(\.\d*)?|\.\d+"
        if not re.fullmatch(pattern, number):
            wanted = "a whole number" if kind is int else "a number"
            raise UserError(f"auto_augment '{text}': field '{key}' needs {wanted} after it, got '{number}'")
        if attribute in values:
            raise UserError(f"auto_augment '{text}': field '{key}' comes twice")
        values[attribute] = kind(number)
    return RandAugmentPolicy(**values)


class RandAugment(RandomTransform):
    """Apply `num_ops` randomly chosen operations, each with probability `prob`, to a Pillow image ('RGB' or 'L').

    Sources: Cubuk et al., arXiv 1909.13719; the probability and the noise on the magnitude are timm's.

    Args:
        policy: which operations, how many and how strong.
        mean: colour, in 0..255, of what rotation, shear and translation bring in; rounded.
        interpolation: 'nearest', 'bilinear' or 'bicubic' for those three. Pillow's geometric transforms have no
            others, so any other known name stands for 'bicubic' here.
    """

    def __init__(
        self,
        policy: RandAugmentPolicy,
        mean: Sequence[float] = tuple(IMAGENET_DEFAULT_MEAN),
        interpolation: str = "bilinear",
    ):
        self.policy = policy
        fill = tuple(round(x) for x in mean)
        resample = pillow_filter(interpolation)
        if interpolation not in ("nearest", "bilinear", "bicubic"):
            resample = Image.Resampling.BICUBIC
        self.canvas = Canvas(fill if len(fill) > 1 else fill[0], resample)
        self._ops = make_ops(increasing=bool(policy.increasing))
        self._weights = None if policy.weights is None else np.array([op.weight for op in self._ops])
        if self._weights is not None:
            self._weights /= self._weights.sum()

    def transform(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """See `RandomTransform`."""
        is_weighted = self._weights is not None
        chosen = rng.choice(len(self._ops), self.policy.num_ops, replace=not is_weighted, p=self._weights)
        for place in chosen:
            if rng.random() < self.policy.prob:
                image = self._ops[place](image, self.draw_magnitude(rng), self.canvas, rng)
        return image

    def draw_magnitude(self, rng: np.random.Generator) -> float:
        """The magnitude of one operation."""
        policy = self.policy
        if policy.magnitude_std >= 100:
            magnitude = rng.uniform(0, policy.magnitude)
        elif policy.magnitude_std > 0:
            magnitude = rng.normal(policy.magnitude, policy.magnitude_std)
        else:
            magnitude = policy.magnitude
        return float(min(max(magnitude, 0.0), policy.magnitude_max))

    def __repr__(self) -> str:
        return f"RandAugment({self.policy}, fill={self.canvas.fill}, {self.canvas.resample.name.lower()})"


def create_auto_augment(text: str, mean: Sequence[float], interpolation: str) -> RandAugment:
    """The transform that a policy string names; `mean` and `interpolation` as in `RandAugment`.

    Raises:
        UserError: the policy is unknown, malformed, or one of a later version.
    """
    name = text.split("-")[0]
    if name in _LATER_NAMES:
        raise UserError(f"auto_augment '{text}' is not part of this version, which has RandAugment ('randaug-m9-...')")
    return RandAugment(parse_rand_augment(text), mean, interpolation)
