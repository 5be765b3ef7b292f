"""The policies of AutoAugment. Each has twenty-five pairs of operations, and one pair is applied to an image.

The tables are the published ones. `_ORIGINAL` is the ImageNet policy of Cubuk et al., arXiv 1805.09501. `_V0` is the
policy in the EfficientNet code for TPUs. An entry is (operation, probability, magnitude 0..10).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from mindcv.data.augment_ops import MAX_LEVEL

__all__ = ["POLICIES", "Policy", "Step"]

Step = tuple[str, float, float]


class Policy(NamedTuple):
    """A policy of AutoAugment.

    Attributes:
        alternatives: sequences of operations. One of them is applied to an image.
        posterize_bits: function from the magnitude to the number of bits that Posterize keeps.
    """

    alternatives: Sequence[Sequence[Step]]
    posterize_bits: Callable[[float], int]


# fmt: off
_ORIGINAL = (
    (("Posterize", 0.4, 8), ("Rotate", 0.6, 9)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 5)),
    (("Equalize", 0.8, 8), ("Equalize", 0.6, 3)),
    (("Posterize", 0.6, 7), ("Posterize", 0.6, 6)),
    (("Equalize", 0.4, 7), ("Solarize", 0.2, 4)),
    (("Equalize", 0.4, 4), ("Rotate", 0.8, 8)),
    (("Solarize", 0.6, 3), ("Equalize", 0.6, 7)),
    (("Posterize", 0.8, 5), ("Equalize", 1.0, 2)),
    (("Rotate", 0.2, 3), ("Solarize", 0.6, 8)),
    (("Equalize", 0.6, 8), ("Posterize", 0.4, 6)),
    (("Rotate", 0.8, 8), ("Color", 0.4, 0)),
    (("Rotate", 0.4, 9), ("Equalize", 0.6, 2)),
    (("Equalize", 0.0, 7), ("Equalize", 0.8, 8)),
    (("Invert", 0.6, 4), ("Equalize", 1.0, 8)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Rotate", 0.8, 8), ("Color", 1.0, 2)),
    (("Color", 0.8, 8), ("Solarize", 0.8, 7)),
    (("Sharpness", 0.4, 7), ("Invert", 0.6, 8)),
    (("ShearX", 0.6, 5), ("Equalize", 1.0, 9)),
    (("Color", 0.4, 0), ("Equalize", 0.6, 3)),
    (("Equalize", 0.4, 7), ("Solarize", 0.2, 4)),
    (("Solarize", 0.6, 5), ("AutoContrast", 0.6, 5)),
    (("Invert", 0.6, 4), ("Equalize", 1.0, 8)),
    (("Color", 0.6, 4), ("Contrast", 1.0, 8)),
    (("Equalize", 0.8, 8), ("Equalize", 0.6, 3)),
)

_V0 = (
    (("Equalize", 0.8, 1), ("ShearY", 0.8, 4)),
    (("Color", 0.4, 9), ("Equalize", 0.6, 3)),
    (("Color", 0.4, 1), ("Rotate", 0.6, 8)),
    (("Solarize", 0.8, 3), ("Equalize", 0.4, 7)),
    (("Solarize", 0.4, 2), ("Solarize", 0.6, 2)),
    (("Color", 0.2, 0), ("Equalize", 0.8, 8)),
    (("Equalize", 0.4, 8), ("SolarizeAdd", 0.8, 3)),
    (("ShearX", 0.2, 9), ("Rotate", 0.6, 8)),
    (("Color", 0.6, 1), ("Equalize", 1.0, 2)),
    (("Invert", 0.4, 9), ("Rotate", 0.6, 0)),
    (("Equalize", 1.0, 9), ("ShearY", 0.6, 3)),
    (("Color", 0.4, 7), ("Equalize", 0.6, 0)),
    (("Posterize", 0.4, 6), ("AutoContrast", 0.4, 7)),
    (("Solarize", 0.6, 8), ("Color", 0.6, 9)),
    (("Solarize", 0.2, 4), ("Rotate", 0.8, 9)),
    (("Rotate", 1.0, 7), ("TranslateYRel", 0.8, 9)),
    (("ShearX", 0.0, 0), ("Solarize", 0.8, 4)),
    (("ShearY", 0.8, 0), ("Color", 0.6, 4)),
    (("Color", 1.0, 0), ("Rotate", 0.6, 2)),
    (("Equalize", 0.8, 4), ("Equalize", 0.0, 8)),
    (("Equalize", 1.0, 4), ("AutoContrast", 0.6, 2)),
    (("ShearY", 0.4, 7), ("SolarizeAdd", 0.6, 7)),
    (("Posterize", 0.8, 2), ("Solarize", 0.6, 10)),
    (("Solarize", 0.6, 8), ("Equalize", 0.6, 1)),
    (("Color", 0.8, 6), ("Rotate", 0.4, 5)),
)

# "3-Augment" of DeiT III (arXiv 2204.07118): Solarize, grey or blur.
_THREE = (
    (("Solarize", 1.0, 5),),
    (("Desaturate", 1.0, 10),),
    (("GaussianBlurRand", 1.0, 10),),
)
# fmt: on


def _paper_bits(level: float) -> int:
    return int(4 * level / MAX_LEVEL) + 4


def _rising_bits(level: float) -> int:
    # Newer versions of Pillow refuse 0 bits, which would give a black image.
    return max(1, int(4 * level / MAX_LEVEL))


def _falling_bits(level: float) -> int:
    return max(1, 4 - int(4 * level / MAX_LEVEL))


# The papers and their code disagree on Posterize. In the policies whose names end in r, a greater
# magnitude keeps fewer bits, from 4 down to 1, as in the authors' code. In the others a greater
# magnitude keeps more bits: 4 to 8 in the original policy, and 1 to 4 in v0.
POLICIES = {
    "autoaug": Policy(_ORIGINAL, _paper_bits),
    "autoaugr": Policy(_ORIGINAL, _falling_bits),
    "original": Policy(_ORIGINAL, _paper_bits),
    "originalr": Policy(_ORIGINAL, _falling_bits),
    "v0": Policy(_V0, _rising_bits),
    "v0r": Policy(_V0, _falling_bits),
    "3a": Policy(_THREE, _paper_bits),
}
