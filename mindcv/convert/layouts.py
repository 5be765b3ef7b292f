"""From one layout of parameter names to another, by the tables of `layout_tables`.

What the table of a layout does not have stays as it is and is then reported by name: nothing is skipped.

Decision 0053 says how a layout and the prefix of a wrapped network are found.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Optional

import numpy as np
from mindspore import Parameter, nn

from mindcv.convert.layout_tables import LAYOUTS, depths_of, entries, own_names
from mindcv.utils.errors import CheckpointError, UserError, unknown_name
from mindcv.utils.logger import logger

__all__ = [
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
_STEM_BIAS = own_names("stem conv")[1]
# Of the first block, the one that only V2 has and the one that only V1 has.
_FIRST_GRN, _FIRST_LAYER_SCALE = own_names("grn")[0], own_names("layer scale")[0]

# What a pre-training network holds beside its encoder: the decoder, which a backbone has no place for.
_FCMAE_ROOT = "encoder."
_FCMAE_PARTS = ("mask_token", "proj", "decoder", "pred")


class DetectedLayout(NamedTuple):
    """A layout, and what its names of the encoder begin with."""

    name: str
    root: str


@dataclass
class Renamed:
    """A checkpoint under this library's names.

    Attributes:
        layout: the one it came in.
        arrays: by this library's names, in its form: views where the values are in the same order.
        sources: this library's name -> the checkpoint's.
        unexpected: names that the layout does not have.
        left_out: names of the decoder of a pre-training network, which are not in `arrays`.
        prefix: what all names of the network begin with, put there by a wrapper or a larger model.
        outside: names without that prefix, which are of other parts of that model and not in `arrays`.
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
        """Width of the head; 0 without one."""
        return self.arrays[_HEAD_BIAS].size if _HEAD_BIAS in self.arrays else 0

    @property
    def is_encoder(self) -> bool:
        """Whether there is neither a last norm nor a head, as after FCMAE."""
        return not any(name in self.arrays for name in _TAIL)

    def told(self) -> list[str]:
        """Sentences about what is left out, for the log."""
        told = [f"the decoder is left out: {self.parts_left_out()}"] if self.left_out else []
        if self.prefix:
            others = sorted({name.split(".")[0] for name in self.outside})
            others = f", and other parts are left out: {_listed(others)}" if others else ""
            told.append(f"the prefix '{self.prefix}' of the names is left out{others}")
        return told

    def parts_left_out(self) -> str:
        """`decoder, mask_token, pred, proj`; empty when nothing was left out."""
        return ", ".join(sorted({name.split(".")[0] for name in self.left_out}))


@dataclass
class Mismatch:
    """What keeps arrays from fitting a model: names, and for `misshaped` the two shapes, as sentences.

    `notes` say what the differences come from, where that is known.
    """

    notes: list[str]
    missing: list[str]
    unexpected: list[str]
    misshaped: list[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshaped)

    def __str__(self) -> str:
        groups = list(self.notes)
        for title in ("missing", "unexpected", "misshaped"):
            names = getattr(self, title)
            if names:
                groups.append(f"{len(names)} {title}: {_listed(names)}")
        return "; ".join(groups)


def to_mindcv(state_dict: Mapping[str, np.ndarray], model: nn.Cell) -> dict[str, np.ndarray]:
    """Arrays of a checkpoint under this library's names, ready for `model`.

    Args:
        state_dict: name -> array, in any layout of `LAYOUTS`: it is detected. The decoder of an FCMAE pre-training
            network is left out, and one line in the log says so.
        model: the network they are for: it decides names and shapes and is not changed.

    Returns:
        Views of the arrays, or the arrays themselves.

    Raises:
        CheckpointError: a name or shape does not match. Lists all that are missing, unexpected and mis-shaped, and
            says which layout was detected.
    """
    renamed = rename(state_dict)
    mismatch = compare(renamed, weight_parameters(model))
    if mismatch:
        raise CheckpointError(f"the weights (layout: {renamed.layout.name}) do not fit the model: {mismatch}")
    for sentence in renamed.told():
        logger.info("weights: %s", sentence)
    return renamed.arrays


