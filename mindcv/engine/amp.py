"""Mixed precision by level.

Decision 0015 says why layers follow the type of their input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import mindspore as ms
from mindspore import nn, ops

from mindcv.kernels.form import is_on_cpu, uses_kernels
from mindcv.models.layers import ProductCell, Section, forget_graphs
from mindcv.optim.param_groups import roles_of
from mindcv.utils.checks import check_name, check_network
from mindcv.utils.errors import UserError
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

    Each call replaces the formats of an earlier one: O0 after O1 is float32 again. A network that pack_for_inference
    packed is unpacked where its formats change.

    Args:
        network: built of `mindcv.models.layers`; every level sets the types of its products in place.
        level: one of `AMP_LEVELS`.
        cast_list: with O1, names of Cell classes to compute in `dtype` instead of all products.
        dtype: one of `AMP_DTYPES`.

    Raises:
        UserError: an unknown level or dtype, a `cast_list` without O1, a class that is no product of this network,
            bfloat16 where the device lacks it, or a network that was packed without its weights.
    """
    check_network("network", network)
    check_name("amp_level", level, AMP_LEVELS)
    check_name("amp_dtype", dtype, AMP_DTYPES)
    if cast_list and level != "O1":
        raise UserError(f"amp_cast_list goes with amp_level O1, not {level}")
    if level != "O0" and dtype == "bfloat16" and is_on_cpu():
        level = _bfloat16_level_on_cpu(level, cast_list)
    cells = [cell for _, cell in network.cells_and_names()]
    sections = [cell for cell in cells if isinstance(cell, Section)]
    for section in sections:
        section.check_weights()
    products = [cell for cell in cells if isinstance(cell, ProductCell)]
    names = {type(cell).__name__ for cell in products}
    for name in cast_list:
        check_name("amp_cast_list: layer", name, names)
    head = _head_of(network) if dtype == "bfloat16" and is_on_cpu() else set()
    types = [None] * len(products)
    if level == "O1":
        types = [
            AMP_DTYPES[dtype] if _is_chosen(cell, cast_list) and not head & _names(cell) else None for cell in products
        ]
    if types != [cell.compute_type for cell in products]:
        _set_types(products, types, sections)
        forget_graphs(network)
    is_half = level in ("O2", "O3")
    if getattr(network, "has_loss", False):
        # It takes more than images and its loss must stay float32, so it casts the images itself, until the next call.
        wanted = AMP_DTYPES[dtype] if is_half else ms.float32
        return network if (network.input_type or ms.float32) == wanted else network.to_float(wanted)
    return _HalfInput(network, AMP_DTYPES[dtype]) if is_half else network


def _head_of(network: nn.Cell) -> set[str]:
    """Return the names of the parameters that the network, or a network inside of it, declares as its head."""
    return {name for name, role in roles_of(network).items() if getattr(role, "part", "") == "head"}


def _names(cell: nn.Cell) -> set[str]:
    return {parameter.name for parameter in cell.get_parameters()}


def _is_chosen(cell: ProductCell, cast_list: Sequence[str]) -> bool:
    """Whether O1 casts this product; an empty list means that it casts all."""
    return not cast_list or type(cell).__name__ in cast_list


def _set_types(products: list[ProductCell], types: list[Optional[ms.Type]], sections: list[Section]) -> None:
    """Set the type of each product. Packed kernels keep the old types, so they are removed."""
    packed = [section for section in sections if section.packed is not None]
    for section in packed:
        section.pack(None)
    if packed:
        logger.info(
            "apply_amp changes the number formats of a packed network, which unpacks it: call pack_for_inference again"
        )
    for cell, compute_type in zip(products, types):
        cell.compute_type = compute_type


def _bfloat16_level_on_cpu(level: str, cast_list: Sequence[str]) -> str:
    """Check the level: on CPU, bfloat16 has only level O1."""
    if not uses_kernels():
        raise UserError("bfloat16 on CPU needs the kernels; `python -m mindcv.kernels` says why they are not in use")
    if cast_list:
        raise UserError("bfloat16 on CPU goes without amp_cast_list: its operators are few")
    if level != "O1":
        logger.info("amp_level %s with bfloat16 is computed as O1: on CPU only matrix products have bfloat16", level)
    return "O1"


class _HalfInput(nn.Cell):
    """Casts the images to a shorter type; every layer computes in the type of its input."""

    def __init__(self, network: nn.Cell, dtype: ms.Type):
        super().__init__(auto_prefix=False)
        self.network = network
        self.input_type = dtype

    def construct(self, x):
        return ops.cast(self.network(ops.cast(x, self.input_type)), ms.float32)
