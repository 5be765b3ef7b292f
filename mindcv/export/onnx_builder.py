"""Collects the nodes and constants of an ONNX graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

import numpy as np

from mindcv.export.onnx_package import require_onnx

__all__ = ["GraphBuilder"]


class GraphBuilder:
    """The nodes and constants of an ONNX graph, in the order in which they are added.

    A value of the graph is represented by its name. Names start with the scope, for example `feature.1.0.dwconv`.

    Args:
        parent: builder of the graph that holds this one as a branch of an `If`. Both share their constants.
    """

    def __init__(self, parent: Optional[GraphBuilder] = None):
        self.helper = require_onnx().helper
        self.nodes: list[Any] = []
        self.arrays: dict[str, np.ndarray] = parent.arrays if parent else {}
        self._scope = parent._scope if parent else ""
        self._uses: Counter[str] = parent._uses if parent else Counter()
        self._anonymous: dict[tuple, str] = parent._anonymous if parent else {}

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Begin the names of nodes with `name` inside the block."""
        before, self._scope = self._scope, name
        try:
            yield
        finally:
            self._scope = before

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output, and return the name of the output."""
        name = f"{self._scope}/{operator}"
        self._uses[name] += 1
        if self._uses[name] > 1:
            name = f"{name}_{self._uses[name]}"
        self.nodes.append(self.helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def rename(self, value: str, name: str) -> str:
        """Give the output of the last node another name, and return the name."""
        node = next(node for node in reversed(self.nodes) if value in node.output)
        node.output[0] = name
        return name

    def weight(self, name: str, array: np.ndarray) -> str:
        """Add a constant with a name of its own, and return the name."""
        self.arrays[name] = np.asarray(array, order="C")
        return name

    def constant(self, value: Any, dtype: type) -> str:
        """Return the name of a small constant. Equal constants share one name."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._anonymous:
            self._anonymous[key] = self.weight(f"constant_{len(self._anonymous)}", array)
        return self._anonymous[key]

    def cast(self, x: str, dtype: type) -> str:
        """Add a conversion to a NumPy type."""
        return self.add("Cast", x, to=self.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def choose(self, condition: str, branches: tuple[tuple[GraphBuilder, str], tuple[GraphBuilder, str]]) -> str:
        """Add an `If`. Each branch is a builder, whose parent is this one, and the name of its result."""
        graphs = []
        for builder, result in branches:
            output = self.helper.make_empty_tensor_value_info(result)
            graphs.append(self.helper.make_graph(builder.nodes, f"{self._scope}/branch", [], [output]))
        return self.add("If", condition, then_branch=graphs[0], else_branch=graphs[1])
