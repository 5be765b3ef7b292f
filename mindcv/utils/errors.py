"""Errors that a user can fix.

Each is a `ValueError`, so code that uses this library can catch it in the usual way. The scripts print only the
message. Any other exception is a defect of this library, and the scripts show its traceback.
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
    "UnknownKeywordError",
    "UserError",
    "closest_file",
    "nearest",
    "shorten",
    "unknown_name",
]


# From this similarity on (difflib's ratio), a name is a known one with a typing error.
_TYPING_ERROR = 0.85


class UserError(ValueError):
    """A mistake that the user can fix. The message names the cause, the value found and the value expected."""


class ConfigError(UserError):
    """One or more options are wrong. `problems` holds one sentence for each, in the order of discovery."""

    def __init__(self, problems: Sequence[str]):
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class DataError(UserError):
    """A data set, folder or image file is missing, empty or unreadable."""


class MissingSplitError(DataError):
    """The folder of a data set has no sub-folder for a split.

    Args:
        finding: sentence that says so, without the way out. It is kept as the attribute `finding`.
        advice: the way out, which is appended to `finding` directly.
        flat_root: folder that may hold the class folders itself. The error then says how to use it without a split.
        empty_split: words for the value of the split in that case.
    """

    def __init__(self, finding: str, advice: str = "", flat_root: str = "", empty_split: str = "'' as the split"):
        self.finding, self.advice, self.flat_root = finding, advice, flat_root
        if flat_root:
            advice += f"; if the images or their class folders are in '{flat_root}' itself, give {empty_split}"
        super().__init__(f"{finding}{advice}")

    def for_option(self, name: str) -> MissingSplitError:
        """Return the same error for users of the scripts, where the option `name` sets the split."""
        return MissingSplitError(self.finding, self.advice, self.flat_root, f"--{name} ''")


class UnknownClassesError(DataError):
    """Some class folders do not belong to any known class.

    Args:
        folder: folder that holds the class folders.
        names: names of these class folders, at least one.
        known: names of the known classes.
        whose: owner of the known classes, in the genitive, for the message.
    """

    def __init__(self, folder: str, names: Sequence[str], known: Sequence[str], whose: str = "class_indexing's"):
        self.folder, self.names, self.known = folder, names, known
        close = _case_hint(names, known) or ("" if len(names) > 1 else nearest(names[0], known))
        super().__init__(
            f"'{folder}' has {len(names)} class folder(s) that belong to none of {whose} {len(known)} classes: "
            f"{shorten(names)}{close} (the classes are {shorten(known)})"
        )


class UnknownKeywordError(UserError, TypeError):
    """A function was called with a keyword that it does not have. Like Python's own error, it is a TypeError.

    Args:
        function: name of the function or model.
        keyword: the unknown keyword.
        known: names of all keywords of the function. They are kept as the attribute `known`.
    """

    def __init__(self, function: str, keyword: str, known: Iterable[str]):
        self.keyword, self.known = keyword, sorted(known)
        super().__init__(unknown_name(f"{function}: the keyword", keyword, self.known))

    def with_known(self, function: str, known: Iterable[str]) -> UnknownKeywordError:
        """Return the same error for a caller `function` that has the further keywords `known`."""
        return UnknownKeywordError(function, self.keyword, {*self.known, *known})


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class NotFiniteError(UserError):
    """A network's results are NaN or infinite."""


class DeviceError(UserError):
    """The requested device or launcher is not available."""


class Interrupted(Exception):
    """A signal asked a run to stop, and the run has stopped in good order.

    `status` is the exit status by the shell's rule: 128 + the number of the signal.
    """

    def __init__(self, signal_number: int, message: str):
        self.status = 128 + signal_number
        super().__init__(message)


def shorten(names: Sequence[str], max_names: int = 8) -> str:
    """Return the first `max_names` names in quotation marks, and the number of the others."""
    listed = ", ".join(f"'{name}'" for name in names[:max_names])
    return listed if len(names) <= max_names else f"{listed} and {len(names) - max_names} more"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" with the closest of the known names, or "" if none is close."""
    match = _closest(name, known)
    return "" if match is None else f"; did you mean '{match}'?"


def closest_file(name: str, known: Iterable[str]) -> Optional[str]:
    """Return the known file name whose stem is closest to the stem of `name`, or None if none is close.

    Suffixes do not count, because they would make short names look alike: 'flip.ckpt' is not close to 'nope.ckpt'.
    """
    stem, suffix = os.path.splitext(name)
    # If two files have the same stem, the file with the suffix of `name` comes last and is kept.
    by_stem = {os.path.splitext(file)[0]: file for file in sorted(known, key=lambda file: file.endswith(suffix))}
    return by_stem.get(_closest(stem, by_stem))


def _closest(name: str, known: Iterable[str]) -> Optional[str]:
    """Return the known name that is most likely meant, or None if none is close.

    In this order: the same letters in another order, a typing error, the first words of the other name, a similar name.
    Without the third rule, 'lr_rate' would suggest 'drop_rate' and not 'lr'.
    """
    by_lower, lower = {k.lower(): k for k in known}, name.lower()
    swapped = [k for k in by_lower if sorted(k) == sorted(lower)]  # difflib rates swapped letters as far apart
    typed = swapped or get_close_matches(lower, by_lower, n=1, cutoff=_TYPING_ERROR)
    shorter = [k for k in by_lower if k and lower.startswith(f"{k}_")]
    longer = [k for k in by_lower if lower and k.startswith(f"{lower}_")]
    match = typed or [max(shorter, key=len)] if typed or shorter else get_close_matches(lower, longer, n=1, cutoff=0)
    match = match or get_close_matches(lower, by_lower, n=1, cutoff=0.6)
    return by_lower[match[0]] if match else None


def _case_hint(names: Iterable[str], known: Iterable[str]) -> str:
    """Return a clause about the first name that differs from a known one only in upper and lower case, or ""."""
    by_case = {name.casefold(): name for name in known}
    for name in names:
        if name.casefold() in by_case:
            return f"; '{name}' and '{by_case[name.casefold()]}' differ in upper and lower case: rename the folder"
    return ""


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """Return a sentence about an unknown name, with the closest known name and the list of all known names."""
    known = sorted(known)
    return f"{kind} '{name}' is not known{nearest(name, known)} (there are: {', '.join(known)})"
