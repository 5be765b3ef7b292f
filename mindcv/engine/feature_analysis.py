"""Analysis of a network's features: how different the channels of each block are, and what the maps look like.

Source: "ConvNeXt V2: Co-designing and Scaling ConvNets with Masked Autoencoders", arXiv 2301.00808, section 4.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Optional, Union

import mindspore as ms
import numpy as np
from mindspore import nn, ops

from mindcv.engine.features import FeatureRows, read_batches
from mindcv.utils.checks import shown
from mindcv.utils.errors import DataError, NotFiniteError, UserError
from mindcv.utils.files import atomic_write_text

__all__ = ["BlockFeatures", "DrawnMaps", "FeatureAnalysis", "LayerDistance", "analyse_files", "write_distances"]

# Lengths below this one divide as this one, so that a channel that is zero everywhere stays zero.
_SHORTEST = 1e-12
# The hidden layers of a larger batch take gigabytes: 154 MB each in the first stage of convnext_tiny with 32 images.
_MAX_BATCH = 32


class BlockFeatures(nn.Cell):
    """Maps images to the cosine distances of the channels in each block, to the pooled features and to the maps.

    The outputs are the distances [N, L, 2] of L blocks, the features [N, D], and a map [N, C, h, w] of each stage. A
    block has two distances: that of its hidden layer, after GELU and GRN, and that of its map. The paper finds that
    features collapse in the hidden layers (decision 0086).

    A distance is the mean of (1 - cos(a, b)) / 2 over all pairs (a, b) of C channels, each a vector of h * w values. As
    in the paper, there are C * C pairs: a channel with itself is one of them. A channel that is zero everywhere has the
    cosine 0 with each channel.

    Args:
        network: a ConvNeXt without a head, whose sections are not packed.
        input_type: type that the images are cast to. None means the type that they have.

    Raises:
        UserError: `network` is not a ConvNeXt.
    """

    def __init__(self, network: nn.Cell, input_type: Optional[ms.Type] = None):
        super().__init__(auto_prefix=False)
        if not hasattr(network, "forward_head"):
            raise UserError(f"network must be a ConvNeXt, got {shown(network)}")
        self.network = network
        self.input_type = input_type
        cells, layers, ends = [], [], []
        for number, section in enumerate(network.feature):
            section.check_weights()
            is_stage = number % 2 == 1
            for block, cell in enumerate(section):
                cells.append(cell)
                layers.append((f"feature.{number}.{block}", number // 2, block) if is_stage else None)
                ends.append(is_stage and block == len(section) - 1)
        self.cells_in_order = nn.CellList(cells, auto_prefix=False)
        self.is_block = tuple(layer is not None for layer in layers)
        self.is_last_block = tuple(ends)
        self.layers = [layer for layer in layers if layer is not None]
        self.num_features = network.num_features

    def construct(self, images: ms.Tensor) -> tuple:
        x = images if self.input_type is None else ops.cast(images, self.input_type)
        distances, maps = [], []
        for i, cell in enumerate(self.cells_in_order):
            hidden = hidden_layer(cell, x) if self.is_block[i] else None
            x = cell(x)  # channels-last from the stem on
            if self.is_block[i]:
                distances.append(ops.stack([_channel_distance(hidden), _channel_distance(x)], 1))
            if self.is_last_block[i]:
                maps.append(ops.transpose(x, (0, 3, 1, 2)))
        features = self.network.forward_head(maps[-1], True)
        return (ops.stack(distances, 1), ops.cast(features, ms.float32), *maps)


def hidden_layer(block: nn.Cell, x: ms.Tensor) -> ms.Tensor:
    """Return the hidden layer [N, H, W, 4C] of a block, after GELU and GRN, for its input x [N, H, W, C]."""
    y = block.act(block.pwconv1(block.norm(block.dwconv(x))))
    return block.grn(y) if hasattr(block, "grn") else y


def _channel_distance(x: ms.Tensor) -> ms.Tensor:
    """Return the mean cosine distance [N] of all pairs of channels of x [N, H, W, C].

    The sum of the cosines of all pairs is the squared length of the sum of the channels, each scaled to length 1.
    """
    n, height, width, channels = x.shape
    x = ops.cast(ops.reshape(x, (n, height * width, channels)), ms.float32)
    length = ops.sqrt(ops.sum(ops.square(x), 1))  # [N, C]
    factor = 1 / (ops.maximum(length, _SHORTEST) * channels)
    mean = ops.matmul(x, ops.expand_dims(factor, 2))  # [N, H * W, 1]
    return (1 - ops.sum(ops.square(mean), (1, 2))) / 2


@dataclass(frozen=True)
class LayerDistance:
    """Cosine distances of the channels in one block.

    Attributes:
        layer: prefix of the names of the block's parameters.
        stage, block: numbers of the stage, and of the block in it.
        hidden, hidden_deviation: mean and standard deviation, over the images, of the distance in the hidden layer.
        map, map_deviation: those of the distance in the map of the block.
    """

    layer: str
    stage: int
    block: int
    hidden: float
    hidden_deviation: float
    map: float
    map_deviation: float


@dataclass(frozen=True)
class DrawnMaps:
    """A prepared image [C, H, W] with its path, and the map [channels, h, w] of each stage."""

    path: str
    image: np.ndarray
    maps: Sequence[np.ndarray]


@dataclass(frozen=True)
class FeatureAnalysis:
    """The result of `analyse_files`.

    Attributes:
        name: name of the weights.
        layers: distances of the blocks, from the first block to the last.
        features: pooled features of the images, normalized by the last norm.
        kept: indices of the files that could be read.
        drawn: maps of the first images.
    """

    name: str
    layers: tuple[LayerDistance, ...]
    features: FeatureRows
    kept: tuple[int, ...]
    drawn: tuple[DrawnMaps, ...]


def analyse_files(
    network: BlockFeatures,
    paths: Sequence[str],
    transform: Callable[[bytes], np.ndarray],
    batch_size: int,
    num_drawn: int,
    on_unreadable: Callable[[DataError], None],
    name: str,
) -> FeatureAnalysis:
    """Run a network over image files. The memory does not grow with their number.

    Args:
        network: network in evaluation mode.
        paths: image files.
        transform: maps the bytes of an image file to [C, H, W] float32.
        batch_size: number of images at a time, at most 32.
        num_drawn: number of images whose maps are kept.
        on_unreadable: function that is called with the error of each image that cannot be read.
        name: name of the weights.

    Raises:
        DataError: none of the images can be read.
        UserError: a feature is not finite, or the disk is full.
    """
    batch_size = min(batch_size, len(paths), _MAX_BATCH)
    sums = np.zeros((2, len(network.layers), 2))
    rows, kept, drawn = FeatureRows(network.num_features), [], []
    for images, indices in read_batches(paths, transform, batch_size, on_unreadable, f"analyse {name}"):
        padding = [(0, batch_size - len(images)), (0, 0), (0, 0), (0, 0)]
        distances, features, *maps = network(ms.Tensor(np.pad(images, padding)))
        found = [values.asnumpy()[: len(images)].astype(np.float64) for values in (distances, features)]
        if not all(np.isfinite(values).all() for values in found):
            raise NotFiniteError(f"the features of '{name}' are not finite: its weights hold NaN or infinity")
        sums += found[0].sum(0), np.square(found[0]).sum(0)
        rows.append(found[1])
        if len(drawn) < num_drawn:
            arrays = [values.asnumpy().astype(np.float32) for values in maps]
            of_images = zip(indices[: num_drawn - len(drawn)], images, *arrays)
            drawn += [DrawnMaps(paths[index], image, of_image) for index, image, *of_image in of_images]
        kept += indices
    if not kept:
        raise DataError(f"none of the {len(paths)} images can be read")
    means = sums[0] / len(kept)
    deviations = np.sqrt(np.maximum(sums[1] / len(kept) - np.square(means), 0))
    numbers = np.stack([means, deviations], axis=2).reshape(len(means), 4).tolist()
    layers = tuple(LayerDistance(*layer, *row) for layer, row in zip(network.layers, numbers))
    return FeatureAnalysis(name, layers, rows, tuple(kept), tuple(drawn))


_DISTANCES = ("hidden", "hidden_deviation", "map", "map_deviation")


def write_distances(analyses: Sequence[FeatureAnalysis], path: Union[str, os.PathLike]) -> None:
    """Write a CSV file with a row for each block of each network.

    The depth of the first block is 0, and that of the last block is 1.

    Args:
        analyses: results of one or more networks.
        path: file to write.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("weights", "layer", "stage", "block", "depth", *_DISTANCES, "images"))
    for analysis in analyses:
        for index, layer in enumerate(analysis.layers):
            depth = index / max(1, len(analysis.layers) - 1)
            numbers = (f"{value:.6f}" for value in (depth, *(getattr(layer, name) for name in _DISTANCES)))
            writer.writerow((analysis.name, layer.layer, layer.stage, layer.block, *numbers, len(analysis.kept)))
    atomic_write_text(path, text.getvalue())
