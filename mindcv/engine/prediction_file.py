"""Writes predictions to a `.csv` or a `.json` file as they come, without having all of them in memory."""

from __future__ import annotations

import csv
import json
import os
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, TextIO, Union

from mindcv.engine.inference import Prediction
from mindcv.utils.errors import UserError
from mindcv.utils.files import atomic_path

__all__ = ["prediction_file"]


@contextmanager
def prediction_file(path: Union[str, os.PathLike]) -> Iterator[Callable[[Prediction], None]]:
    """Open a file for predictions, and yield the function that adds a prediction to it.

    A `.csv` file has a row for each image and rank. A `.json` file has a list with an object for each image. A byte of
    a file name that is not UTF-8 is written as an escape such as \\udcff, which JSON reads back unchanged. The file
    appears when the block ends. If the block raises, a file that exists stays as it was.

    Raises:
        UserError: the suffix is another one, or the file cannot be written.
    """
    writer = {".csv": _csv_rows, ".json": _json_list}.get(Path(path).suffix.lower())
    if writer is None:
        raise UserError(f"predictions are written as .csv or .json, not '{path}'")
    with atomic_path(path) as side, _open_text(side) as file, writer(file) as add:
        yield add


def _open_text(path: Path) -> TextIO:
    return open(path, "w", encoding="utf-8", errors="backslashreplace", newline="")


@contextmanager
def _csv_rows(file: TextIO) -> Iterator[Callable[[Prediction], None]]:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(("image", "rank", "class", "name", "probability"))

    def add(prediction: Prediction) -> None:
        classes = zip(prediction.indices, prediction.names, prediction.probabilities)
        writer.writerows((prediction.path, rank, *values) for rank, values in enumerate(classes, start=1))

    yield add


@contextmanager
def _json_list(file: TextIO) -> Iterator[Callable[[Prediction], None]]:
    separator = "[\n"

    def add(prediction: Prediction) -> None:
        nonlocal separator
        file.write(separator + textwrap.indent(json.dumps(_as_object(prediction), indent=2, ensure_ascii=False), "  "))
        separator = ",\n"

    yield add
    file.write("[]\n" if separator == "[\n" else "\n]\n")


def _as_object(prediction: Prediction) -> dict[str, Any]:
    classes = zip(prediction.indices, prediction.names, prediction.probabilities)
    return {
        "image": prediction.path,
        "predictions": [{"class": index, "name": name, "probability": value} for index, name, value in classes],
    }
