"""The layers between the last feature map and the last norm."""

from mindspore import ops

from mindcv.models.layers.layer import Layer

__all__ = ["ChannelsFirst", "ChannelsLast", "GlobalAvgPool"]


class GlobalAvgPool(Layer):
    """Averages [N, C, H, W] over H and W to [N, C]."""

    def construct(self, x):
        return ops.mean(x, (2, 3))


class ChannelsLast(Layer):
    """Transposes [N, C, H, W] to [N, H, W, C]."""

    def construct(self, x):
        return ops.transpose(x, (0, 2, 3, 1))


class ChannelsFirst(Layer):
    """Transposes [N, H, W, C] to [N, C, H, W]."""

    def construct(self, x):
        return ops.transpose(x, (0, 3, 1, 2))