def from_mindcv(arrays: Mapping[str, np.ndarray], layout: str) -> dict[str, np.ndarray]:
    """Arrays of this library under the names of another layout, in its form.

    Whether they are of V1 or V2, with or without a head, is read from the names. 'fcmae' holds an encoder alone: the
    last norm and the head are left out, and one line in the log says so.

    Args:
        arrays: name -> array, as in a model of this library.
        layout: one of `LAYOUTS`.

    Raises:
        UserError: an unknown layout.
        CheckpointError: a name that is not this library's, or one that the layout has no place for (torchvision has no
            V2, FCMAE no V1).
    """
    if layout not in LAYOUTS:
        raise UserError(unknown_name("layout", layout, LAYOUTS))
    depths = depths_of(arrays)
    own = {entry.here: entry.part for entry in entries("mindcv", "", depths)}
    foreign = [name for name in arrays if name not in own]
    if foreign:
        raise CheckpointError(f"these are not names of this library's models: {_listed(foreign)}")
    by_name = {entry.here: entry for entry in entries(layout, _root_for(arrays, layout), depths)}
    homeless = [name for name in arrays if name not in by_name]
    if layout == "fcmae":
        tail = [name for name in homeless if own[name] in ("last norm", "head")]
        if tail:
            logger.info("the layout fcmae holds an encoder alone, left out: %s", ", ".join(sorted(tail)))
        homeless = [name for name in homeless if name not in tail]
    if homeless:
        raise CheckpointError(f"the layout {layout} has no place for {_listed(homeless)}")
    width = arrays[_STEM_BIAS].size if _STEM_BIAS in arrays else 0
    kept = [(by_name[name], array) for name, array in arrays.items() if name in by_name]
    return {entry.there: entry.form.out_of(array, width) for entry, array in kept}


def _root_for(arrays: Collection[str], layout: str) -> str:
    """What the layout's names of the encoder begin with, for these weights."""
    if layout == "transformers" and _HEAD_WEIGHT in arrays:
        return "convnextv2." if _FIRST_GRN in arrays else "convnext."
    return LAYOUTS[layout].roots[0]


def detect_layout(names: Collection[str]) -> DetectedLayout:
    """The layout that some names are of: the one that has names for most of them.

    Raises:
        CheckpointError: they are of none.
    """
    best, _ = _best_layout(names)
    if best is None:
        shown = _listed(list(names), 3) if names else "it holds none"
        raise CheckpointError(f"the names in the checkpoint are of no known layout ({', '.join(LAYOUTS)}): {shown}")
    return best


def _best_layout(names: Collection[str]) -> tuple[Optional[DetectedLayout], int]:
    """The layout that has names for most of `names`, and for how many."""
    best, most = None, 0
    for layout, table in LAYOUTS.items():
        for root in table.roots:
            # The first block of each stage decides; the head's name alone may be any network's.
            backbone = {e.there for e in entries(layout, root, (1, 1, 1, 1)) if e.part not in ("last norm", "head")}
            found = len(backbone.intersection(names))
            if found > most:
                best, most = DetectedLayout(layout, root), found
    return best, most


def _prefix_of(names: Collection[str]) -> str:
    """What a wrapper or a larger model has put before all names of the network.

    It is what stands before the name of the stem's weight, in that of the layouts that fits best.

    Raises:
        CheckpointError: there are several networks.
    """
    stems = {
        next(entry.there for entry in entries(layout, root, (1, 1, 1, 1)) if entry.part == "stem conv")
        for layout, table in LAYOUTS.items()
        for root in table.roots
    }
    found = {name: [stem for stem in stems if f".{name}".endswith(f".{stem}")] for name in names}
    networks = {name: sorted(matches, key=len) for name, matches in found.items() if matches}
    if not networks:
        return ""
    # The longest match of a name leaves the shortest prefix.
    prefixes = sorted({name[: -len(matches[-1])] for name, matches in networks.items()})
    if len(networks) > 1:
        raise CheckpointError(
            f"it holds several networks, whose names begin with {', '.join(map(repr, prefixes))}: save the one you "
            "want in a file of its own"
        )
    (name, matches), *_ = networks.items()
    candidates = sorted({name[: -len(stem)] for stem in matches}, key=len)
    return max(candidates, key=lambda prefix: _best_layout(_inside(names, prefix))[1])


def _inside(names: Collection[str], prefix: str) -> list[str]:
    return [name[len(prefix) :] for name in names if name.startswith(prefix)]


