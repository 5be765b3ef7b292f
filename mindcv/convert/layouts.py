"""Names of parameters in the layouts that checkpoints come in.

A layout is a table from patterns over whole names to this library's names (MindCV's). What the table does not have
stays as it is and is then reported by name: nothing is skipped.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Callable

import numpy as np
from mindspore import Parameter, nn

from mindcv.utils.errors import CheckpointError

__all__ = ["Mismatch", "compare", "detect_layout", "rename", "to_mindcv", "weight_parameters"]

# MindSpore's words for the weight and bias of a normalisation.
_NORM = {"weight": "gamma", "bias": "beta"}

# A name that starts so is found in this layout alone.
_SIGNS = {"mindcv": "feature.", "official": "downsample_layers."}

_Table = tuple[tuple[str, Callable[[re.Match], str]], ...]
_TABLES: dict[str, _Table] = {
    "mindcv": (),
    # The reference implementations' own names: facebookresearch/ConvNeXt and facebookresearch/ConvNeXt-V2.
    "official": (
        (r"downsample_layers\.0\.0\.(weight|bias)", lambda m: f"feature.0.0.{m[1]}"),
        (r"downsample_layers\.0\.1\.(weight|bias)", lambda m: f"feature.0.1.{_NORM[m[1]]}"),
        (r"downsample_layers\.([123])\.0\.(weight|bias)", lambda m: f"feature.{2 * int(m[1])}.0.{_NORM[m[2]]}"),
        (r"downsample_layers\.([123])\.1\.(weight|bias)", lambda m: f"feature.{2 * int(m[1])}.1.{m[2]}"),
        (r"stages\.([0-3])\.(\d+)\.norm\.(weight|bias)", lambda m: f"{_block(m)}.norm.{_NORM[m[3]]}"),
        (r"stages\.([0-3])\.(\d+)\.((?:dwconv|pwconv[12])\.(?:weight|bias))", lambda m: f"{_block(m)}.{m[3]}"),
        (r"stages\.([0-3])\.(\d+)\.(grn\.(?:gamma|beta))", lambda m: f"{_block(m)}.{m[3]}"),
        (r"stages\.([0-3])\.(\d+)\.gamma", lambda m: f"{_block(m)}.gamma_"),
        (r"norm\.(weight|bias)", lambda m: f"norm.{_NORM[m[1]]}"),
        (r"head\.(weight|bias)", lambda m: f"classifier.{m[1]}"),
    ),
}


def _block(match: re.Match) -> str:
    return f"feature.{2 * int(match[1]) + 1}.{match[2]}"


@dataclass
class Mismatch:
    """What keeps a set of arrays from fitting a model: names, and for `misshaped` the two shapes, as sentences."""

    missing: list[str]
    unexpected: list[str]
    misshaped: list[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshaped)

    def __str__(self) -> str:
        groups = []
        for title in ("missing", "unexpected", "misshaped"):
            names = getattr(self, title)
            if names:
                shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
                groups.append(f"{len(names)} {title}: {shown}")
        return "; ".join(groups)


def to_mindcv(state_dict: Mapping[str, np.ndarray], model: nn.Cell) -> dict[str, np.ndarray]:
    """Arrays of a checkpoint under this library's names, ready for `model`.

    Args:
        state_dict: name -> array, in the official layout or in this library's (MindCV's) own.
        model: the network they are for: it decides names and shapes and is not changed.

    Raises:
        CheckpointError: a name or shape does not match. Lists all that are missing, unexpected and mis-shaped, and
            says which layout was detected.
    """
    layout = detect_layout(state_dict)
    arrays = rename(state_dict, layout)
    mismatch = compare(arrays, model)
    if mismatch:
        raise CheckpointError(f"the weights (layout: {layout}) do not fit the model: {mismatch}")
    return arrays


def detect_layout(names: Iterable[str]) -> str:
    """The layout that some names are of: 'mindcv' or 'official'.

    Raises:
        CheckpointError: they are of none.
    """
    names = list(names)
    for layout, sign in _SIGNS.items():
        if any(name.startswith(sign) for name in names):
            return layout
    shown = ", ".join(names[:3]) if names else "it holds none"
    raise CheckpointError(f"the names in the checkpoint are of no known layout ({', '.join(_SIGNS)}): {shown}")


def rename(state_dict: Mapping[str, np.ndarray], layout: str) -> dict[str, np.ndarray]:
    """The arrays of a layout under this library's names; a name that the layout does not have is left as it is."""
    return {_rename_one(name, _TABLES[layout]): array for name, array in state_dict.items()}


def _rename_one(name: str, table: _Table) -> str:
    for pattern, to in table:
        match = re.fullmatch(pattern, name)
        if match:
            return to(match)
    return name


def compare(arrays: Mapping[str, np.ndarray], model: nn.Cell) -> Mismatch:
    """How arrays under this library's names differ, in names and shapes, from the weights of a model."""
    wanted = {name: tuple(parameter.shape) for name, parameter in weight_parameters(model).items()}
    return Mismatch(
        missing=[name for name in wanted if name not in arrays],
        unexpected=[name for name in arrays if name not in wanted],
        misshaped=[
            f"{name} is {list(arrays[name].shape)}, the model's is {list(shape)}"
            for name, shape in wanted.items()
            if name in arrays and tuple(arrays[name].shape) != shape
        ],
    )


def weight_parameters(model: nn.Cell) -> dict[str, Parameter]:
    """The weights of a model by name; the counter of its random layers is state, not a weight."""
    return {p.name: p for p in model.get_parameters() if p.name != "random_step.step"}
