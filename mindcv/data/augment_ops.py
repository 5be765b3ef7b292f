"""The image operations of the automatic augmentations, and what each does at a magnitude of 0..10.

There are three scales: `make_ops` for RandAugment and AugMix, `make_paper_ops` for AutoAugment, and `make_wide_ops` for
TrivialAugment. The sets and ranges are timm's and torchvision's, who took them from AutoAugment (Cubuk et al., arXiv
1805.09501), RandAugment (arXiv 1909.13719) and TrivialAugment (Mueller and Hutter, arXiv 2103.10158).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Optional, Union

import numpy as np
from PIL import Image, ImageFilter

from mindcv.data import pixels, tone

__all__ = ["MAX_LEVEL", "Canvas", "Op", "make_ops", "make_paper_ops", "make_wide_ops"]

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
        weight: RandAugment's probability of choosing it under the weights 'w0'.
        is_signed: the amount is negated with probability 0.5.
        least: when given, the amount is drawn uniformly between this and what the magnitude says.
    """

    name: str
    amount: Callable[[float], float]
    apply: Callable[[Image.Image, float, Canvas], Image.Image]
    weight: float = 0.0
    is_signed: bool = False
    least: Optional[float] = None

    def __call__(self, image: Image.Image, level: float, canvas: Canvas, rng: np.random.Generator) -> Image.Image:
        amount = self.amount(level)
        if self.is_signed and rng.random() < 0.5:
            amount = -amount
        if self.least is not None:
            amount = rng.uniform(*sorted((self.least, amount)))
        return self.apply(image, amount, canvas)


def make_ops(increasing: bool) -> list[Op]:
    """RandAugment's operations. A greater magnitude is a stronger change, for Posterize and Solarize in any case.

    Args:
        increasing: the field inc of a policy string, see `auto_augment.RandAugmentPolicy`.
    """
    if increasing:
        enhancement = _share(0.9)  # factor 1 - x or 1 + x, x growing from 0 to 0.9
    else:
        enhancement = _old_enhancement
    enhance = [
        Op("Color", enhancement, _color, 0.025, is_signed=increasing),
        Op("Contrast", enhancement, _contrast, 0.005, is_signed=increasing),
        Op("Brightness", enhancement, _brightness, 0.005, is_signed=increasing),
        Op("Sharpness", enhancement, _sharpness, 0.025, is_signed=increasing),
    ]
    return [
        Op("AutoContrast", _share(0), _autocontrast, 0.025),
        Op("Equalize", _share(0), _equalize, 0.005),
        Op("Invert", _share(0), _invert, 0.0),
        Op("Rotate", _share(30), _rotate, 0.3, is_signed=True),
        Op("Posterize", _bits_kept, _posterize, 0.0),
        Op("Solarize", _solarize_threshold, _solarize, 0.005),
        Op("SolarizeAdd", _share_whole(110), _solarize_add, 0.005),
        *enhance,
        Op("ShearX", _share(0.3), _shear_x, 0.2, is_signed=True),
        Op("ShearY", _share(0.3), _shear_y, 0.2, is_signed=True),
        Op("TranslateXRel", _share(0.45), _translate_x, 0.1, is_signed=True),
        Op("TranslateYRel", _share(0.45), _translate_y, 0.1, is_signed=True),
    ]


def make_paper_ops(posterize_bits: Callable[[float], float]) -> list[Op]:
    """AutoAugment's operations, on the scale its policies are written in.

    There the magnitude of Solarize is its threshold, 0 (everything inverted) to 256 (nothing), and that of Color,
    Contrast and Sharpness a factor from 0.1 to 1.9: a greater magnitude is not always a stronger change.

    Args:
        posterize_bits: magnitude to the bits kept; the policies differ in it, see `augment_policies`.
    """
    return [
        Op("AutoContrast", _share(0), _autocontrast),
        Op("Equalize", _share(0), _equalize),
        Op("Invert", _share(0), _invert),
        Op("Rotate", _share(30), _rotate, is_signed=True),
        Op("Posterize", posterize_bits, _posterize),
        Op("Solarize", _share_whole(256), _solarize),
        Op("SolarizeAdd", _share_whole(110), _solarize_add),
        Op("Color", _old_enhancement, _color),
        Op("Contrast", _old_enhancement, _contrast),
        Op("Sharpness", _old_enhancement, _sharpness),
        Op("ShearX", _share(0.3), _shear_x, is_signed=True),
        Op("ShearY", _share(0.3), _shear_y, is_signed=True),
        Op("TranslateYRel", _share(0.45), _translate_y, is_signed=True),
        Op("Desaturate", _desaturation, _color),
        Op("GaussianBlurRand", _share(2.0), _blur, least=0.1),
    ]


