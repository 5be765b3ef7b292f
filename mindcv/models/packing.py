"""Packs the weights of a network once, for faster inference on CPU. See decision 0031."""

from __future__ import annotations

from typing import Optional

import mindspore as ms
from mindspore import nn

from mindcv.kernels import PackedPatchKernel, PackedStageKernel
from mindcv.models.layers import Block, LayerNorm, PatchConv, Section, StemConv
from mindcv.utils.checks import check_flags, check_network

__all__ = ["pack_for_inference"]


def pack_for_inference(network: nn.Cell, keep_weights: bool = True) -> nn.Cell:
    """Pack a network's weights once for the CPU kernels, which otherwise pack them at each call.

    Each stage becomes one operator. The stem and each downsampling layer become one operator together with their norm.
    Small batches gain most. The outputs stay bit-identical. Without kernels, or if the network computes in float16,
    nothing changes.

    Load the weights before you pack them. A packed network can be saved, copied and exported. These calls undo the
    packing: `load_param_into_net`, `Parameter.set_data`, `set_train(True)`, an `apply_amp` that changes number formats,
    and the replacement of a layer or a Parameter.

    The network does not notice weights that change in place, as `ops.assign`, `Parameter.assign_value`,
    `weight[0] = 7` and `weight.add_` do. It then computes with the old values. Use `set_data` instead. Or call
    `network.set_train(True)` and `network.set_train(False)` after the change, and pack again.

    Args:
        network: a ConvNeXt, or a Cell that contains one. It is changed in place.
        keep_weights: whether to keep the original weights beside the packed ones. Without them the network needs less
            memory and can only infer. Training, loading weights, `copy.deepcopy`, `apply_amp`, replacing layers and
            exporting then raise a UserError. `save_checkpoint` cannot raise it and writes only the parameters that are
            left, so save before packing.

    Returns:
        The same network.

    Raises:
        UserError: an argument has the wrong type.
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
    """Refuse new values for all parameters of `network`, because the removed ones of `section` cannot change."""

    def set_data(*_: object, **__: object) -> None:
        section.check_weights()

    for parameter in network.get_parameters():
        parameter.set_data = set_data


def _packed(cells: list[nn.Cell]) -> Optional[nn.Cell]:
    """Return the packed kernel of a stage, the stem or a downsampling layer.

    The result is None for other Cells and for number formats that have no kernel.
    """
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
