"""Image transforms: callables on Pillow images, and after `ToArray` on float32 arrays of shape (C, H, W).

A pipeline is a plain list of callables. Those that draw random numbers derive from `RandomTransform` and are handed a
generator, which makes a sample's pixels a function of the seed, the epoch and the sample; any other callable, a user's
own too, gets the image alone. Those that derive from `ArrayTransform` are handed the array to write to besides, so that
the pixels of a batch are written where they stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Optional, Union

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from mindcv.data.image_io import decode
from mindcv.utils.errors import UserError, unknown_name

__all__ = [
    "ArrayTransform",
    "CenterCrop",
    "ColorJitter",
    "Compose",
    "Decode",
    "Normalize",
    "RandomArrayTransform",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomTransform",
    "RandomVerticalFlip",
    "Resize",
    "ToArray",
    "check_probability",
    "check_range",
    "pillow_filter",
    "room_for",
]

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


def pillow_filter(interpolation: str) -> Image.Resampling:
    """Pillow's filter of that name. All but 'nearest' antialias when they make an image smaller.

    Raises:
        UserError: there is no such filter.
    """
    if interpolation not in _FILTERS:
        raise UserError(unknown_name("interpolation", interpolation, _FILTERS))
    return _FILTERS[interpolation]


def check_probability(what: str, value: float) -> float:
    """The value, when it is within 0..1; else a UserError."""
    if not 0 <= value <= 1:
        raise UserError(f"{what} must be within 0..1, got {value}")
    return value


def check_range(what: str, bounds: Sequence[float], upper: float = math.inf) -> tuple[float, float]:
    """The bounds as a tuple, when 0 < low <= high <= upper; else a UserError."""
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= upper:
        limit = "" if upper == math.inf else f" <= {upper:g}"
        raise UserError(f"{what} must be two numbers, 0 < low <= high{limit}, got {list(bounds)}")
    return float(bounds[0]), float(bounds[1])


def room_for(shape: Sequence[int], out: Optional[np.ndarray]) -> np.ndarray:
    """`out` when there is one of that shape, else a new float32 array."""
    return np.empty(shape, np.float32) if out is None or out.shape != tuple(shape) else out


class RandomTransform:
    """Base of the transforms that draw random numbers; subclasses write `transform`."""

    def __call__(self, image: Any, rng: Optional[np.random.Generator] = None) -> Any:
        """Transform one image.

        Args:
            image: a Pillow image, or a float32 (C, H, W) array where the class says so.
            rng: where all draws come from. None makes a fresh, unseeded generator: handy for a look at what a
                transform does, but not reproducible.
        """
        return self.transform(image, np.random.default_rng() if rng is None else rng)

    def transform(self, image: Any, rng: np.random.Generator) -> Any:
        """What `__call__` does, with a generator that is there."""
        raise NotImplementedError


class ArrayTransform:
    """Base of the transforms that give a float32 (C, H, W) array.

    They take a keyword `out`: None, or a float32 array that the result is to be written to when it has that shape. It
    may be the very array that they are to transform.
    """


class RandomArrayTransform(RandomTransform, ArrayTransform):
    """Base of the transforms that are both; subclasses write `transform`, with `out`."""

    def __call__(self, image: Any, rng: Optional[np.random.Generator] = None, out: Optional[np.ndarray] = None) -> Any:
        """Transform one image; see the two base classes for the arguments."""
        return self.transform(image, np.random.default_rng() if rng is None else rng, out)

    def transform(self, image: Any, rng: np.random.Generator, out: Optional[np.ndarray] = None) -> Any:
        """What `__call__` does, with a generator that is there."""
        raise NotImplementedError


class Compose(RandomArrayTransform):
    """A list of transforms as one: each `RandomTransform` in it draws from the one generator, in turn."""

    def __init__(self, transforms: Sequence[Callable]):
        self.transforms = list(transforms)

    def transform(self, image: Any, rng: np.random.Generator, out: Optional[np.ndarray] = None) -> Any:
        """See `RandomArrayTransform`. What comes out is in `out` only if the last transforms are `ArrayTransform`s."""
        for transform in self.transforms:
            draws = (rng,) if isinstance(transform, RandomTransform) else ()
            place = {"out": out} if isinstance(transform, ArrayTransform) else {}
            image = transform(image, *draws, **place)
        return image

    def __repr__(self) -> str:
        return f"Compose({self.transforms})"


class Decode:
    """The contents of an image file, or a uint8 array, to a Pillow image; see `image_io.decode`."""

    def __init__(self, mode: str = "RGB"):
        self.mode = mode

    def __call__(self, encoded: Union[bytes, np.ndarray]) -> Image.Image:
        return decode(encoded, self.mode)

    def __repr__(self) -> str:
        return f"Decode({self.mode!r})"


class RandomResizedCrop(RandomTransform):
    """Cut out a random rectangle and resize it to `size` x `size` pixels.

    The share of the image's area is uniform in `scale` and the logarithm of width / height uniform in that of `ratio`.
    A rectangle that does not fit is drawn again, up to ten times; then the largest central one within `ratio` is
    taken. Source: Szegedy et al., arXiv 1409.4842, as torchvision computes it.
    """

    def __init__(
        self,
        size: int,
        scale: Sequence[float] = (0.08, 1.0),
        ratio: Sequence[float] = (3 / 4, 4 / 3),
        interpolation: str = "bilinear",
    ):
        self.size = size
        self.scale = check_range("scale", scale, upper=1.0)
        self.ratio = check_range("ratio", ratio)
        self.interpolation = interpolation
        self._filter = pillow_filter(interpolation)

    def transform(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """See `RandomTransform`."""
        # Not resize(box=...), whose filter reaches beyond the box: torchvision's never sees those pixels.
        return image.crop(self.draw_box(*image.size, rng)).resize((self.size, self.size), self._filter)

    def draw_box(self, width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """A random box (left, top, right, bottom) in an image of width x height pixels."""
        for _ in range(10):
            area = width * height * rng.uniform(*self.scale)
            aspect = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
                return left, top, left + w, top + h
        return self._central_box(width, height)

    def _central_box(self, width: int, height: int) -> tuple[int, int, int, int]:
        w, h = width, height
        if width / height < self.ratio[0]:
            h = min(height, round(width / self.ratio[0]))
        elif width / height > self.ratio[1]:
            w = round(height * self.ratio[1])
        w, h = max(w, 1), max(h, 1)
        left, top = (width - w) // 2, (height - h) // 2
        return left, top, left + w, top + h

    def __repr__(self) -> str:
        return (
            f"RandomResizedCrop({self.size}, scale={self.scale}, ratio={self.ratio}, "
            f"interpolation={self.interpolation!r})"
        )


class _RandomFlip(RandomTransform):
    _METHOD: Image.Transpose

    def __init__(self, prob: float = 0.5):
        self.prob = check_probability(f"prob of {type(self).__name__}", prob)

    def transform(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """See `RandomTransform`."""
        return image.transpose(self._METHOD) if rng.random() < self.prob else image

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.prob})"


class RandomHorizontalFlip(_RandomFlip):
    """Swap left and right with probability `prob`."""

    _METHOD = Image.Transpose.FLIP_LEFT_RIGHT


class RandomVerticalFlip(_RandomFlip):
    """Swap top and bottom with probability `prob`."""

    _METHOD = Image.Transpose.FLIP_TOP_BOTTOM


class ColorJitter(RandomTransform):
    """Change brightness, contrast, saturation and hue, in random order, as torchvision does.

    Args:
        brightness, contrast, saturation: x >= 0; the factor is uniform in max(0, 1 - x)..1 + x, and 0 leaves it out.
        hue: x within 0..0.5; the hue is turned by a uniform share in -x..x of the circle, and 0 leaves it out.
            Of a grey image (mode 'L') neither hue nor saturation means anything, and both do nothing.
    """

    def __init__(self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0, hue: float = 0.0):
        if min(brightness, contrast, saturation) < 0 or not 0 <= hue <= 0.5:
            raise UserError(
                "color jitter must be at least 0 for brightness, contrast and saturation and within 0..0.5 for hue, "
                f"got {brightness}, {contrast}, {saturation} and {hue}"
            )
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue
        enhancers = (
            (ImageEnhance.Brightness, brightness),
            (ImageEnhance.Contrast, contrast),
            (ImageEnhance.Color, saturation),
        )
        self._enhancers = [(kind, max(0.0, 1 - x), 1 + x) for kind, x in enhancers if x > 0]
        if hue > 0:
            self._enhancers.append((_Hue, -hue, hue))

    def transform(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """See `RandomTransform`."""
        for place in rng.permutation(len(self._enhancers)):
            kind, low, high = self._enhancers[place]
            image = kind(image).enhance(rng.uniform(low, high))
        return image

    def __repr__(self) -> str:
        return f"ColorJitter({self.brightness}, {self.contrast}, {self.saturation}, {self.hue})"


class _Hue:
    """Turns the hue, in the manner of Pillow's ImageEnhance classes."""

    def __init__(self, image: Image.Image):
        self.image = image

    def enhance(self, turn: float) -> Image.Image:
        """`turn` is the share of the full circle, -0.5..0.5."""
        if self.image.mode == "L":
            return self.image
        hue, saturation, value = self.image.convert("HSV").split()
        turned = (np.asarray(hue).astype(np.int16) + int(turn * 255)) % 256
        return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")


