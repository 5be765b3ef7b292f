"""What the Cells of this library's networks have in common, and the network as MindSpore's own tools see it."""

from __future__ import annotations

import sys
import threading
from typing import Optional

import mindspore as ms
from mindspore import Parameter, nn, ops
from mindspore.nn.cell import _cell_graph_executor  # its own module has moved between versions

from mindcv.kernels.form import is_on_cpu
from mindcv.models.layers.image_check import check_images, check_images_in_graph
from mindcv.utils.errors import UserError

__all__ = ["BaseNetwork", "Layer", "forget_graphs", "remember_section"]

# MindSpore's flags for the number format of a Cell.
_FORMATS = {"fp16": ms.float16, "bf16": ms.bfloat16, "fp32": ms.float32}

# The Cell that MindSpore's `recompute` puts into another one.
_RECOMPUTE = "_recompute_cell"

# The attribute in which a layer keeps the packed `Section` that it is a part of. See `remember_section`.
_SECTION = "_packed_section"


# Held by the thread that is calling a network, which may call others inside.
_in_a_call = threading.RLock()


class Layer(nn.Cell):
    """A Cell that computes in the type of its input.

    MindSpore's `to_float` would cast parameters and inputs of each Cell on its own, which the kernels, the norms and
    the Fourier transforms cannot take. A layer ignores it: the network casts its images, and the layers follow.
    """

    def to_float(self, dst_type: ms.Type) -> Layer:
        """Nothing: see the class."""
        return self

    def add_flags_recursive(self, **flags: object) -> Layer:
        """As `nn.Cell.add_flags_recursive`, without the flags of number formats."""
        return super().add_flags_recursive(**{name: value for name, value in flags.items() if name not in _FORMATS})

    def __setattr__(self, name: str, value: object) -> None:
        """As `nn.Cell`. A Cell or a Parameter that is replaced also takes away the packed kernel that holds it."""
        if isinstance(value, (nn.Cell, Parameter)):
            if _SECTION in self.__dict__:
                self.__dict__[_SECTION].unpack("a layer or a weight of a packed network is replaced")
            if "_phases" in self.__dict__:
                forget_graphs(self)
        super().__setattr__(name, value)

    @nn.Cell.compile_phase.setter
    def compile_phase(self, value: str) -> None:
        """The name of the graph that holds this Cell, of the last call. All names are kept: see `forget_graphs`."""
        if value.startswith("export."):
            self.check_export()
        if value:
            self.__dict__.setdefault("_phases", set()).add(value)
        nn.Cell.compile_phase.fset(self, value)

    def check_export(self) -> None:
        """Refuse what no file can hold.

        Raises:
            UserError: bfloat16 on CPU.
        """
        if getattr(self, "compute_type", None) == ms.bfloat16 and is_on_cpu():
            raise UserError("a file of a network in bfloat16 cannot be made on CPU: export it before apply_amp")

    def __getstate__(self) -> tuple:
        """For `copy.deepcopy`: what gradient checkpointing put around the Cell cannot be copied, and is made anew.

        The copy is not packed.
        """
        base, attributes = super().__getstate__()
        cells = type(self._cells)((name, cell) for name, cell in self._cells.items() if name != _RECOMPUTE)
        attributes = {name: value for name, value in attributes.items() if name != _SECTION}
        return base, {**attributes, "_cells": cells, "_is_recomputed": _RECOMPUTE in self._cells}

    def __setstate__(self, state: tuple) -> None:
        """See `__getstate__`."""
        super().__setstate__(state)
        if self.__dict__.pop("_is_recomputed"):
            self.recompute()
        else:
            self.__dict__.setdefault(_RECOMPUTE, None)

    @property
    def is_exported(self) -> bool:
        """Whether the graph that MindSpore makes is for a file: kernels have no place in it, as they stay here."""
        return (self.compile_phase or "").startswith("export.")


class BaseNetwork(Layer):
    """A network of layers, made ready for MindSpore's `to_float`, `export` and graph mode.

    A subclass sets the channels that images have and the smallest side of which every stage still gets a pixel.
    """

    in_channels: int
    least_side: int

    def __init__(self, auto_prefix: bool = True):
        super().__init__(auto_prefix)
        self.input_type: Optional[ms.Type] = None

    def __call__(self, *inputs: ms.Tensor, **keywords: object) -> object:
        """As `nn.Cell`, after a check of the images: before MindSpore compiles a graph an error is one sentence.

        Raises:
            UserError: the images do not fit, or another thread calls a network at the same time.
        """
        if inputs:
            check_images(inputs[0], self.in_channels, self.least_side)
        if not _in_a_call.acquire(blocking=False):
            raise UserError(
                "another Python thread is calling a network, and MindSpore gives wrong numbers or waits forever when "
                "calls overlap: hold one threading.Lock from each call until its result is an array, or use a process "
                "for each model (docs/how-to/serving.md)"
            )
        try:
            if self.is_exported:  # the export is over
                self.compile_phase = ""
            return super().__call__(*inputs, **keywords)
        finally:
            _in_a_call.release()

    def to_float(self, dst_type: ms.Type) -> BaseNetwork:
        """Compute in `dst_type` from the images on, as `apply_amp` with O2 does; the logits are of this type too.

        Raises:
            UserError: bfloat16 on CPU.
        """
        return nn.Cell.to_float(self, dst_type)

    def add_flags_recursive(self, **flags: object) -> BaseNetwork:
        """As `nn.Cell.add_flags_recursive`; a number format becomes the type that images are cast to."""
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
        """Images, checked, in the type that `to_float` asked for."""
        check_images_in_graph(x, self.in_channels, self.least_side)
        return x if self.input_type is None else ops.cast(x, self.input_type)

    @property
    def prepare(self):
        """`as_input`, and a UserError for MindSpore's automatic mixed precision of level O1.

        O1 writes the source code of a network anew, which fails for this one with an error that helps nobody. MindSpore
        offers no way to say so: it reads the source of the class and asks the network for nothing but the attributes
        that `construct` calls. So the attribute itself looks at who asks.
        """
        if _is_asked_by_rewriting():
            raise UserError(
                "MindSpore's automatic mixed precision of level O1 cannot rewrite this network: use "
                "mindcv.engine.apply_amp(network, 'O1') instead"
            )
        return self.as_input


def _is_asked_by_rewriting() -> bool:
    """Whether the caller's caller is code of `mindspore.rewrite`."""
    return sys._getframe(2).f_globals.get("__name__", "").startswith("mindspore.rewrite")


def remember_section(layer: Layer, section: Optional[Layer]) -> None:
    """Tell `layer` that the packed `section` holds its weights, or with None that none does."""
    if section is None:
        layer.__dict__.pop(_SECTION, None)
    else:
        layer.__dict__[_SECTION] = section


def forget_graphs(network: nn.Cell) -> None:
    """Drop the compiled graphs that hold `network`, or parts of it: its next call compiles its new structure.

    MindSpore finds a compiled graph by the inputs of the call alone. It tells its name to every Cell inside at each
    call, so that a layer knows the graphs of the Cells around it as well.
    """
    phases = set()
    for _, cell in network.cells_and_names():
        phases |= cell.__dict__.pop("_phases", set())
    if phases:
        _cell_graph_executor.del_net_res(network, phases)
