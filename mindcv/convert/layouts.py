"""Converts checkpoints between layouts of parameter names, with the tables in `layout_tables`.

Nothing is skipped silently: a name that the layout's table does not list is kept and reported.

Decision 0053 says how a layout and the prefix of a wrapped network are found.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Optional

import numpy as np
from mindspore import Parameter, nn

from mindcv.convert.layout_tables import LAYOUTS, depths_of, entries, own_names
from mindcv.utils.checks import check_name
from mindcv.utils.errors import CheckpointError
from mindcv.utils.logger import logger

__all__ = [
    "compare_exactly",
    "DetectedLayout",
    "Mismatch",
    "Renamed",
    "compare",
    "detect_layout",
    "from_mindcv",
    "rename",
    "to_mindcv",
    "weight_parameters",
]

_HEAD_WEIGHT, _HEAD_BIAS = own_names("head")
_TAIL = (*own_names("last norm"), _HEAD_WEIGHT, _HEAD_BIAS)
_STEM_WEIGHT, _STEM_BIAS = own_names("stem conv")
# Names in the first block: a parameter that only V2 has, and one that only V1 has.
_FIRST_GRN, _FIRST_LAYER_SCALE = own_names("grn")[0], own_names("layer scale")[0]

# A pre-training network has an encoder and these parts of a decoder, which a backbone does not
# need.
_FCMAE_ROOT = "encoder."
_FCMAE_PARTS = ("mask_token", "proj", "decoder", "pred")


class DetectedLayout(NamedTuple):
    """Name of a layout, and the prefix (root) of the encoder's names."""

    name: str
    root: str


@dataclass
class Renamed:
    """A checkpoint under this library's names.

    Attributes:
        layout: layout of the checkpoint.
        arrays: this library's name -> array in this library's shape, a view where the order of the values allows it.
        sources: this library's name -> name in the checkpoint.
        unexpected: names that the layout does not have.
        left_out: names in the decoder of a pre-training network, which are not in `arrays`.
        prefix: prefix that a wrapper or a larger model added to all names of the network.
        outside: names without that prefix. They belong to other parts of the larger model and are not in `arrays`.
    """

    layout: DetectedLayout
    arrays: dict[str, np.ndarray]
    sources: dict[str, str]
    unexpected: list[str]
    left_out: list[str]
    prefix: str = ""
    outside: list[str] = field(default_factory=list)

    @property
    def num_classes(self) -> int:
        """Number of outputs of the head; 0 if there is no head."""
        return self.arrays[_HEAD_BIAS].size if _HEAD_BIAS in self.arrays else 0

    @property
    def is_encoder(self) -> bool:
        """Whether the checkpoint has neither a last norm nor a head, as after FCMAE pre-training."""
        return not any(name in self.arrays for name in _TAIL)

    def log_messages(self) -> list[str]:
        """Return a sentence for the log about each group of names that is left out."""
        messages = [f"the decoder is left out: {self.parts_left_out()}"] if self.left_out else []
        if self.prefix:
            others = sorted({name.split(".")[0] for name in self.outside})
            others = f", and other parts are left out: {_listed(others)}" if others else ""
            messages.append(f"the prefix '{self.prefix}' is removed from the names{others}")
        return messages

    def parts_left_out(self) -> str:
        """Return the parts that are left out, such as 'decoder, mask_token, pred, proj'; '' if there are none."""
        return ", ".join(sorted({name.split(".")[0] for name in self.left_out}))


@dataclass
class Mismatch:
    """The differences between the arrays of a checkpoint and the parameters of a model. It is false if there are none.

    Attributes:
        notes: likely causes of the differences, as sentences.
        missing: names that the model has and the checkpoint lacks.
        unexpected: names that the checkpoint has and the model lacks.
        misshaped: a sentence with both shapes for each array of another shape.
    """

    notes: list[str]
    missing: list[str]
    unexpected: list[str]
    misshaped: list[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshaped)

    def __str__(self) -> str:
        groups = list(self.notes)
        max_names = 1 if groups else 8  # A known cause says more than the names.
        for title in ("missing", "unexpected", "misshaped"):
            names = getattr(self, title)
            if names:
                groups.append(f"{len(names)} {title}: {_listed(names, max_names)}")
        return "; ".join(groups)


