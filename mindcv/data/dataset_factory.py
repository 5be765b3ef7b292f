"""Data sets by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Optional, Union

from mindcv.data.cifar import read_cifar
from mindcv.data.constants import DATASET_NAMES
from mindcv.data.dataset import ImageCollection, ImageDataset
from mindcv.data.digits import read_digits
from mindcv.data.image_folder import ImageFolder
from mindcv.data.mnist import read_mnist
from mindcv.utils.errors import UserError, unknown_name

__all__ = ["create_dataset"]

_PLACES = {
    "mnist": "its four IDX files into the folder that root (data_dir) names",
    "cifar10": "the folder 'cifar-10-batches-py' or 'cifar-10-batches-bin' into the folder that root (data_dir) names",
    "cifar100": "the folder 'cifar-100-python' or 'cifar-100-binary' into the folder that root (data_dir) names",
    "digits": 'nothing anywhere: scikit-learn has the digits (pip install "mindcv[demo]")',
}
_FOLDER_PLACE = "the images into root/<split>/<class>/"


def create_dataset(
    name: str = "",
    root: Optional[Union[str, os.PathLike]] = None,
    split: str = "train",
    shuffle: bool = True,
    num_samples: Optional[int] = None,
    num_shards: Optional[int] = None,
    shard_id: Optional[int] = None,
    num_parallel_workers: Optional[int] = None,
    download: bool = False,
    num_aug_repeats: int = 0,
    *,
    seed: int = 0,
    class_indexing: Optional[Mapping[str, int]] = None,
) -> ImageDataset:
    """The data set of that name.

    Args:
        name: upper or lower case: 'imagenet', 'folder' or '' for an image folder (see `ImageFolder`); 'digits',
            'mnist', 'cifar10' or 'cifar100'.
        root: where the files are; 'digits' needs none.
        split: 'train' or 'val' as a rule; 'test' too for all but image folders, where it names the sub-folder.
        shuffle, num_samples, num_shards, shard_id, num_parallel_workers, num_aug_repeats, seed: see `ImageDataset`.
        download: True is refused, with a word on where to put the files.
        class_indexing: class name to label. It numbers the folders of an image folder, and must be equal to the
            `class_to_idx` of another data set, whose labels are fixed.

    Raises:
        UserError: an argument is not allowed; DataError, a kind of it, when files are missing or damaged.
    """
    kind = name.lower()
    if kind not in DATASET_NAMES:
        raise UserError(unknown_name("dataset", name, filter(None, DATASET_NAMES)))
    if download:
        place = _PLACES.get(kind, _FOLDER_PLACE)
        raise UserError(f"downloading data sets is not part of this version; put {place}, and leave download off")
    dataset = ImageDataset(
        _open(kind, root, split, class_indexing),
        shuffle=shuffle,
        seed=seed,
        num_samples=num_samples,
        num_shards=num_shards,
        shard_id=shard_id,
        num_parallel_workers=num_parallel_workers,
        num_aug_repeats=num_aug_repeats,
    )
    if class_indexing is not None and dataset.class_to_idx != dict(class_indexing):
        raise UserError(
            f"class_indexing numbers other classes than data set '{name}' has: the one has {list(class_indexing)[:4]} "
            f"..., the other {dataset.class_names[:4]} ..."
        )
    return dataset


def _open(
    kind: str, root: Optional[Union[str, os.PathLike]], split: str, class_indexing: Optional[Mapping[str, int]]
) -> ImageCollection:
    if kind == "digits":
        return read_digits(split)
    if root is None:
        raise UserError(f"dataset '{kind or 'folder'}' needs root (data_dir), the folder of its files")
    if kind == "mnist":
        return read_mnist(root, split)
    if kind in ("cifar10", "cifar100"):
        return read_cifar(kind, root, split)
    return ImageFolder(root, split, class_indexing)
