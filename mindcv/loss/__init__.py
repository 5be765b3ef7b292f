"""Losses of classification."""

from mindcv.loss.binary_cross_entropy import BinaryCrossEntropySmooth
from mindcv.loss.cross_entropy import CrossEntropySmooth
from mindcv.loss.loss_factory import create_loss

__all__ = ["BinaryCrossEntropySmooth", "CrossEntropySmooth", "create_loss"]
