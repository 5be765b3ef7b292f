"""The base classes of layers and networks. They work with MindSpore's own tools, such as `to_float` and `export`."""

from __future__ import annotations

import sys
import threading
from typing import Optional

import mindspore as ms
from mindspore import Parameter, nn, ops
from mindspore.nn.cell import _cell_graph_executor  # Its defining module differs between versions.

from mindcv.kernels.form import is_on_cpu
from mindcv.models.layers.image_check import check_images, check_images_in_graph
from mindcv.utils.errors import UserError

__all__ = ["BaseNetwork", "Layer", "forget_graphs", "remember_section"]

# MindSpore's flags for the number format of a Cell, with the types that they stand for.
_FORMATS = {"fp16": ms.float16, "bf16": ms.bfloat16, "fp32": ms.float32}

# Name of the Cell that MindSpore's `recompute` adds to another Cell.
_RECOMPUTE = "_recompute_cell"

# The attribute of a layer that holds its packed `Section`. See `remember_section`.
_SECTION = "_packed_section"


# The thread that calls a network holds this lock. It is reentrant, since a network may call another (decision 0018).
_in_a_call = threading.RLock()


class Layer(nn.Cell):
    """A Cell that computes in the type of its input.

    A layer ignores MindSpore's `to_float`, which would cast the parameters and inputs of each Cell. The kernels, the
    norms and the Fourier transforms do not support that. Instead, the network casts its images (decisions 0015 and
    0016).
    """

    def to_float(self, dst_type: ms.Type) -> Layer:
        """Return the layer unchanged (see the class)."""
        return self

    def add_flags_recursive(self, **flags: object) -> Layer:
        """Set flags as `nn.Cell.add_flags_recursive` does, but ignore the flags of number formats."""
        return super().add_flags_recursive(**{name: value for name, value in flags.items() if name not in _FORMATS})

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute as `nn.Cell` does. A new Cell or Parameter also unpacks the layer's section."""
        if isinstance(value, (nn.Cell, Parameter)):
            if _SECTION in self.__dict__:
                self.__dict__[_SECTION].unpack("a layer or a weight of a packed network is replaced")
            if "_phases" in self.__dict__:
                forget_graphs(self)
        super().__setattr__(name, value)

    @nn.Cell.compile_phase.setter
    def compile_phase(self, value: str) -> None:
        """Set the name of the graph of the last call. The layer keeps all names for `forget_graphs`."""
        if value.startswith("export."):
            self.check_export()
        if value:
            self.__dict__.setdefault("_phases", set()).add(value)
        nn.Cell.compile_phase.fset(self, value)

    def check_export(self) -> None:
        """Check that the layer can be exported to a file.

        Raises:
            UserError: the layer computes in bfloat16 on CPU.
        """
        if getattr(self, "compute_type", None) == ms.bfloat16 and is_on_cpu():
            raise UserError("a network in bfloat16 cannot be exported on CPU: export it before apply_amp")

    def __getstate__(self) -> tuple:
        """Return the state for `copy.deepcopy`. The copy is not packed.

        The Cell that gradient checkpointing adds cannot be copied. `__setstate__` creates it again.
        """
        base, attributes = super().__getstate__()
        cells = type(self._cells)((name, cell) for name, cell in self._cells.items() if name != _RECOMPUTE)
        attributes = {name: value for name, value in attributes.items() if name != _SECTION}
        return base, {**attributes, "_cells": cells, "_is_recomputed": _RECOMPUTE in self._cells}

    def __setstate__(self, state: tuple) -> None:
        """Restore a copy from the state of `__getstate__`."""
        super().__setstate__(state)
        if self.__dict__.pop("_is_recomputed"):
            self.recompute()
        else:
            self.__dict__.setdefault(_RECOMPUTE, None)

    @property
    def is_exported(self) -> bool:
        """Whether MindSpore compiles the graph for a file. Such a graph must not use kernels (decision 0016)."""
        return (self.compile_phase or "").startswith("export.")


