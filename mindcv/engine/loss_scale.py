"""Loss scaling: keeps float16 gradients from vanishing."""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from mindcv.utils.checks import check_name, check_positive

__all__ = ["LOSS_SCALE_TYPES", "DynamicLossScale", "FixedLossScale", "create_loss_scale"]

# Where a dynamic scale starts unless the user says: high enough for float16, and down at its level in a few steps.
_INITIAL_SCALE = 2.0**16
LOSS_SCALE_TYPES = ("fixed", "dynamic", "auto")


class FixedLossScale(nn.Cell):
    """One factor for the whole run; 1 leaves everything as it is."""

    is_dynamic = False

    def __init__(self, value: float = 1.0):
        super().__init__()
        self.value = value
        self.is_one = value == 1.0

    def construct(self, loss):
        return loss * self.value

    def unscale(self, gradient):
        """A gradient in float32, without the factor."""
        return ops.cast(gradient, ms.float32) * (1.0 / self.value)

    def adjust(self, is_finite):
        """Take note of whether the step's gradients were finite."""
        return is_finite


class DynamicLossScale(nn.Cell):
    """A factor that halves at each overflow and doubles after `window` steps without one."""

    is_dynamic = True
    is_one = False

    def __init__(self, initial: float = _INITIAL_SCALE, window: int = 2000):
        super().__init__()
        self.window = window
        self.value = Parameter(Tensor(initial, ms.float32), name="loss_scale", requires_grad=False)
        self.good_steps = Parameter(Tensor(0, ms.int32), name="loss_scale_good_steps", requires_grad=False)

    def construct(self, loss):
        return loss * self.value

    def unscale(self, gradient):
        """A gradient in float32, without the factor."""
        return ops.cast(gradient, ms.float32) / self.value

    def adjust(self, is_finite):
        """Halve, or count towards doubling."""
        good_steps = ops.cast(is_finite, ms.int32) * (self.good_steps + 1)
        is_due = ops.greater_equal(good_steps, self.window)
        grown = ops.cast(is_due, ms.float32) + 1.0
        shrunk = ops.cast(is_finite, ms.float32) * 0.5 + 0.5
        # 1 is the floor: below it the scale would make float16 gradients vanish instead.
        ops.assign(self.value, ops.maximum(self.value * grown * shrunk, 1.0))
        ops.assign(self.good_steps, good_steps * (1 - ops.cast(is_due, ms.int32)))
        return is_finite


def create_loss_scale(kind: str, value: float, is_float16: bool) -> nn.Cell:
    """The loss scale of MindCV's flags.

    Args:
        kind: 'fixed' for the factor `value`; 'dynamic' for one that starts at `value`, or at 2**16 when `value` is 1;
            'auto' for a dynamic one in float16, and none in float32 and bfloat16, whose range is the same.
        value: factor, above 0.
        is_float16: whether mixed precision computes in float16.
    """
    check_positive(loss_scale=value)
    check_name("loss_scale_type", kind, LOSS_SCALE_TYPES)
    if kind == "fixed" or (kind == "auto" and not is_float16):
        return FixedLossScale(value if kind == "fixed" else 1.0)
    return DynamicLossScale(value if value > 1 else _INITIAL_SCALE)
