"""Which files of a folder are images: the one answer for data sets, scripts and tools."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache

from mindcv.utils.errors import DataError
from mindcv.utils.logger import logger

__all__ = ["IMAGE_SUFFIXES", "FoundFiles", "find_images", "sub_folders", "walk_images"]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")
_ENCODED_SUFFIXES = tuple(os.fsencode(suffix) for suffix in IMAGE_SUFFIXES)

_FileId = tuple[int, int]  # device and inode, which a folder keeps under each of its names


@dataclass
class FoundFiles:
    """What is below a folder, as sorted paths relative to it. They are bytes, because names need not be UTF-8.

    Attributes:
        images: files that are named like images.
        others: the other files.
        loops: links to a folder that contains the link, which are not followed.
    """

    images: list[bytes] = field(default_factory=list)
    others: list[bytes] = field(default_factory=list)
    loops: list[bytes] = field(default_factory=list)


def walk_images(folder: str) -> FoundFiles:
    """The files in `folder` and in its sub-folders.

    Hidden files and folders, whose names start with a dot, are skipped. Links to folders are followed, except for a
    link to a folder that contains the link: a warning names it. A link to a file that does not exist counts as an
    image, so that reading it names it.

    Raises:
        DataError: a folder cannot be listed.
    """
    found = FoundFiles()
    _walk(os.fsencode(folder), b"", _containing_folders(os.fsencode(folder)), found)
    for paths in (found.images, found.others, found.loops):
        paths.sort()
    return found


def sub_folders(folder: str) -> list[str]:
    """The names of the folders in `folder`, sorted and without hidden ones.

    Raises:
        DataError: the folder cannot be listed.
    """
    return sorted(os.fsdecode(entry.name) for entry in _entries(os.fsencode(folder)) if _is_folder(entry))


def find_images(places: Sequence[str]) -> list[str]:
    """The image files that `places` name, each once.

    Args:
        places: files, which are taken whatever their names are; folders, which are searched as in `walk_images`; and
            glob patterns, which stand for the files among their matches that are named like images.

    Raises:
        DataError: a place does not exist or has no images.
    """
    return list(dict.fromkeys(path for place in places for path in _images_at(place)))


def _images_at(place: str) -> list[str]:
    if os.path.isdir(place):
        images = [os.path.join(place, os.fsdecode(path)) for path in walk_images(place).images]
        where = f"folder '{place}'"
    elif os.path.lexists(place):
        return [place]
    else:
        matches = _below(place) if "**" in place.split(os.sep) else sorted(glob.glob(place))
        images = [path for path in matches if path.lower().endswith(IMAGE_SUFFIXES) and not os.path.isdir(path)]
        where = f"'{place}'"
        if not images and not glob.has_magic(place):
            raise DataError(f"image {where} does not exist")
    if not images:
        raise DataError(f"{where} has no image files ({' '.join(IMAGE_SUFFIXES)})")
    return images


def _below(pattern: str) -> list[str]:
    """The images that a pattern with '**', for any number of folders, stands for.

    The glob module would follow links in circles.
    """
    parts = pattern.split(os.sep)
    first = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    folder = os.sep.join(parts[:first]) or (os.sep if pattern.startswith(os.sep) else "")
    if not os.path.isdir(folder or "."):
        return []
    found = [os.fsdecode(path) for path in walk_images(folder or ".").images]
    return [os.path.join(folder, path) for path in found if _fits(path.split(os.sep), parts[first:])]


def _fits(names: Sequence[str], patterns: Sequence[str]) -> bool:
    if not names or not patterns:
        return not names and all(pattern == "**" for pattern in patterns)
    if patterns[0] == "**":
        return _fits(names, patterns[1:]) or _fits(names[1:], patterns)
    return fnmatch.fnmatchcase(names[0], patterns[0]) and _fits(names[1:], patterns[1:])


def _walk(folder: bytes, relative: bytes, containing: dict[_FileId, bytes], found: FoundFiles) -> None:
    """Add the files of `folder`, whose path in the result is `relative`, to `found`."""
    below = []
    for entry in _entries(folder):
        path = os.path.join(relative, entry.name)
        if _is_folder(entry):
            below.append((entry.path, path))
        elif entry.name.lower().endswith(_ENCODED_SUFFIXES) and not _is_special(entry):
            found.images.append(path)
        else:
            found.others.append(path)
    for place, path in sorted(below):
        identity = _file_id(place)
        if identity in containing:
            found.loops.append(path)
            _warn_of_loop(os.fsdecode(place), os.fsdecode(containing[identity]))
        else:
            _walk(place, path, {**containing, identity: place}, found)


@cache  # said once, however often the folder is searched
def _warn_of_loop(link: str, target: str) -> None:
    logger.warning("'%s' is a link to '%s', a folder that contains it: the link is not followed", link, target)


def _entries(folder: bytes) -> Iterator[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            yield from (entry for entry in entries if not entry.name.startswith(b"."))
    except OSError as error:
        raise DataError(f"cannot list folder '{os.fsdecode(folder)}': {error.strerror}") from None


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_special(entry: os.DirEntry) -> bool:
    """Whether the entry is a pipe, socket or device, which a reader might wait for in vain."""
    try:
        return not entry.is_file() and os.path.exists(entry.path)
    except OSError:  # a link to itself, which reading names
        return False


def _containing_folders(folder: bytes) -> dict[_FileId, bytes]:
    """The folder and all those above it."""
    path = os.path.realpath(folder)
    containing = {}
    while True:
        containing[_file_id(path)] = path
        above = os.path.dirname(path)
        if above == path:
            return containing
        path = above


def _file_id(path: bytes) -> _FileId:
    try:
        status = os.stat(path)
    except OSError as error:
        raise DataError(f"cannot list folder '{os.fsdecode(path)}': {error.strerror}") from None
    return status.st_dev, status.st_ino
