"""Layouts of parameter names: one table each, that serves into this library's names and out of them.

A layout says for each part of the network what the part's arrays are called there and, where they are not held as
they are here, in which form. The names were taken from the reference implementations (facebookresearch/ConvNeXt and
ConvNeXt-V2), timm 1.0, torchvision, transformers, mmpretrain and MindCV.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Callable, Optional

import numpy as np

__all__ = ["LAYOUTS", "Entry", "Form", "Layout", "depths_of", "entries", "own_names"]

_Shape = tuple[int, ...]

# timm's networks of a first stage narrower than this (atto to nano) hold the pointwise layers as 1x1 convolutions.
_TIMM_DENSE_WIDTH = 96


@dataclass(frozen=True)
class Form:
    """How a layout holds an array that this library holds in another shape, the same values in an order that is known.

    Attributes:
        shape_here: the shape there -> the shape here, or None for a shape that is not of this form.
        shape_there: (the shape here, the network's first width) -> the shape there.
        is_reversed: whether all axes stand in reverse order there, before some of them are joined.
    """

    shape_here: Callable[[_Shape], Optional[_Shape]]
    shape_there: Callable[[_Shape, int], _Shape]
    is_reversed: bool = False

    def into(self, array: np.ndarray) -> np.ndarray:
        """An array of the layout as this library holds it, a view of it; one that is not of this form as it is."""
        shape = self.shape_here(array.shape)
        if shape is None or shape == array.shape:
            return array
        return array.reshape(shape[::-1]).T if self.is_reversed else array.reshape(shape)

    def out_of(self, array: np.ndarray, width: int) -> np.ndarray:
        """An array of this library as the layout holds it, in a network whose first stage has `width` channels."""
        shape = self.shape_there(array.shape, width)
        if shape == array.shape:
            return array
        return (array.T if self.is_reversed else array).reshape(shape)


def _kernel_shape(shape: _Shape) -> Optional[_Shape]:
    """[k * k, I, O] or, depthwise, [k * k, C] to [O, I, k, k]."""
    side = math.isqrt(shape[0]) if shape else 0
    if len(shape) not in (2, 3) or side * side != shape[0]:
        return None
    return (shape[-1], shape[1] if len(shape) == 3 else 1, side, side)


_SAME = Form(lambda shape: shape, lambda shape, width: shape)
# [C] for [1, 1, 1, C]
_FLAT_GRN = Form(lambda s: (1, 1, 1, *s) if len(s) == 1 else None, lambda s, width: s[-1:])
# [1, C] for [1, 1, 1, C]
_ROW_GRN = Form(lambda s: (1, 1, *s) if len(s) == 2 else None, lambda s, width: s[-2:])
# [1, C] for [C]
_ROW = Form(lambda s: s[1:] if len(s) == 2 and s[0] == 1 else None, lambda s, width: (1, *s))
# [C, 1, 1] for [C]
_CHANNELS_FIRST = Form(lambda s: s[:1] if s[1:] == (1, 1) else None, lambda s, width: (*s, 1, 1))
# [O, I, 1, 1] or [O, I] for [O, I]
_POINTWISE = Form(
    lambda s: s[:2] if s[2:] in ((), (1, 1)) else None,
    lambda s, width: (*s, 1, 1) if width < _TIMM_DENSE_WIDTH else s,
)
# The same, as a dense layer in networks of every width.
_POINTWISE_DENSE = Form(lambda s: s[:2] if s[2:] in ((), (1, 1)) else None, lambda s, width: s)
# [k * k, I, O] for [O, I, k, k], and [k * k, C] for [C, 1, k, k]; the column of a kernel goes before its row
_KERNEL = Form(_kernel_shape, lambda s, width: (s[2] * s[3], s[1], s[0]), is_reversed=True)
_DEPTHWISE_KERNEL = Form(_kernel_shape, lambda s, width: (s[2] * s[3], s[0]), is_reversed=True)


@dataclass(frozen=True)
class Layout:
    """The names of one layout.

    Attributes:
        names: part -> its name, or its two as `[weight|bias]`. `{root}` is what names of the encoder begin with,
            `{stage}` a stage from 0, `{even}` and `{odd}` twice that and one more, `{block}` a block of the stage. A
            part without a name is not in the layout.
        forms: part -> the form of each of its arrays, where they are not as here.
        roots: the roots that occur; `encoder.` is that of a pre-training network.
        foreign: beginning of a name without the root -> what it is of, for structures that this library does not have.
    """

    names: Mapping[str, str]
    forms: Mapping[str, Sequence[Form]] = field(default_factory=dict)
    roots: Sequence[str] = ("",)
    foreign: Mapping[str, str] = field(default_factory=dict)


LAYOUTS: dict[str, Layout] = {
    # MindCV's names, which are this library's.
    "mindcv": Layout(
        names={
            "stem conv": "{root}feature.0.0.[weight|bias]",
            "stem norm": "{root}feature.0.1.[gamma|beta]",
            "downsampling norm": "{root}feature.{even}.0.[gamma|beta]",
            "downsampling conv": "{root}feature.{even}.1.[weight|bias]",
            "depthwise conv": "{root}feature.{odd}.{block}.dwconv.[weight|bias]",
            "block norm": "{root}feature.{odd}.{block}.norm.[gamma|beta]",
            "expansion": "{root}feature.{odd}.{block}.pwconv1.[weight|bias]",
            "grn": "{root}feature.{odd}.{block}.grn.[gamma|beta]",
            "projection": "{root}feature.{odd}.{block}.pwconv2.[weight|bias]",
            "layer scale": "{root}feature.{odd}.{block}.gamma_",
            "last norm": "{root}norm.[gamma|beta]",
            "head": "classifier.[weight|bias]",
        },
        roots=("", "encoder."),
    ),
    # The reference implementations: V1, V2, and the released FCMAE weights, which have no last norm and no head.
    "official": Layout(
        names={
            "stem conv": "{root}downsample_layers.0.0.[weight|bias]",
            "stem norm": "{root}downsample_layers.0.1.[weight|bias]",
            "downsampling norm": "{root}downsample_layers.{stage}.0.[weight|bias]",
            "downsampling conv": "{root}downsample_layers.{stage}.1.[weight|bias]",
            "depthwise conv": "{root}stages.{stage}.{block}.dwconv.[weight|bias]",
            "block norm": "{root}stages.{stage}.{block}.norm.[weight|bias]",
            "expansion": "{root}stages.{stage}.{block}.pwconv1.[weight|bias]",
            "grn": "{root}stages.{stage}.{block}.grn.[gamma|beta]",
            "projection": "{root}stages.{stage}.{block}.pwconv2.[weight|bias]",
            "layer scale": "{root}stages.{stage}.{block}.gamma",
            "last norm": "{root}norm.[weight|bias]",
            "head": "head.[weight|bias]",
        },
        roots=("", "encoder."),
    ),
    "timm": Layout(
        names={
            "stem conv": "stem.0.[weight|bias]",
            "stem norm": "stem.1.[weight|bias]",
            "downsampling norm": "stages.{stage}.downsample.0.[weight|bias]",
            "downsampling conv": "stages.{stage}.downsample.1.[weight|bias]",
            "depthwise conv": "stages.{stage}.blocks.{block}.conv_dw.[weight|bias]",
            "block norm": "stages.{stage}.blocks.{block}.norm.[weight|bias]",
            "expansion": "stages.{stage}.blocks.{block}.mlp.fc1.[weight|bias]",
            "grn": "stages.{stage}.blocks.{block}.mlp.grn.[weight|bias]",
            "projection": "stages.{stage}.blocks.{block}.mlp.fc2.[weight|bias]",
            "layer scale": "stages.{stage}.blocks.{block}.gamma",
            "last norm": "head.norm.[weight|bias]",
            "head": "head.fc.[weight|bias]",
        },
        forms={
            "expansion": (_POINTWISE, _SAME),
            "projection": (_POINTWISE, _SAME),
            "grn": (_FLAT_GRN, _FLAT_GRN),
        },
        foreign={
            "stem.2.": "a stem of overlapping convolutions (timm's *_ols)",
            "norm_pre.": "a norm before the pooling (timm's *_hnf)",
            "head.pre_logits.": "a hidden layer in the head (timm's *_mlp)",
        },
    ),
    # V1 alone: torchvision has no V2.
    "torchvision": Layout(
        names={
            "stem conv": "features.0.0.[weight|bias]",
            "stem norm": "features.0.1.[weight|bias]",
            "downsampling norm": "features.{even}.0.[weight|bias]",
            "downsampling conv": "features.{even}.1.[weight|bias]",
            "depthwise conv": "features.{odd}.{block}.block.0.[weight|bias]",
            "block norm": "features.{odd}.{block}.block.2.[weight|bias]",
            "expansion": "features.{odd}.{block}.block.3.[weight|bias]",
            "projection": "features.{odd}.{block}.block.5.[weight|bias]",
            "layer scale": "features.{odd}.{block}.layer_scale",
            "last norm": "classifier.0.[weight|bias]",
            "head": "classifier.2.[weight|bias]",
        },
        forms={"layer scale": (_CHANNELS_FIRST,)},
    ),
    # OpenMMLab's mmpretrain; its backbone alone has no root.
    "mmpretrain": Layout(
        names={
            "stem conv": "{root}downsample_layers.0.0.[weight|bias]",
            "stem norm": "{root}downsample_layers.0.1.[weight|bias]",
            "downsampling norm": "{root}downsample_layers.{stage}.0.[weight|bias]",
            "downsampling conv": "{root}downsample_layers.{stage}.1.[weight|bias]",
            "depthwise conv": "{root}stages.{stage}.{block}.depthwise_conv.[weight|bias]",
            "block norm": "{root}stages.{stage}.{block}.norm.[weight|bias]",
            "expansion": "{root}stages.{stage}.{block}.pointwise_conv1.[weight|bias]",
            "grn": "{root}stages.{stage}.{block}.grn.[gamma|beta]",
            "projection": "{root}stages.{stage}.{block}.pointwise_conv2.[weight|bias]",
            "layer scale": "{root}stages.{stage}.{block}.gamma",
            "last norm": "{root}norm3.[weight|bias]",
            "head": "head.fc.[weight|bias]",
        },
        forms={
            "expansion": (_POINTWISE_DENSE, _SAME),
            "projection": (_POINTWISE_DENSE, _SAME),
            "grn": (_FLAT_GRN, _FLAT_GRN),
        },
        roots=("backbone.", ""),
    ),
    # The root is the family's in a classifier, and empty in a model without a head.
    "transformers": Layout(
        names={
            "stem conv": "{root}embeddings.patch_embeddings.[weight|bias]",
            "stem norm": "{root}embeddings.layernorm.[weight|bias]",
            "downsampling norm": "{root}encoder.stages.{stage}.downsampling_layer.0.[weight|bias]",
            "downsampling conv": "{root}encoder.stages.{stage}.downsampling_layer.1.[weight|bias]",
            "depthwise conv": "{root}encoder.stages.{stage}.layers.{block}.dwconv.[weight|bias]",
            "block norm": "{root}encoder.stages.{stage}.layers.{block}.layernorm.[weight|bias]",
            "expansion": "{root}encoder.stages.{stage}.layers.{block}.pwconv1.[weight|bias]",
            "grn": "{root}encoder.stages.{stage}.layers.{block}.grn.[weight|bias]",
            "projection": "{root}encoder.stages.{stage}.layers.{block}.pwconv2.[weight|bias]",
            "layer scale": "{root}encoder.stages.{stage}.layers.{block}.layer_scale_parameter",
            "last norm": "{root}layernorm.[weight|bias]",
            "head": "classifier.[weight|bias]",
        },
        roots=("", "convnext.", "convnextv2."),
        foreign={"hidden_states_norms.": "norms of the stages' maps (a backbone for detection or segmentation)"},
    ),
    # V2's FCMAE pre-training as the reference implementation saves it, with MinkowskiEngine's sparse layers.
    "fcmae": Layout(
        names={
            "stem conv": "{root}downsample_layers.0.0.[weight|bias]",
            "stem norm": "{root}downsample_layers.0.1.[weight|bias]",
            "downsampling norm": "{root}downsample_layers.{stage}.0.ln.[weight|bias]",
            "downsampling conv": "{root}downsample_layers.{stage}.1.[kernel|bias]",
            "depthwise conv": "{root}stages.{stage}.{block}.dwconv.[kernel|bias]",
            "block norm": "{root}stages.{stage}.{block}.norm.ln.[weight|bias]",
            "expansion": "{root}stages.{stage}.{block}.pwconv1.linear.[weight|bias]",
            "grn": "{root}stages.{stage}.{block}.grn.[gamma|beta]",
            "projection": "{root}stages.{stage}.{block}.pwconv2.linear.[weight|bias]",
        },
        forms={
            "downsampling conv": (_KERNEL, _ROW),
            "depthwise conv": (_DEPTHWISE_KERNEL, _ROW),
            "grn": (_ROW_GRN, _ROW_GRN),
        },
        roots=("encoder.",),
    ),
}


@dataclass(frozen=True)
class Entry:
    """One parameter: its name here, its name there, the part of the network it is of, and its form there."""

    here: str
    there: str
    part: str
    form: Form


def entries(layout: str, root: str, depths: Sequence[int]) -> Iterator[Entry]:
    """All parameters that a network of these `depths` can have, of V1 and of V2, and that the layout has names for."""
    here, there = LAYOUTS["mindcv"], LAYOUTS[layout]
    for part, name_there in there.names.items():
        names_here, names_there = _alternatives(here.names[part]), _alternatives(name_there)
        forms = there.forms.get(part, (_SAME,) * len(names_here))
        for place in _places(here.names[part], depths):
            for ours, theirs, form in zip(names_here, names_there, forms):
                yield Entry(ours.format(root="", **place), theirs.format(root=root, **place), part, form)


def _alternatives(name: str) -> list[str]:
    """`norm.[weight|bias]` to `norm.weight` and `norm.bias`."""
    match = re.fullmatch(r"(.*)\[(\w+)\|(\w+)\]", name)
    return [match[1] + match[2], match[1] + match[3]] if match else [name]


def _places(name: str, depths: Sequence[int]) -> list[dict[str, int]]:
    """The numbers that a name with blanks is filled with: those of each block, of each downsampling, or none."""
    numbers = [{"stage": stage, "even": 2 * stage, "odd": 2 * stage + 1} for stage in range(len(depths))]
    if "{block}" in name:
        return [{**n, "block": block} for n, depth in zip(numbers, depths) for block in range(depth)]
    return numbers[1:] if "{even}" in name else [{}]


def own_names(part: str, stage: int = 0, block: int = 0) -> tuple[str, ...]:
    """This library's names of the parameters of one part, for example `classifier.weight` and `classifier.bias`."""
    place = {"stage": stage, "even": 2 * stage, "odd": 2 * stage + 1, "block": block}
    return tuple(name.format(root="", **place) for name in _alternatives(LAYOUTS["mindcv"].names[part]))


# What this library's names of the parameters of a block begin with.
_BLOCK = re.compile(
    LAYOUTS["mindcv"].names["block norm"].split("{block}.")[0].format(root="", odd=r"(\d+)").replace(".", r"\.")
    + r"(\d+)\."
)


def depths_of(names: Iterable[str]) -> list[int]:
    """Blocks of each of the four stages, counted in names of this library."""
    blocks = {found.groups() for found in map(_BLOCK.match, names) if found}
    return [sum(odd == str(2 * stage + 1) for odd, _ in blocks) for stage in range(4)]
