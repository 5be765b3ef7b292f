"""The work of a contender that is measured.

This module uses only the standard library, because the interpreter of the peers imports it too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

__all__ = ["LEARNING_RATE", "NUM_CLASSES", "WEIGHT_DECAY", "Workload", "of_loader"]

NUM_CLASSES = 1000
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.05


@dataclass(frozen=True)
class Workload:
    """Work that can be repeated.

    Args:
        run: function that does the work once (a step, or an epoch of a data pipeline), waits until it is done, and
            returns the number of images.
        first: function that is timed as the first step, including all compilation. It may be `run`.
        versions: library -> version, for the libraries that do the work.
        extra_figures: function that measures further figures by name, before the rounds.
    """

    run: Callable[[], int]
    first: Callable[[], object]
    versions: dict[str, str] = field(default_factory=dict)
    extra_figures: Callable[[], dict[str, float]] = dict


def of_loader(
    epoch: Callable[[], Iterable[tuple]],
    versions: dict[str, str],
    extra_figures: Callable[[], dict[str, float]] = dict,
) -> Workload:
    """Return the workload of a data pipeline. `epoch` returns the batches (images, labels) of one epoch.

    The first step is the time until the first batch.
    """

    def run() -> int:
        return sum(len(images) for images, _ in epoch())

    def first() -> None:
        next(iter(epoch()))

    return Workload(run, first, versions, extra_figures)
