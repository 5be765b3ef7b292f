"""Adds the preprocessing of `infer.py` to an ONNX graph: resize, central crop and normalisation. See decision 0084.

The resize gives Pillow's bits in a runtime that computes in float64. Each pass is a product with a matrix of Pillow's
integer coefficients. Integers below 2^53 are exact in float64, in any order of the sums.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

import numpy as np
from PIL import __version__ as pillow_version

from mindcv.export.onnx_builder import GraphBuilder
from mindcv.utils.checks import check_number
from mindcv.utils.errors import UserError

__all__ = ["add_preprocessing"]

_PRECISION = 2.0**22  # Pillow's coefficients are multiples of 1 / _PRECISION.
# Pillow's weights of red, green and blue in grey, in units of 2^-16.
_LUMA = (19595, 38470, 7471)
# Half the width of each filter's support, in pixels of the larger grid.
_SUPPORT = {"bilinear": 1, "bicubic": 2, "lanczos": 3}
_BAND = 32  # rows or columns of the result in one product, which skips pixels without influence on them
_CUBIC = -0.5  # parameter a of Pillow's bicubic filter


def add_preprocessing(graph: GraphBuilder, pixels: str, preprocessing: Mapping[str, Any]) -> str:
    """Add the transforms of `create_transforms` for evaluation.

    Args:
        graph: receives the nodes.
        pixels: uint8 [N, H, W, 3] of any size.
        preprocessing: `image_resize`, `crop_pct`, `interpolation`, `mean`, `std` and `in_channels`.

    Returns:
        Images of the network, float32 [N, in_channels, image_resize, image_resize].

    Raises:
        UserError: a value of the preprocessing is missing or not allowed.
    """
    missing = [
        name for name in ("image_resize", "crop_pct", "mean", "std", "interpolation") if name not in preprocessing
    ]
    if missing:
        raise UserError(
            f"preprocessing inside the graph needs {', '.join(missing)}, which the given preprocessing lacks"
        )
    filter_name = preprocessing["interpolation"]
    if filter_name not in _SUPPORT:
        raise UserError(
            f"preprocessing inside the graph resizes with {', '.join(_SUPPORT)}, and the interpolation is "
            f"'{filter_name}': prepare the images outside of the graph"
        )
    crop_pct = check_number("crop_pct", preprocessing["crop_pct"], above=0, high=1)
    with graph.scope("preprocessing"):
        x = _grey(graph, pixels) if preprocessing.get("in_channels", 3) == 1 else pixels
        x = graph.add("Transpose", x, perm=[0, 3, 1, 2])
        x = _Resize(graph, pixels, preprocessing["image_resize"], crop_pct, filter_name).add(x)
        x = graph.cast(x, np.float32)
        x = graph.add("Sub", x, _per_channel(graph, preprocessing["mean"]))
        return graph.add("Div", x, _per_channel(graph, preprocessing["std"]))


def _grey(graph: GraphBuilder, x: str) -> str:
    """Pixels uint8 [N, H, W, 3] to grey ones, float64 [N, H, W, 1], with Pillow's rounding."""
    x = graph.add("MatMul", graph.cast(x, np.float64), graph.constant(np.array(_LUMA)[:, None], np.float64))
    x = graph.add("Add", x, graph.constant(2**15, np.float64))
    return graph.add("Floor", graph.add("Mul", x, graph.constant(2.0**-16, np.float64)))


def _per_channel(graph: GraphBuilder, values: Sequence[float]) -> str:
    return graph.constant(np.array(values).reshape(1, -1, 1, 1), np.float32)


