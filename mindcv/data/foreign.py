"""Converts MindSpore's data sets and Python objects into data sets that this library's loader can read."""

from __future__ import annotations

from typing import Any, Union

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
from PIL import Image

from mindcv.data.dataset import ImageDataset
from mindcv.data.image_folder import ImageFolder
from mindcv.data.image_io import to_array
from mindcv.utils.checks import shown
from mindcv.utils.errors import DataError, UserError

__all__ = ["as_image_dataset"]

_COLUMNS = ["image", "label"]
_SUPPORTED = (
    "create_loader accepts a data set of create_dataset, a GeneratorDataset whose source has __getitem__ and __len__, "
    "an ImageFolderDataset, or a Python object with __getitem__ and __len__"
)


def as_image_dataset(dataset: Any, num_classes: int, shuffle: bool) -> ImageDataset:
    """Convert a data set for this library's loader. A data set of `create_dataset` is returned unchanged.

    The settings of MindSpore's data sets (shuffling, shards, number of samples) are kept. The loader reads their source
    itself, so order and augmentation depend only on the seed, which is the one of `mindspore.set_seed`.

    Args:
        dataset: see `create_loader`.
        num_classes: number of classes, if the data set does not name its classes.
        shuffle: whether to shuffle a Python object in each epoch.

    Raises:
        UserError: the kind of data set is not supported.
    """
    if isinstance(dataset, ImageDataset):
        return dataset
    seed = ms.get_seed() or 0
    if isinstance(dataset, ds.ImageFolderDataset):
        images = ImageFolder(dataset.dataset_dir, "", dataset.class_indexing or None)
        return ImageDataset(images, seed=seed, **_options(dataset))
    if isinstance(dataset, ds.GeneratorDataset):
        if list(dataset.column_names) != _COLUMNS:
            raise UserError(
                f"the column_names of a GeneratorDataset must be {_COLUMNS}, got {list(dataset.column_names)}"
            )
        _check_source(dataset.source, "the source of the GeneratorDataset")
        return ImageDataset(_ObjectImages(dataset.source, num_classes), seed=seed, **_options(dataset))
    if isinstance(dataset, ds.Dataset):
        raise UserError(f"a {type(dataset).__name__} cannot be read by index: {_SUPPORTED}")
    _check_source(dataset, "the data set")
    return ImageDataset(_ObjectImages(dataset, num_classes), seed=seed, shuffle=shuffle)


def _options(dataset: ds.MappableDataset) -> dict[str, Any]:
    sampler = dataset.sampler
    if not isinstance(sampler, (ds.RandomSampler, ds.SequentialSampler, ds.DistributedSampler)):
        raise UserError(
            f"a {type(dataset).__name__} with a {type(sampler).__name__} is not supported: choose the samples in "
            "__getitem__ and __len__ of its source"
        )
    is_shuffled = isinstance(sampler, ds.RandomSampler) or getattr(sampler, "shuffle", False) is True
    shards = {"num_shards": dataset.num_shards, "shard_id": dataset.shard_id} if dataset.num_shards > 1 else {}
    return {"shuffle": is_shuffled, "num_samples": dataset.num_samples or None, **shards}


def _check_source(source: Any, name: str) -> None:
    if isinstance(source, (str, bytes, dict)):
        raise UserError(f"{name} must not be {shown(source)}: {_SUPPORTED}")
    missing = [name for name in ("__getitem__", "__len__") if not hasattr(source, name)]
    if missing:
        raise UserError(f"{name}, {type(source).__name__}, has no {' and no '.join(missing)}: {_SUPPORTED}")


class _ObjectImages:
    """Makes an `ImageCollection` of a Python object with `__getitem__` and `__len__`."""

    def __init__(self, source: Any, num_classes: int):
        self.source = source
        names = getattr(source, "class_names", None) or getattr(source, "classes", None)
        self.class_names = list(map(str, range(num_classes) if names is None else names))

    def __len__(self) -> int:
        return len(self.source)

    def read(self, index: int) -> tuple[Union[bytes, np.ndarray], Any]:
        """See `ImageCollection`."""
        sample = self.source[index]
        if not isinstance(sample, (tuple, list)) or len(sample) != 2:
            raise DataError(f"{self.describe(index)} must be a pair (image, label), got {type(sample).__name__}")
        return self._image(sample[0], index), self._label(sample[1], index)

    def describe(self, index: int) -> str:
        """See `ImageCollection`."""
        return f"{type(self.source).__name__}[{index}]"

    def _image(self, image: Any, index: int) -> Union[bytes, np.ndarray]:
        if isinstance(image, bytes):
            return image
        if isinstance(image, Image.Image):
            return to_array(image)
        array = image.asnumpy() if isinstance(image, ms.Tensor) else np.asarray(image)
        if array.dtype == np.uint8 and array.ndim == 1:
            return array.tobytes()
        if array.dtype == np.uint8 and (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3))):
            return array
        raise DataError(
            f"the image of {self.describe(index)} must be the contents of a file (bytes or a one-dimensional uint8 "
            "array), a Pillow image, or a uint8 array (height, width) or (height, width, 1 or 3), got "
            f"{_shown(image, array)}"
        )

    def _label(self, label: Any, index: int) -> Any:
        array = label.asnumpy() if isinstance(label, ms.Tensor) else np.asarray(label)
        count = len(self.class_names)
        if array.dtype.kind in "iu" and array.shape in ((), (1,)):
            number = int(array.reshape(()))
            if not 0 <= number < count:
                raise DataError(f"the label of {self.describe(index)} must be from 0 to {count - 1}, got {number}")
            return number
        if array.dtype.kind in "iuf" and array.ndim == 1:
            return array  # probabilities of the classes, or a multi-label target
        raise DataError(f"the label of {self.describe(index)} must be a class number, got {label!r}")


def _shown(value: Any, array: np.ndarray) -> str:
    return f"{array.dtype} {array.shape}" if array.dtype != object else type(value).__name__
