"""What a contender brings to be measured. Standard library only: the peers' interpreter reads it too."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

__all__ = ["LEARNING_RATE", "NUM_CLASSES", "WEIGHT_DECAY", "Workload", "of_loader"]

NUM_CLASSES = 1000
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.05


@dataclass(frozen=True)
class Workload:
    """Something that can be run again and again.

    Args:
        run: does the work once (a step, or an epoch of a data pipeline), waits until it is done, and gives the number
            of images.
        first: what is timed as the first step, with all compilation; `run` when there is nothing else to it.
        versions: of the libraries that do the work.
    """

    run: Callable[[], int]
    first: Callable[[], object]
    versions: dict[str, str] = field(default_factory=dict)


def of_loader(epoch: Callable[[], Iterable[tuple]], versions: dict[str, str]) -> Workload:
    """The workload of a data pipeline: epochs of (images, labels); the first step is the wait for a first batch."""

    def run() -> int:
        return sum(len(images) for images, _ in epoch())

    def first() -> None:
        next(iter(epoch()))

    return Workload(run, first, versions)
