"""Checks the call of a kernel against its signature. `signature_table` contains and explains the signatures.

The C functions repeat the check, because some shapes are unknown when a graph is compiled (decision 0033).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property, lru_cache
from typing import NamedTuple, Optional

from mindcv.kernels.library import packed_size
from mindcv.kernels.signature_table import SIGNATURES

__all__ = ["Signature", "signature_of"]

Shape = tuple[int, ...]
# Computes a dimension from the values of the symbols. The result is None if it is unknown when a graph is compiled.
_Expression = Callable[[dict[str, int]], Optional[int]]


class _Argument(NamedTuple):
    """An argument of a signature.

    `dims` holds the text and the expression of each dimension. `has_rest` says whether `...` precedes them.
    """

    name: str
    has_rest: bool
    dims: tuple[tuple[str, _Expression], ...]

    @property
    def text(self) -> str:
        return f"[{', '.join([*(['...'] if self.has_rest else []), *(text for text, _ in self.dims)])}]"


class _Given(NamedTuple):
    """An argument of a call. `repetition` counts from 1 and is 0 for an argument that is not repeated."""

    argument: _Argument
    name: str
    shape: Shape
    repetition: int


class Signature:
    """The signature of the kernel `name`."""

    def __init__(self, name: str):
        self.name = name
        self._is_bf16 = name.endswith("Bf16")
        inputs, outputs = SIGNATURES[name].split(" -> ")
        self._parts = [
            (group.startswith("n*("), self._arguments(group[3:-1] if group.startswith("n*(") else group))
            for group in re.findall(r"n\*\(.*?\]\)|[^ ]+\]", inputs)
        ]
        self.outputs = self._arguments(outputs)

    @cached_property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs in their order, without the repeated ones."""
        return tuple(argument.name for is_repeated, part in self._parts if not is_repeated for argument in part)

    @cached_property
    def repeated_names(self) -> tuple[str, ...]:
        """The names of the repeated inputs, `n*(...)`, in their order."""
        return tuple(argument.name for is_repeated, part in self._parts if is_repeated for argument in part)

    @cached_property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs in their order."""
        return tuple(argument.name for argument in self.outputs)

    @cached_property
    def output_shapes(self) -> Callable[[tuple[Shape, ...]], tuple[Shape, ...]]:
        """A function that returns the shapes of a call's outputs from the shapes of its inputs.

        As in MindSpore, -1 is an unknown dimension and (-2,) is a shape of unknown rank. The function raises a
        ValueError if the inputs do not fit.
        """
        return lru_cache(maxsize=64)(self._matched)

    def wrong_type(self, index: int, dtype: str, count: int) -> TypeError:
        """Return the error for input `index` of `count`, whose type `dtype` is not float32."""
        name = self._inputs([()] * count)[index].name
        return TypeError(f"the kernel {self.name} got {name} of type {dtype.lower()}; it expects float32")

    def _matched(self, shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
        given = self._inputs(shapes)
        symbols, rests = self._bound(given)
        for each in given:
            self._check(each, given[0], symbols, rests)
        return tuple(self._output(argument, given[0], symbols, rests) for argument in self.outputs)

    def _inputs(self, shapes: Sequence[Shape]) -> list[_Given]:
        fixed = sum(len(arguments) for is_repeated, arguments in self._parts if not is_repeated)
        repeated = sum(len(arguments) for is_repeated, arguments in self._parts if is_repeated)
        times = (len(shapes) - fixed) // repeated if repeated else 0
        if fixed + times * repeated != len(shapes) or repeated and times < 1:
            expected = f"{fixed} and a multiple of {repeated}" if repeated else str(fixed)
            raise ValueError(f"the kernel {self.name} got {len(shapes)} inputs; it expects {expected}")
        given: list[_Given] = []
        for is_repeated, arguments in self._parts:
            for repetition in range(1, times + 1) if is_repeated else (0,):
                for argument in arguments:
                    name = f"{argument.name} ({repetition} of {times})" if is_repeated else argument.name
                    given.append(_Given(argument, name, tuple(shapes[len(given)]), repetition))
        return given

    def _bound(self, given: list[_Given]) -> tuple[dict[str, int], dict[int, Shape]]:
        """Return the known values of the symbols, and the known dimensions of `...` in each repetition."""
        symbols: dict[str, int] = {"n": max(each.repetition for each in given)}
        rests: dict[int, Shape] = {}
        for each in given:
            argument, shape = each.argument, each.shape
            if shape == (-2,):
                continue
            rank = len(argument.dims)
            if len(shape) != rank and not (argument.has_rest and len(shape) > rank):
                count = f"{'at least ' if argument.has_rest else ''}{rank} dimension{'s' if rank != 1 else ''}"
                raise ValueError(self._sentence(each, f"{count}, {argument.text}"))
            first = len(shape) - rank
            for (text, _), size in zip(argument.dims, shape[first:]):
                if size == 0:
                    raise ValueError(self._sentence(each, f"{argument.text} with every dimension at least 1"))
                if size > 0 and text.isalpha():
                    symbols.setdefault(text, size)
            if argument.has_rest and -1 not in shape[:first]:
                rests.setdefault(each.repetition, shape[:first])
        return symbols, rests

    def _check(self, each: _Given, first: _Given, symbols: dict[str, int], rests: dict[int, Shape]) -> None:
        if each.shape == (-2,):
            return
        expected = [expression(symbols) for _, expression in each.argument.dims]
        rest = rests.get(each.repetition)
        start = len(each.shape) - len(expected)
        fits = all(e is None or size in (e, -1) for e, size in zip(expected, each.shape[start:]))
        if each.argument.has_rest and rest is not None:
            fits = fits and len(rest) == start and all(s in (r, -1) for r, s in zip(rest, each.shape))
            expected = [*rest, *expected]
        if not fits:
            sizes = ", ".join("?" if size is None else str(size) for size in expected)
            sentence = self._sentence(each, f"{each.argument.text}, which is [{sizes}]")
            beside = "" if each is first or first.repetition else f" beside {first.name} of shape {list(first.shape)}"
            raise ValueError(sentence + beside)

    def _output(self, argument: _Argument, first: _Given, symbols: dict[str, int], rests: dict[int, Shape]) -> Shape:
        sizes = [expression(symbols) for _, expression in argument.dims]
        for (text, _), size in zip(argument.dims, sizes):
            if size == 0:
                values = ", ".join(f"{s} = {symbols[s]}" for s in re.findall(r"[A-Za-z]", text))
                raise ValueError(self._sentence(first, f"{text} to be at least 1 ({values})"))
        if argument.has_rest and 0 not in rests:
            return (-2,)
        return (*(rests[0] if argument.has_rest else ()), *(-1 if size is None else size for size in sizes))

    def _sentence(self, each: _Given, expected: str) -> str:
        return f"the kernel {self.name} got {each.name} of shape {list(each.shape)}; it expects {expected}"

    def _arguments(self, text: str) -> list[_Argument]:
        found = []
        for name, dims in re.findall(r"([^ \[]+)\[(.*?)\]", text):
            texts = re.findall(r"(?:[^,(]|\([^)]*\))+", dims)
            has_rest = texts[0] == "..."
            parsed = tuple((each, self._expression(each)) for each in texts[has_rest:])
            found.append(_Argument(name, has_rest, parsed))
        return found

    def _expression(self, text: str) -> _Expression:
        tokens = iter([*re.findall(r"\d+|\w+|[*/(),]", text), ""])
        return self._product(tokens)[0]

    def _product(self, tokens: Iterator[str]) -> tuple[_Expression, str]:
        """Parse a product or quotient of numbers, symbols and calls. Return it and the token after it."""
        value, token = self._factor(tokens)
        while token in ("*", "/"):
            right, next_token = self._factor(tokens)
            value, token = _combined(value, token, right), next_token
        return value, token

    def _factor(self, tokens: Iterator[str]) -> tuple[_Expression, str]:
        token = next(tokens)
        if token.isdigit():
            return (lambda symbols, number=int(token): number), next(tokens)
        if len(token) == 1:
            return (lambda symbols: symbols.get(token)), next(tokens)
        next(tokens)  # Skip the opening parenthesis.
        arguments, after = [], ","
        while after == ",":
            argument, after = self._product(tokens)
            arguments.append(argument)
        return (lambda symbols: self._called(token, [argument(symbols) for argument in arguments])), next(tokens)

    def _called(self, function: str, values: list[Optional[int]]) -> Optional[int]:
        if None in values:
            return None
        if function == "packed":
            k, n = values
            return packed_size(k, n, self._is_bf16)
        size, in_channels, out_channels = values
        return -(-packed_size(size * size * in_channels, out_channels, self._is_bf16) // size)


def _combined(left: _Expression, operator: str, right: _Expression) -> _Expression:
    def value(symbols: dict[str, int]) -> Optional[int]:
        a, b = left(symbols), right(symbols)
        if a is None or b is None:
            return None
        return a * b if operator == "*" else a // b

    return value


@cache
def signature_of(name: str) -> Signature:
    """Return the signature of the kernel `name`. Each signature is parsed once."""
    return Signature(name)
