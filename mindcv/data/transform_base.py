"""Base classes of the transforms, the composition of transforms, and checks of their arguments.

A pipeline is a plain list of callables. A `RandomTransform` draws random numbers and is called with a generator, so the
pixels of a sample depend only on the seed, the epoch and the sample. An `ArrayTransform` is also called with the array
that it must write to, so pixels are written directly into the batch. Any other callable, such as a user's own, is
called with the image only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy as np

from mindcv.utils.checks import are_numbers, shown
from mindcv.utils.errors import UserError

__all__ = [
    "ArrayTransform",
    "Compose",
    "FusableTransform",
    "RandomArrayTransform",
    "RandomTransform",
    "check_range",
    "output_array",
]


def check_range(name: str, bounds: Sequence[float], upper: float = math.inf) -> tuple[float, float]:
    """Return the bounds as a tuple if 0 < low <= high <= upper, and raise a UserError otherwise."""
    if not are_numbers(bounds, 2) or not 0 < bounds[0] <= bounds[1] <= upper:
        limit = "" if upper == math.inf else f" <= {upper:g}"
        raise UserError(f"{name} must be two numbers, 0 < low <= high{limit}, got {shown(bounds)}")
    return float(bounds[0]), float(bounds[1])


def output_array(shape: Sequence[int], out: Optional[np.ndarray]) -> np.ndarray:
    """Return `out` if it has this shape, and a new float32 array otherwise."""
    return np.empty(shape, np.float32) if out is None or out.shape != tuple(shape) else out


class RandomTransform:
    """Base of the transforms that draw random numbers. Subclasses implement `transform`."""

    def __call__(self, image: Any, rng: Optional[np.random.Generator] = None) -> Any:
        """Transform one image.

        Args:
            image: Pillow image, or a float32 array [C, H, W] if the class says so.
            rng: generator of all draws. None uses a new generator without a seed, so the result is not reproducible.
        """
        return self.transform(image, np.random.default_rng() if rng is None else rng)

    def transform(self, image: Any, rng: np.random.Generator) -> Any:
        """Transform one image with the given generator."""
        raise NotImplementedError


class ArrayTransform:
    """Base of the transforms that return a float32 array [C, H, W].

    They accept a keyword `out`: None or a float32 array. The result is written to `out` if the shape fits. `out` may be
    the array that is transformed.
    """


class RandomArrayTransform(RandomTransform, ArrayTransform):
    """Base of the transforms that draw random numbers and return an array. Subclasses implement `transform`."""

    def __call__(self, image: Any, rng: Optional[np.random.Generator] = None, out: Optional[np.ndarray] = None) -> Any:
        """Transform one image. The two base classes describe the arguments."""
        return self.transform(image, np.random.default_rng() if rng is None else rng, out)

    def transform(self, image: Any, rng: np.random.Generator, out: Optional[np.ndarray] = None) -> Any:
        """Transform one image with the given generator."""
        raise NotImplementedError


class FusableTransform:
    """Base of the transforms that can be fused with the next one, for the same bits in less time."""

    def fused(self, following: Callable) -> Optional[Callable]:
        """Return a transform that does this and then `following`, or None if the two cannot be fused."""
        raise NotImplementedError


class Compose(RandomArrayTransform):
    """A sequence of transforms. All `RandomTransform`s in it draw from the same generator, one after the other."""

    def __init__(self, transforms: Sequence[Callable]):
        self.transforms = list(transforms)
        self._steps = _fused(self.transforms)

    def transform(self, image: Any, rng: np.random.Generator, out: Optional[np.ndarray] = None) -> Any:
        """See `RandomArrayTransform`. The result is in `out` only if the last transform is an `ArrayTransform`."""
        for transform in self._steps:
            arguments = (rng,) if isinstance(transform, RandomTransform) else ()
            keywords = {"out": out} if isinstance(transform, ArrayTransform) else {}
            image = transform(image, *arguments, **keywords)
        return image

    def __repr__(self) -> str:
        """Show the steps that run. Transforms that are fused into one step are joined by ' + '."""
        return f"Compose({self._steps})"


def _fused(transforms: Sequence[Callable]) -> list[Callable]:
    """Fuse neighbouring transforms where they can be fused."""
    steps = []
    for transform in transforms:
        fused = steps[-1].fused(transform) if steps and isinstance(steps[-1], FusableTransform) else None
        if fused is not None:
            steps.pop()
        steps.append(transform if fused is None else fused)
    return steps
