"""Adds a network to an ONNX graph, layer by layer from the structure of the network. See decision 0084.

Feature maps are channels-last inside the graph, as in the network. Only the convolutions are channels-first.
"""

from __future__ import annotations

from typing import Callable

import numpy as np
from mindspore import nn

from mindcv.export.onnx_builder import GraphBuilder
from mindcv.models import ConvNeXt, ConvNeXtBlock, ConvNeXtFeatures, ConvNeXtV2Block
from mindcv.models.layers import (
    GELU,
    GRN,
    ChannelsFirst,
    ChannelsLast,
    Dense,
    GlobalAvgPool,
    LayerNorm,
    PatchConv,
    Section,
    StemConv,
)
from mindcv.models.layers.cpu.depthwise import FourierDepthwiseConv
from mindcv.models.layers.depthwise import OperatorDepthwiseConv
from mindcv.models.layers.epsilon import EPSILON
from mindcv.utils.errors import UserError

__all__ = ["OnnxNetwork"]

_FIRST, _LAST = [0, 3, 1, 2], [0, 2, 3, 1]  # permutations to channels-first and to channels-last


class OnnxNetwork:
    """Adds the layers of a network to a graph.

    Args:
        graph: receives the nodes and weights.
        dtype: type that the graph computes in, `numpy.float32` or `numpy.float16`.
    """

    def __init__(self, graph: GraphBuilder, dtype: type):
        self.graph, self.dtype = graph, dtype
        self._writers: dict[type, Callable[[str, nn.Cell, str], str]] = {
            StemConv: self._stem,
            PatchConv: self._patch_conv,
            FourierDepthwiseConv: self._depthwise,
            OperatorDepthwiseConv: self._depthwise,
            LayerNorm: self._layer_norm,
            Dense: self._dense,
            GELU: lambda name, cell, x: self.graph.add("Gelu", x),
            GlobalAvgPool: self._pool,
            ChannelsLast: lambda name, cell, x: x,  # the maps of this graph are channels-last already
            ChannelsFirst: lambda name, cell, x: self.graph.add("Transpose", x, perm=_FIRST),
            nn.Identity: lambda name, cell, x: x,
            ConvNeXtBlock: self._block,
            ConvNeXtV2Block: self._block_v2,
        }

    def add(self, network: nn.Cell, images: str) -> list[str]:
        """Add a ConvNeXt or a ConvNeXtFeatures to the graph.

        Args:
            network: the network.
            images: images [N, C, H, W] of the graph's type.

        Returns:
            The logits or the features, or one map [N, C, H, W] for each stage of a ConvNeXtFeatures.

        Raises:
            UserError: the network holds a layer that is not one of this library, or has no weights.
        """
        x, maps = images, []
        for number, section in enumerate(network.feature):
            x = self._section(f"feature.{number}", section, x)
            if isinstance(network, ConvNeXtFeatures) and number % 2 == 1 and number // 2 in network.out_indices:
                maps.append(self.graph.add("Transpose", x, perm=_FIRST))
        if isinstance(network, ConvNeXt):
            for name in ("pool", "norm", "unpool", "classifier"):
                x = self._layer(name, getattr(network, name), x)
            maps.append(x)
        return maps

    def _section(self, name: str, section: Section, x: str) -> str:
        section.check_weights()
        for number, cell in enumerate(section):
            x = self._layer(f"{name}.{number}", cell, x)
        return x

    def _layer(self, name: str, cell: nn.Cell, x: str) -> str:
        writer = self._writers.get(type(cell))
        if writer is None:
            raise UserError(
                f"layer '{name}' is a {type(cell).__name__}, which the ONNX export does not know: it knows the layers "
                "that a ConvNeXt of this library is made of"
            )
        with self.graph.scope(name):
            return writer(name, cell, x)

    def _weight(self, name: str, array: np.ndarray) -> str:
        return self.graph.weight(name, array.astype(self.dtype))

    def _weights_of(self, name: str, cell: nn.Cell) -> tuple[str, str]:
        """Add the weight and the bias of a convolution."""
        return self._weight(f"{name}.weight", cell.weight.asnumpy()), self._weight(f"{name}.bias", cell.bias.asnumpy())

    def _stem(self, name: str, cell: StemConv, x: str) -> str:
        """Images [N, C, H, W] to [N, h, w, O]."""
        k = cell.kernel_size
        x = self.graph.add("Conv", x, *self._weights_of(name, cell), kernel_shape=[k, k], strides=[k, k])
        return self.graph.add("Transpose", x, perm=_LAST)

    def _patch_conv(self, name: str, cell: PatchConv, x: str) -> str:
        """[N, H, W, I] to [N, h, w, O]."""
        return self._stem(name, cell, self.graph.add("Transpose", x, perm=_FIRST))

    def _depthwise(self, name: str, cell: nn.Cell, x: str) -> str:
        """[N, H, W, C] to the same shape."""
        channels, _, k, _ = cell.weight.shape
        x = self.graph.add("Transpose", x, perm=_FIRST)
        x = self.graph.add(
            "Conv", x, *self._weights_of(name, cell), kernel_shape=[k, k], pads=[k // 2] * 4, group=channels
        )
        return self.graph.add("Transpose", x, perm=_LAST)

    def _layer_norm(self, name: str, cell: LayerNorm, x: str) -> str:
        gamma = self._weight(f"{name}.gamma", cell.gamma.asnumpy())
        beta = self._weight(f"{name}.beta", cell.beta.asnumpy())
        # The statistics are float32 in float16 too: that is the default of the operator (stash_type).
        return self.graph.add("LayerNormalization", x, gamma, beta, axis=-1, epsilon=EPSILON)

    def _dense(self, name: str, cell: Dense, x: str) -> str:
        return self._product(name, cell.weight.asnumpy(), cell.bias.asnumpy(), x)

    def _product(self, name: str, weight: np.ndarray, bias: np.ndarray, x: str) -> str:
        """[..., I] times the transposed weight [O, I], plus the bias [O]."""
        x = self.graph.add("MatMul", x, self._weight(f"{name}.weight", weight.T))
        return self.graph.add("Add", x, self._weight(f"{name}.bias", bias))

    def _pool(self, name: str, cell: GlobalAvgPool, x: str) -> str:
        """[N, h, w, C] to [N, C]."""
        return self.graph.add("ReduceMean", x, self.graph.constant([1, 2], np.int64), keepdims=0)

    def _block(self, name: str, block: ConvNeXtBlock, x: str) -> str:
        """The block of ConvNeXt. LayerScale is a factor on the weight and bias of the last product."""
        y = self._perceptron_start(name, block, x)
        _check_kind(f"{name}.pwconv2", block.pwconv2, Dense)
        gamma = block.gamma_.asnumpy().astype(np.float64)
        weight, bias = gamma[:, None] * block.pwconv2.weight.asnumpy(), gamma * block.pwconv2.bias.asnumpy()
        with self.graph.scope(f"{name}.pwconv2"):
            y = self._product(f"{name}.pwconv2", weight, bias, y)
        return self.graph.add("Add", x, y)

    def _block_v2(self, name: str, block: ConvNeXtV2Block, x: str) -> str:
        """The block of ConvNeXt V2. The shift of GRN is part of the bias of the last product."""
        y = self._perceptron_start(name, block, x)
        _check_kind(f"{name}.grn", block.grn, GRN)
        _check_kind(f"{name}.pwconv2", block.pwconv2, Dense)
        with self.graph.scope(f"{name}.grn"):
            y = self._grn_without_shift(f"{name}.grn", block.grn, y)
        weight = block.pwconv2.weight.asnumpy()
        bias = block.pwconv2.bias.asnumpy() + weight.astype(np.float64) @ block.grn.beta.asnumpy().reshape(-1)
        with self.graph.scope(f"{name}.pwconv2"):
            y = self._product(f"{name}.pwconv2", weight, bias, y)
        return self.graph.add("Add", x, y)

    def _perceptron_start(self, name: str, block: nn.Cell, x: str) -> str:
        """The layers that the blocks of both versions begin with: [N, H, W, C] to [N, H, W, 4C]."""
        for part in ("dwconv", "norm", "pwconv1", "act"):
            x = self._layer(f"{name}.{part}", getattr(block, part), x)
        return x

    def _grn_without_shift(self, name: str, cell: GRN, x: str) -> str:
        """x * (gamma * n + 1) for x [N, H, W, C]. The norms are float32, since sums can overflow in float16."""
        graph = self.graph
        is_half = self.dtype != np.float32
        g = graph.add(
            "ReduceL2", graph.cast(x, np.float32) if is_half else x, graph.constant([1, 2], np.int64), keepdims=1
        )
        mean = graph.add("ReduceMean", g, graph.constant([-1], np.int64), keepdims=1)
        n = graph.add("Div", g, graph.add("Add", mean, graph.constant(EPSILON, np.float32)))
        scale = graph.add("Mul", n, graph.weight(f"{name}.gamma", cell.gamma.asnumpy()))
        scale = graph.add("Add", scale, graph.constant(1, np.float32))
        return graph.add("Mul", x, graph.cast(scale, self.dtype) if is_half else scale)


def _check_kind(name: str, cell: nn.Cell, kind: type) -> None:
    if type(cell) is not kind:
        raise UserError(f"layer '{name}' is a {type(cell).__name__}, and the ONNX export expects a {kind.__name__}")
