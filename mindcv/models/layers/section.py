"""A part of a network that a packed kernel can stand in for."""

from __future__ import annotations

from typing import Any, Optional, Union

import mindspore as ms
from mindspore import nn

from mindcv.models.layers.layer import Layer, forget_graphs, remember_section
from mindcv.utils.errors import UserError
from mindcv.utils.logger import logger

__all__ = ["Section"]

_NO_WEIGHTS = (
    "this network was packed with keep_weights=False, which removed its weights: it can only infer; pack with "
    "keep_weights=True to train, copy, change or export it or to load weights into it"
)


class Section(Layer, nn.SequentialCell):
    """Cells one after the other: the stem, a downsampling or a stage.

    `packed` is a kernel that does the same with weights laid out once, or None. MindSpore does not know it for a Cell
    or for parameters of the network: what is saved, copied, exported and trained are the Cells themselves.
    """

    def __init__(self, *cells: Any):
        super().__init__(*cells)
        object.__setattr__(self, "packed", None)

    def construct(self, x):
        if self.packed is not None and self.takes_packed(x):
            return self.packed(x)
        for cell in self.cell_list:
            x = cell(x)
        return x

    def takes_packed(self, x):
        """Whether the packed kernel serves x. Without the cells there is nothing else, and it says what is wrong."""
        return (x.dtype == ms.float32 and not self.is_exported) or len(self.cell_list) == 0

    def pack(self, kernel: Optional[nn.Cell], keep_weights: bool = True) -> None:
        """Let `kernel` stand in for the cells; None takes it away again.

        Args:
            kernel: the packed kernel.
            keep_weights: keep the cells, whose weights then need memory beside the packed ones.
        """
        forget_graphs(self)
        for _, cell in self.cells_and_names():
            if isinstance(cell, Layer):
                remember_section(cell, self if kernel is not None and keep_weights else None)
        for parameter in self.get_parameters():
            if kernel is None:
                parameter.__dict__.pop("set_data", None)
            elif keep_weights:
                parameter.set_data = _Unpacking(self, parameter)
        if kernel is not None and not keep_weights:
            super().__delitem__(slice(None))
        object.__setattr__(self, "packed", kernel)

    def unpack(self, reason: str) -> None:
        """Take the packed kernel away, if there is one, and log `reason`.

        Raises:
            UserError: the weights were not kept.
        """
        self.check_weights()
        if self.packed is not None:
            self.pack(None)
            logger.info("%s, which unpacks it: call pack_for_inference again", reason)

    def check_weights(self) -> None:
        """Refuse what needs the weights where packing removed them.

        Raises:
            UserError: see above.
        """
        if self.packed is not None and not len(self.cell_list):
            raise UserError(_NO_WEIGHTS)

    def check_export(self) -> None:
        """As `Layer.check_export`. A file cannot hold kernels."""
        self.check_weights()
        super().check_export()

    def add_flags_recursive(self, **flags: object) -> Section:
        """As `nn.Cell.add_flags_recursive`. Training takes the kernel away, which holds weights that stand still."""
        if flags.get("training"):
            self.check_weights()
            if self.packed is not None:
                self.pack(None)
        return super().add_flags_recursive(**flags)

    def __setitem__(self, index: int, cell: nn.Cell) -> None:
        """As `nn.SequentialCell`."""
        self._start_change()
        super().__setitem__(index, cell)

    def __delitem__(self, index: Union[int, slice]) -> None:
        """As `nn.SequentialCell`."""
        self._start_change()
        super().__delitem__(index)

    def append(self, cell: nn.Cell) -> None:
        """As `nn.SequentialCell`."""
        self._start_change()
        super().append(cell)

    def _insert(self, index: int, cell: nn.Cell) -> None:
        """As `nn.SequentialCell`."""
        self._start_change()
        super()._insert(index, cell)

    def __bool__(self) -> bool:
        """MindSpore's `cells_and_names` leaves out Cells that are False: a packed section without weights is none."""
        return len(self) > 0 or self.__dict__.get("packed") is not None

    def _start_change(self) -> None:
        """Forget the kernel and the graphs that hold the cells before the list of cells changes."""
        self.unpack("a layer of a packed network is replaced")
        forget_graphs(self)

    def __getstate__(self) -> tuple:
        """For `copy.deepcopy`: a copy starts unpacked."""
        self.check_weights()
        base, attributes = super().__getstate__()
        return base, {**attributes, "packed": None}


class _Unpacking:
    """`set_data` of a weight that was packed: the packed kernel must go with the old values."""

    def __init__(self, section: Section, parameter: ms.Parameter):
        self.section = section
        self.parameter = parameter

    def __call__(self, *arguments: object, **keywords: object) -> object:
        self.section.unpack("new weights are loaded into a packed network")
        return self.parameter.set_data(*arguments, **keywords)
