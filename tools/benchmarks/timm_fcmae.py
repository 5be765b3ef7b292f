"""A dense masked autoencoder on timm's ConvNeXt V2, the peer of the task pretrain.

timm has no FCMAE, and the authors' code needs a sparse engine. This is the dense form that they describe as an
equivalent: removed cells are 0 before each depthwise convolution, before each GRN and after each block.
"""

from __future__ import annotations

import timm
import torch
from timm.models.convnext import ConvNeXtBlock
from torch import nn

__all__ = ["DenseFCMAE"]

_PATCH = 32


class DenseFCMAE(nn.Module):
    """Encoder of timm, decoder of one block with 512 channels, loss on normalised patches.

    Args:
        model: name of a ConvNeXt V2 of timm.
        decoder_dim: channels of the decoder.
    """

    def __init__(self, model: str, decoder_dim: int = 512):
        super().__init__()
        encoder = timm.create_model(model, num_classes=0)
        self.stem, self.stages = encoder.stem, encoder.stages
        self.proj = nn.Conv2d(encoder.num_features, decoder_dim, 1)
        self.mask_token = nn.Parameter(torch.zeros(1, decoder_dim, 1, 1))
        self.decoder = ConvNeXtBlock(decoder_dim, ls_init_value=None, use_grn=True)
        self.pred = nn.Conv2d(decoder_dim, _PATCH * _PATCH * 3, 1)

    def forward(self, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Images [N, 3, H, W] and mask [N, S, S], 1 for a removed patch, to the loss."""
        removed = mask[:, None]
        x = self._visible(self.stem(images), removed)
        for stage in self.stages:
            x = self._visible(stage.downsample(x), removed)
            for block in stage.blocks:
                x = self._block(block, x, removed)
        x = self.proj(x)
        x = x * (1 - removed) + self.mask_token * removed
        predicted = self.pred(self.decoder(x)).flatten(2).transpose(1, 2)  # [N, L, D]
        n, channels, height, width = images.shape
        cut = images.reshape(n, channels, height // _PATCH, _PATCH, width // _PATCH, _PATCH)
        target = cut.permute(0, 2, 4, 3, 5, 1).reshape(n, -1, _PATCH * _PATCH * channels)
        target = (target - target.mean(-1, keepdim=True)) / (target.var(-1, keepdim=True) + 1e-6).sqrt()
        error = ((predicted - target) ** 2).mean(-1)
        return (error * mask.flatten(1)).sum() / mask.sum()

    @staticmethod
    def _visible(x: torch.Tensor, removed: torch.Tensor) -> torch.Tensor:
        scale = x.shape[-1] // removed.shape[-1]
        return x * (1 - removed.repeat_interleave(scale, 2).repeat_interleave(scale, 3))

    def _block(self, block: nn.Module, x: torch.Tensor, removed: torch.Tensor) -> torch.Tensor:
        scale = x.shape[-1] // removed.shape[-1]
        visible = 1 - removed.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
        y = block.conv_dw(x) * visible
        if block.use_conv_mlp:
            y = block.norm(y)
            y = block.mlp.act(block.mlp.fc1(y)) * visible
            y = block.mlp.fc2(block.mlp.grn(y))
        else:
            y = block.norm(y.permute(0, 2, 3, 1))
            y = block.mlp.act(block.mlp.fc1(y)) * visible.permute(0, 2, 3, 1)
            y = block.mlp.fc2(block.mlp.grn(y)).permute(0, 3, 1, 2)
        return (x + y) * visible
