"""The base of ConvNeXt's blocks."""

from __future__ import annotations

from typing import Optional

import mindspore as ms
from mindspore import nn

from mindcv.models.layers.cpu.select import block_forms, perceptron_form
from mindcv.models.layers.drop_path import DropPath, KeepPath
from mindcv.models.layers.layer_with_forms import LayerWithForms

__all__ = ["Block"]

# The attributes of a block that hold the layers which its forms stand in for.
_LAYERS = ("dwconv", "norm", "pwconv1", "act", "grn", "pwconv2", "drop_path")


class Block(LayerWithForms):
    """x [N, H, W, C] to the same shape: a convolution, a norm, a perceptron for each pixel, added to x.

    A subclass writes this in `forward`, layer by layer. Its forms read the parameters from `named_weights` by their
    names. A block in which a layer was replaced by one of another class or of other shapes has no forms: `is_whole` is
    then False, and `forward` computes it.

    Args:
        version: 1 for ConvNeXt, 2 for ConvNeXt V2.
    """

    def __init__(self, version: int):
        super().__init__(block_forms(version))
        self.is_whole = True
        self.kinds = {}
        self.perceptron_form = perceptron_form(version)

    def __setattr__(self, name: str, value: object) -> None:
        """As `nn.Cell`. Only the layers that the block was made of, or their like, have the forms of the class."""
        super().__setattr__(name, value)
        if name in _LAYERS:
            self.kinds.setdefault(name, _kind(value))
            self.is_whole = all(_kind(getattr(self, name)) == kind for name, kind in self.kinds.items())

    def construct(self, x):
        kernel = self.form_for(x)
        if kernel is not None:
            return kernel(x, self.named_weights(), self.drop_path.scale(x.shape[0]))
        if self.takes_perceptron_form(x):
            y = self.perceptron_form(self.norm(self.dwconv(x)), self.named_weights())
            return x + self.drop_path(y)
        return self.forward(x)

    def form(self):
        """The kernel for the number format that mixed precision set; None if the layers differ in it."""
        if not self.is_whole:
            return None
        compute_type = self.pwconv1.compute_type
        if compute_type != self.dwconv.compute_type or compute_type != self.pwconv2.compute_type:
            return None
        if compute_type is None:
            return self.float32_form
        return self.bfloat16_form if compute_type == ms.bfloat16 else None

    def takes_perceptron_form(self, x):
        """Whether there is an operator form of the perceptron, and the perceptron computes in float32."""
        if self.perceptron_form is None or not self.is_whole or x.dtype != ms.float32:
            return False
        return self.pwconv1.compute_type is None and self.pwconv2.compute_type is None

    def named_weights(self) -> dict:
        """The parameters by their names in the block."""
        raise NotImplementedError


def _kind(layer: Optional[nn.Cell]) -> tuple:
    """The class of a layer and the shapes of its parameters. The forms take drop paths of both classes."""
    if isinstance(layer, (DropPath, KeepPath)):
        return ("drop path",)
    return (type(layer), *(parameter.shape for parameter in layer.get_parameters())) if layer is not None else (None,)