class Resize:
    """Resize a Pillow image, antialiased.

    Args:
        size: an integer is the length of the shorter side, the longer becoming int(size * longer / shorter); a pair
            (height, width) is met exactly.
        interpolation: name of the filter, see `pillow_filter`.
    """

    def __init__(self, size: Union[int, Sequence[int]], interpolation: str = "bilinear"):
        self.size = size if isinstance(size, int) else tuple(size)
        self.interpolation = interpolation
        self._filter = pillow_filter(interpolation)

    def __call__(self, image: Image.Image) -> Image.Image:
        return image.resize(self.target(*image.size), self._filter)

    def target(self, width: int, height: int) -> tuple[int, int]:
        """The (width, height) that an image of width x height pixels gets."""
        if isinstance(self.size, tuple):
            return self.size[1], self.size[0]
        if width <= height:
            return self.size, int(self.size * height / width)
        return int(self.size * width / height), self.size

    def __repr__(self) -> str:
        return f"Resize({self.size}, interpolation={self.interpolation!r})"


class CenterCrop:
    """Cut the central `size` x `size` pixels out of a Pillow image.

    An image that is smaller is put in the middle of black first. As torchvision: the offset is
    int(round((length - size) / 2)), where round takes halves to the even neighbour.
    """

    def __init__(self, size: int):
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        short_w, short_h = (max(self.size - length, 0) for length in image.size)
        if short_w or short_h:
            border = (short_w // 2, short_h // 2, (short_w + 1) // 2, (short_h + 1) // 2)
            image = ImageOps.expand(image, border, fill=0)
        left, top = (int(round((length - self.size) / 2)) for length in image.size)
        return image.crop((left, top, left + self.size, top + self.size))

    def __repr__(self) -> str:
        return f"CenterCrop({self.size})"


class ToArray(ArrayTransform):
    """Pillow image of mode 'RGB' or 'L' to a float32 array of shape (3, H, W) or (1, H, W), values 0..255."""

    def __call__(self, image: Image.Image, out: Optional[np.ndarray] = None) -> np.ndarray:
        bands = image.getbands()
        array = room_for((len(bands), image.height, image.width), out)
        for plane, band in zip(array, bands):
            # Pillow takes one band out of its pixels in less time than NumPy needs to transpose all of them.
            plane[...] = np.frombuffer(image.tobytes("raw", band), np.uint8).reshape(plane.shape)
        return array

    def __repr__(self) -> str:
        return "ToArray()"


class Normalize(ArrayTransform):
    """(image - mean) / std of a float32 (C, H, W) array, with one mean and std a channel in units of 0..255."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        if len(mean) != len(std) or min(std) <= 0:
            raise UserError(f"mean and std must be equally long and std positive, got {list(mean)} and {list(std)}")
        self.mean, self.std = list(mean), list(std)
        self._mean, self._std = (np.asarray(x, np.float32).reshape(-1, 1, 1) for x in (mean, std))

    def __call__(self, image: np.ndarray, out: Optional[np.ndarray] = None) -> np.ndarray:
        if len(image) != len(self._mean):
            raise UserError(f"mean and std have {len(self._mean)} numbers for an image of {len(image)} channels")
        normalized = np.subtract(image, self._mean, out=room_for(image.shape, out))
        normalized /= self._std
        return normalized

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean}, std={self.std})"
