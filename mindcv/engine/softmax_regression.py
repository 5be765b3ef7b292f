"""Multinomial logistic regression in float64, trained to convergence by L-BFGS with all images in each iteration.

The result has the same bits for any number of threads: the factors of matrix products have so few bits that the
products are exact, and NumPy sums in a fixed order everywhere else (decision 0083).

L-BFGS: Nocedal and Wright, "Numerical Optimization", second edition, algorithms 7.4 and 7.5.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Optional

import numpy as np

from mindcv.engine.features import FeatureRows

__all__ = ["STRENGTHS", "Minimum", "SoftmaxRegression", "StandardizedRows", "minimize"]

STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
_TOLERANCE = 1e-5  # largest gradient of the mean loss at the end
_MAX_ITERATIONS = 1000
_MEMORY = 10  # pairs of steps and gradients that L-BFGS keeps
_KEPT_BYTES = 1 << 29  # standardized rows of up to this size stay in memory
_MAX_LOGITS = 1 << 23  # largest number of logits in memory
_BITS = 20  # of a factor of a matrix product
_MAX_TERMS = 1 << (53 - 2 * _BITS)  # largest number of products whose sum float64 holds exactly

_Block = tuple[np.ndarray, np.ndarray]


class StandardizedRows:
    """Rows of features less their mean and divided by their standard deviation, in float64, with their labels.

    Mean and deviation are taken over all rows. A feature that is constant becomes 0. The values are rounded to 2**-20
    of the largest one.

    Args:
        rows: features.
        labels: label of each row.
        num_classes: number of classes. With many classes the blocks are smaller, so that their logits fit into memory.
    """

    def __init__(self, rows: FeatureRows, labels: np.ndarray, num_classes: int):
        self.rows, self.labels = rows, labels
        self.max_rows = min(_MAX_TERMS, max(1, _MAX_LOGITS // num_classes))
        total = np.zeros(rows.num_features)
        for block in rows.blocks():
            total += block.sum(axis=0, dtype=np.float64)
        self.mean = total / rows.num_rows
        squares = np.zeros(rows.num_features)
        for block in rows.blocks():
            squares += np.square(block - self.mean).sum(axis=0)
        deviation = np.sqrt(squares / rows.num_rows)
        # The rounding of the mean gives a constant feature a tiny deviation.
        is_constant = deviation <= 1e-12 * np.abs(self.mean)
        self.scale = np.where(is_constant, 0.0, 1.0 / np.where(is_constant, 1.0, deviation))
        largest = max(float(np.abs(self._standardized(block)).max()) for block in rows.blocks())
        self.unit = _unit_of(largest)

    def _standardized(self, rows: np.ndarray) -> np.ndarray:
        return (rows - self.mean) * self.scale

    def like(self, rows: FeatureRows, labels: np.ndarray) -> Iterator[_Block]:
        """Yield blocks of other rows, standardized by the mean and the deviation of these ones, with their labels."""
        start = 0
        for block in rows.blocks(self.max_rows):
            features = np.rint(self._standardized(block) / self.unit) * self.unit
            yield features, labels[start : start + len(block)]
            start += len(block)

    def chosen(self, is_chosen: np.ndarray) -> _ChosenRows:
        """Return the rows of which a boolean array [N] says so."""
        return _ChosenRows(self, is_chosen)


class _ChosenRows:
    """Some rows, in blocks that can be read again and again. Few rows are kept in memory, and others are read anew."""

    def __init__(self, source: StandardizedRows, is_chosen: np.ndarray):
        self.source, self.is_chosen = source, is_chosen
        self.num_rows, self.num_features = int(is_chosen.sum()), source.rows.num_features
        is_small = self.num_rows * self.num_features * 8 <= _KEPT_BYTES
        self._kept = list(self._read()) if is_small else None

    def __iter__(self) -> Iterator[_Block]:
        return iter(self._kept) if self._kept is not None else self._read()

    def _read(self) -> Iterator[_Block]:
        start = 0
        for features, labels in self.source.like(self.source.rows, self.source.labels):
            here = self.is_chosen[start : start + len(labels)]
            start += len(labels)
            if here.any():
                yield features[here], labels[here]


def _unit_of(largest: float) -> float:
    """Return the power of 2 of which `largest` is at most 2**20 times."""
    return 2.0 ** (np.frexp(largest)[1] - _BITS)


def _product(rounded: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Return the matrix product of a factor of 20 bits and any other one, which is rounded to 40 bits.

    The other one is split into two parts of 20 bits. Float64 holds all sums of their products exactly, so that the
    order of the sums does not matter.
    """
    unit = _unit_of(float(np.abs(factor).max()))
    high = np.rint(factor / unit) * unit
    fine = unit * 2.0**-_BITS
    return rounded @ high + rounded @ (np.rint((factor - high) / fine) * fine)


