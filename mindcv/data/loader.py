"""The loader: makes batches of a data set, for this library's trainer and for MindSpore's.

Decision 0041 says why the two trainers read the loader in different ways.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Optional, Union

import mindspore.dataset as ds
import numpy as np

from mindcv.data.batches import Batch, BatchMaker, EpochView, SampleReader
from mindcv.data.dataset import ImageDataset
from mindcv.data.foreign import as_image_dataset
from mindcv.data.mixup import Mixup, group_size_problem
from mindcv.data.pixel_batches import PixelBatchMaker
from mindcv.data.pixel_transform import PixelTransform
from mindcv.data.prefetch import MULTIPROCESSING_MODES, Prefetcher
from mindcv.data.sampler import epoch_order
from mindcv.data.splits import Splitter, SplitTransforms
from mindcv.data.transform_base import Compose
from mindcv.data.transforms_factory import create_transforms
from mindcv.utils.checks import check_flags, check_int, check_not_negative, shown
from mindcv.utils.errors import DataError, UserError
from mindcv.utils.logger import counted, logger

__all__ = ["ImageLoader", "check_loader", "create_loader"]

# The default of MindSpore. More workers gain little for one device, and each worker needs memory.
_DEFAULT_WORKERS = 8

# Default number of versions of an image: one clean and two augmented, as in MindCV and the paper of
# AugMix.
_DEFAULT_SPLITS = 3


class ImageLoader(ds.GeneratorDataset):
    """Makes batches of images and labels. `create_loader` returns it.

    Use `batches` to read one epoch: errors are exact, memory is bounded, and an epoch can start at any batch. The
    loader is also a `mindspore.dataset.GeneratorDataset` with the columns 'image' and 'label', so
    `mindspore.Model.train` and MindSpore's iterators accept it. They begin with the epoch of `set_epoch`, and each
    round reads the next epoch. Both ways give the same bits, for any number of workers, threads or processes.
    """

    def __init__(self, maker: BatchMaker, num_workers: int, multiprocessing: Union[bool, str], num_epochs: int = 0):
        super().__init__(
            EpochView(maker),
            ["image", "label"],
            num_parallel_workers=num_workers,
            python_multiprocessing=multiprocessing is True,
            shuffle=False,
        )
        # MindSpore makes deep copies of a data set, but not of its source. So objects with locks or
        # files belong into the source.
        self.source.prefetcher = Prefetcher(maker, num_workers, multiprocessing, num_epochs)
        self.dataset_size = maker.num_batches

    def parse(self, children=None):  # noqa: ANN001, ANN201
        """Give each iterator its own epoch counter. MindSpore calls this on a copy of the loader for each iterator."""
        if isinstance(self._maker, PixelBatchMaker):
            raise UserError("a loader with as_pixels=True has no columns for MindSpore: read its `batches()`")
        self.source = EpochView(self._maker, self.source.epoch)
        return super().parse(children)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """Return an iterator over the batches of one epoch, beginning with batch `start`. Earlier batches are not made.

        Yields:
            Images, float32 [B, C, H, W], and labels, int32 [B], or float32 [B, num_classes] after mixup. With S splits
            there are S * B rows, one split after the other. With five crops, the images are [B, 5, C, H, W]. With
            `as_pixels`, a `PixelBatch` instead.

        Raises:
            DataError: an image is corrupt. The message names it.
        """
        self.set_epoch(epoch)
        return self.source.prefetcher.batches(epoch, start)

    def close(self) -> None:
        """End the workers, which otherwise live as long as the loader. The next epoch starts others."""
        self.source.prefetcher.close()

    def sample_order(self, epoch: int = 0) -> np.ndarray:
        """Return the indices of the samples that all ranks together read in an epoch, in the order of one process.

        It is for evaluation, where each sample occurs once. Sample i of the result goes to rank i % size.
        """
        dataset = self._maker.dataset
        options = {"seed": dataset.seed, "epoch": epoch, "shuffle": dataset.shuffle, "num_repeats": 0}
        return epoch_order(len(dataset), np.arange(len(dataset)), **options)[:, 0]

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch with which new iterators begin. Order and augmentation depend on the epoch."""
        self.source.epoch = epoch

    def get_batch_size(self) -> int:
        """Return the number of samples in a batch, without their splits. The last batch of an epoch may be smaller."""
        return self._maker.batch_size

    @property
    def drop_remainder(self) -> bool:
        """Whether a smaller last batch is left out."""
        return self._maker.drop_remainder

    @property
    def num_aug_splits(self) -> int:
        """Number of versions of each sample in a batch; 1 without splits."""
        return self._maker.num_splits

    def num_classes(self) -> int:
        """Return the number of classes of the data set, which may be smaller than the model's."""
        return self._maker.dataset.num_classes()

    @property
    def num_corrupt(self) -> int:
        """Number of replacements of corrupt images so far (`skip_corrupt`). An image counts each time."""
        return self._maker.num_replaced

    def __repr__(self) -> str:
        maker = self._maker
        return (
            f"ImageLoader({maker.num_batches} batches of {maker.batch_size}, {self.num_parallel_workers} workers, "
            f"dataset={maker.dataset!r})"
        )

    @property
    def _maker(self) -> BatchMaker:
        # The source holds it, and not the loader, because MindSpore makes deep copies of the
        # loader.
        return self.source.maker


