"""Constants that the whole data package uses."""

from __future__ import annotations

import os
from enum import IntEnum

__all__ = [
    "DATASET_NAMES",
    "DEFAULT_CROP_PCT",
    "DOWNLOADABLE_DATASETS",
    "FASHION_MNIST_SOURCES",
    "FASHION_MNIST_SYSTEM_FOLDER",
    "IMAGENET_DEFAULT_MEAN",
    "IMAGENET_DEFAULT_STD",
    "IMAGENET_INCEPTION_MEAN",
    "IMAGENET_INCEPTION_STD",
    "Purpose",
]

DEFAULT_CROP_PCT = 0.875

# Values for red, green and blue, in the units of pixel values (0..255): 255 times 0.485, 0.456 and 0.406, and 255 times
# 0.229, 0.224 and 0.225. A product such as 0.224 * 255 would be shown as 57.120000000000005.
IMAGENET_DEFAULT_MEAN = [123.675, 116.28, 103.53]
IMAGENET_DEFAULT_STD = [58.395, 57.12, 57.375]
IMAGENET_INCEPTION_MEAN = [0.5 * 255] * 3
IMAGENET_INCEPTION_STD = [0.5 * 255] * 3

# '' and 'folder' are other names of 'imagenet': a folder of images with a sub-folder for each
# class.
DATASET_NAMES = ("imagenet", "folder", "digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "")


# Data sets whose files can be downloaded.
DOWNLOADABLE_DATASETS = ("mnist", "cifar10", "cifar100")

# Debian's package of Fashion-MNIST puts the files there.
FASHION_MNIST_SYSTEM_FOLDER = os.path.join("/usr", "share", "datasets", "fashion-mnist")
# The end of a message: what a user can do to get the files.
FASHION_MNIST_SOURCES = (
    "install Debian's package dataset-fashion-mnist, or copy the files from "
    "https://github.com/zalandoresearch/fashion-mnist"
)


class Purpose(IntEnum):
    """Purpose of a random stream. It is the second integer of the stream's key, after the seed.

    The values are far from 0. So a key of this package never equals a key of another package that has a step number in
    this position.
    """

    ORDER = 0xDA7A0001
    SUBSET = 0xDA7A0002
    AUGMENT = 0xDA7A0003
    MIX = 0xDA7A0004
