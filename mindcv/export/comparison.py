"""Compares the outputs of an exported file with those of the network that it was written from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import nn

from mindcv.export.metadata import LOGITS, PROBABILITIES
from mindcv.utils.errors import UserError
from mindcv.utils.softmax import softmax

__all__ = ["HALF_TOLERANCE", "TOLERANCE", "Comparison", "expected_outputs"]

# Largest allowed difference in float32 and in float16. It is relative to the largest output if that is above 1.
TOLERANCE = 1e-4
HALF_TOLERANCE = 0.05


@dataclass
class Comparison:
    """What was found on all images so far.

    Attributes:
        num_images: how many images were compared.
        largest_difference: of an output, divided by the largest output of its array if that is above 1.
        num_other_top1: how many images have another most probable class. It stays 0 for a network without classes.
        largest_probability_difference: of a class. It stays 0 for a network without classes.
    """

    num_images: int = 0
    largest_difference: float = 0.0
    num_other_top1: int = 0
    largest_probability_difference: float = 0.0

    def add(self, expected: Sequence[np.ndarray], found: Sequence[np.ndarray], kind: str) -> None:
        """Add the outputs of a batch.

        Args:
            expected: outputs of the network.
            found: outputs of the file.
            kind: kind of the outputs, as in `ExportMetadata.output`.

        Raises:
            UserError: the numbers or shapes of the outputs differ, or an output is not finite.
        """
        shapes = [[array.shape for array in arrays] for arrays in (expected, found)]
        if shapes[0] != shapes[1]:
            raise UserError(f"the exported file gives outputs of the shapes {shapes[1]}, and the network {shapes[0]}")
        for ours, theirs in zip(expected, found):
            if not np.isfinite(ours).all() or not np.isfinite(theirs).all():
                whose = "exported file" if np.isfinite(ours).all() else "network"
                raise UserError(f"the outputs of the {whose} are not finite")
            difference = np.abs(ours.astype(np.float64) - theirs).max() / max(1.0, np.abs(ours).max())
            self.largest_difference = max(self.largest_difference, float(difference))
        self.num_images += len(expected[0])
        if kind in (LOGITS, PROBABILITIES):
            probabilities = [each[0] if kind == PROBABILITIES else softmax(each[0]) for each in (expected, found)]
            self.num_other_top1 += int((probabilities[0].argmax(1) != probabilities[1].argmax(1)).sum())
            difference = float(np.abs(probabilities[0] - probabilities[1]).max())
            self.largest_probability_difference = max(self.largest_probability_difference, difference)

    def check(self, tolerance: float) -> None:
        """Check that no output differs by more than the tolerance.

        Raises:
            UserError: an output does.
        """
        if self.largest_difference > tolerance:
            raise UserError(
                f"the outputs of the exported file differ from those of the network by up to "
                f"{self.largest_difference:.1e}, and at most {tolerance:g} is allowed: the file was not kept"
            )


def expected_outputs(network: nn.Cell, images: np.ndarray, kind: str) -> list[np.ndarray]:
    """Return the outputs of a network for images float32 [N, C, H, W], as an exported file gives them."""
    outputs = network(ms.Tensor(images))
    arrays = [output.asnumpy() for output in (outputs if isinstance(outputs, (list, tuple)) else [outputs])]
    return [softmax(array) for array in arrays] if kind == PROBABILITIES else arrays
