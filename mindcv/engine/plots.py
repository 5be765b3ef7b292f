"""Plots of the metrics. They need matplotlib, which the extra `plots` installs."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Union

import numpy as np

from mindcv.engine.calibration import Calibration
from mindcv.engine.fonts import TextPainter, font_file_for, printable
from mindcv.utils.extras import import_extra
from mindcv.utils.files import atomic_path

__all__ = [
    "draw_confusion_matrix",
    "draw_learning_curve",
    "draw_reliability",
    "font_families",
    "require_matplotlib",
    "save_figure",
    "tells_something",
]

_DPI = 110
_LABEL_PIXELS = round(10 / 72 * _DPI)  # height of matplotlib's labels, 10 points
_MAX_LABEL_PIXELS = 300


def require_matplotlib() -> ModuleType:
    """Import matplotlib's figure module, which draws without a display.

    Raises:
        UserError: it is not installed; names the extra.
    """
    return import_extra("matplotlib.figure", "plots", "pictures of figures need matplotlib")


def draw_learning_curve(rows: Sequence[Mapping[str, Any]], path: Union[str, os.PathLike]) -> None:
    """Draw losses, accuracies and learning rate over the epochs as a PNG, from the rows of `metrics.csv`."""
    figure = require_matplotlib().Figure(figsize=(9, 6), layout="constrained")
    loss_axes, accuracy_axes, lr_axes = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.5))
    series = (
        (loss_axes, "train_loss", "training"),
        (loss_axes, "val_loss", "validation"),
        (accuracy_axes, "top_1", "top-1"),
        (accuracy_axes, "top_5", "top-5"),
        (lr_axes, "lr", ""),
    )
    for axes, column, label in series:
        points = [(row["epoch"], row[column]) for row in rows if column in row]
        if points and tells_something(column, [value for _, value in points]):
            axes.plot(*zip(*points), label=label, marker="." if len(points) < 40 else "", linewidth=1.5)
    for axes, title in ((loss_axes, "loss"), (accuracy_axes, "accuracy"), (lr_axes, "learning rate")):
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
    loss_axes.legend()
    if any("top_1" in row for row in rows):
        accuracy_axes.legend()
    lr_axes.set_ylim(0, 1.1 * lr_axes.get_ylim()[1])
    lr_axes.set_xlabel("epoch")
    lr_axes.xaxis.get_major_locator().set_params(integer=True)
    save_figure(figure, path)


def tells_something(column: str, values: Sequence[float]) -> bool:
    """Return whether a curve of a metric is worth drawing. A top-5 accuracy of 1 throughout is not.

    With five classes or fewer it is always 1, and it would stretch the axis of the accuracy.
    """
    return column != "top_5" or any(value != 1 for value in values if math.isfinite(value))


def draw_confusion_matrix(confusion: np.ndarray, class_names: Sequence[str], path: Union[str, os.PathLike]) -> None:
    """Draw a confusion matrix: rows are true classes, columns are predicted classes, colours are shares of the row.

    Counts are written into the cells when the cells are large enough.

    Very long names are shortened with an ellipsis.

    Args:
        confusion: [K, K] counts.
        class_names: K names.
        path: a picture file.
    """
    count = len(class_names)
    painter = TextPainter(_LABEL_PIXELS)
    names = [painter.shortened(printable(name), _MAX_LABEL_PIXELS) for name in class_names] if count <= 50 else []
    longest_inches = max(map(painter.width, names), default=0) / _DPI
    # Labels of up to an inch fit beside the smallest matrix; longer ones need a larger picture.
    side_inches = min(max(4.0, 0.45 * count + 2.0), 24.0) + max(0.0, longest_inches - 1)
    figure = require_matplotlib().Figure(figsize=(side_inches, side_inches), layout="constrained")
    axes = figure.subplots()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if names:
        # A name such as '$5_$bill' must not be read as a formula.
        style = {"family": font_families(names), "parse_math": False}
        axes.set_xticks(range(count), names, rotation=90, **style)
        axes.set_yticks(range(count), names, **style)
    if count <= 25:
        for row, column in zip(*np.nonzero(confusion)):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, confusion[row, column], ha="center", va="center", color=color, fontsize=8)
    save_figure(figure, path)


def draw_reliability(calibration: Calibration, path: Union[str, os.PathLike]) -> None:
    """Draw the accuracy of the images in each bin of confidence, and below it how many images are in the bin.

    For a calibrated classifier, all bars end at the diagonal. A narrow red bar shows the gap of its bin, from the
    accuracy to the mean confidence, which may be above or below.
    """
    num_bins = len(calibration.num_images)
    figure = require_matplotlib().Figure(figsize=(6, 7.5), layout="constrained")
    axes, count_axes = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    left, width = np.arange(num_bins) / num_bins, 1 / num_bins
    accuracies, confidences = (np.nan_to_num(means) for means in (calibration.accuracies, calibration.confidences))
    is_used = calibration.num_images > 0
    style = {"width": width, "align": "edge", "edgecolor": "white"}
    axes.bar(left[is_used], accuracies[is_used], color="#1f77b4", label="accuracy", **style)
    gap = {"color": "#ff8a80", "edgecolor": "#d62728", "width": width / 3, "label": "gap to the mean confidence"}
    axes.bar((left + width / 2)[is_used], (confidences - accuracies)[is_used], bottom=accuracies[is_used], **gap)
    axes.plot((0, 1), (0, 1), linestyle="--", color="#555555", label="calibrated")
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy")
    axes.set_title(f"expected calibration error {calibration.ece:.4f}")
    figure.legend(loc="outside lower center", ncols=3)
    count_axes.bar(left, calibration.num_images, color="#7f7f7f", **style)
    count_axes.set(xlabel="confidence: probability of the predicted class", ylabel="images")
    count_axes.yaxis.get_major_locator().set_params(integer=True, nbins=4)
    for each in (axes, count_axes):
        each.set_axisbelow(True)
        each.grid(alpha=0.3)
    save_figure(figure, path)


def font_families(names: Sequence[str]) -> list[str]:
    """Return font families that together have all letters of `names`, as far as installed fonts have them."""
    from matplotlib import font_manager

    families = ["DejaVu Sans"]
    for file in sorted({font_file_for(letter) for name in names for letter in name} - {None}):
        font_manager.fontManager.addfont(file)
        families.append(font_manager.FontProperties(fname=file).get_name())
    return families


def save_figure(figure: Any, path: Union[str, os.PathLike]) -> None:
    """Write a figure of matplotlib atomically."""
    with warnings.catch_warnings(), atomic_path(path) as side:
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # `font_file_for` has warned already
        figure.savefig(side, dpi=_DPI)
