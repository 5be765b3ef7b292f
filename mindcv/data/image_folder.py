"""A folder of images: root/<split>/<class>/**/<image>."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Optional, Union

import numpy as np

from mindcv.utils.errors import DataError, UserError, nearest
from mindcv.utils.logger import logger

__all__ = ["IMAGE_SUFFIXES", "ImageFolder"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
_ENCODED_SUFFIXES = tuple(os.fsencode(suffix) for suffix in IMAGE_SUFFIXES)


class ImageFolder:
    """The images below root/<split>, whose sub-folders are the classes and may hold folders again.

    Samples are ordered by class folder, then by path. Files and folders whose name starts with a dot are skipped; so
    are, with a line in the log, files in no class folder and those with other endings than `IMAGE_SUFFIXES` (upper or
    lower case). The paths are kept as one block of bytes: 1.28 million take 50 MB, and forked workers share them, which
    they would not Python strings.

    Args:
        root: the folder.
        split: its sub-folder, 'train' or 'val' as a rule; '' when the class folders are in `root` itself.
        class_indexing: class folder to label, which must be 0..n-1 each once; by default the sorted folder names are
            numbered. There may be classes here of which there is no folder, but not the other way round.

    Raises:
        DataError: the folder, split, classes or images are missing, or a class folder is not in `class_indexing`.
        UserError: `class_indexing` does not number its classes 0..n-1.
    """

    def __init__(
        self, root: Union[str, os.PathLike], split: str = "train", class_indexing: Optional[Mapping[str, int]] = None
    ):
        self.folder = _find_split(os.fspath(root), split)
        class_folders = _sub_folders(self.folder)
        if not class_folders:
            raise DataError(
                f"'{self.folder}' has no class folders: images belong into a folder a class, as in "
                f"'{os.path.join(self.folder, 'cat', '1.jpg')}'"
            )
        class_to_idx = _number_classes(self.folder, class_folders, class_indexing)
        self.class_names = sorted(class_to_idx, key=class_to_idx.get)
        self._read_tree(class_folders, class_to_idx)

    def _read_tree(self, class_folders: list[str], class_to_idx: dict[str, int]) -> None:
        paths, counts, empty = [], [], []
        others = _files_of_no_class(self.folder)
        for name in class_folders:
            found = sorted(_image_paths(os.fsencode(self.folder), os.fsencode(name), others))
            if not found:
                empty.append(name)
            paths += found
            counts.append(len(found))
        if empty:
            raise DataError(f"no images in class folder(s) of '{self.folder}': {_shortened(empty)}")
        if others:
            logger.info(
                "%d file(s) below '%s' are in no class folder or not named like an image, and left out, such as '%s'",
                len(others),
                self.folder,
                os.fsdecode(others[0]),
            )
        self._paths = b"".join(paths)
        self._ends = np.cumsum([len(path) for path in paths], dtype=np.int64)
        self._labels = np.repeat(np.array([class_to_idx[name] for name in class_folders], np.int32), counts)

    def __len__(self) -> int:
        return len(self._ends)

    def read(self, index: int) -> tuple[bytes, int]:
        """See `ImageCollection`."""
        path = self.describe(index)
        try:
            with open(path, "rb", buffering=0) as file:  # of no use here; with it 9 us, not 6
                return file.read(), int(self._labels[index])
        except OSError as error:
            raise DataError(f"cannot read '{path}': {error.strerror}") from None

    def describe(self, index: int) -> str:
        """The path of the image."""
        start = self._ends[index - 1] if index else 0
        return os.path.join(self.folder, os.fsdecode(self._paths[start : self._ends[index]]))


def _find_split(root: str, split: str) -> str:
    if not os.path.isdir(root):
        raise DataError(f"the data set's folder '{root}' does not exist")
    folder = os.path.join(root, split) if split else root
    if not os.path.isdir(folder):
        there = _sub_folders(root)
        raise DataError(
            f"'{root}' has no folder '{split}' for that split{nearest(split, there)} "
            f"(there are: {_shortened(there) if there else 'none'}; split '' takes '{root}' itself)"
        )
    return folder


def _sub_folders(folder: str) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _files_of_no_class(folder: str) -> list[bytes]:
    with os.scandir(os.fsencode(folder)) as entries:
        return sorted(entry.name for entry in entries if entry.is_file() and not entry.name.startswith(b"."))


def _number_classes(
    folder: str, class_folders: list[str], class_indexing: Optional[Mapping[str, int]]
) -> dict[str, int]:
    if class_indexing is None:
        return {name: label for label, name in enumerate(class_folders)}
    if sorted(class_indexing.values()) != list(range(len(class_indexing))):
        raise UserError(f"class_indexing must number its {len(class_indexing)} classes from 0, each label once")
    unknown = [name for name in class_folders if name not in class_indexing]
    if unknown:
        raise DataError(f"class folder(s) of '{folder}' that are not in class_indexing: {_shortened(unknown)}")
    return dict(class_indexing)


def _image_paths(folder: bytes, relative: bytes, others: list[bytes]) -> Iterator[bytes]:
    """Paths, relative to `folder`, of the images below folder/relative; other files are added to `others`."""
    below = []
    with os.scandir(os.path.join(folder, relative)) as entries:
        for entry in entries:
            if entry.name.startswith(b"."):
                continue
            path = relative + b"/" + entry.name
            if entry.is_dir():
                below.append(path)
            elif entry.name.lower().endswith(_ENCODED_SUFFIXES):
                yield path
            else:
                others.append(path)
    for path in below:
        yield from _image_paths(folder, path, others)


def _shortened(names: list[str], most: int = 8) -> str:
    listed = ", ".join(f"'{name}'" for name in names[:most])
    return listed if len(names) <= most else f"{listed} and {len(names) - most} more"