def make_wide_ops() -> list[Op]:
    """TrivialAugment's operations on its wide scale: a greater magnitude is a stronger change, and 0 is none at all.

    Translations go up to 32 pixels whatever the size of the image, as in the paper and in torchvision.
    """
    return [
        Op("Identity", _share(0), lambda image, amount, canvas: image),
        Op("AutoContrast", _share(0), _autocontrast),
        Op("Equalize", _share(0), _equalize),
        Op("Rotate", _share(135), _rotate, is_signed=True),
        Op("Posterize", lambda level: 8 - round(6 * level / MAX_LEVEL), _posterize),
        Op("Solarize", lambda level: 255 - 255 * level / MAX_LEVEL, _solarize),
        Op("Color", _share(0.99), _color, is_signed=True),
        Op("Contrast", _share(0.99), _contrast, is_signed=True),
        Op("Brightness", _share(0.99), _brightness, is_signed=True),
        Op("Sharpness", _share(0.99), _sharpness, is_signed=True),
        Op("ShearX", _share(0.99), _shear_x, is_signed=True),
        Op("ShearY", _share(0.99), _shear_y, is_signed=True),
        Op("TranslateX", _share_whole(32), _translate_x_pixels, is_signed=True),
        Op("TranslateY", _share_whole(32), _translate_y_pixels, is_signed=True),
    ]


def _share(most: float) -> Callable[[float], float]:
    return lambda level: most * level / MAX_LEVEL


def _share_whole(most: float) -> Callable[[float], int]:
    return lambda level: int(most * level / MAX_LEVEL)


def _old_enhancement(level: float) -> float:
    return 1.8 * level / MAX_LEVEL + 0.1 - 1


def _bits_kept(level: float) -> int:
    # timm's formula reaches 0 bits, a black image, at the greatest level; newer versions of Pillow refuse that.
    return max(1, 4 - int(4 * level / MAX_LEVEL))


def _solarize_threshold(level: float) -> int:
    return 256 - int(256 * level / MAX_LEVEL)


def _desaturation(level: float) -> float:
    return -0.5 - 0.5 * level / MAX_LEVEL  # grey at the greatest level, half the colour at 0


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


def _shear_x(image: Image.Image, share: float, canvas: Canvas) -> Image.Image:
    return _affine(image, (1, share, 0, 0, 1, 0), canvas)


def _shear_y(image: Image.Image, share: float, canvas: Canvas) -> Image.Image:
    return _affine(image, (1, 0, 0, share, 1, 0), canvas)


def _translate_x(image: Image.Image, share: float, canvas: Canvas) -> Image.Image:
    return _affine(image, (1, 0, share * image.width, 0, 1, 0), canvas)


def _translate_y(image: Image.Image, share: float, canvas: Canvas) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, share * image.height), canvas)


def _translate_x_pixels(image: Image.Image, distance: int, canvas: Canvas) -> Image.Image:
    return _affine(image, (1, 0, distance, 0, 1, 0), canvas)


def _translate_y_pixels(image: Image.Image, distance: int, canvas: Canvas) -> Image.Image:
    return _affine(image, (1, 0, 0, 0, 1, distance), canvas)


def _affine(image: Image.Image, matrix: tuple[float, ...], canvas: Canvas) -> Image.Image:
    return pixels.affine(image, matrix, canvas.resample, canvas.fill)
