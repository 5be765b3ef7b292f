"""Data sets by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Optional, Union

from mindcv.data.cifar import fetch_cifar, read_cifar
from mindcv.data.constants import DATASET_NAMES
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

_FETCHED = ("mnist", "cifar10", "cifar100")
# Data sets that are looked for in a folder of their own name when no root is given.
_AT_HOME = (*_FETCHED, "imagenet")


def get_dataset_download_root() -> str:
    """The folder that holds a folder for each data set downloaded: `datasets` in `mindcv.utils.download.cache_root()`.

    A string and not a Path, as in MindCV, where users join further names to it.
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
) -> ImageDataset:
    """The data set of that name.

    Args:
        name: upper or lower case: 'imagenet', 'folder' or '' for an image folder (see `ImageFolder`); 'digits',
            'mnist', 'cifar10' or 'cifar100'.
        root: where the files are; 'digits' needs none. By default, for 'imagenet', 'mnist', 'cifar10' and 'cifar100',
            the folder of that name in `get_dataset_download_root()`.
        split: 'train' or 'val' as a rule; 'test' too for all but image folders, where it names the sub-folder.
        shuffle, num_samples, num_shards, shard_id, num_parallel_workers, num_aug_repeats, seed: see `ImageDataset`.
        download: fetch into `root` what it lacks of 'mnist', 'cifar10' or 'cifar100'. Processes may do so at once.
        class_indexing: class name to label. It numbers the folders of an image folder, and must be equal to the
            `class_to_idx` of another data set, whose labels are fixed.
        val_fraction: share of the images to hold out for validation, see `mindcv.data.holdout.hold_out`; 0 for none.
            The split depends on `seed`.
        is_held_out: with `val_fraction`, whether the data set has the images held out, instead of the others.

    Raises:
        UserError: an argument is not allowed, or a download failed; DataError, a kind of it, when files are missing
            or damaged.
    """
    kind = check_name("dataset", name, DATASET_NAMES, ignore_case=True)
    check_text("split", split)
    check_flags(shuffle=shuffle, download=download, is_held_out=is_held_out)
    check_number("val_fraction", val_fraction, low=0, below=1)
    check_int("seed", seed, 0)
    if root is not None:
        check_path("root", root)
    if class_indexing is not None:
        check_kind("class_indexing", class_indexing, Mapping, "a dictionary of class names and their labels")
    if download and kind not in _FETCHED:
        raise UserError(_not_fetched(kind))
    root = _root_of(kind, root, download)
    if download:
        fetch_mnist(root) if kind == "mnist" else fetch_cifar(kind, root)
    images = _open(kind, root, split, class_indexing)
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
            f"class_indexing numbers other classes than data set '{name}' has: the one has {list(class_indexing)[:4]} "
            f"..., the other {dataset.class_names[:4]} ..."
        )
    return dataset


def _not_fetched(kind: str) -> str:
    where = "scikit-learn has it" if kind == "digits" else "put the images into root/<split>/<class>/"
    return (
        f"dataset '{kind or 'folder'}' cannot be downloaded, only {', '.join(_FETCHED)} can: {where}, and leave "
        "download (dataset_download) off"
    )


def _root_of(kind: str, root: Optional[_PathLike], download: bool) -> Optional[_PathLike]:
    if root is not None or kind == "digits":
        return root
    home = os.path.join(get_dataset_download_root(), kind)
    if kind in _AT_HOME and (download or os.path.isdir(home)):
        return home
    told = f"dataset '{kind or 'folder'}' needs root (data_dir), the folder of its files"
    told += ", or download (dataset_download)" if kind in _FETCHED else ""
    told += f"; there is no '{home}' either" if kind in _AT_HOME else ""
    raise UserError(told)


def _open(
    kind: str, root: Optional[_PathLike], split: str, class_indexing: Optional[Mapping[str, int]]
) -> ImageCollection:
    if kind == "digits":
        return read_digits(split)
    if kind == "mnist":
        return read_mnist(root, split)
    if kind in _FETCHED:
        return read_cifar(kind, root, split)
    return ImageFolder(root, split, class_indexing)
