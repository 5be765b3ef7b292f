"""Data sets, transforms and loaders: the way from image files to batches."""

from __future__ import annotations

from mindcv.data.auto_augment import create_auto_augment
from mindcv.data.class_names import (
    imagenet_class_names,
    imagenet_wordnet_ids,
    is_imagenet_class,
    match_classes,
    read_class_names,
    read_names_for_model,
)
from mindcv.data.constants import (
    DEFAULT_CROP_PCT,
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_INCEPTION_MEAN,
    IMAGENET_INCEPTION_STD,
)
from mindcv.data.dataset import ImageDataset
from mindcv.data.dataset_factory import create_dataset, get_dataset_download_root
from mindcv.data.holdout import ImageSubset
from mindcv.data.image_files import IMAGE_SUFFIXES, find_images, images_in_folder, sub_folders
from mindcv.data.image_io import decode, set_pixel_limit
from mindcv.data.loader import ImageLoader, create_loader
from mindcv.data.readable import UnreadableImages, find_unreadable, find_unreadable_files, why_unreadable
from mindcv.data.real_labels import RealLabels, read_real_labels
from mindcv.data.splits import SplitTransforms
from mindcv.data.transform_base import Compose
from mindcv.data.transforms_factory import (
    create_pixel_transforms,
    create_transforms,
    transforms_imagenet_eval,
    transforms_imagenet_train,
)

__all__ = [
    "Compose",
    "DEFAULT_CROP_PCT",
    "IMAGENET_DEFAULT_MEAN",
    "IMAGENET_DEFAULT_STD",
    "IMAGENET_INCEPTION_MEAN",
    "IMAGENET_INCEPTION_STD",
    "IMAGE_SUFFIXES",
    "ImageDataset",
    "ImageLoader",
    "ImageSubset",
    "RealLabels",
    "SplitTransforms",
    "UnreadableImages",
    "create_auto_augment",
    "create_dataset",
    "create_loader",
    "create_pixel_transforms",
    "create_transforms",
    "decode",
    "find_images",
    "images_in_folder",
    "find_unreadable",
    "find_unreadable_files",
    "get_dataset_download_root",
    "imagenet_class_names",
    "imagenet_wordnet_ids",
    "is_imagenet_class",
    "match_classes",
    "read_class_names",
    "read_names_for_model",
    "read_real_labels",
    "set_pixel_limit",
    "sub_folders",
    "transforms_imagenet_eval",
    "transforms_imagenet_train",
    "why_unreadable",
]
