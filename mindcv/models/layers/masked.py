"""The encoder of FCMAE in the plain layers: it computes the whole map and sets what is removed to 0.

The paper (arXiv 2301.00808, section 3) replaces each convolution by a submanifold sparse one, which reads and writes
visible cells only. A dense convolution gives the same numbers when removed cells are 0 before it and after it.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import nn, ops

from mindcv.models.layers.cpu.select import visible_encoder_class
from mindcv.models.layers.layer import Layer

__all__ = ["GRN_SCOPES", "MaskedEncoder"]

GRN_SCOPES = ("sample", "batch")


class MaskedEncoder(Layer):
    """Stem and stages of a ConvNeXt on images of which patches are removed.

    Args:
        feature: `ConvNeXt.feature`, the stem and stage 0, then a downsampling and a stage each.
        reductions: pixels of the image along the side of one cell, for each stage.
        patch_size: pixels along the side of a patch; a multiple of the last reduction.
        grn_scope: the cells over which GRN takes the norm of a channel: those of the 'sample', or of the 'batch'.
        recompute_stages: stages whose blocks are computed again in the backward pass.
    """

    def __init__(
        self,
        feature: nn.SequentialCell,
        reductions: Sequence[int],
        patch_size: int,
        grn_scope: str,
        recompute_stages: Sequence[int] = (),
    ):
        super().__init__(auto_prefix=False)
        self.feature = feature
        self.cells_per_patch = [patch_size // reduction for reduction in reductions]  # along a side
        stages = list(feature)[1::2]
        self.depths = [len(stage) for stage in stages]
        blocks = []
        for number, stage in enumerate(stages):
            for block in stage:
                blocks.append(MaskedBlock(block, grn_scope))
                if number in recompute_stages:
                    blocks[-1].recompute()
        self.blocks = nn.CellList(blocks, auto_prefix=False)
        make_form = visible_encoder_class()
        has_form = make_form is not None and all(block.has_grn for block in blocks)
        self.visible_form = make_form(feature, grn_scope == "batch", recompute_stages) if has_form else None

    def construct(self, images, mask):
        """Images [N, C, H, W] and mask [N, S, T] (1 = removed) to the last map [N, S * p, T * p, C], 0 if removed."""
        if self.takes_visible_form(images):
            return self.visible_form(images, mask)
        return self.forward(images, mask)

    def takes_visible_form(self, images):
        """Whether kernels compute the visible patches only."""
        if self.visible_form is None or images.dtype != ms.float32 or self.is_exported:
            return False
        return self.visible_form.takes_all()

    def forward(self, images, mask):
        """The same in the plain layers."""
        x, first = images, 0
        for stage, side in enumerate(self.cells_per_patch):
            x = self.feature[2 * stage](x)  # [N, S * side, T * side, C]
            visible = visible_cells(mask, side, x.dtype)
            x = x * visible
            for i in range(self.depths[stage]):
                x = self.blocks[first + i](x, visible)
            first += self.depths[stage]
        return x


class MaskedBlock(Layer):
    """A block on maps that are 0 at removed cells: x [N, H, W, C] and visible [N, H, W, 1] to [N, H, W, C]."""

    def __init__(self, block: nn.Cell, grn_scope: str):
        super().__init__(auto_prefix=False)
        self.block = block
        self.has_grn = hasattr(block, "grn")
        self.is_over_batch = grn_scope == "batch"

    def construct(self, x, visible):
        y = self.block.dwconv(x)
        y = self.block.norm(y)
        y = self.block.act(self.block.pwconv1(y))  # [N, H, W, 4C]
        if self.has_grn:
            y = self.respond(y * visible)
        y = self.block.pwconv2(y)  # [N, H, W, C]
        if not self.has_grn:
            y = y * ops.cast(self.block.gamma_, y.dtype)
        return (x + self.block.drop_path(y)) * visible

    def respond(self, y):
        """GRN of [N, H, W, C]. Cells of the whole batch are those of one tall map."""
        if not self.is_over_batch:
            return self.block.grn(y)
        n, height, width, channels = y.shape
        return ops.reshape(self.block.grn(ops.reshape(y, (1, n * height, width, channels))), y.shape)


def visible_cells(mask, side, dtype):
    """Mask [N, S, T] to [N, S * side, T * side, 1] of `dtype`: 1 for a cell of a visible patch, 0 for a removed one."""
    n, rows, columns = mask.shape
    visible = ops.reshape(1.0 - mask, (n, rows, 1, columns, 1))
    visible = ops.broadcast_to(visible, (n, rows, side, columns, side))
    return ops.cast(ops.reshape(visible, (n, rows * side, columns * side, 1)), dtype)
