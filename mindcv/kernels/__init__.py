"""C++ kernels for CPU.

They compute whole blocks, patch convolutions and layer normalisation, forward and backward, and the update of AdamW.
`mindcv.kernels.images` contains kernels for images in data-loader workers.

The kernels are built when the package is installed, if there is a compiler. `python -m mindcv.kernels` reports whether
they are used. Without them, or with MINDCV_KERNELS=off, layers use their operator forms and the data loader uses Pillow
(decision 0035).
"""

from mindcv.kernels.library import Status, is_available, status
from mindcv.kernels.operators import (
    AdamWKernel,
    BlockV1Kernel,
    BlockV2Kernel,
    LayerNormKernel,
    PackedPatchKernel,
    PackedStageKernel,
    PatchConvKernel,
)
from mindcv.kernels.visible import SpreadVisibleKernel, VisibleBlockKernel, VisibleNormKernel, VisiblePatchKernel

__all__ = [
    "AdamWKernel",
    "BlockV1Kernel",
    "BlockV2Kernel",
    "LayerNormKernel",
    "PackedPatchKernel",
    "PackedStageKernel",
    "PatchConvKernel",
    "SpreadVisibleKernel",
    "Status",
    "VisibleBlockKernel",
    "VisibleNormKernel",
    "VisiblePatchKernel",
    "is_available",
    "status",
]
