"""Mixed precision by level."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import nn, ops

from mindcv.models.layers import ProductCell
from mindcv.utils.errors import UserError, unknown_name

__all__ = ["AMP_LEVELS", "apply_amp"]

AMP_LEVELS = ("O0", "O1", "O2", "O3")


def apply_amp(network: nn.Cell, level: str, cast_list: Sequence[str] = ()) -> nn.Cell:
    """The network computing in the number formats of an AMP level; its weights stay float32, its logits come so.

    O0: float32. O1: the matrix products (`ProductCell`: dense layers and convolutions) in float16, the rest in
    float32. O2 and O3: everything in float16, but the sums inside the norms and GRN, which float16 cannot hold: the
    layers keep these in float32 at every level, so the two levels are one here.

    Args:
        network: built of `mindcv.models.layers`; O1 changes it in place.
        level: one of `AMP_LEVELS`.
        cast_list: with O1, names of Cell classes to compute in float16 instead of all products.

    Raises:
        UserError: an unknown level, a `cast_list` without O1, or a class that is no product of this network.
    """
    if level not in AMP_LEVELS:
        raise UserError(unknown_name("amp_level", level, AMP_LEVELS))
    if cast_list and level != "O1":
        raise UserError(f"amp_cast_list goes with amp_level O1, not {level}")
    if level == "O1":
        products = [cell for _, cell in network.cells_and_names() if isinstance(cell, ProductCell)]
        names = {type(cell).__name__ for cell in products}
        for name in cast_list:
            if name not in names:
                raise UserError(unknown_name("amp_cast_list: layer", name, names))
        for cell in products:
            if not cast_list or type(cell).__name__ in cast_list:
                cell.compute_type = ms.float16
    return _HalfInput(network) if level in ("O2", "O3") else network


class _HalfInput(nn.Cell):
    """Feeds float16 images; every layer computes in its input's type."""

    def __init__(self, network: nn.Cell):
        super().__init__(auto_prefix=False)
        self.network = network

    def construct(self, x):
        return ops.cast(self.network(ops.cast(x, ms.float16)), ms.float32)
