"""Reads what a run has left in its folder. Each part may be missing, and a damaged part becomes a note."""

from __future__ import annotations

import csv
import json
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional, TypeVar, Union

from mindcv.engine.metrics_table import MetricsTable
from mindcv.engine.run_folder import find_checkpoints
from mindcv.engine.run_record import read_starts
from mindcv.engine.snapshot import find_newest
from mindcv.utils.errors import DataError, UserError
from mindcv.utils.locks import holder_of

__all__ = ["FoundFile", "RunFiles", "number_in", "read_run"]

_RECONSTRUCTION = re.compile(r"reconstruction-(\d+)\.png")
_PER_CLASS_COLUMNS = {"class", "name", "images", "correct"}
_RESULT_KEYS = {"top_1", "num_images"}
# What a configuration names as the source of a value that it took from a checkpoint or a resumed run.
_TAKEN_OVER = "checkpoint"
_Read = TypeVar("_Read")
_LARGEST_TEXT = 20_000_000  # bytes of a file that validate.py may have written


@dataclass(frozen=True)
class FoundFile:
    """Name, size in bytes and time of a file."""

    name: str
    size: int
    time: datetime


@dataclass(frozen=True)
class RunFiles:
    """What the folder of a run holds.

    Attributes:
        name: name of the folder.
        rows: rows of metrics.csv as text, by column; empty cells are ''.
        starts: entries of run.json, the oldest first.
        options: options of the run as it was started last; {} if they are not known.
        sources: for each option that was set, where its value came from.
        is_in_progress: whether a process trains into the folder now.
        checkpoints: checkpoints and snapshots.
        reconstructions: pictures of a pre-training run by epoch, in order.
        pictures: other pictures in the folder.
        results: file name -> metrics of files that `validate.py --results_json` wrote.
        classes: file name -> rows of files that `validate.py --per_class_csv` wrote.
        notes: sentences about files that could not be read.
    """

    name: str
    rows: Sequence[Mapping[str, str]] = ()
    starts: Sequence[Mapping[str, Any]] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    is_in_progress: bool = False
    checkpoints: Sequence[FoundFile] = ()
    reconstructions: Mapping[int, Path] = field(default_factory=dict)
    pictures: Sequence[Path] = ()
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    classes: Mapping[str, Sequence[Mapping[str, str]]] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def is_pretraining(self) -> bool:
        """Whether pretrain.py made the run."""
        return str(self.options.get("model", "")).startswith("fcmae_") or bool(self.reconstructions)

    @property
    def own_starts(self) -> Sequence[Mapping[str, Any]]:
        """The entries of the run itself, without earlier runs in the same folder."""
        return _own(self.starts)

    def curve(self, column: str) -> list[tuple[float, float]]:
        """Return (epoch, value) of each row that has a value; NaN stands for a cell that is no number."""
        points = [(number_in(row.get("epoch", "")), number_in(row[column])) for row in self.rows if row.get(column)]
        return [point for point in points if math.isfinite(point[0])]


def number_in(cell: str) -> float:
    """Return the number in a cell of a table, or NaN."""
    try:
        return float(cell)
    except (TypeError, ValueError):
        return math.nan


def read_run(folder: Union[str, os.PathLike]) -> RunFiles:
    """Read everything that the folder of a run holds.

    Raises:
        DataError: the folder does not exist, or it holds no file of a run.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise DataError(f"run folder '{folder}' {found}: give the ckpt_save_dir of a run")
    notes: list[str] = []
    starts = _noted(notes, read_starts, folder) or []
    rows = _noted(notes, _read_rows, folder / "metrics.csv") or []
    checkpoints = _described(find_checkpoints(folder))
    pictures = sorted(path for path in folder.glob("*.png") if path.name != "learning_curve.png")
    drawn = {int(match[1]): path for path in pictures if (match := _RECONSTRUCTION.fullmatch(path.name))}
    if not (starts or rows or checkpoints or drawn or notes):
        raise DataError(
            f"folder '{folder}' holds no run (no run.json, metrics.csv or checkpoint): give the ckpt_save_dir of a run"
        )
    last = starts[-1] if starts else {}
    # The folder of a run of an earlier version has no run.json.
    options = _mapping(last.get("options")) or _noted(notes, _options_of_snapshot, folder) or {}
    return RunFiles(
        name=folder.resolve().name,
        rows=rows,
        starts=starts,
        options=options,
        sources=_sources(_own(starts)),
        is_in_progress=bool(holder_of(folder)),
        checkpoints=checkpoints,
        reconstructions=dict(sorted(drawn.items())),
        pictures=[path for path in pictures if path not in drawn.values()],
        results=_read_results(folder),
        classes=_read_classes(folder),
        notes=[note.replace(f"{folder}{os.sep}", "").replace(str(folder), folder.name) for note in notes],
    )


def _own(starts: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return the entries from the last new run on."""
    first = max((k for k, start in enumerate(starts) if not start.get("resumed_at")), default=0)
    return starts[first:]


def _sources(starts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return where the values of the last start come from: for those that it took over, from the start before."""
    sources: dict[str, str] = {}
    for number, start in enumerate(starts):
        found = _mapping(start.get("option_sources"))
        kept = {name: place for name, place in sources.items() if name in found}
        own = {name: place for name, place in found.items() if place != _TAKEN_OVER or number == 0}
        sources = {**kept, **own}
    return sources


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _noted(notes: list[str], read: Callable[[Path], _Read], path: Path) -> Optional[_Read]:
    """Return `read(path)`; an error becomes a note, and the result is None."""
    try:
        return read(path)
    except UserError as error:
        notes.append(str(error))
        return None


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    rows = _csv_rows(path)
    if rows and not {"epoch", "train_loss"} <= rows[0].keys():
        expected = ", ".join(MetricsTable.columns)
        raise UserError(f"'{path}' is not the table of a run: its columns are not {expected}")
    return rows


def _csv_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file. Cells beyond the columns are left out, and missing cells are ''."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return [
                {name: cell or "" for name, cell in row.items() if name is not None} for row in csv.DictReader(file)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"'{path}' cannot be read as CSV: {error}") from None


def _options_of_snapshot(folder: Path) -> dict[str, Any]:
    found = find_newest(folder)
    return dict(found[1].description.config) if found else {}


def _described(paths: Sequence[Path]) -> list[FoundFile]:
    found = []
    for path in paths:
        try:
            facts = path.stat()
        except OSError:  # a run in progress has removed it
            continue
        found.append(FoundFile(path.name, facts.st_size, datetime.fromtimestamp(facts.st_mtime, timezone.utc)))
    return sorted(found, key=lambda file: file.time)


def _read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the metrics of each file that `validate.py --results_json` wrote into the folder."""
    results = {}
    for path in sorted(folder.glob("*.json")):
        content = _json(path)
        if isinstance(content, dict) and content.keys() >= _RESULT_KEYS:
            results[path.name] = content
    return results


def _json(path: Path) -> Optional[Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size < _LARGEST_TEXT else None
    except (OSError, ValueError):  # the file of another program
        return None


def _read_classes(folder: Path) -> dict[str, list[dict[str, str]]]:
    """Return the rows of each file that `validate.py --per_class_csv` wrote into the folder."""
    tables = {}
    for path in sorted(folder.glob("*.csv")):
        try:
            rows = _csv_rows(path) if path.stat().st_size < _LARGEST_TEXT else []
        except (OSError, UserError):  # the file of another program
            continue
        if rows and rows[0].keys() >= _PER_CLASS_COLUMNS:
            tables[path.name] = rows
    return tables