def to_mindcv(state_dict: Mapping[str, np.ndarray], model: nn.Cell) -> dict[str, np.ndarray]:
    """Convert the arrays of a checkpoint to this library's names and shapes, as `model` needs them.

    Args:
        state_dict: name -> array, in any layout of `LAYOUTS`. The layout is detected. The decoder of an FCMAE
            pre-training network is left out, and one line in the log says so.
        model: network that the arrays must fit. It is not changed.

    Returns:
        This library's name -> array. The arrays are those of `state_dict` or views of them.

    Raises:
        CheckpointError: a name or shape does not match. The message names the detected layout and all arrays that are
            missing, unexpected or have another shape.
    """
    renamed = rename(state_dict)
    mismatch = compare(renamed, weight_parameters(model))
    if mismatch:
        raise CheckpointError(f"the weights (layout: {renamed.layout.name}) do not fit the model: {mismatch}")
    for sentence in renamed.log_messages():
        logger.info("weights: %s", sentence)
    return renamed.arrays


def from_mindcv(arrays: Mapping[str, np.ndarray], layout: str) -> dict[str, np.ndarray]:
    """Convert arrays of this library to the names and shapes of another layout.

    The names show whether the arrays belong to V1 or V2, and whether there is a head. The layout 'fcmae' contains only
    an encoder: the last norm and the head are left out, and one line in the log says so.

    Args:
        arrays: name -> array, as in a model of this library.
        layout: one of `LAYOUTS`.

    Raises:
        UserError: the layout is unknown.
        CheckpointError: a name does not belong to this library's models, or the layout does not support the array
            (torchvision has no V2, and FCMAE has no V1).
    """
    check_name("layout", layout, LAYOUTS)
    depths = depths_of(arrays)
    parts = {entry.own_name: entry.part for entry in entries("mindcv", "", depths)}
    foreign = [name for name in arrays if name not in parts]
    if foreign:
        raise CheckpointError(f"these are not names of this library's models: {_listed(foreign)}")
    by_name = {entry.own_name: entry for entry in entries(layout, _root_for(arrays, layout), depths)}
    unsupported = [name for name in arrays if name not in by_name]
    if layout == "fcmae":
        tail = [name for name in unsupported if parts[name] in ("last norm", "head")]
        if tail:
            names = ", ".join(sorted(tail))
            logger.info("the layout fcmae contains only an encoder; left out: %s", names)
        unsupported = [name for name in unsupported if name not in tail]
    if unsupported:
        raise CheckpointError(f"the layout {layout} does not support these arrays: {_listed(unsupported)}")
    width = arrays[_STEM_BIAS].size if _STEM_BIAS in arrays else 0
    kept = [(by_name[name], array) for name, array in arrays.items() if name in by_name]
    return {entry.layout_name: entry.form.to_layout(array, width) for entry, array in kept}


def _root_for(arrays: Collection[str], layout: str) -> str:
    """Return the prefix that the encoder's names have in the layout, for these weights."""
    if layout == "transformers" and _HEAD_WEIGHT in arrays:
        return "convnextv2." if _FIRST_GRN in arrays else "convnext."
    return LAYOUTS[layout].roots[0]


def detect_layout(names: Collection[str]) -> DetectedLayout:
    """Return the layout that contains most of the given names.

    Raises:
        CheckpointError: no layout contains any of them.
    """
    best, _ = _best_layout(names)
    if best is None:
        shown = f"it begins with {_listed(list(names), 3)}" if names else "it holds no names"
        raise CheckpointError(f"the checkpoint has no known layout of names ({', '.join(LAYOUTS)}): {shown}")
    return best


