"""A part of a network that a packed kernel can stand in for."""

from __future__ import annotations

from typing import Any, Optional

import mindspore as ms
from mindspore import nn

from mindcv.models.layers.layer import Layer, forget_graphs
from mindcv.utils.logger import logger

__all__ = ["Section"]


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
        object.__setattr__(self, "packed", kernel)
        forget_graphs(self)
        for parameter in self.get_parameters():
            if kernel is None:
                parameter.__dict__.pop("set_data", None)
            elif keep_weights:
                parameter.set_data = _Unpacking(self, parameter)
        if kernel is not None and not keep_weights:
            del self[:]

    def add_flags_recursive(self, **flags: object) -> Section:
        """As `nn.Cell.add_flags_recursive`. Training takes the kernel away, which holds weights that stand still."""
        if flags.get("training") and self.packed is not None and len(self.cell_list):
            self.pack(None)
        return super().add_flags_recursive(**flags)

    def __getstate__(self) -> tuple:
        """For `copy.deepcopy`: a copy starts unpacked."""
        base, attributes = super().__getstate__()
        return base, {**attributes, "packed": None}


class _Unpacking:
    """`set_data` of a weight that was packed: the packed kernel must go with the old values."""

    def __init__(self, section: Section, parameter: ms.Parameter):
        self.section = section
        self.parameter = parameter

    def __call__(self, *arguments: object, **keywords: object) -> object:
        self.section.pack(None)
        logger.info("new weights are loaded into a packed network, which unpacks them: call pack_for_inference again")
        return self.parameter.set_data(*arguments, **keywords)
