"""Networks whose weights are laid out once, for inference."""

from __future__ import annotations

from typing import Optional

from mindspore import nn

from mindcv.kernels import PackedPatchKernel, PackedStageKernel
from mindcv.models.layers import Block, LayerNorm, PatchConv, StemConv

__all__ = ["pack_for_inference"]


def pack_for_inference(network: nn.Cell) -> nn.Cell:
    """Put a network's weights into the form that the CPU kernels multiply, in place, instead of doing it at each call.

    A stage becomes one operator, and so do the stem and each downsampling with their norms: small batches gain most.
    The outputs stay the same bits. What comes out is for inference alone: load the weights before, since the packed
    parts have no parameters that could be loaded, trained or saved. Without kernels nothing changes.

    Args:
        network: a ConvNeXt, or a Cell around one, that has not run yet in graph mode.
    """
    for _, cell in list(network.cells_and_names()):
        if isinstance(cell, nn.SequentialCell):
            for index, part in enumerate(cell):
                packed = _packed(list(part)) if isinstance(part, nn.SequentialCell) else None
                if packed is not None:
                    cell[index] = packed
    return network


def _packed(cells: list[nn.Cell]) -> Optional[nn.Cell]:
    """The kernel of a stage's blocks, of the stem or of a downsampling; None for other cells and other formats."""
    kinds = [type(cell) for cell in cells]
    if kinds == [StemConv, LayerNorm]:
        return _packed_patches(*cells, images=True)
    if kinds == [LayerNorm, PatchConv]:
        return _packed_patches(*reversed(cells), images=False)
    if not cells or not isinstance(cells[0], Block) or set(kinds) != {kinds[0]}:
        return None
    formats = {block.kernel_is_bf16() for block in cells}
    if len(formats) > 1 or None in formats:
        return None
    return PackedStageKernel([block.weights() for block in cells], bf16=formats.pop())


def _packed_patches(conv: PatchConv, norm: LayerNorm, images: bool) -> Optional[nn.Cell]:
    is_bf16 = conv.kernel_is_bf16()
    if is_bf16 is None:
        return None
    return PackedPatchKernel(conv.weight, conv.bias, norm.gamma, norm.beta, bf16=is_bf16, images=images)
