"""Reads MNIST and Fashion-MNIST from their IDX files, plain or compressed, and downloads those of MNIST."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from pathlib import Path
from typing import Union

import numpy as np

from mindcv.data.constants import FASHION_MNIST_SOURCES
from mindcv.data.dataset import ArrayImages
from mindcv.utils.checks import check_name
from mindcv.utils.download import download
from mindcv.utils.errors import DataError

__all__ = ["fetch_mnist", "read_mnist"]

# Data set -> the names of its classes, and what a user can do when files are missing.
_DATASETS = {
    "mnist": ([str(digit) for digit in range(10)], "copy these files to it, or set download (dataset_download)"),
    "fashion_mnist": (
        [
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
            "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        ],
        FASHION_MNIST_SOURCES,
    ),
}  # fmt: skip
_PREFIX = {"train": "train", "test": "t10k", "val": "t10k"}

# torchvision uses the same copy, because MNIST's own page has no https. torchvision
# (datasets/mnist.py) and MindCV (data/dataset_download.py) have the same md5 sums.
_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
_MD5 = {
    "train-images-idx3-ubyte": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte": "ec29112dd5afa0611ce80d1b7f02629c",
}


def fetch_mnist(root: Union[str, os.PathLike]) -> None:
    """Download the files of MNIST that are missing in `root`. The four files have 11 MB and stay compressed.

    Raises:
        UserError: a download failed (see `mindcv.utils.download.download`).
    """
    for name, md5 in _MD5.items():
        if _find(Path(root), name) is None:
            download(f"{_URL}{name}.gz", Path(root, f"{name}.gz"), md5=md5)


def read_mnist(root: Union[str, os.PathLike], split: str, name: str = "mnist") -> ArrayImages:
    """Read MNIST, Fashion-MNIST or another data set in the format of MNIST.

    The files are train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte,
    each with or without '.gz', in `root`.

    Args:
        root: folder of the files.
        split: 'train' or 'test'; 'val' is another name of 'test'.
        name: 'mnist', whose classes are the digits, or 'fashion_mnist', whose classes are kinds of clothing.

    Raises:
        DataError: a file is missing, damaged, or has another format.
        UserError: the split or the name is unknown.
    """
    class_names, advice = _DATASETS[check_name("data set in the format of MNIST", name, _DATASETS)]
    check_name(f"split of {name}", split, _PREFIX)
    names = [f"{_PREFIX[split]}-images-idx3-ubyte", f"{_PREFIX[split]}-labels-idx1-ubyte"]
    paths = [_find(Path(root), name) for name in names]
    missing = [name for name, path in zip(names, paths) if path is None]
    if missing:
        raise DataError(f"'{root}' lacks {' and '.join(missing)} (with or without .gz): {advice}")
    images, labels = (_read_idx(path, num_axes) for path, num_axes in zip(paths, (3, 1)))
    return ArrayImages(f"{name} {split}", images, labels, class_names)


def _find(root: Path, name: str) -> Union[Path, None]:
    return next((path for path in (root / name, root / f"{name}.gz") if path.is_file()), None)


def _read_idx(path: Path, num_axes: int) -> np.ndarray:
    """Return the uint8 array of an IDX file.

    The file has two zero bytes, the type (8 for uint8), the number of axes, the length of each axis as int32, and the
    values.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read '{path}': {error}") from None
    header = 4 + 4 * num_axes
    magic = bytes((0, 0, 8, num_axes))
    if content[:4] != magic or len(content) < header:
        raise DataError(
            f"'{path}' is not an IDX file of bytes with {num_axes} axes: it starts with {content[:4].hex()}"
        )
    shape = struct.unpack(f">{num_axes}I", content[4:header])
    if len(content) - header != int(np.prod(shape, dtype=np.int64)):
        raise DataError(f"'{path}' is damaged: it has {len(content) - header} values, but its shape is {shape}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
