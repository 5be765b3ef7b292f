"""The base of the layers that have faster forms on some device.

A form is a Cell that computes the same function as a layer, but faster.
"""

from __future__ import annotations

from typing import NamedTuple, Optional

import mindspore as ms
from mindspore import nn

from mindcv.models.layers.layer import Layer

__all__ = ["NO_FORMS", "Forms", "LayerWithForms"]


class Forms(NamedTuple):
    """The forms of a layer. None means that there is no form, and the layer's own operators run.

    Attributes:
        float32: form that takes float32 and computes in float32.
        bfloat16: form that takes float32 and rounds the factors of its products to bfloat16 (decision 0032).
    """

    float32: Optional[nn.Cell] = None
    bfloat16: Optional[nn.Cell] = None


NO_FORMS = Forms()


class LayerWithForms(Layer):
    """A layer that runs one of its `forms` if the form supports the input, and `forward` otherwise.

    `forward` computes the layer in MindSpore's operators. A form is called with x and the layer's `weights`. It only
    supports float32 inputs, and an exported file cannot contain it (decision 0016).

    Args:
        forms: forms of the layer on the current device.
    """

    compute_type: Optional[ms.Type] = None  # Mixed precision sets the number format of the products here.

    def __init__(self, forms: Forms = NO_FORMS):
        super().__init__()
        self.float32_form, self.bfloat16_form = forms

    def construct(self, x):
        form = self.form_for(x)
        return self.forward(x) if form is None else form(x, *self.weights())

    def form_for(self, x):
        """Return the form that computes x, or None if `forward` must do it."""
        if x.dtype != ms.float32 or self.is_exported:
            return None
        return self.form()

    def form(self):
        """Return the form for the layer's compute type, or None."""
        if self.compute_type is None:
            return self.float32_form
        return self.bfloat16_form if self.compute_type == ms.bfloat16 else None

    def form_is_bf16(self) -> Optional[bool]:
        """Return whether the form for the layer's compute type is the bfloat16 one. Return None without a form."""
        form = self.form()
        return None if form is None else form is self.bfloat16_form

    def forward(self, x):
        """Compute the layer in MindSpore's operators, for every device and number format."""
        raise NotImplementedError

    def weights(self) -> tuple:
        """Return the parameters in the order of the forms' arguments."""
        raise NotImplementedError
