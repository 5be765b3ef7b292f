"""Pictures of what a masked autoencoder reconstructs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Union

import mindspore as ms
import numpy as np
from mindspore import nn
from PIL import Image, ImageDraw

from mindcv.convert import weight_parameters
from mindcv.engine.callbacks import Callback
from mindcv.engine.compiling import say_compiling
from mindcv.engine.contact_sheet import restored_pixels
from mindcv.engine.fonts import TextPainter
from mindcv.engine.progress import RunProgress
from mindcv.utils.files import atomic_path
from mindcv.utils.logger import logger

__all__ = ["Reconstructions", "draw_reconstructions", "join_patches", "split_patches"]

_COLUMNS = ("original", "masked", "reconstructed", "pasted")
_GREY = 128  # colour of a removed patch
_MIN_SIDE, _GAP, _HEADER = 112, 4, 22


class Reconstructions(Callback):
    """Draws `reconstruction-<epoch>.png` every `interval` epochs and after the last epoch.

    Args:
        folder: folder of the pictures, which must exist.
        interval: number of epochs between two pictures.
        trained: the masked autoencoder in training, whose weights are used.
        network: another one of the same shape, which computes the pictures: the trained network stays as compiled.
        images: normalised images [N, C, H, W].
        masks: [N, L], see `FCMAE.construct`.
        mean, std: normalisation of each channel, on the scale from 0 to 255.
    """

    def __init__(
        self,
        folder: Path,
        interval: int,
        trained: nn.Cell,
        network: nn.Cell,
        images: np.ndarray,
        masks: np.ndarray,
        mean: Sequence[float],
        std: Sequence[float],
    ):
        self.folder = folder
        self.interval = interval
        self.trained = trained
        self.network = network.set_train(False)
        self.images = images
        self.masks = masks
        self.mean = mean
        self.std = std
        self._has_compiled = False

    def on_epoch_end(self, progress: RunProgress) -> None:
        """Draw the picture, when it is due."""
        if progress.epoch % self.interval and not progress.is_last_epoch:
            return
        weights = weight_parameters(self.trained)
        for name, parameter in weight_parameters(self.network).items():
            parameter.set_data(weights[name].value())
        if not self._has_compiled:
            say_compiling("the network for pictures")
            self._has_compiled = True
        _, predicted = self.network(ms.Tensor(self.images), ms.Tensor(self.masks))
        path = self.folder / f"reconstruction-{progress.epoch}.png"
        normalises = self.network.norm_pix_loss
        draw_reconstructions(
            self.images, self.masks, predicted.asnumpy().astype(np.float32), self.mean, self.std, normalises, path
        )
        if progress.is_last_epoch:
            logger.info("saved %s", path)


def draw_reconstructions(
    images: np.ndarray,
    masks: np.ndarray,
    predicted: np.ndarray,
    mean: Sequence[float],
    std: Sequence[float],
    normalises: bool,
    path: Union[str, os.PathLike],
) -> None:
    """Draw a row for each image: the image, what the encoder sees, the prediction, and the prediction pasted into it.

    Args:
        images: normalised images [N, C, H, W].
        masks: [N, L], 1 for a removed patch.
        predicted: [N, L, patch * patch * C], see `FCMAE.construct`.
        mean, std: normalisation of each channel, on the scale from 0 to 255.
        normalises: whether the values of each patch were predicted less their mean and divided by their deviation. The
            picture then takes both from the image, because the network does not predict them.
        path: of the picture.
    """
    patch = round((predicted.shape[2] / images.shape[1]) ** 0.5)
    patches = split_patches(images, patch)
    if normalises:
        deviation = np.sqrt(patches.var(-1, keepdims=True, ddof=1) + 1e-6)
        predicted = predicted * deviation + patches.mean(-1, keepdims=True)
    is_removed = masks[..., None] > 0
    grey = split_patches(np.broadcast_to((_GREY - _by_channel(mean)) / _by_channel(std), images.shape), patch)
    pasted = np.where(is_removed, predicted, patches)
    rows = [patches, np.where(is_removed, grey, patches), predicted, pasted]
    columns = [restored_pixels(join_patches(each, images.shape), mean, std) for each in rows]
    _save_sheet(columns, path)


def split_patches(images: np.ndarray, patch: int) -> np.ndarray:
    """[N, C, H, W] to patches [N, L, patch * patch * C], whose values are ordered by row, column and channel."""
    n, channels, height, width = images.shape
    cut = images.reshape(n, channels, height // patch, patch, width // patch, patch)
    return cut.transpose(0, 2, 4, 3, 5, 1).reshape(n, -1, patch * patch * channels)


def join_patches(patches: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The inverse of `split_patches`, to images of `shape` [N, C, H, W]."""
    n, channels, height, width = shape
    patch = round((patches.shape[2] / channels) ** 0.5)
    cut = patches.reshape(n, height // patch, width // patch, patch, patch, channels)
    return cut.transpose(0, 5, 1, 3, 2, 4).reshape(shape)


def _by_channel(values: Sequence[float]) -> np.ndarray:
    return np.asarray(values, np.float32)[:, None, None]


def _save_sheet(columns: Sequence[np.ndarray], path: Union[str, os.PathLike]) -> None:
    height, width = columns[0].shape[1:3]
    scale = max(1, -(-_MIN_SIDE // min(height, width)))  # whole, so that small images keep their pixels visible
    side_x, side_y = width * scale + _GAP, height * scale + _GAP
    sheet = Image.new("RGB", (len(columns) * side_x + _GAP, _HEADER + len(columns[0]) * side_y + _GAP), "white")
    draw, painter = ImageDraw.Draw(sheet), TextPainter(13)
    for column, (name, images) in enumerate(zip(_COLUMNS, columns)):
        painter.draw(draw, (_GAP + column * side_x, _GAP), name, "black")
        for row, image in enumerate(images):
            tile = Image.fromarray(np.ascontiguousarray(image)).resize((width * scale, height * scale), 0)
            sheet.paste(tile, (_GAP + column * side_x, _HEADER + row * side_y))
    with atomic_path(path) as side:
        sheet.save(side)
