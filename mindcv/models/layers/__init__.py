"""The layers of ConvNeXt. Feature maps are channels-last, [N, H, W, C], from the stem to the head.

Where a form of a layer depends on the device, `depthwise.py` is the one place that chooses.
"""

from mindcv.models.layers.dense import Dense, ProductCell
from mindcv.models.layers.depthwise import DepthwiseConv
from mindcv.models.layers.drop_path import Dropout, DropPath, RandomStep
from mindcv.models.layers.gelu import GELU
from mindcv.models.layers.grn import GRN
from mindcv.models.layers.layer_norm import LayerNorm
from mindcv.models.layers.patch_conv import PatchConv

__all__ = [
    "Dense",
    "DepthwiseConv",
    "DropPath",
    "Dropout",
    "GELU",
    "GRN",
    "LayerNorm",
    "PatchConv",
    "ProductCell",
    "RandomStep",
]
