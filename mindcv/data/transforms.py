"""Image transforms: callables on Pillow images, and after `ToArray` on float32 arrays [C, H, W]."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Optional, Union

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from mindcv.data import pixels
from mindcv.data.image_io import decode
from mindcv.data.transform_base import (
    ArrayTransform,
    FusableTransform,
    RandomTransform,
    check_range,
    output_array,
)
from mindcv.utils.checks import are_numbers, check_name, check_number, is_number
from mindcv.utils.errors import UserError

__all__ = [
    "INTERPOLATIONS",
    "CenterCrop",
    "ColorJitter",
    "Decode",
    "Normalize",
    "RandomHorizontalFlip",
    "RandomResizedCrop",
    "RandomVerticalFlip",
    "Resize",
    "ToArray",
    "pillow_filter",
]

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
INTERPOLATIONS = tuple(_FILTERS)


def pillow_filter(interpolation: str) -> Image.Resampling:
    """Return Pillow's filter with the given name. All filters except 'nearest' antialias when they shrink an image.

    Raises:
        UserError: the filter is unknown.
    """
    return _FILTERS[check_name("interpolation", interpolation, _FILTERS)]


class Decode:
    """Decode the contents of an image file, or a uint8 array, to a Pillow image (see `image_io.decode`)."""

    def __init__(self, mode: str = "RGB"):
        self.mode = mode

    def __call__(self, encoded: Union[bytes, np.ndarray]) -> Image.Image:
        return decode(encoded, self.mode)

    def __repr__(self) -> str:
        return f"Decode({self.mode!r})"


class RandomResizedCrop(RandomTransform, FusableTransform):
    """Crop a random rectangle and resize it to `size` x `size` pixels.

    The area of the rectangle is uniform within `scale`, as a fraction of the image's area. The logarithm of width /
    height is uniform within `ratio`. A rectangle that does not fit is drawn again, up to ten times. Then the largest
    central rectangle within `ratio` is used. Source: Szegedy et al., arXiv 1409.4842, as torchvision computes it.
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
        return self.cut(image, self.draw_box(*image.size, rng))

    def fused(self, following: Callable) -> Optional[Callable]:
        """See `FusableTransform`. Flips can follow."""
        return _CropAndFlip(self, ()).fused(following) if type(self) is RandomResizedCrop else None

    def cut(
        self, image: Image.Image, box: tuple[int, int, int, int], flips: tuple[bool, bool] = (False, False)
    ) -> Image.Image:
        """Crop the box (left, top, right, bottom), resize it, and flip it horizontally and vertically."""
        # Pillow's resize(box=...) is not used: its filter reaches beyond the box, and torchvision's
        # does not.
        return pixels.resized(image, (self.size, self.size), self._filter, box=box, flips=flips)

    def draw_box(self, width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Draw a random box (left, top, right, bottom) in an image of width x height pixels."""
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
        self.prob = check_number(f"prob of {type(self).__name__}", prob, low=0, high=1)

    def transform(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        """See `RandomTransform`."""
        return image.transpose(self._METHOD) if self.draw(rng) else image

    def draw(self, rng: np.random.Generator) -> bool:
        """Draw whether to flip."""
        return rng.random() < self.prob

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.prob})"


class RandomHorizontalFlip(_RandomFlip):
    """Swap left and right with probability `prob`."""

    _METHOD = Image.Transpose.FLIP_LEFT_RIGHT


class RandomVerticalFlip(_RandomFlip):
    """Swap top and bottom with probability `prob`."""

    _METHOD = Image.Transpose.FLIP_TOP_BOTTOM


class _CropAndFlip(RandomTransform, FusableTransform):
    """A `RandomResizedCrop`, fused with the flips after it."""

    def __init__(self, crop: RandomResizedCrop, flips: tuple[_RandomFlip, ...]):
        self._crop, self._flips = crop, flips

    def transform(self, image: Image.Image, rng: np.random.Generator) -> Image.Image:
        box = self._crop.draw_box(*image.size, rng)
        is_flipped = [False, False]
        for flip in self._flips:
            is_flipped[isinstance(flip, RandomVerticalFlip)] ^= flip.draw(rng)
        return self._crop.cut(image, box, tuple(is_flipped))

    def fused(self, following: Callable) -> Optional[Callable]:
        is_flip = type(following) in (RandomHorizontalFlip, RandomVerticalFlip)
        return _CropAndFlip(self._crop, (*self._flips, following)) if is_flip else None

    def __repr__(self) -> str:
        return " + ".join(map(repr, (self._crop, *self._flips)))


class ColorJitter(RandomTransform):
    """Change brightness, contrast, saturation and hue, in random order, as torchvision does.

    Args:
        brightness, contrast, saturation: strength x >= 0. The factor is uniform in max(0, 1 - x)..1 + x. 0 leaves the
            change out.
        hue: strength x within 0..0.5. The hue is rotated by a uniform fraction in -x..x of the full circle. 0 leaves
            the change out. Hue and saturation do not change a grey image (mode 'L').
    """

    def __init__(self, brightness: float = 0.0, contrast: float = 0.0, saturation: float = 0.0, hue: float = 0.0):
        strengths = (brightness, contrast, saturation, hue)
        if not all(map(is_number, strengths)) or min(strengths) < 0 or hue > 0.5:
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
        for index in rng.permutation(len(self._enhancers)):
            kind, low, high = self._enhancers[index]
            image = kind(image).enhance(rng.uniform(low, high))
        return image

    def __repr__(self) -> str:
        return f"ColorJitter({self.brightness}, {self.contrast}, {self.saturation}, {self.hue})"


class _Hue:
    """Rotates the hue, with the interface of Pillow's ImageEnhance classes."""

    def __init__(self, image: Image.Image):
        self.image = image

    def enhance(self, turn: float) -> Image.Image:
        """Rotate the hue by `turn`, a fraction of the full circle in -0.5..0.5."""
        if self.image.mode == "L":
            return self.image
        hue, saturation, value = self.image.convert("HSV").split()
        turned = (np.asarray(hue).astype(np.int16) + int(turn * 255)) % 256
        return Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), saturation, value)).convert("RGB")


