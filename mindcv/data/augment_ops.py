"""The fifteen image operations of RandAugment, and how strong each is at a magnitude of 0..10.

The set and the ranges are timm's, which took them from AutoAugment (Cubuk et al., arXiv 1805.09501) and RandAugment
(arXiv 1909.13719). A greater magnitude is a stronger change everywhere, Posterize and Solarize included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Union

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

__all__ = ["MAX_LEVEL", "Canvas", "Op", "make_ops"]

MAX_LEVEL = 10.0


class Canvas(NamedTuple):
    """What geometric operations need: the colour of what comes in from outside, and how to interpolate."""

    fill: Union[int, tuple[int, ...]]
    resample: Image.Resampling


@dataclass(frozen=True)
class Op:
    """One operation.

    Attributes:
        name: as in the papers.
        amount: magnitude (0..10) to the operation's own unit.
        apply: (image, amount, canvas) to image.
        weight: probability of being chosen under the weights 'w0'.
        is_signed: the amount is negated with probability 0.5.
    """

    name: str
    amount: Callable[[float], float]
    apply: Callable[[Image.Image, float, Canvas], Image.Image]
    weight: float
    is_signed: bool = False

    def __call__(self, image: Image.Image, level: float, canvas: Canvas, rng: np.random.Generator) -> Image.Image:
        amount = self.amount(level)
        if self.is_signed and rng.random() < 0.5:
            amount = -amount
        return self.apply(image, amount, canvas)


def make_ops(increasing: bool) -> list[Op]:
    """The operations; `increasing` is the field inc of a policy string, see `auto_augment.RandAugment`."""
    if increasing:
        enhancement = _share(0.9)  # factor 1 - x or 1 + x, x growing from 0 to 0.9
    else:
        enhancement = _old_enhancement
    enhance = [
        Op("Color", enhancement, _enhance(ImageEnhance.Color), 0.025, is_signed=increasing),
        Op("Contrast", enhancement, _enhance(ImageEnhance.Contrast), 0.005, is_signed=increasing),
        Op("Brightness", enhancement, _enhance(ImageEnhance.Brightness), 0.005, is_signed=increasing),
        Op("Sharpness", enhancement, _enhance(ImageEnhance.Sharpness), 0.025, is_signed=increasing),
    ]
    return [
        Op("AutoContrast", _share(0), lambda image, amount, canvas: ImageOps.autocontrast(image), 0.025),
        Op("Equalize", _share(0), lambda image, amount, canvas: ImageOps.equalize(image), 0.005),
        Op("Invert", _share(0), lambda image, amount, canvas: ImageOps.invert(image), 0.0),
        Op("Rotate", _share(30), _rotate, 0.3, is_signed=True),
        Op("Posterize", _bits_kept, _posterize, 0.0),
        Op("Solarize", _solarize_threshold, _solarize, 0.005),
        Op("SolarizeAdd", _solarize_addition, _solarize_add, 0.005),
        *enhance,
        Op("ShearX", _share(0.3), _shear_x, 0.2, is_signed=True),
        Op("ShearY", _share(0.3), _shear_y, 0.2, is_signed=True),
        Op("TranslateXRel", _share(0.45), _translate_x, 0.1, is_signed=True),
        Op("TranslateYRel", _share(0.45), _translate_y, 0.1, is_signed=True),
    ]


def _share(most: float) -> Callable[[float], float]:
    return lambda level: most * level / MAX_LEVEL


def _old_enhancement(level: float) -> float:
    return 1.8 * level / MAX_LEVEL + 0.1 - 1


def _bits_kept(level: float) -> int:
    # timm's formula reaches 0 bits, a black image, at the greatest level; newer versions of Pillow refuse that.
    return max(1, 4 - int(4 * level / MAX_LEVEL))


def _solarize_threshold(level: float) -> int:
    return 256 - int(256 * level / MAX_LEVEL)


def _solarize_addition(level: float) -> int:
    return int(110 * level / MAX_LEVEL)


def _enhance(kind: type) -> Callable[[Image.Image, float, Canvas], Image.Image]:
    return lambda image, amount, canvas: kind(image).enhance(1 + amount)


def _rotate(image: Image.Image, degrees: float, canvas: Canvas) -> Image.Image:
    return image.rotate(degrees, canvas.resample, fillcolor=canvas.fill)


def _posterize(image: Image.Image, bits: int, canvas: Canvas) -> Image.Image:
    return ImageOps.posterize(image, bits)


def _solarize(image: Image.Image, threshold: int, canvas: Canvas) -> Image.Image:
    return ImageOps.solarize(image, threshold)


def _solarize_add(image: Image.Image, addition: int, canvas: Canvas) -> Image.Image:
    """Brighten what is darker than 128."""
    table = [min(255, value + addition) if value < 128 else value for value in range(256)]
    return image.point(table * len(image.getbands()))


def _shear_x(image: Image.Image, share: float, canvas: Canvas) -> Image.Image:
    return _affine(image, (1, share, 0, 0, 1, 0), canvas)


def _shear_y(image: Image.Image, share: float, canvas: Canvas) -> Image.Image:
    return _affine(image, (1, 0, 0, share, 1, 0), canvas)


def _translate_x(image: Image.Image, share: float, canvas: Canvas) -> Image.Image:
    return _affine(image, (1, 0, share * image.width, 0, 1, 0), canvas)


def _translate_y(image: Image.Image, share: float, canvas: Canvas) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, share * image.height), canvas)


def _affine(image: Image.Image, matrix: tuple[float, ...], canvas: Canvas) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, canvas.resample, fillcolor=canvas.fill)
