"""A part of a network that a packed kernel can replace. See decision 0031."""

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
    "keep_weights=True to train, copy, change or export the network or to load weights into it"
)


class Section(Layer, nn.SequentialCell):
    """A sequence of Cells: the stem, a downsampling layer or a stage.

    `packed` is a kernel that computes the same with packed weights, or None. MindSpore does not see the kernel or its
    parameters as parts of the network. It saves, copies, exports and trains the Cells themselves.
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
        """Return whether the packed kernel computes x.

        If packing removed the Cells, the kernel always runs. It raises an error for an input that it does not support.
        """
        return (x.dtype == ms.float32 and not self.is_exported) or len(self.cell_list) == 0

    def pack(self, kernel: Optional[nn.Cell], keep_weights: bool = True) -> None:
        """Use `kernel` instead of the Cells.

        Args:
            kernel: packed kernel. None removes the present kernel.
            keep_weights: whether to keep the Cells. Their weights then need memory beside the packed ones.
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
        """Remove the packed kernel, if there is one, and log `reason`.

        Raises:
            UserError: packing has removed the weights.
        """
        self.check_weights()
        if self.packed is not None:
            self.pack(None)
            logger.info("%s, so the packed weights are dropped: call pack_for_inference again", reason)

    def check_weights(self) -> None:
        """Check that the section has its weights.

        Raises:
            UserError: packing has removed the weights.
        """
        if self.packed is not None and not len(self.cell_list):
            raise UserError(_NO_WEIGHTS)

    def check_export(self) -> None:
        """Check that the section can be exported. A file cannot contain kernels, so the weights must be there.

        Raises:
            UserError: packing has removed the weights, or the section computes in bfloat16 on CPU.
        """
        self.check_weights()
        super().check_export()

    def add_flags_recursive(self, **flags: object) -> Section:
        """Set flags as `nn.Cell.add_flags_recursive` does.

        Training changes the weights, so the flag `training` removes the packed kernel.

        Raises:
            UserError: packing has removed the weights, and training is requested.
        """
        if flags.get("training"):
            self.check_weights()
            if self.packed is not None:
                self.pack(None)
        return super().add_flags_recursive(**flags)

    def __setitem__(self, index: int, cell: nn.Cell) -> None:
        """Replace a Cell as `nn.SequentialCell` does. This removes the packed kernel."""
        self._start_change()
        super().__setitem__(index, cell)

    def __delitem__(self, index: Union[int, slice]) -> None:
        """Remove Cells as `nn.SequentialCell` does. This removes the packed kernel."""
        self._start_change()
        super().__delitem__(index)

    def append(self, cell: nn.Cell) -> None:
        """Append a Cell as `nn.SequentialCell` does. This removes the packed kernel."""
        self._start_change()
        super().append(cell)

    def _insert(self, index: int, cell: nn.Cell) -> None:
        """Insert a Cell as `nn.SequentialCell` does. This removes the packed kernel."""
        self._start_change()
        super()._insert(index, cell)

    def __bool__(self) -> bool:
        """Return True for a packed section without Cells too: MindSpore's `cells_and_names` skips false Cells."""
        return len(self) > 0 or self.__dict__.get("packed") is not None

    def _start_change(self) -> None:
        """Drop the packed kernel and the compiled graphs before the list of Cells changes."""
        self.unpack("a layer of a packed network is replaced")
        forget_graphs(self)

    def __getstate__(self) -> tuple:
        """Return the state for `copy.deepcopy`. The copy is not packed.

        Raises:
            UserError: packing has removed the weights.
        """
        self.check_weights()
        base, attributes = super().__getstate__()
        return base, {**attributes, "packed": None}


class _Unpacking:
    """Replaces `set_data` of a packed weight. It removes the packed kernel, which holds the old values."""

    def __init__(self, section: Section, parameter: ms.Parameter):
        self.section = section
        self.parameter = parameter

    def __call__(self, *arguments: object, **keywords: object) -> object:
        self.section.unpack("new weights are loaded into a packed network")
        return self.parameter.set_data(*arguments, **keywords)
