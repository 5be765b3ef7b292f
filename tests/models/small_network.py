"""A network that is small enough to be built and compiled in many tests."""

import mindspore as ms
import numpy as np
from mindspore import Tensor

from mindcv.models.convnext import ConvNeXt

__all__ = ["build"]


def build(use_grn: bool = True) -> ms.nn.Cell:
    """Build four stages of one block each. The weights are always the same and so large that every layer matters."""
    network = ConvNeXt(3, 5, (1, 1, 1, 1), (8, 8, 8, 16), use_grn=use_grn, layer_scale_init_value=0.5)
    rng = np.random.default_rng(0)
    for parameter in network.get_parameters():
        if parameter.name.endswith("weight"):
            parameter.set_data(Tensor(0.3 * rng.standard_normal(parameter.shape).astype(np.float32)))
    return network.set_train(False)
