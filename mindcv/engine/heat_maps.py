"""Heat maps of what a classifier looks at, by Grad-CAM and Eigen-CAM.

Sources: "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", arXiv 1610.02391, and
"Eigen-CAM: Class Activation Map using Principal Components", arXiv 2008.00299. Decision 0086 says what they leave open.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Union

import mindspore as ms
import numpy as np
from mindspore import nn, ops
from PIL import Image, ImageDraw

from mindcv.engine.contact_sheet import fit_square, join_tiles, restored_pixels, short_paths
from mindcv.engine.fonts import TextPainter, printable
from mindcv.engine.inference import Prediction, read_image
from mindcv.models import ConvNeXtFeatures
from mindcv.utils.checks import check_int, check_name
from mindcv.utils.errors import NotFiniteError
from mindcv.utils.files import atomic_path

__all__ = ["EXPLANATIONS", "HeatMaps", "draw_heat_maps", "eigen_cam", "grad_cam"]

EXPLANATIONS = ("gradcam", "eigencam")
# A gradient through early stages keeps their activations, as in training, so batches are small.
_MAX_BATCH = 8
_TITLES = {"gradcam": "Grad-CAM", "eigencam": "Eigen-CAM"}


def grad_cam(maps: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Return the heat maps [N, H, W] of Grad-CAM in float64: the positive part of a weighted sum of the channels.

    Args:
        maps: feature maps [N, C, H, W].
        gradients: gradients of the score of the class by the maps. The weight of a channel is the mean of its gradient.
    """
    weights = gradients.astype(np.float64).mean(axis=(2, 3))
    return np.maximum(np.einsum("nc,nchw->nhw", weights, maps.astype(np.float64)), 0)


def eigen_cam(maps: np.ndarray) -> np.ndarray:
    """Return the heat maps [N, H, W] of Eigen-CAM in float64: the maps [N, C, H, W] along their main direction.

    The main direction of an image is the first right singular vector of its map as a matrix [H * W, C]. Its sign is
    arbitrary. It is chosen so that the sum of the heat map is not negative.
    """
    n, channels, height, width = maps.shape
    rows = maps.astype(np.float64).reshape(n, channels, height * width).transpose(0, 2, 1)
    left, scales, _ = np.linalg.svd(rows, full_matrices=False)
    heat = left[:, :, 0] * scales[:, :1]  # is the product of the rows and the singular vector
    return np.where(heat.sum(axis=1, keepdims=True) < 0, -heat, heat).reshape(n, height, width)


class HeatMaps:
    """Computes heat maps of a classifier's images.

    The network is cut behind a stage. The front computes the map of the stage, with packed weights if the network is
    packed. Grad-CAM takes the gradient through the rest only, whose blocks need their own weights.

    Args:
        network: a ConvNeXt with a head, in evaluation mode.
        method: one of `EXPLANATIONS`.
        stage: number of the stage, 0 to 3, whose map is explained.

    Raises:
        UserError: an argument is out of its range, or packing has removed weights that the gradient needs.
    """

    def __init__(self, network: nn.Cell, method: str = "gradcam", stage: int = 3):
        self.method = check_name("method", method, EXPLANATIONS)
        self.stage = check_int("stage", stage, 0, 3)
        self.num_classes = network.num_classes
        self.front = ConvNeXtFeatures(network, [stage]).set_train(False)
        self.gradient = _ScoreGradient(network, stage) if self.method == "gradcam" else None

    @property
    def title(self) -> str:
        """Name of the method and of the map, for a picture."""
        return f"{_TITLES[self.method]} on the map of stage {self.stage}"

    def compute(self, images: np.ndarray, classes: Sequence[int]) -> np.ndarray:
        """Return the heat maps [N, h, w] in float64, where h and w are the sides of the stage's map.

        Args:
            images: prepared images [N, C, H, W].
            classes: the class of each image whose score Grad-CAM explains. Eigen-CAM does not depend on it.

        Raises:
            UserError: a heat map is not finite.
        """
        (maps,) = self.front(ms.Tensor(images))
        if self.gradient is None:
            heat = eigen_cam(_checked(maps))
        else:
            is_chosen = np.eye(self.num_classes, dtype=np.float32)[list(classes)]
            heat = grad_cam(_checked(maps), _checked(self.gradient(maps, ms.Tensor(is_chosen))))
        return heat


