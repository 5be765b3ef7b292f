"""What turns the last feature map into the input of the last norm."""

from mindspore import ops

from mindcv.models.layers.layer import Layer

__all__ = ["ChannelsFirst", "ChannelsLast", "GlobalAvgPool"]


class GlobalAvgPool(Layer):
    """[N, C, H, W] to its mean over H and W, [N, C]."""

    def construct(self, x):
        return ops.mean(x, (2, 3))


class ChannelsLast(Layer):
    """[N, C, H, W] to [N, H, W, C]."""

    def construct(self, x):
        return ops.transpose(x, (0, 2, 3, 1))


class ChannelsFirst(Layer):
    """[N, H, W, C] to [N, C, H, W]."""

    def construct(self, x):
        return ops.transpose(x, (0, 3, 1, 2))
