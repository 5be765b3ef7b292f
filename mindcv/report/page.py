"""The HTML page of a run, from the files that it has left and, if they were measured, its predictions."""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional

from PIL import Image

from mindcv.engine.plots import tells_something
from mindcv.report.curves import draw_curves
from mindcv.report.markup import Markup, element, joined, picture_uri, shown_size, table
from mindcv.report.run_files import RunFiles, number_in
from mindcv.report.style import STYLE
from mindcv.report.validation import Validated, validation_section

__all__ = ["report_page"]

# The page loads nothing, and a browser refuses it if it tries.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_PICTURE_SIDE = 1800
# Title of a drawing, unit, and its curves: column of metrics.csv -> name.
_DRAWINGS = (
    ("Loss", "", {"train_loss": "training", "val_loss": "validation"}),
    ("Accuracy", "", {"top_1": "top-1", "top_5": "top-5"}),
    ("Learning rate", "", {"lr": "learning rate"}),
    ("Speed", "images/s", {"images_per_s": "images/s"}),
)
# Names of the data set that say nothing about it, because they stand for any folder of images.
_IMAGE_FOLDERS = ("", "imagenet", "folder")
_NO_DATA = "For the confusion matrix and examples of the predictions, give the data folder: --data_dir FOLDER."


def report_page(run: RunFiles, validated: Optional[Validated] = None) -> str:
    """Return the page as text. It refers to no other file, and it has no script.

    Args:
        run: what the folder of the run holds.
        validated: predictions of a checkpoint of the run.
    """
    model = str(run.options.get("model") or run.name)
    parts = [_header(run, model), _notes(run), _figures(run), _curves(run)]
    if validated is not None:
        parts.append(validation_section(validated))
    parts += [_results(run), _pictures(run), _options(run), _starts(run), _files(run)]
    if validated is None and not run.is_pretraining:
        parts.append(element("p", _NO_DATA, class_="muted"))
    written = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    parts.append(element("footer", f"Written by mindcv at {written}."))
    head = [
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("title", f"{model}: {run.name}"),
        element("style", Markup(STYLE)),
    ]
    page = element("html", element("head", *head), element("body", element("main", *parts)), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def _header(run: RunFiles, model: str) -> Markup:
    kind = "Masked pre-training" if run.is_pretraining else "Training"
    told = [f"{kind} run in folder ", element("code", run.name), *_data(run)]
    return element(
        "header", element("h1", model), element("p", *told, "."), element("p", element("strong", _state(run)))
    )


def _data(run: RunFiles) -> list[Any]:
    """Return words about the data of the run."""
    dataset = run.options.get("dataset")
    if dataset is None:
        return []
    if dataset not in _IMAGE_FOLDERS:
        return [", data set ", element("code", str(dataset))]
    folder = str(run.options.get("data_dir") or "")
    return [", images in folder ", element("code", os.path.basename(os.path.abspath(folder)))] if folder else []


def _state(run: RunFiles) -> str:
    """Return sentences about how far the run is."""
    last = number_in(run.rows[-1].get("epoch", "")) if run.rows else math.nan
    planned = run.options.get("epoch_size")
    if math.isfinite(last):
        done = f"Epoch {last:.0f}" + (f" of {planned}" if planned else "") + " is complete."
    else:
        done = "No epoch is complete."
    return f"{done} The run is in progress." if run.is_in_progress else done


def _notes(run: RunFiles) -> Optional[Markup]:
    if not run.notes:
        return None
    return element(
        "section", element("h2", "Files that could not be read"), *(element("p", n, class_="note") for n in run.notes)
    )


def _figures(run: RunFiles) -> Optional[Markup]:
    """Return the figures that a reader wants first."""
    if not run.rows:
        return None
    facts: list[tuple[str, str, str]] = []
    for column, name, best in (("top_1", "Best top-1 accuracy", max), ("val_loss", "Lowest validation loss", min)):
        points = [(value, epoch) for epoch, value in run.curve(column) if math.isfinite(value)]
        if points:
            value = best(value for value, _ in points)
            facts.append((name, f"{value:.4f}", f"epoch {next(e for v, e in points if v == value):.0f}"))
    losses = [point for point in run.curve("train_loss") if math.isfinite(point[1])]
    if losses:
        facts.append(("Last training loss", f"{losses[-1][1]:.4f}", f"epoch {losses[-1][0]:.0f}"))
    seconds = [value for _, value in run.curve("seconds") if math.isfinite(value)]
    if seconds:
        facts.append(("Time of training", _duration(sum(seconds)), "without validation"))
    speeds = [value for _, value in run.curve("images_per_s") if math.isfinite(value)]
    if speeds:
        facts.append(("Speed", f"{speeds[-1]:.1f}", "images/s in the last epoch"))
    cells = [
        element("div", element("dt", name), element("dd", value, " ", element("small", more)))
        for name, value, more in facts
    ]
    return element("section", element("h2", "Figures"), element("dl", *cells, class_="facts"))


def _duration(seconds: float) -> str:
    minutes, hours = round(seconds / 60), seconds / 3600
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{hours:.1f} h"


def _curves(run: RunFiles) -> Optional[Markup]:
    drawings, epochs = [], [epoch for epoch, _ in run.curve("epoch")]
    for title, unit, columns in _DRAWINGS:
        found = {column: run.curve(column) for column in columns}
        curves = {
            columns[column]: points
            for column, points in found.items()
            if any(math.isfinite(y) for _, y in points) and tells_something(column, [y for _, y in points])
        }
        if curves:
            drawings.append(draw_curves(title, curves, unit, epochs))
    if not run.rows:
        return None
    columns = list(run.rows[0])
    numbers = table(columns, ([row.get(column, "") for column in columns] for row in run.rows))
    count = len(run.rows)
    summary = element("summary", f"Numbers of {'the epoch' if count == 1 else f'all {count} epochs'} (metrics.csv)")
    return element(
        "section",
        element("h2", "Curves"),
        element("div", *drawings, class_="curves"),
        element("details", summary, numbers),
    )


def _results(run: RunFiles) -> Optional[Markup]:
    """Return what validate.py has written into the folder."""
    parts = []
    for name, metrics in run.results.items():
        shown = [(key, _shown(value)) for key, value in metrics.items() if not isinstance(value, (list, dict))]
        parts += [element("h3", element("code", name)), table(("metric", "value"), shown, class_="long")]
    for name, rows in run.classes.items():
        columns = list(rows[0])
        cells = table(columns, ([row.get(column, "") for column in columns] for row in rows))
        parts.append(element("details", element("summary", f"Classes ({name})"), cells))
    return element("section", element("h2", "Results of validate.py"), *parts) if parts else None


def _pictures(run: RunFiles) -> Optional[Markup]:
    """Return the first and the last reconstruction, and the other pictures of the folder."""
    shown: dict[str, Path] = {}
    epochs = list(run.reconstructions)
    for epoch in sorted({*epochs[:1], *epochs[-1:]}, reverse=True):
        shown[f"Reconstructions after epoch {epoch}"] = run.reconstructions[epoch]
    shown.update({path.name: path for path in run.pictures})
    parts = []
    for title, path in shown.items():
        try:
            with Image.open(path) as image:
                uri = picture_uri(image, _PICTURE_SIDE)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            parts.append(
                element("p", f"{path.name} cannot be read: {error}".replace(f"{path.parent}/", ""), class_="note")
            )
            continue
        picture = element("img", src=uri, alt=title, class_="picture", loading="lazy")
        parts += [element("h3", title), picture]
    return element("section", element("h2", "Pictures"), *parts) if parts else None


def _options(run: RunFiles) -> Optional[Markup]:
    if not run.options:
        return None
    given = [
        (_with_source(name, run.sources[name]), _shown(value))
        for name, value in run.options.items()
        if name in run.sources
    ]
    others = [(name, _shown(value)) for name, value in run.options.items() if name not in run.sources]
    parts: list[Any] = []
    if given:
        parts.append(table(("option and source", "value"), given, class_="long"))
    if others:
        told = f"{len(others)} options with their default" if given else f"All {len(others)} options"
        parts.append(element("details", element("summary", told), table(("option", "value"), others, class_="long")))
    return element("section", element("h2", "Options"), *parts)


def _with_source(name: str, source: str) -> Markup:
    # Of a recipe's path the name is enough, because the command holds the path.
    return joined([name, " ", element("small", os.path.basename(source), class_="source")])


def _shown(value: Any) -> str:
    """Return a JSON value as text, short for lists."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_shown, value)) or "[]"
    if isinstance(value, float):  # the product 0.224 * 255 is 57.120000000000005
        return str(float(f"{value:.12g}"))
    return "''" if value == "" else str(value)


def _starts(run: RunFiles) -> Optional[Markup]:
    """Return how each process of the run was started, and versions and machine of the last one."""
    starts = run.own_starts
    if not starts:
        return None
    told = [
        element(
            "div",
            element("h3", start.get("time", "")),
            element("p", f"Begins at {_place(start)}, commit ", _revision(start), "."),
            element("p", _command(start)),
        )
        for start in starts
    ]
    last = starts[-1]
    facts = [("device", last.get("device", "")), ("processes", last.get("num_processes", ""))]
    for part in ("machine", "versions"):
        values = last.get(part)
        facts += list(values.items()) if isinstance(values, Mapping) else []
    facts = [
        ({"memory_mib": "memory in MiB"}.get(name, name), "unknown" if value is None else value)
        for name, value in facts
    ]
    return element(
        "section",
        element("h2", "Starts and versions"),
        *told,
        element("h3", "Machine and versions of the last start"),
        table(("fact", "value"), facts, class_="long"),
    )


def _place(start: Mapping[str, Any]) -> str:
    resumed = start.get("resumed_at")
    return (
        f"epoch {resumed.get('epoch')}, step {resumed.get('step')}"
        if isinstance(resumed, Mapping)
        else "the first step"
    )


def _revision(start: Mapping[str, Any]) -> Markup:
    git = start.get("git")
    if not isinstance(git, Mapping):
        return joined(["unknown"])
    changed = " with changes" if git.get("has_changes") else ""
    return joined([element("code", str(git.get("revision", ""))[:12]), changed])


def _command(start: Mapping[str, Any]) -> Markup:
    command = start.get("command")
    words = command if isinstance(command, Sequence) and not isinstance(command, str) else []
    return element("code", shlex.join(map(str, words)))


def _files(run: RunFiles) -> Optional[Markup]:
    if not run.checkpoints:
        return None
    rows = [(file.name, shown_size(file.size), file.time.strftime("%Y-%m-%d %H:%M UTC")) for file in run.checkpoints]
    return element("section", element("h2", "Checkpoints"), table(("file", "size", "written"), rows))
