"""Test-time augmentation: the predictions for several views of an image are averaged.

Decision 0087 says why probabilities are averaged and not logits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mindcv.utils.errors import UserError

__all__ = ["TTA_MODES", "Finish", "average_views", "crops_per_image", "start_views"]

# Mode -> crops of each image that the loader makes, and whether each crop is also mirrored.
_MODES = {"none": (1, False), "flip": (1, True), "ten_crop": (5, True)}
TTA_MODES = tuple(_MODES)

# Waits for the logits of images that a network was started on, and returns them.
Finish = Callable[[], np.ndarray]


def crops_per_image(tta: str) -> int:
    """Return how many crops of each image a mode of test-time augmentation needs from the loader."""
    return _MODES[tta][0]


def start_views(start: Callable[[np.ndarray], Finish], images: np.ndarray, tta: str) -> Finish:
    """Start a network on each view of each image, and return a function that waits for the logits.

    The function returns [V, B, num_classes], where V is 1, 2 or 10: first the crops, then their mirror images.

    Args:
        start: starts the network on images [N, C, H, W], and returns a function that waits for the logits [N,
            num_classes].
        images: images [B, C, H, W]; for the mode ten_crop, the five crops of each image, [B, 5, C, H, W].
        tta: mode of test-time augmentation, one of `TTA_MODES`.

    Raises:
        UserError: the mode needs crops, and the images have none.
    """
    num_crops, is_mirrored = _MODES[tta]
    count = len(images)
    if num_crops > 1:
        if images.ndim != 5 or images.shape[1] != num_crops:
            raise UserError(
                f"test-time augmentation {tta} needs {num_crops} crops of each image, an array [B, {num_crops}, C, H, "
                f"W], got the shape {list(images.shape)}: give create_transforms five_crop=True"
            )
        images = images.reshape(-1, *images.shape[2:])
    views = [images, np.ascontiguousarray(images[..., ::-1])] if is_mirrored else [images]
    running = [start(view) for view in views]

    def finish() -> np.ndarray:
        logits = np.stack([finish_view() for finish_view in running])
        by_crop = logits.reshape(len(views), count, num_crops, -1).swapaxes(1, 2)
        return by_crop.reshape(len(views) * num_crops, count, -1)

    return finish


def average_views(logits: np.ndarray) -> np.ndarray:
    """Return the logarithm of the mean of the probabilities of all views.

    The softmax of the result is the mean of the softmaxes. So the result serves as logits: of the prediction, of the
    cross-entropy and of the confidence.

    Args:
        logits: logits [V, B, num_classes]. Those of a single view are returned as they are.

    Returns:
        [B, num_classes], float64 for several views.
    """
    if len(logits) == 1:
        return logits[0]
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=2, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=2, keepdims=True))
    return np.logaddexp.reduce(log_probabilities, axis=0) - np.log(len(logits))
