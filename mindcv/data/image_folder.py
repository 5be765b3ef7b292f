"""A folder of images: root/<split>/<class>/**/<image>."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Optional, Union

import numpy as np

from mindcv.data.image_files import shorten, sub_folders, walk_images
from mindcv.utils.errors import DataError, UserError, nearest
from mindcv.utils.logger import logger

__all__ = ["ImageFolder"]


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
        found = walk_images(self.folder)
        class_folders = [name for name in sub_folders(self.folder) if os.fsencode(name) not in found.loops]
        if not class_folders:
            raise DataError(
                f"'{self.folder}' has no class folders: each class needs a folder for its images, as in "
                f"'{os.path.join(self.folder, 'cat', '1.jpg')}'"
            )
        class_to_idx = _number_classes(self.folder, class_folders, class_indexing)
        self.class_names = sorted(class_to_idx, key=class_to_idx.get)
        of_class: dict[str, list[bytes]] = {name: [] for name in class_folders}
        of_no_class = []
        for path in found.images:
            name, separator, _ = path.partition(os.fsencode(os.sep))
            (of_class[os.fsdecode(name)] if separator else of_no_class).append(path)
        self._check_and_report(of_class, of_no_class + found.others)
        self._keep([path for paths in of_class.values() for path in paths])
        counts = [len(paths) for paths in of_class.values()]
        self.labels = np.repeat(np.array([class_to_idx[name] for name in class_folders], np.int32), counts)

    def _check_and_report(self, of_class: Mapping[str, Sequence[bytes]], others: Sequence[bytes]) -> None:
        empty = [name for name, paths in of_class.items() if not paths]
        if empty:
            raise DataError(f"no images in class folder(s) of '{self.folder}': {shorten(empty)}")
        if others:
            logger.info(
                "%d file(s) below '%s' are left out, because they are in no class folder or not named like an image, "
                "such as '%s'",
                len(others),
                self.folder,
                os.fsdecode(others[0]),
            )

    def _keep(self, paths: Sequence[bytes]) -> None:
        self._paths = b"".join(paths)
        self._ends = np.cumsum([len(path) for path in paths], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends)

    def read(self, index: int) -> tuple[bytes, int]:
        """See `ImageCollection`."""
        path = self.describe(index)
        try:
            with open(path, "rb", buffering=0) as file:  # of no use here; with it 9 us, not 6
                return file.read(), int(self.labels[index])
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
        there = sub_folders(root)
        raise DataError(
            f"'{root}' has no folder '{split}' for that split{nearest(split, there)} "
            f"(there are: {shorten(there) if there else 'none'}; split '' takes '{root}' itself)"
        )
    return folder


def _number_classes(
    folder: str, class_folders: list[str], class_indexing: Optional[Mapping[str, int]]
) -> dict[str, int]:
    if class_indexing is None:
        return {name: label for label, name in enumerate(class_folders)}
    if sorted(class_indexing.values()) != list(range(len(class_indexing))):
        raise UserError(f"class_indexing must number its {len(class_indexing)} classes from 0, each label once")
    unknown = [name for name in class_folders if name not in class_indexing]
    if unknown:
        raise DataError(f"class folder(s) of '{folder}' that are not in class_indexing: {shorten(unknown)}")
    return dict(class_indexing)
