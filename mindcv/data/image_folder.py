"""Image folders with the layout root/<split>/<class>/**/<image>."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Optional, Union

import numpy as np

from mindcv.data.class_names import match_classes
from mindcv.data.image_files import IMAGE_SUFFIXES, FoundFiles, sub_folders, walk_images
from mindcv.data.image_io import check_header
from mindcv.utils.errors import DataError, MissingSplitError, UnknownClassesError, UserError, nearest, shorten
from mindcv.utils.logger import logger

__all__ = ["ImageFolder"]


class ImageFolder:
    """The images below root/<split>. Each sub-folder is a class and may contain further folders.

    Samples are ordered by class folder, then by path. Files and folders whose name starts with a dot are skipped. Files
    outside the class folders, and files without a suffix of `IMAGE_SUFFIXES` (in upper or lower case), are skipped too,
    and the log says so. The paths are stored as one array of bytes. 1.28 million paths take 50 MB, and worker
    processes share them, unlike Python strings.

    Args:
        root: folder of the data set.
        split: name of a sub-folder, such as 'train' or 'val'; '' if the class folders are in `root` itself.
        class_indexing: class name -> label. The labels must be 0..n-1. By default the sorted folder names are numbered.
            A class may have no folder, but each folder must belong to a class. Folders of ImageNet's classes may have
            other names of the same class (see `mindcv.data.class_names.match_classes`).
        has_classes: False for images without classes, as pre-training takes them: all images below root/<split> are
            used, in sub-folders or not, and have the label 0.

    Raises:
        DataError: the folder, split, classes or images do not exist, or a class folder is not in `class_indexing`.
        UserError: `class_indexing` does not number its classes 0..n-1.
    """

    def __init__(
        self,
        root: Union[str, os.PathLike],
        split: str = "train",
        class_indexing: Optional[Mapping[str, int]] = None,
        has_classes: bool = True,
    ):
        if class_indexing is not None:
            _check_numbers(class_indexing)
        self.folder = _find_split(os.fspath(root), split)
        found = walk_images(self.folder)
        if not has_classes:
            self._take_all(found)
            return
        class_folders = [name for name in sub_folders(self.folder) if os.fsencode(name) not in found.loops]
        if not class_folders:
            raise DataError(
                f"'{self.folder}' has no class folders: each class needs a folder for its images, as in "
                f"'{os.path.join(self.folder, 'cat', '1.jpg')}'"
            )
        label_of = _number_folders(self.folder, class_folders, class_indexing)
        class_to_idx = label_of if class_indexing is None else class_indexing
        self.class_names = sorted(class_to_idx, key=class_to_idx.get)
        paths_by_class = {name: _paths_below(name, found.images) for name in class_folders}
        counts = [len(paths) for paths in paths_by_class.values()]
        paths_without_class = []
        if sum(counts) < len(found.images):
            paths_without_class = [path for path in found.images if os.fsencode(os.sep) not in path]
        self._check_and_report(paths_by_class, paths_without_class + found.others)
        self._store([path for paths in paths_by_class.values() for path in paths])
        self.labels = np.repeat(np.array([label_of[name] for name in class_folders], np.int32), counts)

    def _take_all(self, found: FoundFiles) -> None:
        """Take all images as images without classes."""
        if not found.images:
            raise DataError(f"'{self.folder}' has no image files ({' '.join(IMAGE_SUFFIXES)}), also in its sub-folders")
        self.class_names = ["image"]
        self._store(found.images)
        self.labels = np.zeros(len(found.images), np.int32)

    def _check_and_report(self, paths_by_class: Mapping[str, Sequence[bytes]], others: Sequence[bytes]) -> None:
        empty = [name for name, paths in paths_by_class.items() if not paths]
        if empty:
            raise DataError(
                f"'{self.folder}' has class folder(s) without images: {shorten(empty)}; add images or remove them"
            )
        if others:
            logger.info(
                "%d file(s) below '%s' are left out, because they are outside the class folders or have no suffix of "
                "an image, such as '%s'",
                len(others),
                self.folder,
                os.fsdecode(others[0]),
            )

    def _store(self, paths: Sequence[bytes]) -> None:
        self._paths = np.frombuffer(b"".join(paths), np.uint8)
        self._ends = np.cumsum(np.fromiter(map(len, paths), np.int64, len(paths)))

    def __len__(self) -> int:
        return len(self._ends)

    def read(self, index: int) -> tuple[bytes, int]:
        """See `ImageCollection`."""
        path = self.describe(index)
        try:
            with open(path, "rb", buffering=0) as file:  # a buffer would cost 9 us instead of 6 us
                return file.read(), int(self.labels[index])
        except OSError as error:
            raise DataError(f"cannot read '{path}': {error.strerror}") from None

    def describe(self, index: int) -> str:
        """Return the path of the image."""
        return os.path.join(self.folder, os.fsdecode(self._relative_path(index)))

    def key(self, index: int) -> bytes:
        """Return the path relative to the folder that contains the class folders."""
        return self._relative_path(index).replace(os.fsencode(os.sep), b"/")

    def check(self, index: int) -> None:
        """See `ImageCollection`."""
        path = self.describe(index)
        try:
            with open(path, "rb") as file:
                check_header(file)
        except OSError as error:
            raise DataError(error.strerror) from None

    def __repr__(self) -> str:
        return f"ImageFolder('{self.folder}', {len(self)} images, {len(self.class_names)} classes)"

    def _relative_path(self, index: int) -> bytes:
        start = self._ends[index - 1] if index else 0
        return self._paths[start : self._ends[index]].tobytes()


def _paths_below(folder: str, paths: Sequence[bytes]) -> Sequence[bytes]:
    """Return those of the sorted paths that are below a folder."""
    first = os.path.join(os.fsencode(folder), b"")
    after = first[:-1] + bytes([first[-1] + 1])
    return paths[bisect_left(paths, first) : bisect_left(paths, after)]


def _find_split(root: str, split: str) -> str:
    if not os.path.isdir(root):
        if os.path.exists(root):
            raise DataError(f"'{root}' is a file, but the data set needs a folder: unpack it if it is an archive")
        raise DataError(f"the data set's folder '{root}' does not exist")
    folder = os.path.join(root, split) if split else root
    if not os.path.isdir(folder):
        existing = sub_folders(root)
        nested = [os.path.join(root, name) for name in existing if os.path.isdir(os.path.join(root, name, split))]
        finding = (
            f"'{root}' has no folder '{split}'{nearest(split, existing)} "
            f"(there are: {shorten(existing) if existing else 'none'})"
        )
        if nested:
            raise MissingSplitError(finding, f"; '{nested[0]}' has one: give that folder as data_dir")
        raise MissingSplitError(finding, flat_root=root)
    return folder


def _check_numbers(class_indexing: Mapping[str, int]) -> None:
    if sorted(class_indexing.values()) != list(range(len(class_indexing))):
        raise UserError(
            f"class_indexing must number its {len(class_indexing)} classes from 0, with a different label for each"
        )


def _number_folders(
    folder: str, class_folders: Sequence[str], class_indexing: Optional[Mapping[str, int]]
) -> dict[str, int]:
    """Return the label of each class folder."""
    if class_indexing is None:
        return {name: label for label, name in enumerate(class_folders)}
    labels = match_classes(class_folders, class_indexing)
    unknown = [name for name in class_folders if name not in labels]
    if unknown:
        raise UnknownClassesError(folder, unknown, sorted(class_indexing, key=class_indexing.get))
    return labels