def _checked(values: ms.Tensor) -> np.ndarray:
    array = values.asnumpy()
    if not np.isfinite(array).all():
        raise NotFiniteError(
            "the network's feature maps or their gradients are not finite: its weights hold NaN or infinity"
        )
    return array


class _ScoreGradient(nn.Cell):
    """Maps the map of a stage [N, C, h, w] and one-hot classes [N, K] to the gradient of each image's score.

    The images of a batch do not depend on one another, so the gradient of the sum of their scores has all gradients.
    """

    def __init__(self, network: nn.Cell, stage: int):
        super().__init__(auto_prefix=False)
        sections = list(network.feature)[2 * stage + 2 :]
        for section in sections:
            section.check_weights()
        # A packed section has no gradient, but its blocks have one.
        self.rest = nn.CellList([cell for section in sections for cell in section], auto_prefix=False)
        self.network = network
        self.gradient = ms.grad(self.score)

    def score(self, maps: ms.Tensor, is_chosen: ms.Tensor) -> ms.Tensor:
        """Return the sum of the scores of the chosen classes."""
        x = ops.transpose(maps, (0, 2, 3, 1))
        for cell in self.rest:
            x = cell(x)
        logits = self.network.forward_head(ops.transpose(x, (0, 3, 1, 2)))
        return ops.sum(ops.cast(logits, ms.float32) * is_chosen)

    def construct(self, maps: ms.Tensor, is_chosen: ms.Tensor) -> ms.Tensor:
        return self.gradient(maps, is_chosen)


def draw_heat_maps(
    predictions: Sequence[Prediction],
    heat_maps: HeatMaps,
    transform: Callable[[bytes], np.ndarray],
    mean: Sequence[float],
    std: Sequence[float],
    batch_size: int,
    path: Union[str, os.PathLike],
) -> None:
    """Draw each image as the network gets it, without and with the heat map of its most probable class.

    Args:
        predictions: images and classes, at least one.
        heat_maps: see `HeatMaps`.
        transform: an image file's bytes to [C, H, W] float32.
        mean, std: normalisation that `transform` ends with, on the scale from 0 to 255.
        batch_size: number of images at a time, at most 8.
        path: of the picture.

    Raises:
        DataError: an image cannot be read any more. The message names the image.
        UserError: a heat map is not finite.
    """
    captions = short_paths([prediction.path for prediction in predictions])
    tiles = []
    for prediction, image, heat in _explained(predictions, heat_maps, transform, batch_size):
        pixels = restored_pixels(image[None], mean, std)[0]
        tiles.append(_tile(prediction, captions[len(tiles)], pixels, heat))
    columns = max(1, round(math.sqrt(len(tiles) / 1.2)))
    sheet = join_tiles(tiles, columns)
    with atomic_path(path) as side:
        _with_header(sheet, heat_maps.title).save(side)


def _explained(
    predictions: Sequence[Prediction], heat_maps: HeatMaps, transform: Callable[[bytes], np.ndarray], batch_size: int
) -> Iterator[tuple[Prediction, np.ndarray, np.ndarray]]:
    """Yield each prediction with its prepared image [C, H, W] and its heat map [h, w]. Batches have one size."""
    batch_size = min(batch_size, len(predictions), _MAX_BATCH)
    for first in range(0, len(predictions), batch_size):
        batch = predictions[first : first + batch_size]
        images = np.stack([read_image(prediction.path, transform) for prediction in batch])
        padding = [(0, batch_size - len(batch)), (0, 0), (0, 0), (0, 0)]
        classes = [prediction.indices[0] for prediction in batch] + [0] * padding[0][1]
        yield from zip(batch, images, heat_maps.compute(np.pad(images, padding), classes))


