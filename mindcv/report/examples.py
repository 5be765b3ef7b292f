"""Images with their predictions: which of many a report shows."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Callable

import numpy as np
from PIL import Image

from mindcv.engine.contact_sheet import restored_pixels
from mindcv.utils.random import stream
from mindcv.utils.softmax import softmax

__all__ = ["Example", "ExampleCollector"]


@dataclass(frozen=True)
class Example:
    """One image with the class that the network predicts.

    Attributes:
        number: index of the image in the data set.
        label: index of the true class.
        predicted: index of the class with the highest probability.
        probability: probability of that class.
        name: name of the image; '' if it is not known.
        pixels: the network's input as uint8 [H, W, C]; a single grey pixel until it is known.
    """

    number: int
    label: int
    predicted: int
    probability: float
    name: str = ""
    pixels: np.ndarray = field(default_factory=lambda: np.full((1, 1, 3), 128, np.uint8), compare=False)

    def picture(self) -> Image.Image:
        """Return the pixels as an RGB image."""
        is_grey = self.pixels.shape[2] == 1
        return Image.fromarray(self.pixels[:, :, 0] if is_grey else self.pixels).convert("RGB")


class ExampleCollector:
    """Chooses images from all batches of an evaluation. Its memory does not grow with their number.

    It keeps the wrong predictions with the highest probability, and a random choice of the right predictions that
    depends on `seed` alone.

    Args:
        most: number of examples of each kind.
        seed: seed of the random choice.
    """

    def __init__(self, most: int, seed: int = 0):
        self.most = most
        self.num_seen = 0
        self._rng = stream(seed)
        # Heaps, whose first element is the next to go: rank, negative number of the image, example, network's input.
        self._wrong: list[tuple[float, int, Example, np.ndarray]] = []
        self._right: list[tuple[float, int, Example, np.ndarray]] = []

    def __call__(self, images: np.ndarray, labels: np.ndarray, logits: np.ndarray) -> None:
        """Look at a batch, see `mindcv.engine.evaluate`."""
        if images.ndim == 5:  # five crops of each image, whose last one is the centre
            images = images[:, -1]
        probabilities = softmax(logits)
        predicted = logits.argmax(axis=1).tolist()
        random_ranks = self._rng.random(len(labels)).tolist()
        for row, label in enumerate(labels.tolist()):
            probability = float(probabilities[row, predicted[row]])
            if predicted[row] == label:
                heap, rank = self._right, random_ranks[row]
            else:
                heap, rank = self._wrong, probability
            number = self.num_seen + row
            if len(heap) == self.most and (rank, -number) < heap[0][:2]:
                continue  # of equal ranks, the earlier image stays
            example = Example(number, label, predicted[row], probability)
            heapq.heappush(heap, (rank, -number, example, np.array(images[row], np.float32)))
            if len(heap) > self.most:
                heapq.heappop(heap)
        self.num_seen += len(labels)

    def examples(
        self, mean: Sequence[float], std: Sequence[float], name_of: Callable[[int], str]
    ) -> tuple[list[Example], list[Example]]:
        """Return the wrong predictions, the highest probability first, and the right ones in the order of the images.

        Args:
            mean, std: normalisation of each channel, on the scale from 0 to 255, which is undone.
            name_of: gives the name of the image with this index.
        """
        wrong = sorted(self._wrong, key=lambda kept: kept[:2], reverse=True)
        right = sorted(self._right, key=lambda kept: kept[2].number)
        shown = (
            [
                replace(e, name=name_of(e.number), pixels=restored_pixels(image[None], mean, std)[0])
                for _, _, e, image in kept
            ]
            for kept in (wrong, right)
        )
        return tuple(shown)
