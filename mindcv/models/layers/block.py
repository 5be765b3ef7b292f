"""The base of ConvNeXt's blocks."""

from __future__ import annotations

from typing import Optional

import mindspore as ms
from mindspore import nn

from mindcv.models.layers.cpu.select import block_forms, perceptron_form
from mindcv.models.layers.drop_path import DropPath, KeepPath
from mindcv.models.layers.layer_with_forms import LayerWithForms

__all__ = ["Block"]

# The attributes of a block whose layers a form computes.
_LAYERS = ("dwconv", "norm", "pwconv1", "act", "grn", "pwconv2", "drop_path")


class Block(LayerWithForms):
    """A residual block on x [N, H, W, C]: a depthwise convolution, a norm and a perceptron per pixel, added to x.

    A subclass writes the block layer by layer in `forward`. The forms read the parameters by name from `named_weights`.
    If a layer was replaced by one of another class or shape, `is_whole` is False, and `forward` computes the block
    (decision 0019).

    Args:
        version: 1 for ConvNeXt, 2 for ConvNeXt V2.
    """

    def __init__(self, version: int):
        super().__init__(block_forms(version))
        self.is_whole = True
        self.kinds = {}
        self.perceptron_form = perceptron_form(version)

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute as `nn.Cell` does. It also updates `is_whole` after a layer was replaced."""
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
        """Return the kernel for the layers' compute type, or None if the types differ or no kernel has this type."""
        if not self.is_whole:
            return None
        compute_type = self.pwconv1.compute_type
        if compute_type != self.dwconv.compute_type or compute_type != self.pwconv2.compute_type:
            return None
        if compute_type is None:
            return self.float32_form
        return self.bfloat16_form if compute_type == ms.bfloat16 else None

    def takes_perceptron_form(self, x):
        """Return whether the operator form computes the perceptron. It exists on CPU only and needs float32."""
        if self.perceptron_form is None or not self.is_whole or x.dtype != ms.float32:
            return False
        return self.pwconv1.compute_type is None and self.pwconv2.compute_type is None

    def named_weights(self) -> dict:
        """Return the parameters by their names in the block."""
        raise NotImplementedError


def _kind(layer: Optional[nn.Cell]) -> tuple:
    """Return the class of a layer and the shapes of its parameters. Both drop-path classes count as one."""
    if isinstance(layer, (DropPath, KeepPath)):
        return ("drop path",)
    return (type(layer), *(parameter.shape for parameter in layer.get_parameters())) if layer is not None else (None,)
