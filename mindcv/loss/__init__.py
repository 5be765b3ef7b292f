"""Loss functions for image classification."""

from mindcv.loss.asymmetric import AsymmetricLossMultilabel, AsymmetricLossSingleLabel
from mindcv.loss.binary_cross_entropy import BinaryCrossEntropySmooth
from mindcv.loss.cross_entropy import CrossEntropySmooth
from mindcv.loss.jsd import JSDCrossEntropy
from mindcv.loss.loss_factory import create_loss

__all__ = [
    "AsymmetricLossMultilabel",
    "AsymmetricLossSingleLabel",
    "BinaryCrossEntropySmooth",
    "CrossEntropySmooth",
    "JSDCrossEntropy",
    "create_loss",
]
