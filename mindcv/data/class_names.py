"""Names of classes: the names of ImageNet-1k, names in a user's file, and the class that a folder's name means.

Decision 0050 says how folders are matched to the classes of a checkpoint.
"""

from __future__ import annotations

import codecs
import os
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Optional, Union

from mindcv.utils.errors import DataError, UserError, shorten

__all__ = [
    "imagenet_class_names",
    "imagenet_wordnet_ids",
    "is_imagenet_class",
    "match_classes",
    "read_class_names",
    "read_names_for_model",
]

# The marks of UTF-32 come first, because that of its little-endian form begins with the mark of
# UTF-16.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def imagenet_class_names() -> list[str]:
    """Return the 1000 class names of ImageNet-1k in the order of the labels, such as 'tench, Tinca tinca'."""
    return [name for _, name in _imagenet_table()]


def imagenet_wordnet_ids() -> list[str]:
    """Return the 1000 WordNet ids of ImageNet-1k in the order of the labels, such as 'n01440764'."""
    return [wordnet_id for wordnet_id, _ in _imagenet_table()]


def is_imagenet_class(name: str) -> bool:
    """Return whether `name` is the WordNet id, the name or a synonym of at least one class of ImageNet-1k."""
    return _normalized(name) in _imagenet_index()


def match_classes(names: Collection[str], class_to_idx: Mapping[str, int]) -> dict[str, int]:
    """Return the label of each of the names that belongs to one of the classes.

    A name matches the class of exactly that name, in any Unicode encoding of its accents (macOS writes 'ä' as two code
    points). For classes of ImageNet-1k, the WordNet id, the whole name and each synonym match each other: 'n01440764',
    'tench, Tinca tinca', 'tench', and 'Tinca_tinca'. Case, underscores and hyphens make no difference there.

    Raises:
        DataError: a name can mean several classes, or two names mean the same class.
    """
    by_form = {unicodedata.normalize("NFC", name): label for name, label in class_to_idx.items()}
    labels = {name: class_to_idx.get(name, by_form.get(unicodedata.normalize("NFC", name))) for name in names}
    labels = {name: label for name, label in labels.items() if label is not None}
    others = [name for name in names if name not in labels]
    if others:
        imagenet_labels = _labels_of_imagenet(class_to_idx)
        for name in others:
            candidates = sorted(imagenet_labels.keys() & _imagenet_index().get(_normalized(name), ()))
            if len(candidates) > 1:
                ids = " or ".join(imagenet_wordnet_ids()[index] for index in candidates)
                raise DataError(f"class folder '{name}' can mean {ids}: rename it to the WordNet id of its class")
            if candidates:
                labels[name] = imagenet_labels[candidates[0]]
    _check_distinct(labels)
    return labels


def read_class_names(path: Union[str, os.PathLike]) -> list[str]:
    """Read a text file with one class name per line, in the order of the labels.

    The file must be UTF-8, or UTF-16 or UTF-32 with a byte order mark. Empty lines at the end do not count.

    Raises:
        UserError: the file cannot be read, is in another encoding, or has an empty or repeated line.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"class_names_file '{path}': {error.strerror}") from None
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in content:
        raise UserError(
            f"class_names_file '{path}' is not text in UTF-8: it holds zero bytes, as UTF-16 without a byte order mark "
            "does; convert it, for instance with 'iconv -f UTF-16LE -t UTF-8'"
        )
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if not encoding.startswith("utf-8"):
            raise UserError(
                f"class_names_file '{path}' begins with the byte order mark of {encoding.upper()}, but it is cut or "
                "damaged: save it again, in UTF-8"
            ) from None
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"class_names_file '{path}' is not text in UTF-8: line {line} has the byte {content[error.start]:#04x}; "
            f"convert it, for instance with 'iconv -f GBK -t UTF-8' or 'iconv -f LATIN1 -t UTF-8'"
        ) from None
    names = [line.strip() for line in text.rstrip().split("\n")]
    for number, name in enumerate(names, start=1):
        if not name:
            raise UserError(f"class_names_file '{path}': line {number} is empty, and each line must name a class")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise UserError(
            f"class_names_file '{path}' repeats the name(s) {shorten(repeated)}; give each class a name of its own"
        )
    return names


def read_names_for_model(
    path: Union[str, os.PathLike], class_to_idx: Mapping[str, int], num_classes: Optional[int]
) -> list[str]:
    """Read the names that a file gives to the classes of a model, in the order of the labels.

    Args:
        path: path of the file (see `read_class_names`).
        class_to_idx: class name in the checkpoint or the exported file -> label; empty if it has no names.
        num_classes: number of classes of the model; None if it is unknown.

    Raises:
        UserError: the file cannot be used (see `read_class_names`), does not name `num_classes` classes, or holds the
            model's own names in another order.
    """
    names = read_class_names(path)
    if num_classes not in (None, len(names)):
        raise UserError(f"class_names_file '{path}' has {len(names)} class names for the model's {num_classes} classes")
    own = [unicodedata.normalize("NFC", name) for name in sorted(class_to_idx, key=class_to_idx.get)]
    given = [unicodedata.normalize("NFC", name) for name in names]
    label = _first_in_other_order(given, own)
    if label is None:  # also where names differ in upper and lower case
        label = _first_in_other_order([name.casefold() for name in given], [name.casefold() for name in own])
    if label is not None:
        raise UserError(
            f"class_names_file '{path}' holds the model's class names in another order: line {label + 1} is "
            f"'{given[label]}', but class {label} of the model is '{own[label]}'; leave class_names_file out, "
            "because the model's own order is right"
        )
    return names


def _first_in_other_order(given: Sequence[str], own: Sequence[str]) -> Optional[int]:
    """Return the first index at which two orders of the same names differ.

    Returns None if the orders are equal or the names differ.
    """
    if sorted(given) != sorted(own):
        return None
    return next((index for index, name in enumerate(own) if name != given[index]), None)


@cache
def _imagenet_table() -> list[tuple[str, str]]:
    """Return (WordNet id, name) for each label.

    The columns of the file are label, WordNet id and name. The labels number the sorted WordNet ids, so a folder of
    images whose class folders are named by WordNet ids has the same labels.
    """
    table = files("mindcv.data").joinpath("imagenet1k_classes.tsv").read_text(encoding="utf-8")
    return [tuple(line.split("\t")[1:3]) for line in table.splitlines()]


@cache
def _imagenet_index() -> dict[str, frozenset[int]]:
    """Return a table from each normalized WordNet id, name and synonym to the labels of ImageNet-1k that it means."""
    index: dict[str, set[int]] = {}
    for label, (wordnet_id, name) in enumerate(_imagenet_table()):
        for alias in (wordnet_id, name, *name.split(", ")):
            index.setdefault(_normalized(alias), set()).add(label)
    return {alias: frozenset(labels) for alias, labels in index.items()}


def _normalized(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _labels_of_imagenet(class_to_idx: Mapping[str, int]) -> dict[int, int]:
    """Return a table from labels of ImageNet-1k to labels in `class_to_idx`, for names with exactly one meaning."""
    labels = {}
    for name, label in class_to_idx.items():
        candidates = _imagenet_index().get(_normalized(name), ())
        if len(candidates) == 1:
            labels[next(iter(candidates))] = label
    return labels


def _check_distinct(labels: Mapping[str, int]) -> None:
    names_of: dict[int, list[str]] = {}
    for name, label in labels.items():
        names_of.setdefault(label, []).append(name)
    for names in names_of.values():
        if len(names) > 1:
            raise DataError(f"the class folders {shorten(names)} mean the same class: merge them into one folder")
