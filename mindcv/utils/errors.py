"""The errors that are a user's to mend.

Each is a `ValueError`, so that library code catches them the usual way. The scripts print the message alone, without
a traceback; any other exception is a defect of this library and keeps its traceback.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Optional

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DeviceError",
    "Interrupted",
    "MissingSplitError",
    "UnknownClassesError",
    "UserError",
    "closest_file",
    "nearest",
    "shorten",
    "unknown_name",
]


class UserError(ValueError):
    """Something the user can mend; the message names the thing and what would be right."""


class ConfigError(UserError):
    """One or more options are wrong. `problems` holds a sentence for each, in the order found."""

    def __init__(self, problems: Sequence[str]):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class DataError(UserError):
    """A data set, folder or image file is missing, empty or unreadable."""


class MissingSplitError(DataError):
    """A data set's folder has no sub-folder for a split. `finding` says so without a way out.

    Args:
        finding: the sentence without a way out.
        advice: the way out, which follows `finding` directly.
        flat_root: folder that may hold the class folders itself; the error says what to do then.
        empty_split: what to give in that case.
    """

    def __init__(self, finding: str, advice: str = "", flat_root: str = "", empty_split: str = "'' as the split"):
        self.finding, self.advice, self.flat_root = finding, advice, flat_root
        flat = f"; if the class folders are in '{flat_root}' itself, give {empty_split}" if flat_root else ""
        super().__init__(f"{finding}{advice}{flat}")

    def for_option(self, name: str) -> MissingSplitError:
        """The same error for users of the scripts, where option `name` gives the split."""
        return MissingSplitError(self.finding, self.advice, self.flat_root, f"--{name} ''")


class UnknownClassesError(DataError):
    """Class folders that are none of the known classes.

    Args:
        folder: that holds the class folders.
        names: of the class folders, at least one.
        known: the names of the classes.
        whose: what has those classes.
    """

    def __init__(self, folder: str, names: Sequence[str], known: Sequence[str], whose: str = "class_indexing's"):
        self.folder, self.names, self.known = folder, names, known
        close = _case_hint(names, known) or ("" if len(names) > 1 else nearest(names[0], known))
        super().__init__(
            f"'{folder}' has {len(names)} class folder(s) that are none of {whose} {len(known)} classes: "
            f"{shorten(names)}{close} (the classes are {shorten(known)})"
        )


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class DeviceError(UserError):
    """The device or launcher asked for is not there."""


class Interrupted(Exception):
    """A run was asked to stop by a signal, and has stopped in order. `status` is the shell's: 128 + the signal."""

    def __init__(self, signal_number: int, message: str):
        self.status = 128 + signal_number
        super().__init__(message)


def shorten(names: Sequence[str], most: int = 8) -> str:
    """The first `most` names in quotation marks, and how many more there are."""
    listed = ", ".join(f"'{name}'" for name in names[:most])
    return listed if len(names) <= most else f"{listed} and {len(names) - most} more"


def nearest(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the closest of `known`, or an empty string when none is close."""
    match = _closest(name, known)
    return "" if match is None else f"; did you mean '{match}'?"


def closest_file(name: str, known: Iterable[str]) -> Optional[str]:
    """The one of the file names `known` whose stem is closest to that of `name`; None when none is close.

    Suffixes do not count, because they would make short names look alike: 'flip.ckpt' is not close to 'nope.ckpt'.
    """
    stem, suffix = os.path.splitext(name)
    # A file with the suffix of `name` comes before another one of the same stem.
    by_stem = {os.path.splitext(file)[0]: file for file in sorted(known, key=lambda file: file.endswith(suffix))}
    return by_stem.get(_closest(stem, by_stem))


def _closest(name: str, known: Iterable[str]) -> Optional[str]:
    by_lower = {k.lower(): k for k in known}
    swapped = [k for k in by_lower if sorted(k) == sorted(name.lower())]  # to difflib, swapped letters are far apart
    match = swapped or get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[match[0]] if match else None


def _case_hint(names: Iterable[str], known: Iterable[str]) -> str:
    """A clause about the first of `names` that differs from one of `known` in upper and lower case alone, if any."""
    by_case = {name.casefold(): name for name in known}
    for name in names:
        if name.casefold() in by_case:
            return f"; '{name}' and '{by_case[name.casefold()]}' differ in upper and lower case: rename the folder"
    return ""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """A sentence for a name that is not among the allowed ones: what it is, the nearest match, and all there are."""
    known = sorted(known)
    return f"{kind} '{name}' is not known{nearest(name, known)} (there are: {', '.join(known)})"
