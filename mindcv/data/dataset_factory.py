"""Creates data sets by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Optional, Union

from mindcv.data.cifar import fetch_cifar, read_cifar
from mindcv.data.constants import (
    DATASET_NAMES,
    DOWNLOADABLE_DATASETS,
    FASHION_MNIST_SOURCES,
    FASHION_MNIST_SYSTEM_FOLDER,
)
from mindcv.data.dataset import ImageCollection, ImageDataset
from mindcv.data.digits import read_digits
from mindcv.data.holdout import hold_out
from mindcv.data.image_folder import ImageFolder
from mindcv.data.mnist import fetch_mnist, read_mnist
from mindcv.utils.checks import check_flags, check_int, check_kind, check_name, check_number, check_path, check_text
from mindcv.utils.download import cache_root
from mindcv.utils.errors import UserError

__all__ = ["create_dataset", "get_dataset_download_root"]

_PathLike = Union[str, os.PathLike]

# Data sets with a default root: the folder of their name in `get_dataset_download_root()`.
_WITH_DEFAULT_ROOT = (*DOWNLOADABLE_DATASETS, "imagenet", "fashion_mnist")
# Data set -> a second default root, where packages of the system put it.
_SYSTEM_ROOTS = {"fashion_mnist": FASHION_MNIST_SYSTEM_FOLDER}
# Data set -> how to get it, for those that cannot be downloaded. The others are folders of images.
_SOURCES = {"digits": "install scikit-learn, which contains it", "fashion_mnist": FASHION_MNIST_SOURCES}


def get_dataset_download_root() -> str:
    """Return the folder of the downloaded data sets: `datasets` in `mindcv.utils.download.cache_root()`.

    It is a string and not a Path, because users of MindCV append names to it.
    """
    return str(cache_root() / "datasets")


def create_dataset(
    name: str = "",
    root: Optional[_PathLike] = None,
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
    val_fraction: float = 0.0,
    is_held_out: bool = False,
    has_classes: bool = True,
) -> ImageDataset:
    """Create the data set with the given name.

    Args:
        name: name in upper or lower case: 'imagenet', 'folder' or '' for an image folder (see `ImageFolder`), 'digits',
            'mnist', 'fashion_mnist', 'cifar10' or 'cifar100'.
        root: folder that holds the files; 'digits' needs none. The default for 'imagenet', 'mnist', 'fashion_mnist',
            'cifar10' and 'cifar100' is the folder of that name in `get_dataset_download_root()`. If that folder does
            not exist, 'fashion_mnist' is read from the folder of Debian's package dataset-fashion-mnist.
        split: 'train', 'val' or 'test'. For an image folder it is the name of any sub-folder.
        shuffle, num_samples, num_shards, shard_id, num_parallel_workers, num_aug_repeats, seed: see `ImageDataset`.
        download: whether to download missing files of 'mnist', 'cifar10' or 'cifar100' into `root`. Several processes
            may do this at the same time.
        class_indexing: class name -> label. It sets the labels of an image folder. For other data sets, whose labels
            are fixed, it must equal their `class_to_idx`.
        val_fraction: fraction of the images to hold out for validation (see `mindcv.data.holdout.hold_out`); 0 holds
            out none. The choice depends on `seed`.
        is_held_out: whether to return the images that are held out, instead of the others. It needs `val_fraction`.
        has_classes: whether the sub-folders of an image folder are classes (see `ImageFolder`).

    Raises:
        UserError: an argument is not allowed, or a download failed. If files are missing or damaged, it is a
            DataError, which is a kind of UserError.
    """
    kind = check_name("dataset", name, DATASET_NAMES, ignore_case=True)
    check_text("split", split)
    check_flags(shuffle=shuffle, download=download, is_held_out=is_held_out, has_classes=has_classes)
    check_number("val_fraction", val_fraction, low=0, below=1)
    check_int("seed", seed, 0)
    if root is not None:
        check_path("root", root)
    if class_indexing is not None:
        check_kind("class_indexing", class_indexing, Mapping, "a dictionary of class names and their labels")
    if download and kind not in DOWNLOADABLE_DATASETS:
        raise UserError(_cannot_download(kind))
    root = _root_of(kind, root, download)
    if download:
        fetch_mnist(root) if kind == "mnist" else fetch_cifar(kind, root)
    images = _open(kind, root, split, class_indexing, has_classes)
    if val_fraction:
        images = hold_out(images, val_fraction, seed)[is_held_out]
    dataset = ImageDataset(
        images,
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
            f"class_indexing does not match the classes of data set '{name}': it begins with "
            f"{list(class_indexing)[:4]}, and the data set begins with {dataset.class_names[:4]}"
        )
    return dataset


def _cannot_download(kind: str) -> str:
    advice = _SOURCES.get(kind, "put the images into root/<split>/<class>/")
    return (
        f"dataset '{kind or 'folder'}' cannot be downloaded, only {', '.join(DOWNLOADABLE_DATASETS)} can: {advice}, "
        "and leave download (dataset_download) off"
    )


def _root_of(kind: str, root: Optional[_PathLike], download: bool) -> Optional[_PathLike]:
    if root is not None or kind == "digits":
        return root
    message = f"dataset '{kind or 'folder'}' needs root (data_dir), the folder of its files"
    if kind not in _WITH_DEFAULT_ROOT:
        raise UserError(message)
    default, system = os.path.join(get_dataset_download_root(), kind), _SYSTEM_ROOTS.get(kind)
    if download or os.path.isdir(default):
        return default
    if system is None:
        message += ", or download (dataset_download)" if kind in DOWNLOADABLE_DATASETS else ""
        raise UserError(f"{message}; its default folder '{default}' does not exist")
    if os.path.isdir(system):
        return system
    raise UserError(f"{message}; its default folders '{default}' and '{system}' do not exist: {_SOURCES[kind]}")


def _open(
    kind: str,
    root: Optional[_PathLike],
    split: str,
    class_indexing: Optional[Mapping[str, int]],
    has_classes: bool,
) -> ImageCollection:
    if kind == "digits":
        return read_digits(split)
    if kind in ("mnist", "fashion_mnist"):
        return read_mnist(root, split, kind)
    if kind in DOWNLOADABLE_DATASETS:
        return read_cifar(kind, root, split)
    return ImageFolder(root, split, class_indexing, has_classes)