class Resize(FusableTransform):
    """Resize a Pillow image with antialiasing.

    Args:
        size: an integer gives the shorter side; the longer side becomes int(size * longer / shorter). A pair gives
            (height, width) exactly.
        interpolation: name of the filter (see `pillow_filter`).
    """

    def __init__(self, size: Union[int, Sequence[int]], interpolation: str = "bilinear"):
        self.size = size if isinstance(size, int) else tuple(size)
        self.interpolation = interpolation
        self._filter = pillow_filter(interpolation)

    def __call__(self, image: Image.Image) -> Image.Image:
        return pixels.resized(image, self.target(*image.size), self._filter)

    def fused(self, following: Callable) -> Optional[Callable]:
        """See `FusableTransform`. A central crop can follow; then only the pixels inside the crop are computed."""
        return _ResizeAndCrop(self, following) if type(self) is Resize and type(following) is CenterCrop else None

    def keep(self, image: Image.Image, box: tuple[int, int, int, int]) -> Image.Image:
        """Return the box (left, top, right, bottom) of the resized image."""
        return pixels.resized(image, self.target(*image.size), self._filter, keep=box)

    def target(self, width: int, height: int) -> tuple[int, int]:
        """Return the new (width, height) of an image of width x height pixels."""
        if isinstance(self.size, tuple):
            return self.size[1], self.size[0]
        if width <= height:
            return self.size, int(self.size * height / width)
        return int(self.size * width / height), self.size

    def __repr__(self) -> str:
        return f"Resize({self.size}, interpolation={self.interpolation!r})"


