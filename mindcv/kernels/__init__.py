"""C++ kernels for CPU: whole blocks, patch convolutions and layer normalisation, forward and backward; AdamW; images.

They are built when the package is installed, if there is a compiler; `python -m mindcv.kernels` says what is in use and
why. Without them, or with MINDCV_KERNELS=off, the layers' operator forms serve, and Pillow. `mindcv.kernels.images` has
those for data workers.
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

__all__ = [
    "AdamWKernel",
    "BlockV1Kernel",
    "BlockV2Kernel",
    "LayerNormKernel",
    "PackedPatchKernel",
    "PackedStageKernel",
    "PatchConvKernel",
    "Status",
    "is_available",
    "status",
]