def create_loader(
    dataset: Union[ImageDataset, ds.GeneratorDataset, ds.ImageFolderDataset, Sequence],
    batch_size: int,
    drop_remainder: bool = False,
    is_training: bool = False,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    cutmix_prob: float = 0.0,
    num_classes: int = 1000,
    transform: Optional[Union[Callable, Sequence[Callable], SplitTransforms]] = None,
    target_transform: Optional[Union[Callable, Sequence[Callable]]] = None,
    num_parallel_workers: Optional[int] = None,
    python_multiprocessing: Union[bool, str] = False,
    separate: bool = False,
    *,
    skip_corrupt: bool = False,
    num_aug_splits: int = 0,
    mixup_switch_prob: float = 0.5,
    mixup_mode: str = "batch",
    cutmix_minmax: Optional[Sequence[float]] = None,
    mixup_off_epoch: int = 0,
    mixup_group_size: Optional[int] = None,
    num_epochs: int = 0,
    as_pixels: bool = False,
) -> ImageLoader:
    """Create a loader of batches.

    The data set determines whether samples are shuffled, sharded and repeated. In training the shards are padded to
    equal length, and the ranks read in turn the batches that one rank would read. In evaluation each sample goes to
    exactly one rank, unless the data set repeats samples.

    Args:
        dataset: data set of `create_dataset`; or MindSpore's `GeneratorDataset` or `ImageFolderDataset`, before any
            `map` and `batch`; or an object with `__len__` whose `__getitem__` returns (image, label), which is shuffled
            in training. See docs/how-to/own_data.md.
        batch_size: number of samples in a batch.
        drop_remainder: whether to leave out a smaller last batch.
        is_training: whether the loader is for training (see above).
        mixup, cutmix: alphas of `Mixup`; 0 turns each off. In evaluation nothing is mixed, and a warning says so.
        cutmix_prob: probability of mixing, by mixup or CutMix; the name is MindCV's. With 0 nothing is mixed, and a
            warning says so, but the labels have the form of mixed labels.
        num_classes: number of classes of the model. It is the width of mixed labels, and labels must be smaller.
        transform: callable or list of callables for the contents of an image file. None uses `create_transforms` with
            224 pixels. With splits it must be the result of `create_transforms(separate=True)`.
        target_transform: callable or list of callables for the label, such as `mindspore.dataset.transforms.OneHot`.
            Mixing needs a result that is a class number or `num_classes` probabilities.
        num_parallel_workers: number of data-loader workers. None uses the data set's number, or 8. It is limited to
            the number of cores.
        python_multiprocessing: whether workers are threads of other processes. 'auto' uses threads of this process and
            measures them, and goes on with processes if threads wait too long for Python's lock. Data set and
            transforms must be picklable to use processes. A single worker is always a thread of this process.
        separate: whether to make several versions of each image. The first B rows of a batch are the clean images, and
            the others are augmented.
        skip_corrupt: whether to replace an image that cannot be read by the next readable one, in training only.
        num_aug_splits: number of versions with `separate`, at least 2; 0 means 3, as in MindCV. It needs `separate`.
        mixup_switch_prob, mixup_mode, cutmix_minmax, mixup_off_epoch: `switch_prob`, `mode`, `cutmix_minmax` and
            `off_epoch` of `Mixup`.
        mixup_group_size: number of consecutive images of a batch that are mixed with each other, with random numbers of
            their own. It must divide `batch_size`, so that all ranks together mix the same images for any number of
            ranks. None means `batch_size`.
        num_epochs: number of epochs that are read in turn. Workers make the first batches of each while the last ones
            of the epoch before are read. 0 means that this is unknown, and no epoch is begun before it is asked for.
        as_pixels: whether batches are `PixelBatch`es, whose images the trainer normalises and mixes on the device. The
            transforms must end with those of `create_transforms`: `ToArray`, `Normalize` and perhaps `RandomErasing`.

    Raises:
        UserError: an argument is not allowed. If the data set cannot fill one batch, it is a DataError, which is a kind
            of UserError.
    """
    check_int("num_classes", num_classes, 1)
    check_int("batch_size", batch_size, 1)
    check_int("num_aug_splits", num_aug_splits, 0)
    _check_group_size(mixup_group_size, batch_size)
    check_int("num_epochs", num_epochs, 0)
    check_flags(drop_remainder=drop_remainder, is_training=is_training, skip_corrupt=skip_corrupt)
    check_flags(separate=separate, as_pixels=as_pixels)
    if python_multiprocessing not in MULTIPROCESSING_MODES:
        raise UserError(f"python_multiprocessing must be True, False or 'auto', got {shown(python_multiprocessing)}")
    check_not_negative(mixup=mixup, cutmix=cutmix)
    dataset = as_image_dataset(dataset, num_classes, shuffle=is_training)
    _check(dataset, num_classes, is_training, skip_corrupt)
    mixer = None
    if mixup or cutmix or cutmix_minmax is not None:
        mixup_arguments = (mixup, cutmix, cutmix_prob, mixup_switch_prob, num_classes, mixup_mode, cutmix_minmax)
        mixer = _mixer_if_training(Mixup(*mixup_arguments, off_epoch=mixup_off_epoch), is_training, separate)
    if separate or num_aug_splits or isinstance(transform, SplitTransforms):
        _check_splits(separate, num_aug_splits, transform, is_training)
        if as_pixels:
            raise UserError("as_pixels=True cannot be combined with separate=True")
        image_transform = Splitter(transform, num_aug_splits or _DEFAULT_SPLITS)
    else:
        transform = create_transforms(is_training=is_training) if transform is None else transform
        image_transform = _pixel_transform(transform) if as_pixels else _composed("transform", transform)
    reader = SampleReader(dataset, image_transform, _composed("target_transform", target_transform), skip_corrupt)
    pads_and_repeats = is_training or dataset.num_aug_repeats > 1
    maker_class = PixelBatchMaker if as_pixels else BatchMaker
    maker = maker_class(reader, batch_size, drop_remainder, pads_and_repeats, mixer, mixup_group_size)
    if drop_remainder and maker.num_batches == 0:
        raise _no_full_batch(maker)
    workers = _num_workers(num_parallel_workers or dataset.num_parallel_workers)
    is_auto = python_multiprocessing == "auto"
    return ImageLoader(maker, workers, "auto" if is_auto else bool(python_multiprocessing), num_epochs)


