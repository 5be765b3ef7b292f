"""Loss scaling: keeps float16 gradients from vanishing."""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from mindcv.utils.checks import check_flags, check_int, check_name, check_positive

__all__ = ["LOSS_SCALE_TYPES", "DynamicLossScale", "FixedLossScale", "create_loss_scale"]

# First value of a dynamic scale: high enough for float16, and reduced to a fitting value within a few steps.
_INITIAL_SCALE = 2.0**16
LOSS_SCALE_TYPES = ("fixed", "dynamic", "auto")


class FixedLossScale(nn.Cell):
    """One factor for the whole run; 1 changes nothing."""

    is_dynamic = False

    def __init__(self, value: float = 1.0):
        super().__init__()
        check_positive(value=value)
        self.value = value
        self.is_one = value == 1.0

    def construct(self, loss):
        return loss * self.value

    def unscale(self, gradient):
        """Return a gradient in float32 without the factor."""
        return ops.cast(gradient, ms.float32) * (1.0 / self.value)

    def adjust(self, is_finite):
        """Return `is_finite`; a fixed factor does not change."""
        return is_finite


class DynamicLossScale(nn.Cell):
    """A factor that is halved at each overflow and doubled after `window` steps without overflow."""

    is_dynamic = True
    is_one = False

    def __init__(self, initial: float = _INITIAL_SCALE, window: int = 2000):
        super().__init__()
        check_positive(initial=initial)
        self.window = check_int("window", window, 1)
        self.value = Parameter(Tensor(initial, ms.float32), name="loss_scale", requires_grad=False)
        self.good_steps = Parameter(Tensor(0, ms.int32), name="loss_scale_good_steps", requires_grad=False)

    def construct(self, loss):
        return loss * self.value

    def unscale(self, gradient):
        """Return a gradient in float32 without the factor."""
        return ops.cast(gradient, ms.float32) / self.value

    def adjust(self, is_finite):
        """Halve the factor after an overflow, or count a step towards the next doubling."""
        good_steps = ops.cast(is_finite, ms.int32) * (self.good_steps + 1)
        is_due = ops.greater_equal(good_steps, self.window)
        grown = ops.cast(is_due, ms.float32) + 1.0
        shrunk = ops.cast(is_finite, ms.float32) * 0.5 + 0.5
        # The factor is at least 1: below 1 it would make float16 gradients vanish.
        ops.assign(self.value, ops.maximum(self.value * grown * shrunk, 1.0))
        ops.assign(self.good_steps, good_steps * (1 - ops.cast(is_due, ms.int32)))
        return is_finite


def create_loss_scale(kind: str, value: float, is_float16: bool) -> nn.Cell:
    """Create the loss scale for MindCV's flags.

    Args:
        kind: 'fixed' for the factor `value`; 'dynamic' for one that starts at `value`, or at 2**16 when `value` is 1;
            'auto' for a dynamic one in float16, and none in float32 and bfloat16, whose range is the same.
        value: factor, above 0.
        is_float16: whether mixed precision computes in float16.
    """
    check_positive(loss_scale=value)
    check_flags(is_float16=is_float16)
    check_name("loss_scale_type", kind, LOSS_SCALE_TYPES)
    if kind == "fixed" or (kind == "auto" and not is_float16):
        return FixedLossScale(value if kind == "fixed" else 1.0)
    return DynamicLossScale(value if value > 1 else _INITIAL_SCALE)
