"""Networks whose weights are laid out once, for inference."""

from __future__ import annotations

from mindspore import nn

from mindcv.models.layers.block import Block

__all__ = ["pack_for_inference"]


def pack_for_inference(network: nn.Cell) -> nn.Cell:
    """Put a network's weights into the form that the CPU kernels multiply, in place, instead of doing it at each call.

    Small batches gain most. The outputs stay the same bits. What comes out is for inference alone: load the weights
    before, since the packed blocks have no parameters that could be loaded, trained or saved. Without kernels nothing
    changes.

    Args:
        network: a ConvNeXt, or a Cell around one, that has not run yet in graph mode.
    """
    for _, cell in list(network.cells_and_names()):
        if isinstance(cell, nn.SequentialCell):
            for index, block in enumerate(cell):
                if isinstance(block, Block):
                    cell[index] = block.packed()
    return network