_SIDE, _MARGIN, _LINE, _GAP = 176, 12, 20, 4
_BAR = 80  # width of the scale of colours
# Colours from the lowest to the highest value of a heat map.
_COLOURS = np.array([(48, 18, 120), (40, 120, 230), (50, 200, 140), (245, 210, 50), (220, 40, 20)], np.float64)
_OPACITY = 0.6


def _coloured(heat: np.ndarray) -> np.ndarray:
    """Return the colours [..., 3] of values from 0 to 1."""
    places = np.linspace(0, 1, len(_COLOURS))
    return np.stack([np.interp(heat, places, _COLOURS[:, channel]) for channel in range(3)], axis=-1)


def _overlaid(image: Image.Image, heat: np.ndarray) -> Image.Image:
    """Lay a heat map [h, w] over an image. Its lowest value gets the first colour and its highest value the last."""
    spread = heat.max() - heat.min()
    # A constant map differs by rounding only, which must not look like a result.
    is_constant = spread <= 1e-5 * np.abs(heat).max()
    scaled = np.zeros_like(heat) if is_constant else (heat - heat.min()) / spread
    # Pillow puts the centre of each cell where the cell is in the image.
    smooth = Image.fromarray(scaled.astype(np.float32)).resize(image.size, Image.Resampling.BILINEAR)
    grey = np.asarray(image.convert("L"), np.float64)[..., None]
    mixed = (1 - _OPACITY) * grey + _OPACITY * _coloured(np.asarray(smooth))
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def _tile(prediction: Prediction, caption: str, pixels: np.ndarray, heat: np.ndarray) -> Image.Image:
    """Draw one image twice, the second time with its heat map, below its file name and its class."""
    width = 2 * _SIDE + _GAP
    tile = Image.new("RGB", (width + 2 * _MARGIN, 2 * _LINE + _SIDE + 2 * _MARGIN), "white")
    draw, painter = ImageDraw.Draw(tile), TextPainter(13)
    painter.draw(draw, (_MARGIN, _MARGIN // 2), painter.shortened(printable(caption), width, keep_end=True), "#666666")
    share = f" {100 * prediction.probabilities[0]:.1f}%"
    name = painter.shortened(printable(prediction.names[0]), width - painter.width(share))
    painter.draw(draw, (_MARGIN, _MARGIN // 2 + _LINE), name + share, "black")
    image = fit_square(Image.fromarray(pixels), _SIDE)
    top = _MARGIN // 2 + 2 * _LINE
    tile.paste(image, (_MARGIN, top))
    tile.paste(_overlaid(image, heat), (_MARGIN + _SIDE + _GAP, top))
    return tile


def _with_header(sheet: Image.Image, title: str) -> Image.Image:
    """Put the title and the colours above a sheet, on one line if it is wide enough."""
    painter = TextPainter(13)
    low, high = "lowest value", "highest value of an image"
    title_width, low_width = math.ceil(painter.width(title)), math.ceil(painter.width(low))
    scale_width = low_width + _BAR + math.ceil(painter.width(high)) + 2 * _MARGIN
    fits = 3 * _MARGIN + title_width + scale_width <= sheet.width
    x, y = (2 * _MARGIN + title_width, _MARGIN) if fits else (_MARGIN, _MARGIN + _LINE)
    whole = Image.new("RGB", (sheet.width, sheet.height + y + _LINE + 8), "white")
    draw = ImageDraw.Draw(whole)
    painter.draw(draw, (_MARGIN, _MARGIN), title, "black")
    painter.draw(draw, (x, y), low, "#666666")
    x += low_width + _MARGIN
    bar = np.broadcast_to(_coloured(np.linspace(0, 1, _BAR)), (12, _BAR, 3))
    whole.paste(Image.fromarray(np.rint(bar).astype(np.uint8)), (x, y + 2))
    painter.draw(draw, (x + _BAR + _MARGIN, y), high, "#666666")
    whole.paste(sheet, (0, whole.height - sheet.height))
    return whole