def rename(state_dict: Mapping[str, np.ndarray]) -> Renamed:
    """The arrays of a checkpoint, whose layout is detected, under this library's names and in its form.

    Raises:
        CheckpointError: the names are of no known layout.
    """
    prefix = _prefix_of(state_dict)
    outside = [name for name in state_dict if not name.startswith(prefix)]
    layout = detect_layout(_inside(state_dict, prefix))
    depth = 1 + len(state_dict) // 9  # no block has fewer than nine arrays
    by_name = {entry.there: entry for entry in entries(layout.name, layout.root, (depth,) * 4)}
    renamed = Renamed(layout, {}, {}, [], [], prefix, outside)
    for full_name, array in state_dict.items():
        name = full_name[len(prefix) :]
        if not full_name.startswith(prefix):
            continue
        if name in by_name:
            entry = by_name[name]
            renamed.arrays[entry.here] = entry.form.into(array)
            renamed.sources[entry.here] = full_name
        elif layout.root == _FCMAE_ROOT and name.split(".")[0] in _FCMAE_PARTS:
            renamed.left_out.append(name)
        else:
            renamed.unexpected.append(name)
    return renamed


def compare(renamed: Renamed, parameters: Mapping[str, Parameter]) -> Mismatch:
    """How a checkpoint differs, in names and shapes, from the parameters to be filled with it.

    Names are the checkpoint's own, with this library's beside them where they differ. Shapes are this library's.
    """
    wanted = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    arrays = renamed.arrays
    there = {e.here: renamed.prefix + e.there for e in entries(*renamed.layout, depths_of(wanted))} | renamed.sources

    def both(name: str) -> str:
        return name if there.get(name, name) == name else f"{there[name]} (here {name})"

    return Mismatch(
        notes=_notes(renamed, wanted),
        missing=[both(name) for name in wanted if name not in arrays],
        unexpected=[*renamed.unexpected, *(both(name) for name in arrays if name not in wanted)],
        misshaped=[
            f"{both(name)} is {list(arrays[name].shape)}, the model's is {list(wanted[name])}"
            for name in wanted
            if name in arrays and arrays[name].shape != wanted[name]
        ],
    )


def weight_parameters(model: nn.Cell) -> dict[str, Parameter]:
    """The weights of a model by name.

    Parameters of Cells that declare `holds_state` are no weights: the counter of the random layers is one.
    """
    states = [cell for _, cell in model.cells_and_names() if getattr(cell, "holds_state", False)]
    state = {id(parameter) for cell in states for parameter in cell.get_parameters()}
    return {p.name: p for p in model.get_parameters() if id(p) not in state}


def _notes(renamed: Renamed, wanted: Mapping[str, tuple[int, ...]]) -> list[str]:
    """What differences of names come from, where that can be told."""
    notes = [
        f"the checkpoint has {what}, which this library has not"
        for prefix, what in LAYOUTS[renamed.layout.name].foreign.items()
        if any(name.startswith(prefix) for name in renamed.unexpected)
    ]
    gamma, beta = own_names("last norm")  # the norms of the blocks end with the same words
    norms = [name[: -len(gamma)] for name in renamed.arrays if name.endswith(gamma)]
    if norms and not any(norm + beta in renamed.arrays for norm in norms):
        notes.append("the checkpoint has norms without a bias (timm's *_rms), which this library has not")
    theirs = _structure({name: array.shape for name, array in renamed.arrays.items()})
    ours = _structure(wanted)
    if not notes and theirs and ours and theirs != ours:
        notes.append(f"the checkpoint is of {theirs}, the model is {ours}")
    return notes


def _structure(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """`a V2 with depths 2, 2, 6, 2 and 40 channels in the first stage`; empty when the names do not say it all."""
    depths, width = depths_of(shapes), shapes.get(_STEM_BIAS)
    family = "V2" if _FIRST_GRN in shapes else "V1" if _FIRST_LAYER_SCALE in shapes else ""
    if not (family and width and all(depths)):
        return ""
    return f"a {family} with depths {', '.join(map(str, depths))} and {width[0]} channels in the first stage"


def _listed(names: Collection[str], most: int = 8) -> str:
    shown = ", ".join(list(names)[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown
