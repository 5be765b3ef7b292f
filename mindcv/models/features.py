"""Networks that return the feature maps of chosen stages, for detection and segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

from mindspore import nn, ops

from mindcv.models.feature_info import FeatureInfo
from mindcv.models.layers import BaseNetwork
from mindcv.models.parameter_roles import ParameterRole, feature_roles, roles_in
from mindcv.utils.checks import check_ints, shown
from mindcv.utils.errors import UserError

__all__ = ["ConvNeXtFeatures", "FeatureExtractWrapper"]


class ConvNeXtFeatures(BaseNetwork):
    """Returns the feature maps of chosen stages of a ConvNeXt. It has no later stages and no head.

    The attribute `feature_info` describes each returned map (see `FeatureInfo`). The parameters keep their names.

    Args:
        network: a ConvNeXt. The result shares its layers.
        out_indices: numbers of the stages, 0 to 3, in rising order. Negative numbers count from the last stage. None
            selects all four.

    Raises:
        UserError: `network` is not a ConvNeXt, or an index is repeated, out of order or not a stage.
    """

    def __init__(self, network: nn.Cell, out_indices: Optional[Sequence[int]] = None):
        super().__init__(auto_prefix=False)
        if not hasattr(network, "feature_info"):
            raise UserError(f"network must be a ConvNeXt, got {shown(network)}")
        num_stages = len(network.feature_info)
        indices = check_ints("out_indices", range(num_stages) if out_indices is None else out_indices)
        indices = [i + num_stages if -num_stages <= i < 0 else i for i in indices]
        if not indices or indices != sorted(set(indices)) or not 0 <= indices[0] <= indices[-1] < num_stages:
            raise UserError(
                f"out_indices must be rising stage numbers from 0 to {num_stages - 1}, or negative ones, which count "
                f"from the last stage, got {shown(out_indices)}"
            )
        self.out_indices = indices
        self.feature_info = FeatureInfo(network.feature_info[i] for i in indices)
        self.in_channels = network.in_channels
        self.least_side = self.feature_info[-1]["reduction"]
        names = {id(parameter): parameter.name for parameter in network.get_parameters()}
        self.sample_counter = network.sample_counter
        self.feature = nn.SequentialCell(list(network.feature)[: 2 * indices[-1] + 2])
        for parameter in self.get_parameters():
            parameter.name = names[id(parameter)]  # SequentialCell has renamed the parameters.

    def parameter_roles(self) -> dict[str, ParameterRole]:
        """Return the roles of the parameters by name (see `ConvNeXt.parameter_roles`)."""
        return {**feature_roles(self.feature), **roles_in(self.sample_counter, "state")}

    def construct(self, x):
        """Return one map [N, chs, H // reduction, W // reduction] for each chosen stage, from images [N, C, H, W]."""
        x = self.sample_counter(self.prepare(x))
        maps = []
        for i, cell in enumerate(self.feature):
            x = cell(x)
            if i % 2 == 1 and i // 2 in self.out_indices:
                maps.append(ops.transpose(x, (0, 3, 1, 2)))
        return maps


class FeatureExtractWrapper(nn.Cell):
    """Returns maps between the Cells of a network that runs its Cells in sequence, as MindCV does.

    For a ConvNeXt, use `ConvNeXtFeatures`.

    Args:
        net: network with a `feature_info`: a list with the `name` of each Cell whose output can be returned. The Cells
            run in the order in which they were set. If `net.flatten_sequential` is true, a SequentialCell counts as its
            single Cells.
        out_indices: indices into `feature_info`, in rising order.

    Raises:
        UserError: the network has no `feature_info`, or none of its Cells has a name in it.
    """

    def __init__(self, net: nn.Cell, out_indices: Sequence[int] = (0, 1, 2, 3, 4)):
        super().__init__(auto_prefix=False)
        if not hasattr(net, "feature_info"):
            raise UserError(f"net must be a network with the attribute feature_info, got {shown(net)}")
        places = check_ints("out_indices", out_indices, low=0, high=len(net.feature_info) - 1)
        wanted = [net.feature_info[i]["name"] for i in places]
        cells = dict(net.name_cells())
        if getattr(net, "flatten_sequential", False):
            cells = {name: cell for outer in cells.items() for name, cell in _flattened(*outer)}
        missing = [name for name in wanted if name not in cells]
        if missing:
            raise UserError(
                f"{type(net).__name__} has no cell named {', '.join(missing)} (there are: {', '.join(cells)})"
            )
        names = list(cells)[: max(map(list(cells).index, wanted)) + 1]
        self.net = nn.CellList([cells[name] for name in names], auto_prefix=False)
        self.is_wanted = tuple(name in wanted for name in names)
        self.out_indices = list(places)

    def construct(self, x):
        """Return the outputs of the chosen Cells for the input x."""
        maps = []
        for i, cell in enumerate(self.net):
            x = cell(x)
            if self.is_wanted[i]:
                maps.append(x)
        return maps


def _flattened(name: str, cell: nn.Cell) -> list[tuple[str, nn.Cell]]:
    if not isinstance(cell, nn.SequentialCell):
        return [(name, cell)]
    return [(f"{name}.{inner}", part) for inner, part in cell.name_cells().items()]
