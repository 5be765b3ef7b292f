"""The part of a report about the predictions: figures, confusion matrix, classes and examples."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np
from PIL import Image

from mindcv.report.examples import Example
from mindcv.report.markup import Markup, data_uri, element, picture_uri, table

__all__ = ["Validated", "validation_section"]

_MOST_CELLS = 25  # classes of a matrix with counts; the matrix of more classes is a picture
_MOST_PAIRS = 10
_PICTURE_SIDE = 560
_BLUE = (47, 111, 208)


@dataclass(frozen=True)
class Validated:
    """The predictions of one checkpoint for the validation images.

    Attributes:
        checkpoint: name of the file.
        metrics: metric -> value.
        class_names: names of the K classes that were counted.
        confusion: [K, K] counts: row is the true class, column the predicted class.
        wrong: images with a wrong prediction, the surest first.
        right: images with a right prediction.
    """

    checkpoint: str
    metrics: Mapping[str, Any]
    class_names: Sequence[str]
    confusion: np.ndarray
    wrong: Sequence[Example] = field(default=())
    right: Sequence[Example] = field(default=())


def validation_section(validated: Validated) -> Markup:
    """Return the part of the page about the predictions."""
    metrics = [
        (name, f"{value:.4f}" if isinstance(value, float) else value)
        for name, value in validated.metrics.items()
        if not isinstance(value, (list, dict))  # the rows of a reliability plot
    ]
    names, confusion = validated.class_names, validated.confusion
    matrix = _matrix_of_counts if len(names) <= _MOST_CELLS else _matrix_as_picture
    return element(
        "section",
        element("h2", "Predictions"),
        element("p", "Validation images, classified with ", element("code", validated.checkpoint), "."),
        table(("metric", "value"), metrics),
        element("h3", "Confusion matrix"),
        matrix(names, confusion),
        _confused_pairs(names, confusion),
        _classes(names, confusion),
        _examples("Wrong predictions, the surest first", validated.wrong, names),
        _examples("Right predictions, a random choice", validated.right, names),
    )


def _matrix_of_counts(names: Sequence[str], confusion: np.ndarray) -> Markup:
    """Return the matrix as a table. The strength of a colour is the share of the row."""
    totals = np.maximum(confusion.sum(axis=1), 1)
    head = element("tr", element("th", "true \\ predicted"), *(_name_cell("th", name, "column") for name in names))
    rows = []
    for label, name in enumerate(names):
        cells = []
        for predicted, count in enumerate(confusion[label].tolist()):
            share = count / totals[label]
            style = f"background:rgb({_BLUE[0]} {_BLUE[1]} {_BLUE[2]} / {share:.3f})" if count else None
            told = f"true {name}, predicted {names[predicted]}: {count}"
            strong = "strong" if share > 0.55 else None
            cells.append(element("td", count or "", style=style, class_=strong, title=told))
        rows.append(element("tr", _name_cell("th", name, "row"), *cells))
    drawn = element("table", element("thead", head), element("tbody", *rows), class_="matrix")
    return element("div", drawn, class_="scroll")


def _name_cell(kind: str, name: str, place: str) -> Markup:
    return element(
        kind, element("span", name), title=name, class_=f"name-{place}", scope="col" if place == "column" else "row"
    )


def _matrix_as_picture(names: Sequence[str], confusion: np.ndarray) -> Markup:
    """Return the matrix as a picture, a square of pixels for each cell. Cells without images are transparent."""
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    pixels = np.empty((*shares.shape, 4), np.uint8)
    pixels[:, :, :3] = _BLUE
    pixels[:, :, 3] = np.rint(255 * np.sqrt(shares))  # the root keeps small shares visible
    factor = max(1, _PICTURE_SIDE // len(names))
    file = io.BytesIO()
    Image.fromarray(pixels).resize((len(names) * factor,) * 2, Image.Resampling.NEAREST).save(file, "PNG")
    uri = data_uri(file.getvalue(), "image/png")
    picture = element("img", src=uri, alt=f"Confusion matrix of {len(names)} classes", class_="wide")
    told = "Each row is a true class, each column a predicted class, in the order of the labels from the top left."
    return element("figure", picture, element("figcaption", told))


def _confused_pairs(names: Sequence[str], confusion: np.ndarray) -> Optional[Markup]:
    mistakes = confusion - np.diag(np.diag(confusion))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:_MOST_PAIRS]
    pairs = [np.unravel_index(index, confusion.shape) for index in order]
    rows = [(names[true], names[wrong], mistakes[true, wrong]) for true, wrong in pairs if mistakes[true, wrong]]
    if not rows:
        return None
    return element("div", element("h3", "Most frequent mistakes"), table(("true", "predicted", "images"), rows))


def _classes(names: Sequence[str], confusion: np.ndarray) -> Markup:
    """Return the recall and the precision of each class, the lowest recall first."""
    images, predicted, correct = confusion.sum(axis=1), confusion.sum(axis=0), np.diag(confusion)
    recall = [correct[k] / images[k] if images[k] else None for k in range(len(names))]
    order = sorted(range(len(names)), key=lambda k: 2.0 if recall[k] is None else recall[k])
    rows = [
        (
            names[k],
            images[k],
            correct[k],
            "" if recall[k] is None else f"{recall[k]:.4f}",
            f"{correct[k] / predicted[k]:.4f}" if predicted[k] else "",
        )
        for k in order
    ]
    head = ("class", "images", "correct", "recall", "precision")
    return element("details", element("summary", f"All {len(names)} classes"), table(head, rows))


def _examples(title: str, examples: Sequence[Example], names: Sequence[str]) -> Optional[Markup]:
    if not examples:
        return None
    figures = [_example(example, names) for example in examples]
    return element("div", element("h3", title), element("div", *figures, class_="examples"))


def _example(example: Example, names: Sequence[str]) -> Markup:
    true, predicted = names[example.label], names[example.predicted]
    is_right = example.label == example.predicted
    image = example.picture()
    small = "pixelated" if max(image.size) < 64 else None
    words = [element("strong", predicted), f" {100 * example.probability:.1f}%"]
    words += [] if is_right else [element("br"), "true: ", element("strong", true)]
    words += [element("small", example.name)] if example.name else []
    picture = element("img", src=picture_uri(image, 160), alt=f"true {true}, predicted {predicted}", class_=small)
    return element("figure", picture, element("figcaption", *words), class_="right" if is_right else "wrong")
