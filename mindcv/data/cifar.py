"""Reads CIFAR-10 and CIFAR-100 in both published formats, Python pickles and plain binary files.

Missing files can be downloaded, in the binary format.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Union

import numpy as np

from mindcv.data.dataset import ArrayImages
from mindcv.utils.checks import check_name
from mindcv.utils.download import download, extract_archive
from mindcv.utils.errors import DataError
from mindcv.utils.files import ensure_writable_dir
from mindcv.utils.locks import locked

__all__ = ["fetch_cifar", "read_cifar"]

_IMAGE_BYTES = 3 * 32 * 32


@dataclass(frozen=True)
class _Format:
    """One published format of a data set: its folder, its files, and the positions of labels and names in them."""

    folder: str
    files: dict[str, tuple[str, ...]]  # split -> names of its files
    names_file: str
    labels_key: bytes = b""  # for pickles
    names_key: bytes = b""  # for pickles
    label_bytes: int = 1  # for binary files; the last byte is the (fine) label


def _cifar10_files(ending: str) -> dict[str, tuple[str, ...]]:
    return {"train": tuple(f"data_batch_{i}{ending}" for i in range(1, 6)), "test": (f"test_batch{ending}",)}


_FORMATS = {
    "cifar10": (
        _Format("cifar-10-batches-py", _cifar10_files(""), "batches.meta", b"labels", b"label_names"),
        _Format("cifar-10-batches-bin", _cifar10_files(".bin"), "batches.meta.txt"),
    ),
    "cifar100": (
        _Format(
            "cifar-100-python", {"train": ("train",), "test": ("test",)}, "meta", b"fine_labels", b"fine_label_names"
        ),
        _Format(
            "cifar-100-binary",
            {"train": ("train.bin",), "test": ("test.bin",)},
            "fine_label_names.txt",
            label_bytes=2,
        ),
    ),
}

# https://www.cs.toronto.edu/~kriz redirects to this host by way of unencrypted http, which
# `download` refuses. The authors' page (cifar.html) and MindCV (data/dataset_download.py) have the
# same md5 sums.
_URL = "https://cave.cs.toronto.edu/kriz/"
_ARCHIVES = {
    "cifar10": ("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
    "cifar100": ("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),
}


def fetch_cifar(name: str, root: Union[str, os.PathLike]) -> None:
    """Download the data set (160 to 170 MB) into `root` and unpack it, unless it is complete in either format.

    Args:
        name: 'cifar10' or 'cifar100'.
        root: folder of the data set (see `read_cifar`).

    Raises:
        UserError: the download failed (see `mindcv.utils.download.download`).
    """
    root = Path(root)
    if _is_complete(name, root):
        return
    archive, md5 = _ARCHIVES[name]
    lock = root / f".{name}.lock"
    ensure_writable_dir(root)
    with locked(lock):  # one process downloads; the others wait and then find the files
        try:
            if not _is_complete(name, root):
                extract_archive(download(_URL + archive, root / archive, md5=md5), root)
                (root / archive).unlink()
        finally:
            lock.unlink()


def read_cifar(name: str, root: Union[str, os.PathLike], split: str) -> ArrayImages:
    """Read CIFAR-10, or CIFAR-100 with its 100 fine labels.

    Args:
        name: 'cifar10' or 'cifar100'.
        root: published folder (cifar-10-batches-py, cifar-10-batches-bin, cifar-100-python or cifar-100-binary), or
            the folder that contains it. If both formats are complete, the pickles are read.
        split: 'train' or 'test'; 'val' is another name of 'test'.

    Raises:
        DataError: a file is missing, damaged, or has another format.
        UserError: the split is unknown.
    """
    check_name(f"split of {name}", split, ("train", "test", "val"))
    split = "test" if split == "val" else split
    form, folder = _find(name, Path(root), split)
    missing = _missing(form, folder, split)
    if missing:
        raise DataError(
            f"'{folder}' lacks {', '.join(missing)}: copy these files to it, or set download (dataset_download)"
        )
    read = _read_pickle if form.labels_key else _read_binary
    parts = [read(folder / file, form) for file in form.files[split]]
    pixels = np.concatenate([pixels for pixels, _ in parts]).reshape(-1, 3, 32, 32)
    labels = np.concatenate([labels for _, labels in parts])
    images = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
    return ArrayImages(f"{name} {split}", images, labels, _read_names(folder / form.names_file, form))


def _find(name: str, root: Path, split: str) -> tuple[_Format, Path]:
    """Return the format and folder with all files of the split, or the first ones with at least one file."""
    candidates = list(_existing_copies(name, root))
    if not candidates:
        choices = " or ".join(f"'{form.folder}'" for form in _FORMATS[name])
        raise DataError(f"'{root}' is not a folder {choices} with the files of {name}, and does not contain one")
    complete = ((form, folder) for form, folder in candidates if not _missing(form, folder, split))
    return next(complete, candidates[0])


def _existing_copies(name: str, root: Path) -> Iterator[tuple[_Format, Path]]:
    """Yield the formats and folders with at least one file."""
    for folder_of in (lambda form: root / form.folder, lambda form: root):
        for form in _FORMATS[name]:
            folder = folder_of(form)
            files = (form.names_file, *form.files["train"], *form.files["test"])
            if any((folder / file).is_file() for file in files):
                yield form, folder


def _missing(form: _Format, folder: Path, split: str) -> list[str]:
    return [file for file in (*form.files[split], form.names_file) if not (folder / file).is_file()]


def _is_complete(name: str, root: Path) -> bool:
    copies = _existing_copies(name, root)
    return any(not any(_missing(form, folder, split) for split in ("train", "test")) for form, folder in copies)


def _read_binary(path: Path, form: _Format) -> tuple[np.ndarray, np.ndarray]:
    content = np.fromfile(path, np.uint8)
    record = form.label_bytes + _IMAGE_BYTES
    if not len(content) or len(content) % record:
        raise DataError(
            f"'{path}' is damaged: it has {len(content)} bytes, which is not a multiple of {record}, a sample's size"
        )
    records = content.reshape(-1, record)
    return records[:, form.label_bytes :], records[:, form.label_bytes - 1]


def _read_pickle(path: Path, form: _Format) -> tuple[np.ndarray, np.ndarray]:
    content = _load(path)
    pixels, labels = _dict_entry(content, b"data", path), np.asarray(_dict_entry(content, form.labels_key, path))
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (len(labels), _IMAGE_BYTES):
        raise DataError(
            f"'{path}' is damaged: it must have a row of {_IMAGE_BYTES} bytes for each of its {len(labels)} labels"
        )
    return pixels, labels


def _read_names(path: Path, form: _Format) -> list[str]:
    if form.names_key:
        return [
            name.decode() if isinstance(name, bytes) else name
            for name in _dict_entry(_load(path), form.names_key, path)
        ]
    return path.read_text(encoding="ascii").split()


def _dict_entry(content: Any, key: bytes, path: Path) -> Any:
    """Return the entry of a dict whose keys are bytes (written by Python 2) or strings."""
    for name in (key, key.decode()):
        if isinstance(content, dict) and name in content:
            return content[name]
    raise DataError(f"'{path}' has no entry '{key.decode()}'")


class _ArrayUnpickler(pickle.Unpickler):
    """Reads dicts, lists, numbers, strings and NumPy arrays. It refuses a pickle that refers to anything else."""

    _ALLOWED = {
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("_codecs", "encode"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which no published file needs")
        if name == "_reconstruct":
            module = np.zeros(0).__reduce__()[0].__module__  # the module's name in the installed NumPy
        return super().find_class(module, name)


def _load(path: Path) -> Any:
    try:
        return _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    except (pickle.UnpicklingError, OSError, EOFError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"cannot read '{path}': {error}") from None
