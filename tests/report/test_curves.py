"""Tests of curves in SVG: the places of the points follow from the numbers."""

import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from mindcv.report.curves import draw_curves, ticks


def svg_of(figure):
    """Return the drawing as XML, which a browser reads in the same way."""
    return ElementTree.fromstring(re.search(r"<svg.*</svg>", figure, re.S)[0])


def places(figure, class_):
    lines = [line.get("points") for line in svg_of(figure).iter("polyline") if line.get("class") == class_]
    return [[tuple(map(float, point.split(","))) for point in line.split()] for line in lines]


@pytest.mark.parametrize(
    ("low", "high", "whole", "expected"),
    [
        (0.0, 1.0, False, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.93, 0.981, False, [0.94, 0.96, 0.98]),
        (1, 3, True, [1, 2, 3]),
        (1, 90, True, [20, 40, 60, 80]),
        (0.9, 1.1, True, [1]),
        (2e-6, 1.1e-3, False, [2.5e-4, 5e-4, 7.5e-4, 1e-3]),
    ],
)
def test_ticks_are_round_numbers_inside_of_the_range(low, high, whole, expected):
    assert ticks(low, high, whole) == pytest.approx(expected)


@pytest.mark.parametrize("exponent", range(-8, 9, 2))
@pytest.mark.parametrize("factor", [1.0, 1.7, 3.3, 9.9])
def test_ticks_are_two_to_six(exponent, factor):
    high = factor * 10.0**exponent
    found = ticks(0.0, high)
    assert 2 <= len(found) <= 6 and all(0 <= tick <= high * (1 + 1e-9) for tick in found)


@pytest.mark.parametrize("value", [1e-8, 2.4e-4, 1e-3, 0.0098, 0.93, 1.0, 4.3, 812.0])
@pytest.mark.parametrize("share", [0, 1e-9, 3e-4, 0.004, 0.011, 0.3, 1.0])
def test_draw_curves_labels_each_tick_with_its_own_value(value, share):
    """The labels of the y axis are equally far from each other, so none is rounded to another number."""
    figure = draw_curves("Learning rate", {"lr": [(1, value), (2, value * (1 - share))]})
    labels = [text.text for text in svg_of(figure).iter("text") if text.get("text-anchor") == "end"][:-1]
    steps = np.diff([float(label) for label in labels])
    assert len(labels) >= 2 and max(map(len, labels)) <= 8 and steps.min() > 0
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)


def test_draw_curves_places_points_in_proportion():
    figure = draw_curves("Loss", {"training": [(1, 4.0), (2, 3.0), (4, 1.0)]})
    ((first, second, third),) = places(figure, "curve-0")
    assert second[0] - first[0] == pytest.approx((third[0] - first[0]) / 3, abs=0.02)
    assert second[1] - first[1] == pytest.approx((third[1] - first[1]) / 3, abs=0.02)
    assert third[1] > first[1], "a smaller value is further down"
    assert "epoch 2: training 3" in [title.text for title in svg_of(figure).iter("title")]


def test_draw_curves_covers_the_given_epochs():
    ((first, last),) = places(draw_curves("Accuracy", {"top-1": [(2, 0.5), (3, 0.6)]}, epochs=[1, 2, 3]), "curve-0")
    ((left, right),) = places(draw_curves("Accuracy", {"top-1": [(1, 0.5), (3, 0.6)]}), "curve-0")
    assert last[0] == right[0] and first[0] == pytest.approx((left[0] + right[0]) / 2, abs=0.02)


def test_draw_curves_interrupts_a_curve_at_missing_values():
    figure = draw_curves(
        "Loss", {"a": [(1, 1.0), (2, 2.0), (3, math.nan), (4, math.inf), (5, 1.0), (6, 1.5), (7, 2.0)]}
    )
    assert [len(line) for line in places(figure, "curve-0")] == [2, 3]
    assert "nan" not in figure and "inf" not in figure


@pytest.mark.parametrize("points", [[(1, 0.5)], [(1, 0.5), (2, 0.5)], [(1, 0.0)], [(3, -2.0)]])
def test_draw_curves_of_one_value_has_a_dot(points):
    circles = list(svg_of(draw_curves("Accuracy", {"top-1": points})).iter("circle"))
    assert len(circles) == len(points)
    assert all(0 < float(circle.get("cy")) < 230 and 0 < float(circle.get("cx")) < 400 for circle in circles)


def test_draw_curves_escapes_names():
    figure = draw_curves("<Loss> & more", {'a"<b>': [(1, 1.0)], "c": [(1, 2.0)]})
    assert "&lt;Loss&gt; &amp; more" in figure and "<b>" not in figure
    assert svg_of(figure).get("aria-label") == '<Loss> & more over the epochs: a"<b>, c'