class CenterCrop:
    """Crop the central `size` x `size` pixels of a Pillow image.

    A smaller image is padded with black on all sides first. As in torchvision, the offset is
    int(round((length - size) / 2)), where round rounds halves to even.
    """

    def __init__(self, size: int):
        self.size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        short_w, short_h = (max(self.size - length, 0) for length in image.size)
        if short_w or short_h:
            border = (short_w // 2, short_h // 2, (short_w + 1) // 2, (short_h + 1) // 2)
            image = ImageOps.expand(image, border, fill=0)
        return image.crop(self.box(*image.size))

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return (left, top, right, bottom) of the crop in an image that is at least as large."""
        left, top = (int(round((length - self.size) / 2)) for length in (width, height))
        return left, top, left + self.size, top + self.size

    def __repr__(self) -> str:
        return f"CenterCrop({self.size})"


class _ResizeAndCrop:
    """A `Resize`, fused with the `CenterCrop` after it."""

    def __init__(self, resize: Resize, crop: CenterCrop):
        self._resize, self._crop = resize, crop

    def __call__(self, image: Image.Image) -> Image.Image:
        target = self._resize.target(*image.size)
        if min(target) < self._crop.size:  # the image is padded first, which cannot be fused
            return self._crop(self._resize(image))
        return self._resize.keep(image, self._crop.box(*target))

    def __repr__(self) -> str:
        return f"{self._resize} + {self._crop}"


class ToArray(ArrayTransform, FusableTransform):
    """Convert a Pillow image of mode 'RGB' or 'L' to a float32 array [3, H, W] or [1, H, W] with values 0..255."""

    def __call__(self, image: Image.Image, out: Optional[np.ndarray] = None) -> np.ndarray:
        return pixels.to_float(image, output_array((len(image.getbands()), image.height, image.width), out))

    def fused(self, following: Callable) -> Optional[Callable]:
        """See `FusableTransform`. A normalisation can follow."""
        return _ToNormalized(following) if type(self) is ToArray and type(following) is Normalize else None

    def __repr__(self) -> str:
        return "ToArray()"


class Normalize(ArrayTransform):
    """Compute (image - mean) / std of a float32 array [C, H, W].

    `mean` and `std` have one number for each channel, in the units of pixel values (0..255).
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        if not are_numbers(mean) or not are_numbers(std, len(mean)) or min(std, default=0) <= 0:
            raise UserError(f"mean and std must be lists of equal length, and std positive, got {mean} and {std}")
        self.mean, self.std = list(mean), list(std)
        self._mean, self._std = (np.asarray(x, np.float32).reshape(-1, 1, 1) for x in (mean, std))

    def __call__(self, image: np.ndarray, out: Optional[np.ndarray] = None) -> np.ndarray:
        self.check_channels(len(image))
        normalized = np.subtract(image, self._mean, out=output_array(image.shape, out))
        normalized /= self._std
        return normalized

    def of_image(self, image: Image.Image, out: Optional[np.ndarray]) -> np.ndarray:
        """Convert a Pillow image of mode 'RGB' or 'L' to an array and normalise it."""
        channels = len(image.getbands())
        self.check_channels(channels)
        return pixels.normalized(image, self._mean, self._std, output_array((channels, image.height, image.width), out))

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation, float32 [C, 1, 1]."""
        return self._mean, self._std

    def check_channels(self, channels: int) -> None:
        """Raise a UserError if images of this number of channels cannot be normalised."""
        if channels != len(self._mean):
            raise UserError(f"mean and std have {len(self._mean)} numbers, but the image has {channels} channels")

    def __repr__(self) -> str:
        return f"Normalize(mean={self.mean}, std={self.std})"


class _ToNormalized(ArrayTransform):
    """A `ToArray`, fused with the `Normalize` after it."""

    def __init__(self, normalize: Normalize):
        self._normalize = normalize

    def __call__(self, image: Image.Image, out: Optional[np.ndarray] = None) -> np.ndarray:
        return self._normalize.of_image(image, out)

    def __repr__(self) -> str:
        return f"ToArray() + {self._normalize}"