class BaseNetwork(Layer):
    """A network of layers that works with MindSpore's `to_float`, `export` and graph mode.

    A subclass sets `in_channels`, the number of channels of the images. It also sets `least_side`, the smallest height
    and width in pixels that leave at least one pixel for every stage.
    """

    in_channels: int
    least_side: int

    def __init__(self, auto_prefix: bool = True):
        super().__init__(auto_prefix)
        self.input_type: Optional[ms.Type] = None

    def __call__(self, *inputs: ms.Tensor, **keywords: object) -> object:
        """Check the images and call the network as `nn.Cell` does. See decisions 0017 and 0018.

        Raises:
            UserError: the images do not fit, or another thread is inside a call.
        """
        if inputs:
            self.check_inputs(*inputs)
        if not _in_a_call.acquire(blocking=False):
            raise UserError(
                "another Python thread is calling a network, and MindSpore returns wrong results or waits forever if "
                "calls overlap: hold one threading.Lock from each call until its result is an array, or use one "
                "process for each model (docs/how-to/serving.md)"
            )
        try:
            if self.is_exported:  # An earlier call has finished the export.
                self.compile_phase = ""
            return super().__call__(*inputs, **keywords)
        finally:
            _in_a_call.release()

    def check_inputs(self, images: ms.Tensor) -> None:
        """Check the inputs of a call.

        Raises:
            UserError: they do not fit.
        """
        check_images(images, self.in_channels, self.least_side)

    def to_float(self, dst_type: ms.Type) -> BaseNetwork:
        """Compute in `dst_type`, as `apply_amp` with level O2 does. The logits have this type too.

        Raises:
            UserError: `dst_type` is bfloat16, and the device is a CPU.
        """
        return nn.Cell.to_float(self, dst_type)

    def add_flags_recursive(self, **flags: object) -> BaseNetwork:
        """Set flags as `nn.Cell.add_flags_recursive` does. The flag of a number format sets the type of the images.

        Raises:
            UserError: the flag is the one for bfloat16, and the device is a CPU.
        """
        wanted = [dtype for flag, dtype in _FORMATS.items() if flags.get(flag)]
        if wanted:
            if wanted[0] == ms.bfloat16 and is_on_cpu():
                raise UserError(
                    "MindSpore has no bfloat16 operators on CPU: use mindcv.engine.apply_amp(network, 'O1', "
                    "dtype='bfloat16'), which needs this library's kernels, or float16"
                )
            self.input_type = wanted[0]
            forget_graphs(self)
        return super().add_flags_recursive(**flags)

    def as_input(self, x):
        """Check the images x [N, C, H, W] and return them in the type that `to_float` has set."""
        check_images_in_graph(x, self.in_channels, self.least_side)
        return x if self.input_type is None else ops.cast(x, self.input_type)

    @property
    def prepare(self):
        """The method `as_input`.

        MindSpore's automatic mixed precision of level O1 rewrites the source code of a network. For this network it
        would fail with an unclear error. It reads only the attributes that `construct` calls, so this attribute checks
        its caller.

        Raises:
            UserError: `mindspore.rewrite` reads the attribute.
        """
        if _is_asked_by_rewriting():
            raise UserError(
                "MindSpore's automatic mixed precision of level O1 cannot rewrite this network: use "
                "mindcv.engine.apply_amp(network, 'O1') instead"
            )
        return self.as_input


def _is_asked_by_rewriting() -> bool:
    """Return whether the caller's caller is code of `mindspore.rewrite`."""
    return sys._getframe(2).f_globals.get("__name__", "").startswith("mindspore.rewrite")


def remember_section(layer: Layer, section: Optional[Layer]) -> None:
    """Record in `layer` that the packed `section` contains it. None removes the record."""
    if section is None:
        layer.__dict__.pop(_SECTION, None)
    else:
        layer.__dict__[_SECTION] = section


def forget_graphs(network: nn.Cell) -> None:
    """Drop the compiled graphs that contain `network` or parts of it. The next call compiles the new structure.

    MindSpore looks up a compiled graph by the inputs of the call alone. At each call it sets the name of the graph in
    every Cell inside, so a layer also knows the graphs of the Cells around it. See decision 0016.
    """
    phases = set()
    for _, cell in network.cells_and_names():
        phases |= cell.__dict__.pop("_phases", set())
    if phases:
        _cell_graph_executor.del_net_res(network, phases)
