"""Image operations of the automatic augmentations, and the effect of each at a magnitude of 0..10.

There are three scales of magnitude: `make_ops` for RandAugment and AugMix, `make_paper_ops` for AutoAugment, and
`make_wide_ops` for TrivialAugment. The sets and ranges are those of timm and torchvision. The sources are AutoAugment
(Cubuk et al., arXiv 1805.09501), RandAugment (arXiv 1909.13719) and TrivialAugment (Mueller and Hutter, arXiv
2103.10158).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Optional, Union

import numpy as np
from PIL import Image, ImageFilter

from mindcv.data import pixels, tone

__all__ = ["MAX_LEVEL", "Canvas", "Op", "make_ops", "make_paper_ops", "make_wide_ops"]

MAX_LEVEL = 10.0


class Canvas(NamedTuple):
    """Settings of geometric operations: the colour of pixels from outside the image, and the interpolation filter."""

    fill: Union[int, tuple[int, ...]]
    resample: Image.Resampling


@dataclass(frozen=True)
class Op:
    """One operation.

    Attributes:
        name: name in the papers.
        amount: function from the magnitude (0..10) to the amount, in the operation's own unit.
        apply: function from (image, amount, canvas) to the changed image.
        weight: probability of the operation in RandAugment with the weights 'w0'.
        is_signed: whether the amount is negated with probability 0.5.
        minimum: if it is set, the amount is drawn uniformly between this value and the amount for the magnitude.
    """

    name: str
    amount: Callable[[float], float]
    apply: Callable[[Image.Image, float, Canvas], Image.Image]
    weight: float = 0.0
    is_signed: bool = False
    minimum: Optional[float] = None

    def __call__(self, image: Image.Image, level: float, canvas: Canvas, rng: np.random.Generator) -> Image.Image:
        amount = self.amount(level)
        if self.is_signed and rng.random() < 0.5:
            amount = -amount
        if self.minimum is not None:
            amount = rng.uniform(*sorted((self.minimum, amount)))
        return self.apply(image, amount, canvas)


def make_ops(increasing: bool) -> list[Op]:
    """Return the operations of RandAugment.

    A greater magnitude is a stronger change. The exceptions are the four enhancements when `increasing` is off.

    Args:
        increasing: the field inc of a policy string (see `auto_augment.RandAugmentPolicy`).
    """
    if increasing:
        enhancement = _linear(0.9)  # the factor is 1 - x or 1 + x; x grows from 0 to 0.9
    else:
        enhancement = _paper_enhancement
    enhance = [
        Op("Color", enhancement, _color, 0.025, is_signed=increasing),
        Op("Contrast", enhancement, _contrast, 0.005, is_signed=increasing),
        Op("Brightness", enhancement, _brightness, 0.005, is_signed=increasing),
        Op("Sharpness", enhancement, _sharpness, 0.025, is_signed=increasing),
    ]
    return [
        Op("AutoContrast", _linear(0), _autocontrast, 0.025),
        Op("Equalize", _linear(0), _equalize, 0.005),
        Op("Invert", _linear(0), _invert, 0.0),
        Op("Rotate", _linear(30), _rotate, 0.3, is_signed=True),
        Op("Posterize", _bits_kept, _posterize, 0.0),
        Op("Solarize", _solarize_threshold, _solarize, 0.005),
        Op("SolarizeAdd", _linear_int(110), _solarize_add, 0.005),
        *enhance,
        Op("ShearX", _linear(0.3), _shear_x, 0.2, is_signed=True),
        Op("ShearY", _linear(0.3), _shear_y, 0.2, is_signed=True),
        Op("TranslateXRel", _linear(0.45), _translate_x, 0.1, is_signed=True),
        Op("TranslateYRel", _linear(0.45), _translate_y, 0.1, is_signed=True),
    ]


def make_paper_ops(posterize_bits: Callable[[float], float]) -> list[Op]:
    """Return the operations of AutoAugment, on the scale of its published policies.

    On this scale, a greater magnitude is not always a stronger change. The magnitude of Solarize gives its threshold,
    from 0 (everything is inverted) to 256 (nothing is). The magnitude of Color, Contrast and Sharpness gives a factor
    from 0.1 to 1.9.

    Args:
        posterize_bits: function from the magnitude to the number of bits that Posterize keeps. It differs between the
            policies (see `augment_policies`).
    """
    return [
        Op("AutoContrast", _linear(0), _autocontrast),
        Op("Equalize", _linear(0), _equalize),
        Op("Invert", _linear(0), _invert),
        Op("Rotate", _linear(30), _rotate, is_signed=True),
        Op("Posterize", posterize_bits, _posterize),
        Op("Solarize", _linear_int(256), _solarize),
        Op("SolarizeAdd", _linear_int(110), _solarize_add),
        Op("Color", _paper_enhancement, _color),
        Op("Contrast", _paper_enhancement, _contrast),
        Op("Sharpness", _paper_enhancement, _sharpness),
        Op("ShearX", _linear(0.3), _shear_x, is_signed=True),
        Op("ShearY", _linear(0.3), _shear_y, is_signed=True),
        Op("TranslateYRel", _linear(0.45), _translate_y, is_signed=True),
        Op("Desaturate", _desaturation, _color),
        Op("GaussianBlurRand", _linear(2.0), _blur, minimum=0.1),
    ]


def make_wide_ops() -> list[Op]:
    """Return the operations of TrivialAugment on its wide scale.

    A greater magnitude is a stronger change. AutoContrast and Equalize do not depend on it. Translations reach up to 32
    pixels for any size of the image, as in the paper and in torchvision.
    """
    return [
        Op("Identity", _linear(0), _identity),
        Op("AutoContrast", _linear(0), _autocontrast),
        Op("Equalize", _linear(0), _equalize),
        Op("Rotate", _linear(135), _rotate, is_signed=True),
        Op("Posterize", _wide_bits, _posterize),
        Op("Solarize", _wide_threshold, _solarize),
        Op("Color", _linear(0.99), _color, is_signed=True),
        Op("Contrast", _linear(0.99), _contrast, is_signed=True),
        Op("Brightness", _linear(0.99), _brightness, is_signed=True),
        Op("Sharpness", _linear(0.99), _sharpness, is_signed=True),
        Op("ShearX", _linear(0.99), _shear_x, is_signed=True),
        Op("ShearY", _linear(0.99), _shear_y, is_signed=True),
        Op("TranslateX", _linear_int(32), _translate_x_pixels, is_signed=True),
        Op("TranslateY", _linear_int(32), _translate_y_pixels, is_signed=True),
    ]


def _identity(image: Image.Image, amount: float, canvas: Canvas) -> Image.Image:
    return image


# The functions of a level are no lambdas, because a policy is pickled for worker processes.
def _linear(maximum: float) -> Callable[[float], float]:
    return partial(_scaled, maximum)


def _linear_int(maximum: float) -> Callable[[float], int]:
    return partial(_scaled_int, maximum)


def _scaled(maximum: float, level: float) -> float:
    return maximum * level / MAX_LEVEL


def _scaled_int(maximum: float, level: float) -> int:
    return int(maximum * level / MAX_LEVEL)


def _wide_bits(level: float) -> int:
    return 8 - round(6 * level / MAX_LEVEL)


def _wide_threshold(level: float) -> float:
    return 255 - 255 * level / MAX_LEVEL


def _paper_enhancement(level: float) -> float:
    return 1.8 * level / MAX_LEVEL + 0.1 - 1


def _bits_kept(level: float) -> int:
    # timm's formula reaches 0 bits, a black image, at the greatest level. Newer versions of Pillow
    # refuse 0 bits.
    return max(1, 4 - int(4 * level / MAX_LEVEL))


def _solarize_threshold(level: float) -> int:
    return 256 - int(256 * level / MAX_LEVEL)


def _desaturation(level: float) -> float:
    return -0.5 - 0.5 * level / MAX_LEVEL  # grey at the greatest level, half the saturation at level 0


def _color(image: Image.Image, amount: float, canvas: Canvas) -> Image.Image:
    return pixels.saturated(image, 1 + amount)


def _sharpness(image: Image.Image, amount: float, canvas: Canvas) -> Image.Image:
    return pixels.sharpened(image, 1 + amount)


def _contrast(image: Image.Image, amount: float, canvas: Canvas) -> Image.Image:
    return tone.contrast(image, 1 + amount)


def _brightness(image: Image.Image, amount: float, canvas: Canvas) -> Image.Image:
    return tone.brightness(image, 1 + amount)


def _autocontrast(image: Image.Image, amount: float, canvas: Canvas) -> Image.Image:
    return tone.autocontrast(image)


def _equalize(image: Image.Image, amount: float, canvas: Canvas) -> Image.Image:
    return tone.equalize(image)


def _invert(image: Image.Image, amount: float, canvas: Canvas) -> Image.Image:
    return tone.invert(image)


def _rotate(image: Image.Image, degrees: float, canvas: Canvas) -> Image.Image:
    return pixels.rotated(image, degrees, canvas.resample, canvas.fill)


def _posterize(image: Image.Image, bits: int, canvas: Canvas) -> Image.Image:
    return tone.posterize(image, bits)


def _solarize(image: Image.Image, threshold: float, canvas: Canvas) -> Image.Image:
    return tone.solarize(image, threshold)


def _solarize_add(image: Image.Image, addition: int, canvas: Canvas) -> Image.Image:
    return tone.solarize_add(image, addition)


def _blur(image: Image.Image, radius: float, canvas: Canvas) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(radius))


def _shear_x(image: Image.Image, factor: float, canvas: Canvas) -> Image.Image:
    return _affine(image, (1, factor, 0, 0, 1, 0), canvas)


def _shear_y(image: Image.Image, factor: float, canvas: Canvas) -> Image.Image:
    return _affine(image, (1, 0, 0, factor, 1, 0), canvas)


def _translate_x(image: Image.Image, fraction: float, canvas: Canvas) -> Image.Image:
    return _affine(image, (1, 0, fraction * image.width, 0, 1, 0), canvas)


def _translate_y(image: Image.Image, fraction: float, canvas: Canvas) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, fraction * image.height), canvas)


def _translate_x_pixels(image: Image.Image, distance: int, canvas: Canvas) -> Image.Image:
    return _affine(image, (1, 0, distance, 0, 1, 0), canvas)


def _translate_y_pixels(image: Image.Image, distance: int, canvas: Canvas) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, distance), canvas)


def _affine(image: Image.Image, matrix: tuple[float, ...], canvas: Canvas) -> Image.Image:
    return pixels.affine(image, matrix, canvas.resample, canvas.fill)