def check_loader(loader: object) -> None:
    """Check that an object is a loader, and not a data set or another object.

    Raises:
        UserError: the object is not a loader.
    """
    if not hasattr(loader, "batches"):
        raise UserError(f"loader must be the result of create_loader(dataset, batch_size), got {shown(loader)}")


def _no_full_batch(maker: BatchMaker) -> DataError:
    dataset = maker.dataset
    count = len(dataset) // dataset.num_shards if maker.is_training else len(maker.share)
    where = " on this rank" if dataset.num_shards > 1 else ""
    smaller = f"--batch_size {count} or " if count else ""
    return DataError(
        f"the data set's {counted(count, 'sample')}{where} cannot fill one batch of {maker.batch_size}, and "
        f"drop_remainder leaves out smaller batches: give {smaller}--drop_remainder False"
    )


def _check(dataset: ImageDataset, num_classes: int, is_training: bool, skip_corrupt: bool) -> None:
    if dataset.num_classes() > num_classes:
        raise UserError(
            f"num_classes must be at least {dataset.num_classes()}, the number of classes of the data set, "
            f"got {num_classes}"
        )
    if dataset.num_aug_repeats > 1 and not dataset.shuffle:
        raise UserError("num_aug_repeats needs shuffle, because otherwise each epoch would have the same samples")
    if dataset.num_aug_repeats > 1 and not is_training:
        logger.warning(
            "num_aug_repeats=%d is for training: an epoch of this loader has 1/%d of the images, each %d times, so an "
            "accuracy on it does not measure the data set",
            *[dataset.num_aug_repeats] * 3,
        )
    if skip_corrupt and not is_training:
        raise UserError("skip_corrupt is for training only, because evaluation must count every image once")


