"""Mixed precision by level."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import nn, ops

from mindcv.kernels.form import is_on_cpu, uses_kernels
from mindcv.models.layers import ProductCell, forget_graphs
from mindcv.utils.errors import UserError, unknown_name
from mindcv.utils.logger import logger

__all__ = ["AMP_DTYPES", "AMP_LEVELS", "apply_amp"]

AMP_LEVELS = ("O0", "O1", "O2", "O3")
AMP_DTYPES = {"float16": ms.float16, "bfloat16": ms.bfloat16}


def apply_amp(network: nn.Cell, level: str, cast_list: Sequence[str] = (), *, dtype: str = "float16") -> nn.Cell:
    """The network computing in the number formats of an AMP level; its weights stay float32, its logits come so.

    O0: float32. O1: the matrix products (`ProductCell`: dense layers and convolutions) in `dtype`, the rest in
    float32. O2 and O3: everything in `dtype`, but the sums inside the norms and GRN, which float16 cannot hold: the
    layers keep these in float32 at every level, so the two levels are one here.

    On CPU MindSpore has no operators for bfloat16. This library's kernels have its products: all levels but O0 use
    these there, as O1 does, one line in the log says so, and the head stays float32.

    Args:
        network: built of `mindcv.models.layers`; O1 changes it in place.
        level: one of `AMP_LEVELS`.
        cast_list: with O1, names of Cell classes to compute in `dtype` instead of all products.
        dtype: one of `AMP_DTYPES`.

    Raises:
        UserError: an unknown level or dtype, a `cast_list` without O1, a class that is no product of this network, or
            bfloat16 where the device lacks it.
    """
    if level not in AMP_LEVELS:
        raise UserError(unknown_name("amp_level", level, AMP_LEVELS))
    if dtype not in AMP_DTYPES:
        raise UserError(unknown_name("amp_dtype", dtype, AMP_DTYPES))
    if cast_list and level != "O1":
        raise UserError(f"amp_cast_list goes with amp_level O1, not {level}")
    if level != "O0" and dtype == "bfloat16" and is_on_cpu():
        level = _bfloat16_level_on_cpu(level, cast_list)
    if level == "O1":
        products = [cell for _, cell in network.cells_and_names() if isinstance(cell, ProductCell)]
        names = {type(cell).__name__ for cell in products}
        for name in cast_list:
            if name not in names:
                raise UserError(unknown_name("amp_cast_list: layer", name, names))
        if dtype == "bfloat16" and is_on_cpu():
            head = getattr(network, "classifier", None)
            products = [cell for cell in products if cell is not head]
        for cell in products:
            if not cast_list or type(cell).__name__ in cast_list:
                cell.compute_type = AMP_DTYPES[dtype]
        forget_graphs(network)
    return _HalfInput(network, AMP_DTYPES[dtype]) if level in ("O2", "O3") else network


def _bfloat16_level_on_cpu(level: str, cast_list: Sequence[str]) -> str:
    """The level that there is for bfloat16 on CPU, O1."""
    if not uses_kernels():
        raise UserError("bfloat16 on CPU needs the kernels; `python -m mindcv.kernels` says why they are not in use")
    if cast_list:
        raise UserError("bfloat16 on CPU goes without amp_cast_list: its operators are few")
    if level != "O1":
        logger.info("amp_level %s with bfloat16 is computed as O1: on CPU only matrix products have bfloat16", level)
    return "O1"


class _HalfInput(nn.Cell):
    """Feeds images of a shorter type; every layer computes in its input's type."""

    def __init__(self, network: nn.Cell, dtype: ms.Type):
        super().__init__(auto_prefix=False)
        self.network = network
        self.input_type = dtype

    def construct(self, x):
        return ops.cast(self.network(ops.cast(x, self.input_type)), ms.float32)
