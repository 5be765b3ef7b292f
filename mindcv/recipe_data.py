"""Loaders from a configuration, and the checks of the data before a run begins."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Optional

import numpy as np

from mindcv.config import PREPROCESSING, RunConfig, TrainConfig, ValidateConfig
from mindcv.data import (
    ImageDataset,
    ImageLoader,
    ImageSubset,
    create_dataset,
    create_loader,
    create_pixel_transforms,
    create_transforms,
    imagenet_wordnet_ids,
    is_imagenet_class,
    read_names_for_model,
    set_pixel_limit,
    sub_folders,
)
from mindcv.engine.handover import gives_host_bits
from mindcv.engine.views import crops_per_image
from mindcv.export import is_exported
from mindcv.recipe_checks import check_class_folders, check_num_classes, check_readable
from mindcv.utils.device import runs_on_cpu
from mindcv.utils.distributed import Group
from mindcv.utils.errors import DataError, MissingSplitError, UnknownClassesError, UserError, shorten
from mindcv.utils.logger import logger

__all__ = [
    "HOLDOUT_OPTIONS",
    "PREPROCESSING",
    "build_evaluation_loader",
    "build_probe_training_loader",
    "build_training_loader",
    "counted_classes",
    "find_class_numbers",
    "hands_over_pixels",
    "holdout_digest",
    "holdout_options",
    "num_workers",
    "open_dataset",
]

# Options that decide which images are held out. They are stored with the weights.
HOLDOUT_OPTIONS = ("val_fraction", "seed", "train_split")
_FOLDERS = ("", "imagenet", "folder")


def hands_over_pixels(config: RunConfig) -> bool:
    """Return whether the device normalises and mixes the training images, after the device has been prepared.

    It does so in sink mode, if it gives the bits of the host. On CPU, the host is faster at it.
    """
    if not config.dataset_sink_mode or runs_on_cpu():
        return False
    if gives_host_bits(config.mean, config.std):
        return True
    _say_once("the host normalises the images, because this device rounds in another way")
    return False


def build_training_loader(config: RunConfig, group: Group, as_pixels: bool = False) -> tuple[ImageDataset, ImageLoader]:
    """Build the training data set and the loader that augments its images.

    Args:
        config: of the run.
        group: the processes that share the images.
        as_pixels: whether the batches are `PixelBatch`es, if the loader can make them (see `create_loader`).

    Raises:
        DataError: they are not there, or are not of `num_classes` classes.
    """
    dataset = open_dataset(
        config,
        group,
        "train_split",
        num_aug_repeats=config.aug_repeats,
        val_fraction=config.val_fraction,
        **config.subset("shuffle", "num_samples"),
    )
    check_num_classes(config, dataset)
    check_class_folders(config, dataset, "train_split")
    if config.val_fraction:
        _tell_held_out(config, group, dataset, is_held_out=False)
    if config.val_while_train and not config.val_fraction and group.is_main and _validates_training_images(config):
        logger.warning(
            "validation uses the training images (train_split and val_split are the same folder), so its accuracy says "
            "nothing about other images; --val_fraction 0.1 holds a tenth of them out for validation"
        )
    augmentation = config.subset("auto_augment", "scale", "ratio", "hflip", "vflip", "color_jitter", "interpolation")
    erasing = config.subset("re_prob", "re_scale", "re_ratio", "re_value", "re_max_attempts", "re_count")
    normalization = config.subset("mean", "std", "in_channels")
    transform = create_transforms(
        config.dataset,
        config.image_resize,
        is_training=True,
        separate=config.aug_splits > 0,
        **augmentation,
        **erasing,
        **normalization,
    )
    loader = create_loader(
        dataset,
        is_training=True,
        num_classes=dataset.num_classes(),
        transform=transform,
        separate=config.aug_splits > 0,
        num_aug_splits=config.aug_splits,
        as_pixels=as_pixels and not config.aug_splits,
        num_parallel_workers=num_workers(config),
        num_epochs=config.epoch_size,
        **config.subset("batch_size", "drop_remainder", "skip_corrupt", "python_multiprocessing"),
        **config.subset("mixup", "cutmix", "cutmix_prob", "mixup_mode", "mixup_switch_prob", "mixup_off_epoch"),
        **config.subset("cutmix_minmax", "mixup_group_size"),
    )
    return dataset, loader


def build_evaluation_loader(
    config: RunConfig,
    group: Group,
    class_to_idx: Optional[Mapping[str, int]] = None,
    recorded_digest: str = "",
    takes_pixels: bool = False,
) -> tuple[ImageDataset, ImageLoader]:
    """Build the validation data set and its loader.

    They are the images of `val_split`, or those that training holds out (`val_fraction`).

    Args:
        config: of the run.
        group: the processes that share the images.
        class_to_idx: numbers of the classes as the network learned them; None to number the folders found.
        recorded_digest: `holdout_digest` of the training that a checkpoint comes from; '' when there is none.
        takes_pixels: whether the network prepares the images itself. The loader then decodes them only, and its batches
            have one image.

    Raises:
        DataError: the images are not there, cannot be read, or are not of the network's classes.
    """
    if _is_held_out(config):
        dataset = _create_held_out(config, group, class_to_idx, recorded_digest)
    else:
        dataset = _create_validation_split(config, group, class_to_idx)
    is_held_out = isinstance(dataset.images, ImageSubset)
    check_num_classes(config, dataset)
    if class_to_idx is None:
        check_class_folders(config, dataset, "train_split" if is_held_out else "val_split")
    check_readable(config, dataset, group, "validation")
    if group.is_main and not is_held_out:  # `_tell_held_out` logs the number of held-out images
        _tell_classes_without_images(config, dataset)
    build_loader = _loader_of_pixels if takes_pixels else _loader_without_augmentation
    return dataset, build_loader(config, dataset)


def build_probe_training_loader(config: ValidateConfig, group: Group) -> tuple[ImageDataset, ImageLoader]:
    """Build the data set of the images that a probe learns from, and its loader, which does not augment them.

    They are the images of `train_split` without those that are held out for validation (`val_fraction`).

    Raises:
        UserError: the validation images would be the same.
        DataError: the images are not there or cannot be read.
    """
    val_fraction = config.val_fraction if _is_held_out(config) else 0.0
    if not val_fraction and _validates_training_images(config):
        raise UserError(
            "a probe cannot be measured on the images that it learns from, and train_split and val_split are the same: "
            "give another --val_split, or hold a share of the images out with --val_fraction 0.2"
        )
    try:
        dataset = open_dataset(config, group, "train_split", shuffle=False, val_fraction=val_fraction)
    except MissingSplitError as error:
        raise DataError(
            f"{error.finding}: a probe learns from the training images, so give their folder as --train_split"
        ) from None
    check_num_classes(config, dataset)
    check_class_folders(config, dataset, "train_split")
    check_readable(config, dataset, group, "training")
    return dataset, _loader_without_augmentation(config, dataset)


def _loader_without_augmentation(config: RunConfig, dataset: ImageDataset) -> ImageLoader:
    """Build a loader whose batches hold at most `batch_size` crops, or the crops of one image."""
    num_crops = crops_per_image(getattr(config, "tta", "none"))
    preprocessing = config.subset(*PREPROCESSING)
    return create_loader(
        dataset,
        max(1, config.batch_size // num_crops),
        num_classes=dataset.num_classes(),
        transform=create_transforms(config.dataset, **preprocessing, five_crop=num_crops > 1),
        num_parallel_workers=num_workers(config),
        python_multiprocessing=config.python_multiprocessing,
    )


def _loader_of_pixels(config: RunConfig, dataset: ImageDataset) -> ImageLoader:
    """Build a loader of decoded images, one in a batch. Two workers at most bound the memory that large images take."""
    return create_loader(
        dataset,
        1,
        num_classes=dataset.num_classes(),
        transform=create_pixel_transforms(),
        num_parallel_workers=min(2, config.num_parallel_workers),
    )


def _create_validation_split(
    config: RunConfig, group: Group, class_to_idx: Optional[Mapping[str, int]]
) -> ImageDataset:
    """Build the data set of `val_split`."""
    try:
        return open_dataset(config, group, "val_split", shuffle=config.eval_shuffle, class_indexing=class_to_idx)
    except UnknownClassesError as error:
        raise _of_whose_classes(config, error) from None
    except MissingSplitError as error:
        if not isinstance(config, TrainConfig):
            raise
        raise DataError(
            f"{error.finding}: give the folder of the validation images as --val_split, hold a share of the training "
            "images out with --val_fraction 0.1, or train without validation with --val_while_train False"
        ) from None


def _create_held_out(
    config: RunConfig, group: Group, class_to_idx: Optional[Mapping[str, int]], recorded_digest: str
) -> ImageDataset:
    """Build the data set of the images that training holds out.

    When a checkpoint asks for them, and the data set is another than that of its training but has a folder for
    validation, they are the images of that folder instead.
    """
    is_recorded = config.given.get("val_fraction") == "checkpoint" and not isinstance(config, TrainConfig)
    has_val_split = is_recorded and os.path.isdir(os.path.join(config.data_dir, config.val_split))
    try:
        dataset = open_dataset(
            config,
            group,
            "train_split",
            shuffle=config.eval_shuffle,
            class_indexing=class_to_idx,
            val_fraction=config.val_fraction,
            is_held_out=True,
        )
    except DataError as error:
        if has_val_split:
            dataset = None
        elif is_recorded:
            raise DataError(
                f"{error}; these images are looked at because the checkpoint's training held out val_fraction "
                f"{config.val_fraction:g} of them: give another folder as --val_split"
            ) from None
        elif isinstance(error, UnknownClassesError):
            raise _of_whose_classes(config, error) from None
        else:
            raise
    is_same = dataset is not None and recorded_digest in ("", holdout_digest(dataset))
    if has_val_split and not is_same:
        if group.is_main:
            logger.info(
                "the images that training held out are not in '%s': validation uses its folder '%s'",
                config.data_dir,
                config.val_split,
            )
        return _create_validation_split(config, group, class_to_idx)
    _tell_held_out(config, group, dataset, is_held_out=True)
    if group.is_main and not is_same:
        logger.warning(
            "other images are held out now than in training, because files were added, removed or renamed or an option "
            "changed: the network may have been trained on some of them"
        )
    return dataset


def _of_whose_classes(config: RunConfig, error: UnknownClassesError) -> UnknownClassesError:
    return UnknownClassesError(error.folder, error.names, error.known, _owner_of_classes(config))


def _owner_of_classes(config: RunConfig) -> str:
    if isinstance(config, TrainConfig) or getattr(config, "probe", None):
        return "the training's"
    return "the exported file's" if is_exported(config.ckpt_path) else "the checkpoint's"


def find_class_numbers(config: ValidateConfig, metadata: Mapping[str, Any]) -> Optional[dict[str, int]]:
    """Return the labels of the checkpoint's classes by name, or None if the names are unknown.

    The names come from `class_names_file`, else from the checkpoint. 1000 classes without names are those of
    ImageNet-1k when a class folder is named like one of them.

    Args:
        config: of the run, completed from the checkpoint.
        metadata: the checkpoint's.
    """
    if config.class_names_file:
        own = metadata.get("class_to_idx", {})
        names = read_names_for_model(config.class_names_file, own, config.num_classes)
        return {name: label for label, name in enumerate(names)}
    if "class_to_idx" in metadata:
        return metadata["class_to_idx"]
    folder = os.path.join(config.data_dir, config.train_split if _is_held_out(config) else config.val_split)
    if config.num_classes == 1000 and config.dataset in _FOLDERS and os.path.isdir(folder):
        return _imagenet_numbers(sub_folders(folder))
    return None


def _imagenet_numbers(folders: Sequence[str]) -> Optional[dict[str, int]]:
    """Return the labels of ImageNet's classes by WordNet id if some folders have names of its classes, else None.

    Folders may be named by labels too, as those of ImageNet-V2 are: '0' to '999', whose order as text is another.
    """
    ids = imagenet_wordnet_ids()
    numbers = {int(name): name for name in folders if name.isdecimal() and int(name) < len(ids)}
    if numbers and len(numbers) == len(folders):
        _say_once("the class folders are named by numbers, which are taken for the labels of ImageNet's classes")
        return {numbers.get(label, wordnet_id): label for label, wordnet_id in enumerate(ids)}
    if any(map(is_imagenet_class, folders)):
        return {wordnet_id: label for label, wordnet_id in enumerate(ids)}
    return None


def counted_classes(config: ValidateConfig, dataset: ImageDataset) -> Optional[np.ndarray]:
    """Return the labels that predictions are restricted to: those with images for `restrict_classes`, else None.

    Raises:
        UserError: all images are of one class, which a restricted prediction could not miss.
    """
    if not config.restrict_classes:
        return None
    classes = np.unique(dataset.labels)
    if len(classes) < 2:
        name = dataset.class_names[classes[0]]
        raise UserError(f"restrict_classes needs images of two classes or more, and all are of '{name}'")
    return classes


def holdout_options(config: RunConfig) -> dict[str, Any]:
    """Return the options that decide which images are held out; {} if none are."""
    return config.subset(*HOLDOUT_OPTIONS) if config.val_fraction else {}


def holdout_digest(dataset: ImageDataset) -> str:
    """Return a digest of the choice of held-out images; '' if none are held out."""
    return dataset.images.digest if isinstance(dataset.images, ImageSubset) else ""


def num_workers(config: RunConfig) -> Optional[int]:
    """Return the number of data-loader workers, or None for the loader's default, which needs no message."""
    is_default = config.num_parallel_workers == RunConfig.num_parallel_workers
    return None if is_default and "num_parallel_workers" not in config.given else config.num_parallel_workers


