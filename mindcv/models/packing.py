"""Networks whose weights are laid out once, for inference."""

from __future__ import annotations

from typing import Optional

import mindspore as ms
from mindspore import nn

from mindcv.kernels import PackedPatchKernel, PackedStageKernel
from mindcv.models.layers import Block, LayerNorm, PatchConv, Section, StemConv
from mindcv.utils.checks import check_flags, check_network

__all__ = ["pack_for_inference"]


def pack_for_inference(network: nn.Cell, keep_weights: bool = True) -> nn.Cell:
    """Put a network's weights into the form that the CPU kernels multiply, in place, instead of doing it at each call.

    A stage becomes one operator, and so do the stem and each downsampling with their norms: small batches gain most.
    The outputs stay the same bits. Without kernels nothing changes, nor where the network computes in float16.

    Load the weights before. The network can still be saved, copied and exported. `load_param_into_net`,
    `Parameter.set_data`, `set_train(True)`, an `apply_amp` that changes number formats, and replacing a layer or a
    Parameter undo the packing.

    Values that change in place are not noticed (`ops.assign`, `Parameter.assign_value`, `weight[0] = 7`,
    `weight.add_`), and the network then computes with the old ones. Use `set_data` instead, or call
    `network.set_train(True)` and `network.set_train(False)` after the change, and pack again.

    Args:
        network: a ConvNeXt, or a Cell around one.
        keep_weights: keep the weights beside the packed ones. Without them the network needs less memory and can only
            infer: training, loading weights, `copy.deepcopy`, `apply_amp`, replacing its layers and exporting it raise
            a UserError. MindSpore does not ask the network when it saves parameters, so that `save_checkpoint` writes
            only those that are left. Save before packing.
    """
    check_network("network", network)
    check_flags(keep_weights=keep_weights)
    cells = [cell for _, cell in network.cells_and_names()]
    if any(getattr(cell, "input_type", None) not in (None, ms.float32) for cell in cells):
        return network
    for cell in cells:
        if isinstance(cell, Section) and cell.packed is None:
            packed = _packed(list(cell))
            if packed is not None:
                cell.pack(packed, keep_weights)
                if not keep_weights:
                    _refuse_loading(network, cell)
    return network


def _refuse_loading(network: nn.Cell, section: Section) -> None:
    """Refuse new values for all parameters of `network`: those of `section`, which are gone, would not follow."""

    def set_data(*_: object, **__: object) -> None:
        section.check_weights()

    for parameter in network.get_parameters():
        parameter.set_data = set_data


def _packed(cells: list[nn.Cell]) -> Optional[nn.Cell]:
    """The kernel of a stage's blocks, of the stem or of a downsampling; None for other cells and other formats."""
    kinds = [type(cell) for cell in cells]
    if kinds == [StemConv, LayerNorm]:
        return _packed_patches(*cells, images=True)
    if kinds == [LayerNorm, PatchConv]:
        return _packed_patches(*reversed(cells), images=False)
    if not cells or not isinstance(cells[0], Block) or set(kinds) != {kinds[0]}:
        return None
    formats = {block.form_is_bf16() for block in cells}
    if len(formats) > 1 or None in formats:
        return None
    return PackedStageKernel([block.named_weights() for block in cells], bf16=formats.pop())


def _packed_patches(conv: PatchConv, norm: LayerNorm, images: bool) -> Optional[nn.Cell]:
    is_bf16 = conv.form_is_bf16()
    if is_bf16 is None:
        return None
    return PackedPatchKernel(conv.weight, conv.bias, norm.gamma, norm.beta, bf16=is_bf16, images=images)
