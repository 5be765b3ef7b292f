"""The base of the layers that multiply with a weight, and the dense layer."""

from __future__ import annotations

from typing import Optional

import mindspore as ms
from mindspore import Parameter, ops
from mindspore.common.initializer import Normal, initializer

from mindcv.models.layers.layer_with_forms import NO_FORMS, Forms, LayerWithForms

__all__ = ["Dense", "ProductCell"]


class ProductCell(LayerWithForms):
    """A layer that multiplies its input with a weight [O, ...] and adds a bias [O].

    The product is computed in the type of the input, or in `compute_type` if mixed precision sets it. The output has
    the type of the input. The parameters stay float32 (decision 0015).

    Args:
        weight_shape: shape of the weight.
        weight_std: standard deviation of the weight's initial values.
        forms: faster forms of the layer.
    """

    def __init__(self, weight_shape: tuple[int, ...], weight_std: float = 0.02, forms: Forms = NO_FORMS):
        super().__init__(forms)
        # The truncation of the papers at +-2 has no effect. See decision 0013.
        self.weight = Parameter(initializer(Normal(weight_std), weight_shape, ms.float32), name="weight")
        self.bias = Parameter(initializer("zeros", weight_shape[:1], ms.float32), name="bias")
        self.compute_type: Optional[ms.Type] = None

    def forward(self, x):
        """Compute the layer in its number format."""
        dtype = x.dtype if self.compute_type is None else self.compute_type
        y = self.product(ops.cast(x, dtype), ops.cast(self.weight, dtype), ops.cast(self.bias, dtype))
        return ops.cast(y, x.dtype)

    def extend_repr(self) -> str:
        """Return the numbers of channels and the kernel size for `repr`."""
        outputs, inputs, *kernel = self.weight.shape
        side = f", kernel_size={kernel[0]}" if kernel else ""
        return f"in_channels={inputs}, out_channels={outputs}{side}"

    def weights(self) -> tuple:
        """Return the weight and the bias."""
        return self.weight, self.bias

    def product(self, x, weight, bias):
        """Return the product of x and the weight, plus the bias. All three arguments have the same type."""
        raise NotImplementedError


class Dense(ProductCell):
    """A dense layer from [..., I] to [..., O].

    Parameters: `weight` [O, I], `bias` [O].

    Args:
        in_channels: I.
        out_channels: O.
        weight_std: standard deviation of the weight's initial values.
    """

    def __init__(self, in_channels: int, out_channels: int, weight_std: float = 0.02):
        super().__init__((out_channels, in_channels), weight_std)
        self.matmul = ops.MatMul(transpose_b=True)

    def product(self, x, weight, bias):
        y = self.matmul(ops.reshape(x, (-1, x.shape[-1])), weight)
        return ops.reshape(ops.bias_add(y, bias), x.shape[:-1] + (-1,))