def _check_group_size(group_size: Optional[int], batch_size: int) -> None:
    if group_size is None:
        return
    check_int("mixup_group_size", group_size, 1)
    problem = group_size_problem(group_size, batch_size)
    if problem:
        raise UserError(f"mixup_group_size {problem}")


def _mixer_if_training(mixer: Mixup, is_training: bool, separate: bool) -> Optional[Mixup]:
    """Return the mixer, or None in evaluation. Warn about arguments without effect, which MindCV accepts silently."""
    if separate:
        raise UserError(
            "mixup and cutmix cannot be combined with separate=True, whose loss compares versions of one image"
        )
    if not is_training:
        logger.warning("mixup and cutmix are for training only: with is_training=False nothing is mixed")
        return None
    if not mixer.prob:
        logger.warning("cutmix_prob, the probability of mixing by mixup or cutmix, is 0: nothing is mixed")
    return mixer


def _check_splits(separate: bool, num_splits: int, transform: object, is_training: bool) -> None:
    if not separate:
        raise UserError(
            "num_aug_splits and transforms created with separate=True need separate=True in create_loader too"
        )
    if num_splits < 0 or num_splits == 1:
        raise UserError(f"num_aug_splits must be at least 2, or 0 for {_DEFAULT_SPLITS}, got {num_splits}")
    if not is_training:
        raise UserError("separate=True (augmentation splits) is for training only (is_training=True)")
    if not isinstance(transform, SplitTransforms):
        raise UserError("separate=True needs transform=create_transforms(..., is_training=True, separate=True)")


def _pixel_transform(transform: object) -> PixelTransform:
    if not PixelTransform.is_possible(transform):
        raise UserError(
            "as_pixels=True needs a list of transforms that ends with ToArray, Normalize and perhaps RandomErasing, as "
            f"create_transforms makes it, got {shown(transform)}"
        )
    return PixelTransform(transform)


def _composed(name: str, transform: Optional[Union[Callable, Sequence[Callable]]]) -> Compose:
    steps = [transform] if callable(transform) else transform or []
    if not isinstance(steps, (list, tuple)) or not all(map(callable, steps)):
        raise UserError(
            f"{name} must be a function of one image or label, or a list of such functions, got {shown(transform)}"
        )
    return Compose(steps)


def _num_workers(requested: Optional[int]) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if requested is None:
        return min(_DEFAULT_WORKERS, cores)
    requested = check_int("num_parallel_workers", requested, 1)
    if requested > cores:
        _log_clamped_workers(requested, cores)
    return min(requested, cores)


@cache  # logged once, for any number of loaders
def _log_clamped_workers(requested: int, cores: int) -> None:
    message = "num_parallel_workers=%d is more than the %d cores of this machine; %d are used"
    logger.info(message, requested, cores, cores)
