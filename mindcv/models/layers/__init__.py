"""The layers of ConvNeXt. Feature maps are channels-last, [N, H, W, C], from the stem to the head (decision 0006).

Each layer is written in MindSpore's operators, in `forward` or `construct`. Some layers have faster forms on CPU. The
package `cpu` holds them.
"""

from mindcv.models.layers.block import Block
from mindcv.models.layers.dense import Dense, ProductCell
from mindcv.models.layers.depthwise import DepthwiseConv
from mindcv.models.layers.drop_path import Dropout, DropPath, KeepPath, SampleCounter, number_samples
from mindcv.models.layers.gelu import GELU
from mindcv.models.layers.grn import GRN
from mindcv.models.layers.layer import BaseNetwork, Layer, forget_graphs
from mindcv.models.layers.layer_norm import LayerNorm
from mindcv.models.layers.patch_conv import PatchConv, StemConv
from mindcv.models.layers.pooling import ChannelsFirst, ChannelsLast, GlobalAvgPool
from mindcv.models.layers.section import Section

__all__ = [
    "BaseNetwork",
    "Block",
    "ChannelsFirst",
    "ChannelsLast",
    "Dense",
    "DepthwiseConv",
    "DropPath",
    "Dropout",
    "GELU",
    "GlobalAvgPool",
    "GRN",
    "KeepPath",
    "Layer",
    "LayerNorm",
    "PatchConv",
    "ProductCell",
    "SampleCounter",
    "Section",
    "forget_graphs",
    "number_samples",
    "StemConv",
]
