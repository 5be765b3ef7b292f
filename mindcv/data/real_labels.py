"""The ReaL labels of ImageNet's validation images: all classes that an image shows, by new annotators.

Source: Beyer et al., "Are we done with ImageNet?", arXiv 2006.07159. Their file `real.json` is a list with an entry for
each image, in the order of the file names. An entry is a list of labels, which is empty for an image without any.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Union

import numpy as np

from mindcv.data.class_names import imagenet_wordnet_ids, match_classes
from mindcv.utils.errors import DataError, UserError, shorten

__all__ = ["RealLabels", "read_real_labels"]

_NUM_IMAGES = 50_000
_NUM_CLASSES = 1000
_IMAGE_NAME = re.compile(r"ILSVRC2012_val_(\d{8})(?!\d)")
_SOURCE = "https://github.com/google-research/reassessed-imagenet has the file real.json"


class RealLabels:
    """The ReaL labels of the images of a data set.

    Args:
        labels: labels of each of ImageNet's validation images, as `read_real_labels` returns them.
        image_names: name of each image of the data set, with or without its folder, such as
            'n01440764/ILSVRC2012_val_00000293.JPEG'.
        class_names: name of each class of the network, which must be a class of ImageNet-1k.

    Raises:
        DataError: the name of an image or of a class is not that of an image or class of ImageNet.
    """

    def __init__(self, labels: Sequence[Sequence[int]], image_names: Sequence[str], class_names: Sequence[str]):
        self._imagenet_labels = _imagenet_labels(class_names)
        self._labels = [frozenset(labels[_number(name) - 1]) for name in image_names]

    def count(self, predicted: np.ndarray) -> tuple[int, int]:
        """Return how many images have labels, and for how many of them the prediction is one of their labels.

        Args:
            predicted: predicted class of each image, in the order of `image_names`.
        """
        pairs = [(own, label) for own, label in zip(self._labels, self._imagenet_labels[predicted].tolist()) if own]
        return len(pairs), sum(label in own for own, label in pairs)


def read_real_labels(path: Union[str, os.PathLike]) -> list[list[int]]:
    """Read a file of ReaL labels.

    Raises:
        UserError: the file cannot be read, or is not such a file.
    """
    try:
        entries = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UserError(f"real_labels '{path}' cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UserError(f"real_labels '{path}' is not a JSON file: {_SOURCE}") from None
    if not isinstance(entries, list) or len(entries) != _NUM_IMAGES:
        found = f"a list of {len(entries)} entries" if isinstance(entries, list) else "no list"
        raise UserError(
            f"real_labels '{path}' holds {found}, and a list with one entry for each of ImageNet's {_NUM_IMAGES} "
            f"validation images is expected: {_SOURCE}"
        )
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, list) or not all(map(_is_label, entry)):
            raise UserError(
                f"real_labels '{path}': entry {number} is not a list of whole numbers from 0 to {_NUM_CLASSES - 1}: "
                f"{_SOURCE}"
            )
    return entries


def _is_label(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _NUM_CLASSES


def _number(image_name: str) -> int:
    """Return the number in the name of an image of ImageNet."""
    found = _IMAGE_NAME.match(os.path.basename(image_name))
    number = int(found[1]) if found else 0
    if not 1 <= number <= _NUM_IMAGES:
        raise DataError(
            f"real_labels: image '{image_name}' is not a validation image of ImageNet, which are named "
            f"ILSVRC2012_val_00000001.JPEG to ILSVRC2012_val_000{_NUM_IMAGES}.JPEG: leave real_labels out for other "
            "images"
        )
    return number


def _imagenet_labels(class_names: Sequence[str]) -> np.ndarray:
    """Return the label in ImageNet-1k of each class of a network."""
    ids = {wordnet_id: label for label, wordnet_id in enumerate(imagenet_wordnet_ids())}
    labels = match_classes([name for name in class_names if not name.isdecimal()], ids)
    # 1000 classes that are named by numbers are those of ImageNet (see `mindcv.recipe_data.find_class_numbers`).
    if len(class_names) == _NUM_CLASSES:
        labels |= {name: int(name) for name in class_names if name.isdecimal() and int(name) < _NUM_CLASSES}
    unknown = [name for name in class_names if name not in labels]
    if unknown:
        raise DataError(f"real_labels: these classes of the network are not classes of ImageNet-1k: {shorten(unknown)}")
    return np.array([labels[name] for name in class_names])
