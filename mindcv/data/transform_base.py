"""What all transforms build on: their base classes, how several become one, and checks of their arguments.

A pipeline is a plain list of callables. Those that draw random numbers derive from `RandomTransform` and are handed a
generator, which makes a sample's pixels a function of the seed, the epoch and the sample; any other callable, a user's
own too, gets the image alone. Those that derive from `ArrayTransform` are handed the array to write to besides, so that
the pixels of a batch are written where they stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy as np

from mindcv.utils.checks import are_numbers, is_number, shown
from mindcv.utils.errors import UserError

__all__ = [
    "ArrayTransform",
    "Compose",
    "JoinableTransform",
    "RandomArrayTransform",
    "RandomTransform",
    "check_probability",
    "check_range",
    "room_for",
]


def check_probability(what: str, value: float) -> float:
    """The value, when it is within 0..1; else a UserError."""
    if not is_number(value) or not 0 <= value <= 1:
        raise UserError(f"{what} must be within 0..1, got {shown(value)}")
    return value


def check_range(what: str, bounds: Sequence[float], upper: float = math.inf) -> tuple[float, float]:
    """The bounds as a tuple, when 0 < low <= high <= upper; else a UserError."""
    if not are_numbers(bounds, 2) or not 0 < bounds[0] <= bounds[1] <= upper:
        limit = "" if upper == math.inf else f" <= {upper:g}"
        raise UserError(f"{what} must be two numbers, 0 < low <= high{limit}, got {shown(bounds)}")
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


class JoinableTransform:
    """Base of the transforms that can do the work of the next one as well: the same bits in less time."""

    def joined(self, following: Callable) -> Optional[Callable]:
        """What does this and then `following`; None when they are better done one after the other."""
        raise NotImplementedError


class Compose(RandomArrayTransform):
    """A list of transforms as one: each `RandomTransform` in it draws from the one generator, in turn."""

    def __init__(self, transforms: Sequence[Callable]):
        self.transforms = list(transforms)
        self._steps = _joined(self.transforms)

    def transform(self, image: Any, rng: np.random.Generator, out: Optional[np.ndarray] = None) -> Any:
        """See `RandomArrayTransform`. What comes out is in `out` only if the last transforms are `ArrayTransform`s."""
        for transform in self._steps:
            draws = (rng,) if isinstance(transform, RandomTransform) else ()
            place = {"out": out} if isinstance(transform, ArrayTransform) else {}
            image = transform(image, *draws, **place)
        return image

    def __repr__(self) -> str:
        return f"Compose({self.transforms})"


def _joined(transforms: Sequence[Callable]) -> list[Callable]:
    """The same work in fewer steps, where neighbours can be joined."""
    steps = []
    for transform in transforms:
        both = steps[-1].joined(transform) if steps and isinstance(steps[-1], JoinableTransform) else None
        if both is not None:
            steps.pop()
        steps.append(transform if both is None else both)
    return steps
