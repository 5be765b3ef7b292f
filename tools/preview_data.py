"""Draw the images that a recipe's training loader gives to the network, with their labels.

    python tools/preview_data.py --config RECIPE --picture sheet.png [--num_images 32] [--epoch 0] [--option value ...]

The tool accepts every option of `train.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import ClassVar

import numpy as np
import own_mindcv  # noqa: F401
from PIL import Image, ImageDraw

from mindcv.config import TrainConfig, option
from mindcv.data import ImageLoader
from mindcv.engine.fonts import TextPainter, printable
from mindcv.recipe import build_training_loader, read_config
from mindcv.utils.cli import run_script
from mindcv.utils.distributed import Group
from mindcv.utils.files import atomic_path
from mindcv.utils.logger import counted

_preview = partial(option, group="Preview")


@dataclass
class PreviewConfig(TrainConfig):
    """Draw training images as the network gets them: python tools/preview_data.py --config RECIPE.yaml --picture FILE

    Each image has its label below it. A mixed image has several labels with their weights. All options of train.py are
    accepted, so the options of a training command can be tried here.
    """

    picture: str = _preview("", "picture file to draw the images to, for example sheet.png")
    num_images: int = _preview(32, "number of images to draw; an epoch with fewer images is drawn whole", low=1)
    epoch: int = _preview(0, "epoch whose first images are drawn, counted from 0", low=0)
    required: ClassVar[Mapping[str, str]] = {"picture": "required"}
    outputs: ClassVar[Sequence[str]] = ("picture",)


@dataclass(frozen=True)
class Sample:
    """One image, uint8 [H, W, C], and the lines of text below it."""

    image: np.ndarray
    lines: tuple[str, ...]


def main() -> None:
    config = read_config(PreviewConfig)
    dataset, loader = build_training_loader(config, Group())
    samples = read_samples(loader, config.epoch, dataset.class_names, config.mean, config.std)
    sheet, number = draw_sheet(list(islice(samples, config.num_images)))
    with atomic_path(config.picture) as side:
        sheet.save(side)
    print(
        f"{config.picture}: {counted(number, 'image')} of epoch {config.epoch}, {sheet.width} x {sheet.height} pixels"
    )


def read_samples(
    loader: ImageLoader, epoch: int, class_names: Sequence[str], mean: Sequence[float], std: Sequence[float]
) -> Iterator[Sample]:
    """Yield the images of one epoch in the order of the loader.

    With augmentation splits, the versions of an image follow one another.

    Args:
        loader: training loader.
        epoch: index of the epoch, from 0.
        class_names: name of each class, by label.
        mean, std: mean and standard deviation of the normalisation, which is undone. Results outside 0..255 are
            clipped.
    """
    mean, std = (np.reshape(np.asarray(values, np.float32), (1, 1, -1)) for values in (mean, std))
    splits = loader.num_aug_splits
    for images, labels in loader.batches(epoch):
        levels = np.rint(images.transpose(0, 2, 3, 1) * std + mean).clip(0, 255).astype(np.uint8)
        # The rows are ordered by version, then by sample.
        for row in np.arange(len(levels)).reshape(splits, -1).T.ravel():
            version = row * splits // len(levels)
            note = () if splits == 1 else ("clean" if version == 0 else f"augmented, {version} of {splits - 1}",)
            yield Sample(levels[row], (*label_lines(labels[row], class_names), *note))


def label_lines(label: np.ndarray, class_names: Sequence[str]) -> tuple[str, ...]:
    """Return the name of a label's class. For a soft label, return its classes with their weights, largest first."""
    if np.ndim(label) == 0:
        return (class_names[int(label)],)
    order = [index for index in np.argsort(-label, kind="stable") if label[index] > 0.5e-2]
    if len(order) == 1:
        return (class_names[order[0]],)
    return tuple(f"{label[index]:.2f} {class_names[index]}" for index in order)


_SIDE, _MARGIN, _GAP, _LINE = 128, 8, 2, 16


def draw_sheet(samples: Sequence[Sample]) -> tuple[Image.Image, int]:
    """Draw the samples in rows, from left to right. Return the sheet, which is roughly square, and their number."""
    painter = TextPainter(12)
    tiles = [_enlarged(sample.image) for sample in samples]
    width = max(tile.width for tile in tiles) + 2 * _MARGIN
    picture_height = max(tile.height for tile in tiles) + _GAP
    height = picture_height + _LINE * max(len(sample.lines) for sample in samples) + 2 * _MARGIN
    columns = min(len(tiles), math.ceil(math.sqrt(len(tiles) * height / width)))
    sheet = Image.new("RGB", (columns * width, math.ceil(len(tiles) / columns) * height), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (tile, sample) in enumerate(zip(tiles, samples)):
        left, top = index % columns * width + _MARGIN, index // columns * height + _MARGIN
        sheet.paste(tile, (left, top))
        for number, line in enumerate(sample.lines):
            text = painter.shortened(printable(line), width - 2 * _MARGIN)
            painter.draw(draw, (left, top + picture_height + number * _LINE), text, "black")
    return sheet, len(tiles)


def _enlarged(pixels: np.ndarray) -> Image.Image:
    """Enlarge an image by a whole factor to at least `_SIDE` pixels, so that the network's own pixels are visible."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    factor = math.ceil(_SIDE / min(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


if __name__ == "__main__":
    run_script(main)
