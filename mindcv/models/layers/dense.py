"""The layers that are matrix products, and the number format these compute in."""

from __future__ import annotations

from typing import Optional

import mindspore as ms
from mindspore import Parameter, ops
from mindspore.common.initializer import Normal, initializer

from mindcv.models.layers.layer_with_forms import NO_FORMS, Forms, LayerWithForms

__all__ = ["Dense", "ProductCell"]


class ProductCell(LayerWithForms):
    """A layer whose work is a product with its weight [O, ...], plus a bias [O].

    It computes in the type of its input, or in `compute_type` where mixed precision sets one, and gives back the
    input's type; the parameters themselves stay float32.
    """

    def __init__(self, weight_shape: tuple[int, ...], weight_std: float = 0.02, forms: Forms = NO_FORMS):
        super().__init__(forms)
        # The papers' truncated normal cuts 0.02 at +-2, a hundred deviations out: it is a plain normal.
        self.weight = Parameter(initializer(Normal(weight_std), weight_shape, ms.float32), name="weight")
        self.bias = Parameter(initializer("zeros", weight_shape[:1], ms.float32), name="bias")
        self.compute_type: Optional[ms.Type] = None

    def forward(self, x):
        """The product in its number format."""
        dtype = x.dtype if self.compute_type is None else self.compute_type
        y = self.product(ops.cast(x, dtype), ops.cast(self.weight, dtype), ops.cast(self.bias, dtype))
        return ops.cast(y, x.dtype)

    def extend_repr(self) -> str:
        """For `repr`: what the layer takes and gives, and the side of its kernel."""
        outputs, inputs, *kernel = self.weight.shape
        side = f", kernel_size={kernel[0]}" if kernel else ""
        return f"in_channels={inputs}, out_channels={outputs}{side}"

    def weights(self) -> tuple:
        """The two parameters."""
        return self.weight, self.bias

    def product(self, x, weight, bias):
        """The layer's own arithmetic; all three arguments are of one type."""
        raise NotImplementedError


class Dense(ProductCell):
    """[..., I] to [..., O]. Parameters: `weight` [O, I], `bias` [O]."""

    def __init__(self, in_channels: int, out_channels: int, weight_std: float = 0.02):
        super().__init__((out_channels, in_channels), weight_std)
        self.matmul = ops.MatMul(transpose_b=True)

    def product(self, x, weight, bias):
        y = self.matmul(ops.reshape(x, (-1, x.shape[-1])), weight)
        return ops.reshape(ops.bias_add(y, bias), x.shape[:-1] + (-1,))
