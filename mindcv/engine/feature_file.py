"""Writes the features of images to a `.npz` or a `.safetensors` file, without having all of them in memory."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Union

import numpy as np

from mindcv.convert import write_safetensors
from mindcv.convert.digest import BlockArray, blocks_of
from mindcv.engine.features import FeatureRows
from mindcv.utils.files import atomic_path

__all__ = ["classes_of_sub_folders", "write_features"]

_NAMES_AT_A_TIME = 4096


def classes_of_sub_folders(files: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Return the label of each file, int64 [N], and the sorted class names, which are those of the first sub-folders.

    Args:
        files: paths relative to the folder that holds the class folders. A file outside of them has the label -1.
    """
    folders = [file.split(os.sep, 1)[0] if os.sep in file else None for file in files]
    class_names = sorted({folder for folder in folders if folder is not None})
    label_of = {name: label for label, name in enumerate(class_names)}
    return np.array([-1 if folder is None else label_of[folder] for folder in folders], np.int64), class_names


def write_features(
    path: Union[str, os.PathLike],
    rows: FeatureRows,
    labels: np.ndarray,
    files: Sequence[str],
    class_names: Sequence[str],
    metadata: Mapping[str, Any],
) -> None:
    """Write features, labels and file names atomically. The suffix of `path` names the format.

    A `.npz` file holds the arrays `features` (float32 [N, D]), `labels` (int64 [N]), `files` and `class_names` (text),
    and `metadata`, a text in JSON. `numpy.load` reads it. A `.safetensors` file holds `features`, `labels` and `files`,
    the bytes of all names with a zero byte between two names; its metadata holds `class_names` and `metadata` in JSON.

    Args:
        path: file to write, which ends in .npz or .safetensors.
        rows: features of N images.
        labels: label of each image; -1 for none.
        files: name of each image.
        class_names: names of the classes by label.
        metadata: JSON values that say what the features are.
    """
    if str(path).lower().endswith(".safetensors"):
        names = np.frombuffer(b"\0".join(map(os.fsencode, files)), np.uint8)
        texts = {"class_names": json.dumps(list(class_names)), "metadata": json.dumps(dict(metadata))}
        write_safetensors(path, {"features": rows, "labels": labels, "files": names}, texts)
        return
    members = {
        "features": rows,
        "labels": labels,
        "files": _Names(files),
        "class_names": _Names(class_names),
        "metadata": np.array(json.dumps(dict(metadata))),
    }
    with atomic_path(path) as side, zipfile.ZipFile(side, "w", allowZip64=True) as archive:
        for name, array in members.items():
            _write_member(archive, name, array)


class _Names:
    """Texts as a NumPy array of fixed-width text, which is made a part at a time."""

    def __init__(self, names: Sequence[str]):
        self.names = names
        self.shape = (len(names),)
        self.dtype = np.dtype(f"<U{max(map(len, names), default=1) or 1}")
        self.nbytes = len(names) * self.dtype.itemsize

    def blocks(self) -> Iterator[np.ndarray]:
        """See `BlockArray`."""
        for start in range(0, len(self.names), _NAMES_AT_A_TIME):
            yield np.array(self.names[start : start + _NAMES_AT_A_TIME], self.dtype)


def _write_member(archive: zipfile.ZipFile, name: str, array: Union[np.ndarray, BlockArray]) -> None:
    """Write one array to a `.npz` file. Its time is a constant, so that equal features give equal files."""
    header = {
        "descr": np.lib.format.dtype_to_descr(array.dtype.newbyteorder("<")),
        "fortran_order": False,
        "shape": array.shape,
    }
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for block in blocks_of(array):
            file.write(block)