def _best_layout(names: Collection[str]) -> tuple[Optional[DetectedLayout], int]:
    """Return the layout that contains most of `names`, and how many it contains."""
    best, max_matches = None, 0
    for layout, table in LAYOUTS.items():
        for root in table.roots:
            # The first block of each stage decides. The head does not count, because any network may
            # have a head of the same name.
            table_entries = entries(layout, root, (1, 1, 1, 1))
            backbone = {entry.layout_name for entry in table_entries if entry.part not in ("last norm", "head")}
            matches = len(backbone.intersection(names))
            if matches > max_matches:
                best, max_matches = DetectedLayout(layout, root), matches
    return best, max_matches


def _prefix_of(names: Collection[str]) -> str:
    """Return the prefix that a wrapper or a larger model added to all names of the network.

    The prefix is the text before the name of the stem's weight, in the layout that fits best.

    Raises:
        CheckpointError: the names belong to several networks.
    """
    stems = {
        next(entry.layout_name for entry in entries(layout, root, (1, 1, 1, 1)) if entry.part == "stem conv")
        for layout, table in LAYOUTS.items()
        for root in table.roots
    }
    stems_by_name = {name: [stem for stem in stems if f".{name}".endswith(f".{stem}")] for name in names}
    networks = {name: sorted(matches, key=len) for name, matches in stems_by_name.items() if matches}
    if not networks:
        return ""
    # The longest match of a name leaves the shortest prefix.
    prefixes = sorted({name[: -len(matches[-1])] for name, matches in networks.items()})
    if len(networks) > 1:
        raise CheckpointError(
            f"it holds several networks, with the prefixes {', '.join(map(repr, prefixes))}: save the one you want in "
            "a file of its own"
        )
    (name, matches), *_ = networks.items()
    candidates = sorted({name[: -len(stem)] for stem in matches}, key=len)
    return max(candidates, key=lambda prefix: _best_layout(_inside(names, prefix))[1])


def _inside(names: Collection[str], prefix: str) -> list[str]:
    return [name[len(prefix) :] for name in names if name.startswith(prefix)]


def rename(state_dict: Mapping[str, np.ndarray]) -> Renamed:
    """Detect the layout of a checkpoint and convert its arrays to this library's names and shapes.

    Raises:
        CheckpointError: the names have no known layout, or belong to several networks.
    """
    prefix = _prefix_of(state_dict)
    outside = [name for name in state_dict if not name.startswith(prefix)]
    layout = detect_layout(_inside(state_dict, prefix))
    depth = 1 + len(state_dict) // 9  # each block has at least nine arrays
    by_name = {entry.layout_name: entry for entry in entries(layout.name, layout.root, (depth,) * 4)}
    renamed = Renamed(layout, {}, {}, [], [], prefix, outside)
    for full_name, array in state_dict.items():
        name = full_name[len(prefix) :]
        if not full_name.startswith(prefix):
            continue
        if name in by_name:
            entry = by_name[name]
            renamed.arrays[entry.own_name] = entry.form.to_own(array)
            renamed.sources[entry.own_name] = full_name
        elif layout.root == _FCMAE_ROOT and name.split(".")[0] in _FCMAE_PARTS:
            renamed.left_out.append(name)
        else:
            renamed.unexpected.append(name)
    return renamed


def compare(renamed: Renamed, parameters: Mapping[str, Parameter]) -> Mismatch:
    """Compare the names and shapes of a checkpoint with those of a model's parameters.

    The result shows the names of the checkpoint, and this library's names beside them where the two differ. Shapes are
    this library's.
    """
    wanted = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    table_entries = entries(*renamed.layout, depths_of(wanted))
    layout_names = {entry.own_name: renamed.prefix + entry.layout_name for entry in table_entries} | renamed.sources

    def both_names(name: str) -> str:
        return name if layout_names.get(name, name) == name else f"{layout_names[name]} (here {name})"

    found = compare_exactly(renamed.arrays, parameters, both_names)
    return replace(found, notes=_notes(renamed, wanted), unexpected=[*renamed.unexpected, *found.unexpected])


