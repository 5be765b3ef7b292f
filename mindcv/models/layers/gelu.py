"""The exact GELU."""

from mindspore import nn

__all__ = ["GELU"]


class GELU(nn.GELU):
    """GELU, x * Phi(x), with the error function. MindSpore's default is the tanh approximation, off by about 1e-3."""

    def __init__(self):
        super().__init__(approximate=False)