class _Resize:
    """A resize and the central crop after it, of which only the pixels inside the crop are computed.

    Args:
        graph: receives the nodes.
        pixels: uint8 [N, H, W, 3], whose shape gives the sizes.
        size: height and width of the crop.
        crop_pct: the shorter side is resized to int(size / crop_pct). If it is 1 and the size at least 384, the image
            is resized to the square directly, as in `create_transforms`.
        filter_name: name of Pillow's filter.
    """

    def __init__(self, graph: GraphBuilder, pixels: str, size: int, crop_pct: float, filter_name: str):
        self.graph, self.size, self.filter_name = graph, size, filter_name
        shape = graph.add("Shape", pixels)
        self.height, self.width = (graph.add("Gather", shape, graph.constant(axis, np.int64)) for axis in (1, 2))
        if crop_pct == 1 and size >= 384:
            self.new_height = self.new_width = graph.constant(size, np.int64)
            return
        shorter = graph.constant(int(size / crop_pct), np.int64)
        least = graph.add("Min", self.height, self.width)
        self.new_height, self.new_width = (
            graph.add("Div", graph.add("Mul", side, shorter), least) for side in (self.height, self.width)
        )

    def add(self, x: str) -> str:
        """Resize and crop x [N, C, H, W] to [N, C, size, size]. The values are whole numbers within 0..255."""
        down = self._bands(self.height, self.new_height)
        across = self._bands(self.width, self.new_width)

        def down_first(graph: GraphBuilder) -> str:
            return _across(graph, _down(graph, x, down), across)

        def across_first(graph: GraphBuilder) -> str:
            return _down(graph, _across(graph, x, across), down)

        # The order changes some pixels by 1, because Pillow rounds after each pass.
        if int(pillow_version.split(".")[0]) < 13:
            return across_first(self.graph)
        branches = []
        for order in (down_first, across_first):
            branch = GraphBuilder(self.graph)
            branches.append((branch, order(branch)))
        return self.graph.choose(self._is_down_first(), tuple(branches))

    def _is_down_first(self) -> str:
        """Pillow 13 resizes vertically first if that saves more pixels."""
        graph = self.graph
        saved = graph.add("Sub", self.height, self.new_height)
        across = graph.add("Mul", graph.add("Sub", self.width, self.new_width), graph.constant(2, np.int64))
        is_smaller = graph.add("Greater", saved, graph.constant(0, np.int64))
        return graph.add("And", is_smaller, graph.add("Greater", saved, across))

    def _bands(self, length: str, new_length: str) -> list[_Band]:
        """Divide the crop of an axis into bands."""
        graph = self.graph
        border = graph.cast(graph.add("Sub", new_length, graph.constant(self.size, np.int64)), np.float64)
        first = graph.add("Round", graph.add("Mul", border, graph.constant(0.5, np.float64)))  # halves to even
        first = graph.cast(first, np.int64)
        starts = range(0, self.size, _BAND)
        return [self._band(length, new_length, first, range(i, min(i + _BAND, self.size))) for i in starts]

    def _band(self, length: str, new_length: str, first: str, places: range) -> _Band:
        """Return the band that computes `places` of the crop, which begins at the pixel `first` of the new length."""
        graph, two, one = self.graph, self.graph.constant(2, np.int64), self.graph.constant(1, np.int64)
        larger = graph.add("Max", length, new_length)
        reach = graph.add("Mul", larger, graph.constant(2 * _SUPPORT[self.filter_name], np.int64))
        twice = graph.add("Mul", new_length, two)

        def centre(place: Any) -> str:
            """The centre of a new pixel in the old grid, times 2 * new_length."""
            target = graph.add("Add", first, graph.constant(place, np.int64))
            return graph.add("Mul", graph.add("Add", graph.add("Mul", target, two), one), length)

        # One pixel more on each side makes up for the rounding of the divisions.
        start = graph.add("Div", graph.add("Sub", centre(places[0]), reach), twice)
        start = graph.add("Max", graph.add("Sub", start, one), graph.constant(0, np.int64))
        end = graph.add("Div", graph.add("Add", centre(places[-1]), reach), twice)
        end = graph.add("Min", graph.add("Add", end, two), length)
        source = graph.add("Range", start, end, one)
        weights = self._coefficients(source, centre(np.array(places)[:, None]), new_length, larger)
        axis = graph.constant([0], np.int64)
        return _Band(weights, graph.add("Unsqueeze", start, axis), graph.add("Unsqueeze", end, axis))

    def _coefficients(self, source: str, centre: str, new_length: str, larger: str) -> str:
        """Return Pillow's coefficients, whole numbers, of the pixels `source` for the new pixels at `centre`."""
        graph, two, one = self.graph, self.graph.constant(2, np.int64), self.graph.constant(1, np.int64)
        # The distance from a pixel to the centre, in pixels of the larger grid, is a ratio of integers.
        place = graph.add("Mul", graph.add("Add", graph.add("Mul", source, two), one), new_length)
        distance = graph.cast(graph.add("Sub", place, centre), np.float64)  # [size, length]
        scale = graph.cast(graph.add("Mul", larger, two), np.float64)
        weights = _FilterGraph(graph).weights(self.filter_name, graph.add("Div", distance, scale))
        total = graph.add("ReduceSum", weights, graph.constant([1], np.int64), keepdims=1)
        weights = graph.add("Mul", graph.add("Div", weights, total), graph.constant(_PRECISION, np.float64))
        size = graph.add("Floor", graph.add("Add", graph.add("Abs", weights), graph.constant(0.5, np.float64)))
        return graph.add("Mul", graph.add("Sign", weights), size)