def compare_exactly(
    arrays: Mapping[str, np.ndarray], parameters: Mapping[str, Parameter], shown: Callable[[str], str] = str
) -> Mismatch:
    """Compare the names and shapes of arrays with those of a model's parameters, whose names must be the same.

    Args:
        arrays: name -> array.
        parameters: name -> parameter.
        shown: a name to the text for it in the result.
    """
    wanted = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    return Mismatch(
        notes=[],
        missing=[shown(name) for name in wanted if name not in arrays],
        unexpected=[shown(name) for name in arrays if name not in wanted],
        misshaped=[
            f"{shown(name)} has the shape {list(arrays[name].shape)}, the model's has {list(wanted[name])}"
            for name in wanted
            if name in arrays and arrays[name].shape != wanted[name]
        ],
    )


def weight_parameters(model: nn.Cell) -> dict[str, Parameter]:
    """Return the weights of a model by name.

    Parameters of Cells that declare `holds_state`, such as the counter of the random layers, are not weights.
    """
    states = [cell for _, cell in model.cells_and_names() if getattr(cell, "holds_state", False)]
    state = {id(parameter) for cell in states for parameter in cell.get_parameters()}
    return {p.name: p for p in model.get_parameters() if id(p) not in state}


def _notes(renamed: Renamed, wanted: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return sentences about the cause of differences in names, where the cause is known."""
    notes = [
        f"the checkpoint has {structure}, which this library does not support"
        for prefix, structure in LAYOUTS[renamed.layout.name].foreign.items()
        if any(name.startswith(prefix) for name in renamed.unexpected)
    ]
    gamma, beta = own_names("last norm")  # the norms of the blocks end with the same words
    norms = [name[: -len(gamma)] for name in renamed.arrays if name.endswith(gamma)]
    if norms and not any(norm + beta in renamed.arrays for norm in norms):
        notes.append("the checkpoint has norms without a bias (timm's *_rms), which this library does not support")
    if notes:
        return notes
    theirs = _structure({name: array.shape for name, array in renamed.arrays.items()})
    ours = _structure(wanted)
    if theirs and ours and theirs != ours:
        notes.append(f"the checkpoint belongs to {theirs}, but the model is {ours}")
    return notes + _stem_notes(renamed.arrays, wanted)


def _stem_notes(arrays: Mapping[str, np.ndarray], wanted: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return a sentence if the stems of the checkpoint and of the model cut images into patches of other sizes."""
    if _STEM_WEIGHT not in arrays or _STEM_WEIGHT not in wanted or arrays[_STEM_WEIGHT].ndim != 4:
        return []
    theirs, ours = arrays[_STEM_WEIGHT].shape[2:], wanted[_STEM_WEIGHT][2:]
    if theirs == ours or theirs[0] != theirs[1]:
        return []
    return [
        f"the checkpoint's stem has patches of {theirs[0]} pixels, but the model's has patches of {ours[0]}: give "
        f"patch_size {theirs[0]}"
    ]


def _structure(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Describe a network, such as 'a V2 with depths 2, 2, 6, 2 and 40 channels in the first stage'.

    Returns '' if the names do not show all of this.
    """
    depths, width = depths_of(shapes), shapes.get(_STEM_BIAS)
    family = "V2" if _FIRST_GRN in shapes else "V1" if _FIRST_LAYER_SCALE in shapes else ""
    if not (family and width and all(depths)):
        return ""
    return f"a {family} with depths {', '.join(map(str, depths))} and {width[0]} channels in the first stage"


def _listed(names: Collection[str], max_names: int = 8) -> str:
    shown = ", ".join(list(names)[:max_names])
    return f"{shown} and {len(names) - max_names} more" if len(names) > max_names else shown