def open_dataset(config: RunConfig, group: Group, split_option: str, **options: Any) -> ImageDataset:
    """Build the data set of the split that the option `split_option` names."""
    set_pixel_limit(config.max_image_pixels)
    try:
        return create_dataset(
            config.dataset,
            _root(config),
            getattr(config, split_option),
            num_shards=group.size,
            shard_id=group.rank,
            download=config.dataset_download,
            seed=config.seed,
            **options,
        )
    except MissingSplitError as error:
        raise error.for_option(split_option) from None


def _root(config: RunConfig) -> Optional[str]:
    """Return the folder of the data set, or None for Fashion-MNIST if no folder is given: it has default folders."""
    is_given = config.given.get("data_dir", "checkpoint") != "checkpoint" or config.data_dir != RunConfig.data_dir
    return config.data_dir if is_given or config.dataset != "fashion_mnist" else None


def _tell_held_out(config: RunConfig, group: Group, dataset: ImageDataset, is_held_out: bool) -> None:
    """Log how many images are held out. `dataset` holds these if `is_held_out`, else the other images."""
    if not group.is_main:
        return
    every, here = dataset.images.images, dataset.images
    counts = np.bincount(every.labels, minlength=dataset.num_classes())
    single = [name for name, count in zip(dataset.class_names, counts) if count == 1]
    num_held_out = len(here) if is_held_out else len(every) - len(here)
    folder = os.path.join(config.data_dir, config.train_split).rstrip(os.sep)
    told = (
        f"{num_held_out} of the {len(every)} images in '{folder}' are held out of training for validation "
        f"(val_fraction {config.val_fraction:g}, seed {config.seed})"
    )
    told += f", but none of class(es) {shorten(single)}, which have one image each" if single else ""
    _say_once(told)


