"""The encoder of FCMAE on the visible patches only, with this library's kernels, for CPU.

A compact map holds the visible patches one after the other (`mindcv/kernels/visible.py`), so the cost falls with the
share of what is removed. A stem, a downsampling and a norm never look beyond a patch. Only the depthwise convolution
does, and its kernel looks neighbours up.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import nn

from mindcv.kernels import SpreadVisibleKernel, VisibleBlockKernel, VisibleNormKernel, VisiblePatchKernel
from mindcv.models.layers.layer import Layer

__all__ = ["VisibleEncoder"]


class VisibleEncoder(Layer):
    """As `MaskedEncoder`, which describes the arguments, for an encoder of ConvNeXt V2's blocks.

    `takes_all` says whether the kernels compute all layers as mixed precision and the user have left them.
    """

    def __init__(self, feature: nn.SequentialCell, is_over_batch: bool, recompute_stages: Sequence[int] = ()):
        super().__init__(auto_prefix=False)
        self.sections = nn.CellList(list(feature), auto_prefix=False)
        # By stage. The kernels hold no state, but a stage that is recomputed saves nothing for the backward pass.
        saves = [stage not in recompute_stages for stage in range(len(feature) // 2)]
        self.block = nn.CellList([VisibleBlockKernel(False, is_over_batch, s) for s in saves])
        self.block_bf16 = nn.CellList([VisibleBlockKernel(True, is_over_batch, s) for s in saves])
        self.stem, self.stem_bf16 = VisiblePatchKernel(images=True), VisiblePatchKernel(images=True, bf16=True)
        self.patch, self.patch_bf16 = VisiblePatchKernel(), VisiblePatchKernel(bf16=True)
        self.norm = VisibleNormKernel()
        self.spread = SpreadVisibleKernel()

    def takes_all(self):
        """Whether there is a kernel for each layer."""
        for section in self.sections:
            for layer in section:
                if layer.form() is None:
                    return False
        return True

    def construct(self, images, mask):
        """Images [N, C, H, W] and mask [N, S, T] to the last map [N, S * p, T * p, C], 0 if removed."""
        x = images
        for i, section in enumerate(self.sections):
            if i == 0:
                kernel = self.stem_bf16 if is_bf16(section[0]) else self.stem
                x = kernel(x, mask, *section[0].weights())
                x = self.norm(x, mask, *section[1].weights())
            elif i % 2 == 0:
                kernel = self.patch_bf16 if is_bf16(section[1]) else self.patch
                x = self.norm(x, mask, *section[0].weights())
                x = kernel(x, mask, *section[1].weights())
            else:
                for block in section:
                    kernel = self.block_bf16[i // 2] if is_bf16(block.pwconv1) else self.block[i // 2]
                    x = kernel(x, mask, block.named_weights())
        return self.spread(x, mask)


def is_bf16(layer):
    """Whether mixed precision lets the products of a layer take bfloat16."""
    return layer.compute_type is not None and layer.compute_type == ms.bfloat16