class SoftmaxRegression:
    """A linear classifier with the loss mean(cross-entropy) + l2 / 2 * sum(weight ** 2); the biases have no penalty.

    Args:
        rows: rows to train on.
        num_classes: number of classes.
        l2: strength of the penalty, above 0, so that there is one best weight.
    """

    def __init__(self, rows: _ChosenRows, num_classes: int, l2: float):
        self.rows, self.num_classes, self.l2 = rows, num_classes, l2
        self.weights = np.zeros((num_classes, rows.num_features + 1))  # the last column holds the biases
        self.num_iterations, self.largest_gradient, self.has_converged = 0, np.inf, False

    def fit(self, start: Optional[np.ndarray] = None) -> np.ndarray:
        """Train from the weights `start`, or from 0, and return the weights [num_classes, features + 1]."""
        start = self.weights if start is None else start
        found = minimize(self._loss, start.ravel(), _TOLERANCE, _MAX_ITERATIONS)
        self.weights = found.point.reshape(start.shape)
        self.num_iterations, self.largest_gradient = found.num_iterations, found.largest_gradient
        self.has_converged = found.has_converged
        return self.weights

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return the logits [N, num_classes] of standardized features [N, features]."""
        return _product(features, self.weights[:, :-1].T) + self.weights[:, -1]

    def _loss(self, flat: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the loss of weights, and its gradient."""
        weights = flat.reshape(self.num_classes, -1)
        loss, gradient = 0.0, np.zeros_like(weights)
        for features, labels in self.rows:
            logits = _product(features, weights[:, :-1].T) + weights[:, -1]
            logits -= logits.max(axis=1, keepdims=True)
            true = np.arange(len(labels)), labels
            loss -= logits[true].sum()
            np.exp(logits, out=logits)
            sums = logits.sum(axis=1, keepdims=True)
            loss += np.log(sums).sum()
            logits /= sums
            logits[true] -= 1.0
            gradient[:, :-1] += _product(features.T, logits).T
            gradient[:, -1] += logits.sum(axis=0)
        loss, gradient = loss / self.rows.num_rows, gradient / self.rows.num_rows
        gradient[:, :-1] += self.l2 * weights[:, :-1]
        return loss + 0.5 * self.l2 * float(np.square(weights[:, :-1]).sum()), gradient.ravel()


@dataclass
class Minimum:
    """The result of `minimize`."""

    point: np.ndarray
    num_iterations: int
    largest_gradient: float
    has_converged: bool


def minimize(
    function: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    tolerance: float,
    max_iterations: int,
) -> Minimum:
    """Minimize a smooth convex function by L-BFGS.

    Args:
        function: maps a point [D] to the value and the gradient [D].
        start: first point.
        tolerance: largest absolute value of the gradient at which the search ends.
        max_iterations: largest number of iterations.
    """
    point, (value, gradient) = start, function(start)
    pairs: deque[tuple[np.ndarray, np.ndarray, float]] = deque(maxlen=_MEMORY)
    for iteration in range(max_iterations):
        largest = float(np.abs(gradient).max())
        if largest <= tolerance:
            return Minimum(point, iteration, largest, True)
        direction = -_scaled_by_curvature(gradient, pairs)
        slope = _dot(gradient, direction)
        size = 1.0 if pairs else min(1.0, 1.0 / float(np.sqrt(-slope)))
        for _ in range(30):  # Armijo's condition, by bisection
            other = point + size * direction
            other_value, other_gradient = function(other)
            if other_value <= value + 1e-4 * size * slope:
                break
            size *= 0.5
        else:  # the value is exact to rounding already
            return Minimum(point, iteration, largest, False)
        step, change = other - point, other_gradient - gradient
        curvature = _dot(step, change)
        if curvature > 1e-12 * _dot(change, change):
            pairs.append((step, change, curvature))
        point, value, gradient = other, other_value, other_gradient
    largest = float(np.abs(gradient).max())
    return Minimum(point, max_iterations, largest, largest <= tolerance)


def _scaled_by_curvature(gradient: np.ndarray, pairs: deque[tuple[np.ndarray, np.ndarray, float]]) -> np.ndarray:
    """Return the product of the estimated inverse Hessian and the gradient (the two-loop recursion)."""
    result, factors = gradient.copy(), []
    for step, change, curvature in reversed(pairs):
        factors.append(_dot(step, result) / curvature)
        result -= factors[-1] * change
    if pairs:
        _, change, curvature = pairs[-1]
        result *= curvature / _dot(change, change)
    for (step, change, curvature), factor in zip(pairs, reversed(factors)):
        result += (factor - _dot(change, result) / curvature) * step
    return result


def _dot(one: np.ndarray, other: np.ndarray) -> float:
    # The operator @ would sum in an order that depends on the number of threads.
    return float((one * other).sum())
