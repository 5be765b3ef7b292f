"""Layouts of parameter names: one table for each, used to convert into this library's names and back.

For each part of the network, a layout gives the names of the part's arrays and, where the layout stores them in another
shape, the form of each array. The names come from the reference implementations (facebookresearch/ConvNeXt and
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

# timm stores the pointwise layers as 1x1 convolutions in networks whose first stage has fewer
# channels than this (atto to nano).
_TIMM_DENSE_WIDTH = 96


@dataclass(frozen=True)
class Form:
    """Converts the shape of an array between a layout and this library. The values stay, in a known order.

    Attributes:
        own_shape: function from the layout's shape to this library's shape. It returns None for a shape that does not
            have this form.
        layout_shape: function from this library's shape and the width of the first stage to the layout's shape.
        is_reversed: whether the layout stores all axes in reverse order, before it joins some of them.
    """

    own_shape: Callable[[_Shape], Optional[_Shape]]
    layout_shape: Callable[[_Shape, int], _Shape]
    is_reversed: bool = False

    def to_own(self, array: np.ndarray) -> np.ndarray:
        """Return a view of a layout's array in this library's shape, or the array itself if it has another form."""
        shape = self.own_shape(array.shape)
        if shape is None or shape == array.shape:
            return array
        return array.reshape(shape[::-1]).T if self.is_reversed else array.reshape(shape)

    def to_layout(self, array: np.ndarray, width: int) -> np.ndarray:
        """Return an array of this library in the layout's shape. `width` is the first stage's number of channels."""
        shape = self.layout_shape(array.shape, width)
        if shape == array.shape:
            return array
        return (array.T if self.is_reversed else array).reshape(shape)


def _kernel_shape(shape: _Shape) -> Optional[_Shape]:
    """Return [O, I, k, k] for the shape [k * k, I, O], or [C, 1, k, k] for the shape [k * k, C] (depthwise)."""
    side = math.isqrt(shape[0]) if shape else 0
    if len(shape) not in (2, 3) or side * side != shape[0]:
        return None
    return (shape[-1], shape[1] if len(shape) == 3 else 1, side, side)


_SAME = Form(lambda shape: shape, lambda shape, width: shape)
# The comments below give the layout's shape first, then this library's shape.
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
# As _POINTWISE, but always written as a dense layer [O, I].
_POINTWISE_DENSE = Form(lambda s: s[:2] if s[2:] in ((), (1, 1)) else None, lambda s, width: s)
# [k * k, I, O] for [O, I, k, k], and [k * k, C] for [C, 1, k, k]. The first axis counts columns
# before rows.
_KERNEL = Form(_kernel_shape, lambda s, width: (s[2] * s[3], s[1], s[0]), is_reversed=True)
_DEPTHWISE_KERNEL = Form(_kernel_shape, lambda s, width: (s[2] * s[3], s[0]), is_reversed=True)


@dataclass(frozen=True)
class Layout:
    """The names of one layout.

    Attributes:
        names: part of the network -> pattern of its names. A layout does not have the parts that are missing here.
            `[weight|bias]` stands for two names. `{root}` is the prefix of the encoder's names, `{stage}` the index of
            a stage from 0, `{even}` is 2 * stage, `{odd}` is 2 * stage + 1, and `{block}` is the index of a block in
            its stage.
        forms: part -> the form of each of its arrays, for parts whose shapes differ from this library's.
        roots: possible prefixes of the encoder's names. A pre-training network has the prefix `encoder.`.
        foreign: prefix of a name, after the root -> description of a structure that this library does not support.
    """

    names: Mapping[str, str]
    forms: Mapping[str, Sequence[Form]] = field(default_factory=dict)
    roots: Sequence[str] = ("",)
    foreign: Mapping[str, str] = field(default_factory=dict)


LAYOUTS: dict[str, Layout] = {
    # MindCV's names, which this library also uses.
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
    # The reference implementations of V1 and V2, and the released FCMAE weights, which lack the
    # last norm and the head.
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
            "stages.0.downsample.": "a downsampling layer before the first stage (timm's patch_size=2)",
            "norm_pre.": "a norm before the pooling (timm's *_hnf)",
            "head.pre_logits.": "a hidden layer in the head (timm's *_mlp)",
        },
    ),
    # torchvision has V1 only.
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
    # OpenMMLab's mmpretrain. A backbone saved by itself has no root.
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
    # A classifier has the name of its family as root. A model without a head has no root.
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
        foreign={
            "hidden_states_norms.": "norms of the stages' feature maps (a backbone for detection or segmentation)"
        },
    ),
    # FCMAE pre-training of V2 as the reference implementation saves it, with the sparse layers of
    # MinkowskiEngine.
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
    """One parameter of a layout.

    Attributes:
        own_name: name in this library.
        layout_name: name in the layout.
        part: part of the network that the parameter belongs to.
        form: form of the array in the layout.
    """

    own_name: str
    layout_name: str
    part: str
    form: Form


def entries(layout: str, root: str, depths: Sequence[int]) -> Iterator[Entry]:
    """Yield all parameters with a name in the layout that a V1 or V2 network of these `depths` can have."""
    own_table, layout_table = LAYOUTS["mindcv"], LAYOUTS[layout]
    for part, layout_pattern in layout_table.names.items():
        own_names, layout_names = _alternatives(own_table.names[part]), _alternatives(layout_pattern)
        forms = layout_table.forms.get(part, (_SAME,) * len(own_names))
        for indices in _indices(own_table.names[part], depths):
            for own_name, layout_name, form in zip(own_names, layout_names, forms):
                yield Entry(own_name.format(root="", **indices), layout_name.format(root=root, **indices), part, form)


def _alternatives(name: str) -> list[str]:
    """Return the names that a pattern stands for: `norm.[weight|bias]` gives `norm.weight` and `norm.bias`."""
    match = re.fullmatch(r"(.*)\[(\w+)\|(\w+)\]", name)
    return [match[1] + match[2], match[1] + match[3]] if match else [name]


def _indices(name: str, depths: Sequence[int]) -> list[dict[str, int]]:
    """Return the values of a pattern's placeholders: one set for each block, for each downsampling layer, or a single
    empty set."""
    numbers = [{"stage": stage, "even": 2 * stage, "odd": 2 * stage + 1} for stage in range(len(depths))]
    if "{block}" in name:
        return [{**n, "block": block} for n, depth in zip(numbers, depths) for block in range(depth)]
    return numbers[1:] if "{even}" in name else [{}]


def own_names(part: str, stage: int = 0, block: int = 0) -> tuple[str, ...]:
    """Return this library's names of the parameters of one part, such as `classifier.weight` and `classifier.bias`."""
    indices = {"stage": stage, "even": 2 * stage, "odd": 2 * stage + 1, "block": block}
    return tuple(name.format(root="", **indices) for name in _alternatives(LAYOUTS["mindcv"].names[part]))


# Pattern of the prefix that this library's names of the parameters of a block have.
_BLOCK = re.compile(
    LAYOUTS["mindcv"].names["block norm"].split("{block}.")[0].format(root="", odd=r"(\d+)").replace(".", r"\.")
    + r"(\d+)\."
)


def depths_of(names: Iterable[str]) -> list[int]:
    """Return the number of blocks in each of the four stages, read from parameter names of this library."""
    blocks = {match.groups() for match in map(_BLOCK.match, names) if match}
    return [sum(odd == str(2 * stage + 1) for odd, _ in blocks) for stage in range(4)]
