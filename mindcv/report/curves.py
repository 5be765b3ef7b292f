"""Curves of metrics as SVG inside of a page. The colours are those of the page, also in dark mode."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from mindcv.report.markup import Markup, element

__all__ = ["Curve", "draw_curves", "ticks"]

# Points (x, y); y may be NaN, which interrupts the curve.
Curve = Sequence[tuple[float, float]]
_Place = Callable[[float, float], tuple[float, float]]  # (x, y) of a point to its place in the drawing

_WIDTH, _HEIGHT = 400, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 10, 8, 30
_MOST_DOTS = 60  # more points than these are drawn without dots
_MAX_TICKS = 6
_LEAST_RANGE = 0.02  # smallest range of the y axis, as a share of the largest value


def draw_curves(title: str, curves: Mapping[str, Curve], unit: str = "", epochs: Sequence[float] = ()) -> Markup:
    """Draw curves over the epochs, with a title and a legend.

    Args:
        title: what the curves show.
        curves: name of a curve -> points; at least one y of all curves is finite.
        unit: unit of y.
        epochs: further epochs that the x axis covers, so that several drawings have the same axis.
    """
    finite = {name: [point for point in points if math.isfinite(point[1])] for name, points in curves.items()}
    x_low, x_high = _range([*epochs, *(x for points in finite.values() for x, _ in points)])
    y_low, y_high = _range([y for points in finite.values() for _, y in points], 0.05, _LEAST_RANGE)
    scale_x = (_WIDTH - _LEFT - _RIGHT) / (x_high - x_low)
    scale_y = (_HEIGHT - _TOP - _BOTTOM) / (y_high - y_low)

    def place(x: float, y: float) -> tuple[float, float]:
        return round(_LEFT + (x - x_low) * scale_x, 2), round(_HEIGHT - _BOTTOM - (y - y_low) * scale_y, 2)

    parts = [_grid(place, (x_low, x_high), (y_low, y_high))]
    for number, (name, points) in enumerate(curves.items()):
        parts += _draw_curve(name, points, f"curve-{number}", place)
    label = f"{title} over the epochs: {', '.join(curves)}"
    drawing = element("svg", *parts, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=label)
    legend = [
        element("span", element("i", class_=f"swatch swatch-{number}"), name)
        for number, name in enumerate(curves)
        if len(curves) > 1
    ]
    heading = element("h3", title, element("small", f" in {unit}") if unit else None)
    return element("figure", heading, element("p", *legend, class_="legend") if legend else None, drawing)


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """Return round numbers from `low` to `high`, at most six; with `whole`, whole numbers only."""
    rough = (high - low) / (_MAX_TICKS - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * (1 - 1e-9))
    if whole:
        step = max(1.0, float(math.ceil(step)))
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [(first + number) * step for number in range(count)]


def _range(values: Sequence[float], margin: float = 0.0, least: float = 0.0) -> tuple[float, float]:
    """Return the ends of an axis.

    Args:
        values: numbers that the axis covers.
        margin: share of their range that is added at each end.
        least: smallest range, as a share of the largest value. A curve that hardly changes is then drawn nearly flat,
            and four digits tell its ticks apart.
    """
    low, high = min(values), max(values)
    if low == high:
        half = abs(low) * 0.1 or 0.5
        return low - half, high + half
    room = max((high - low) * margin, (least * max(abs(low), abs(high)) - (high - low)) / 2)
    return low - room, high + room


def _grid(place: _Place, x_range: tuple[float, float], y_range: tuple[float, float]) -> Markup:
    lines = []
    heights = ticks(*y_range)
    for y, label in zip(heights, _labels(heights)):
        _, height = place(x_range[0], y)
        lines.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=height, y2=height, class_="grid"))
        lines.append(element("text", label, x=_LEFT - 6, y=height + 4, text_anchor="end"))
    for x in ticks(*x_range, whole=True):
        left, bottom = place(x, y_range[0])
        lines.append(element("line", x1=left, x2=left, y1=bottom, y2=bottom + 4, class_="axis"))
        lines.append(element("text", f"{x:g}", x=left, y=bottom + 16, text_anchor="middle"))
    floor = _HEIGHT - _BOTTOM
    lines.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=floor, y2=floor, class_="axis"))
    lines.append(element("text", "epoch", x=_WIDTH - _RIGHT, y=_HEIGHT - 2, text_anchor="end"))
    return element("g", *lines)


def _draw_curve(name: str, points: Curve, class_: str, place: _Place) -> list[Markup]:
    """Draw the connected pieces of a curve, and a dot with its numbers at each point if there are not too many."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for x, y in points:
        if math.isfinite(y):
            pieces[-1].append((x, y))
        elif pieces[-1]:
            pieces.append([])
    drawn = []
    for piece in pieces:
        text = " ".join(f"{left:g},{top:g}" for left, top in (place(x, y) for x, y in piece))
        if len(piece) > 1:
            drawn.append(element("polyline", points=text, class_=class_))
        if len(points) <= _MOST_DOTS or len(piece) == 1:
            for x, y in piece:
                left, top = place(x, y)
                told = element("title", f"epoch {x:g}: {name} {y:.6g}")
                drawn.append(element("g", told, element("circle", cx=left, cy=top, r=2.4), class_=class_))
    return drawn


def _labels(numbers: Sequence[float]) -> list[str]:
    """Return numbers as text with four digits, all with an exponent if the largest one is small."""
    is_small = max(map(abs, numbers), default=0.0) < 0.01
    return [_with_exponent(number) if is_small and number else f"{number:.4g}" for number in numbers]


def _with_exponent(number: float) -> str:
    digits, exponent = f"{number:.3e}".split("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"
