"""Checks of the data of a run before it begins."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from mindcv.config import RunConfig
from mindcv.data import ImageDataset, find_unreadable, sub_folders, why_unreadable
from mindcv.utils.distributed import Group
from mindcv.utils.errors import DataError, shorten
from mindcv.utils.logger import logger

__all__ = ["check_class_folders", "check_num_classes", "check_readable"]

# Names of folders that usually hold a split of a data set and not a class.
_SPLIT_NAMES = {"train", "training", "val", "valid", "validation", "test", "testing"}
_MAX_DEPTH = 5


def check_num_classes(config: RunConfig, dataset: ImageDataset) -> None:
    """Raise a `DataError` if the configuration or the checkpoint has another number of classes than the data set."""
    found = dataset.num_classes()
    if config.num_classes is None or config.num_classes == found:
        return
    has = f"the data set in '{config.data_dir}' has {found} classes: {shorten(dataset.class_names, 4)}"
    if config.given.get("num_classes") == "checkpoint":
        raise DataError(
            f"'{config.ckpt_path}' has {config.num_classes} classes without names, but {has}; give the names of these "
            "classes in the order of its logits, one a line, as --class_names_file (folders of ImageNet's "
            "classes need none when their names are WordNet ids)"
        )
    raise DataError(
        f"num_classes is {config.num_classes}, but {has}; leave num_classes out, of the recipe too, to train on these"
    )


def check_class_folders(config: RunConfig, dataset: ImageDataset, option: str) -> None:
    """Raise a `DataError` if the folders cannot be classes: a single folder, or the splits of a data set.

    Args:
        config: of the run.
        dataset: whose folders were numbered as they were found.
        option: the one that names the split.
    """
    names = dataset.class_names
    is_of_splits = set(name.lower() for name in names) <= _SPLIT_NAMES
    if len(names) > 1 and not is_of_splits:
        return
    folder = os.path.join(config.data_dir, getattr(config, option)).rstrip(os.sep)
    found = f"'{folder}' holds the folder(s) {shorten(names)}"
    wrong = "which are splits and not classes" if is_of_splits else "and a classifier needs two classes or more"
    raise DataError(f"{found}, {wrong}{_advice(folder, names, option)}")


def _advice(folder: str, names: Sequence[str], option: str) -> str:
    """Guess where the class folders are: the first folder below `folder` that has splits or several folders."""
    place, below = folder, list(names)
    for _ in range(_MAX_DEPTH):
        splits = [name for name in below if name.lower() in _SPLIT_NAMES]
        if splits:
            split = min(splits, key=lambda name: name[:3].lower() != option[:3])  # 'train' for train_split
            inner, place = os.path.join(place, split), shlex.quote(place)
            found = f"; '{inner}' has the folders {shorten(sub_folders(inner), 4)}"
            return f"{found}: try --data_dir {place} --{option} {split}"
        if len(below) > 1:
            found = f"; '{place}' has the folders {shorten(below, 4)}"
            return f"{found}: try --data_dir {shlex.quote(place)} --{option} ''"
        place = os.path.join(place, below[0])
        below = sub_folders(place)
        if not below:
            break
    return "; there are no other folders of classes below it"


def check_readable(config: RunConfig, dataset: ImageDataset, group: Group, kind: str) -> None:
    """Check that images can be read, so that they do not end a run after hours of work. `kind` names the images.

    Raises:
        DataError: there are some, in all processes alike. With `skip_corrupt`, they are left out instead.
    """
    if config.check_val_images == "off":
        return
    # An image that is damaged behind its header can only be left out if it was decoded before.
    whole = config.check_val_images == "full" or config.skip_corrupt
    bad = find_unreadable(dataset, group, whole)
    if not bad:
        return
    listed = "; ".join(f"'{dataset.describe(index)}': {why_unreadable(dataset, index, whole)}" for index in bad[:8])
    listed += f"; and {len(bad) - 8} more" if len(bad) > 8 else ""
    told = f"{len(bad)} of the {len(dataset)} {kind} images cannot be read: {listed}"
    if not config.skip_corrupt or len(bad) == len(dataset):
        raise DataError(f"{told} (--skip_corrupt True leaves such images out)")
    if group.is_main:
        logger.warning("%s; validation leaves them out", told)
    dataset.leave_out(bad)
