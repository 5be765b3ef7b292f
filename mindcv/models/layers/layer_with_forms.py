"""The base of the layers that have faster forms on some device."""

from __future__ import annotations

from typing import NamedTuple, Optional

import mindspore as ms
from mindspore import nn

from mindcv.models.layers.layer import Layer

__all__ = ["NO_FORMS", "Forms", "LayerWithForms"]


class Forms(NamedTuple):
    """Cells that compute the same function as a layer, faster. None means that the layer's own operators do it.

    Attributes:
        float32: takes and computes float32.
        bfloat16: takes float32 and rounds the factors of its products to bfloat16 (mixed precision).
    """

    float32: Optional[nn.Cell] = None
    bfloat16: Optional[nn.Cell] = None


NO_FORMS = Forms()


class LayerWithForms(Layer):
    """A layer on x: `forward` is its formula in MindSpore's operators, and `forms` may stand in for it.

    A form is called with x and the layer's `weights`. It only takes float32, and it has no place in an exported file.
    """

    compute_type: Optional[ms.Type] = None  # the number format of the products, where mixed precision sets one

    def __init__(self, forms: Forms = NO_FORMS):
        super().__init__()
        self.float32_form, self.bfloat16_form = forms

    def construct(self, x):
        form = self.form_for(x)
        return self.forward(x) if form is None else form(x, *self.weights())

    def form_for(self, x):
        """The form that computes x, or None where `forward` does."""
        if x.dtype != ms.float32 or self.is_exported:
            return None
        return self.form()

    def form(self):
        """The form for the number format that mixed precision set, or None."""
        if self.compute_type is None:
            return self.float32_form
        return self.bfloat16_form if self.compute_type == ms.bfloat16 else None

    def form_is_bf16(self) -> Optional[bool]:
        """Whether the form that mixed precision chose is the one for bfloat16. None without a form."""
        form = self.form()
        return None if form is None else form is self.bfloat16_form

    def forward(self, x):
        """The layer in MindSpore's operators, for every device and number format."""
        raise NotImplementedError

    def weights(self) -> tuple:
        """The parameters in the order in which the forms take them."""
        raise NotImplementedError