@cache  # the loaders of training and validation would log the same line
def _say_once(message: str) -> None:
    logger.info("%s", message)


def _is_held_out(config: RunConfig) -> bool:
    """Whether validation uses the held-out images.

    A `val_fraction` from a checkpoint gives way to a `val_split` on the command line: the images are then others.
    """
    is_recorded = config.given.get("val_fraction") == "checkpoint"
    return config.val_fraction > 0 and not (is_recorded and config.given.get("val_split") == "command line")


def _validates_training_images(config: RunConfig) -> bool:
    if config.dataset not in _FOLDERS:
        return config.train_split == config.val_split
    folders = [os.path.join(config.data_dir, split) for split in (config.train_split, config.val_split)]
    return os.path.realpath(folders[0]) == os.path.realpath(folders[1])


def _tell_classes_without_images(config: RunConfig, dataset: ImageDataset) -> None:
    counts = np.bincount(dataset.labels, minlength=dataset.num_classes())
    absent = [name for name, count in zip(dataset.class_names, counts) if not count]
    if not absent:
        return
    if isinstance(config, TrainConfig):
        logger.warning("class(es) with training images but no validation images: %s", shorten(absent))
    else:
        there, every = len(counts) - len(absent), len(counts)
        if getattr(config, "restrict_classes", False):
            counted = f"predictions choose among these {there} only (restrict_classes)"
        else:
            counted = f"predictions choose among all {every}"
            if there > 1 and not getattr(config, "probe", None):
                counted += f"; --restrict_classes True restricts them to these {there}"
        told = f"the images are of {there} of {_owner_of_classes(config)} {every} classes"
        told += f", and none is of {shorten(absent, 4)}"
        logger.info("%s; %s", told, counted)