@dataclass(frozen=True)
class _Band:
    """Some rows or columns of the result.

    Attributes:
        coefficients: [places of the result, pixels of the image].
        start, end: the pixels of the image that have an influence, as arrays of one number.
    """

    coefficients: str
    start: str
    end: str


def _down(graph: GraphBuilder, x: str, bands: Sequence[_Band]) -> str:
    """Resize the height of x [N, C, H, W]."""
    parts = []
    for band in bands:
        rows = graph.add("Slice", x, band.start, band.end, graph.constant([2], np.int64))
        parts.append(graph.add("MatMul", band.coefficients, graph.cast(rows, np.float64)))
    return _rounded(graph, graph.add("Concat", *parts, axis=2))


def _across(graph: GraphBuilder, x: str, bands: Sequence[_Band]) -> str:
    """Resize the width of x [N, C, H, W]."""
    parts = []
    for band in bands:
        columns = graph.add("Slice", x, band.start, band.end, graph.constant([3], np.int64))
        transposed = graph.add("Transpose", band.coefficients, perm=[1, 0])
        parts.append(graph.add("MatMul", graph.cast(columns, np.float64), transposed))
    return _rounded(graph, graph.add("Concat", *parts, axis=3))


def _rounded(graph: GraphBuilder, x: str) -> str:
    """Return sums of coefficients times pixels as pixels, rounded and clipped to 0..255."""
    x = graph.add("Add", x, graph.constant(_PRECISION / 2, np.float64))
    x = graph.add("Floor", graph.add("Mul", x, graph.constant(1 / _PRECISION, np.float64)))
    return graph.add("Clip", x, graph.constant(0, np.float64), graph.constant(255, np.float64))


class _FilterGraph:
    """Pillow's filters as nodes of a graph, for float64 distances."""

    def __init__(self, graph: GraphBuilder):
        self.graph = graph

    def weights(self, name: str, x: str) -> str:
        """Return the weights of the filter at the distances x, which are 0 outside of its support."""
        formulas: dict[str, Callable[[str], str]] = {
            "bilinear": lambda x: self.graph.add("Sub", self._number(1), x),
            "bicubic": self._bicubic,
            "lanczos": lambda x: self._multiply(self._sinc(x), self._sinc(self._multiply(x, self._number(1 / 3)))),
        }
        x = self.graph.add("Abs", x)
        is_inside = self.graph.add("Less", x, self._number(_SUPPORT[name]))
        return self.graph.add("Where", is_inside, formulas[name](x), self._number(0))

    def _bicubic(self, x: str) -> str:
        """Return (a + 2) x^3 - (a + 3) x^2 + 1 below 1, and a (x^3 - 5 x^2 + 8 x - 4) from 1 on."""
        a = _CUBIC
        near = self._polynomial(x, (a + 2, -(a + 3), 0, 1))
        far = self._polynomial(x, (a, -5 * a, 8 * a, -4 * a))
        return self.graph.add("Where", self.graph.add("Less", x, self._number(1)), near, far)

    def _sinc(self, x: str) -> str:
        """Return sin(pi x) / (pi x), which is 1 at 0."""
        is_zero = self.graph.add("Equal", x, self._number(0))
        angle = self.graph.add("Where", is_zero, self._number(1), self._multiply(x, self._number(math.pi)))
        return self.graph.add(
            "Where", is_zero, self._number(1), self.graph.add("Div", self.graph.add("Sin", angle), angle)
        )

    def _polynomial(self, x: str, coefficients: Sequence[float]) -> str:
        y = self._number(coefficients[0])
        for coefficient in coefficients[1:]:
            y = self.graph.add("Add", self._multiply(y, x), self._number(coefficient))
        return y

    def _number(self, value: float) -> str:
        return self.graph.constant(value, np.float64)

    def _multiply(self, x: str, y: str) -> str:
        return self.graph.add("Mul", x, y)
