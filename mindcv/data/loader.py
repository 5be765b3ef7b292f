"""The loader: batches of a data set, for this library's trainer and for MindSpore's own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Optional, Union

import mindspore.dataset as ds

from mindcv.data.batches import Batch, BatchMaker, EpochView, SampleReader, run_ahead
from mindcv.data.dataset import ImageDataset
from mindcv.data.mixup import Mixup
from mindcv.data.transforms import Compose
from mindcv.data.transforms_factory import create_transforms
from mindcv.utils.errors import DataError, UserError
from mindcv.utils.logger import logger

__all__ = ["ImageLoader", "create_loader"]

# MindSpore's own default; more than that gains little per device, and memory grows with every worker.
_DEFAULT_WORKERS = 8


class ImageLoader(ds.GeneratorDataset):
    """Batches of images and labels; what `create_loader` returns.

    `batches` is the way to read one epoch: exact errors, little memory, a start anywhere. The loader is a
    `mindspore.dataset.GeneratorDataset` besides, with columns 'image' and 'label', so that `mindspore.Model.train` and
    iterators of MindSpore's take it: they begin with the epoch of `set_epoch` and go on to the next with each round.
    Both give the same bits, for any number of workers, threads or processes.
    """

    def __init__(self, maker: BatchMaker, num_workers: int, use_processes: bool):
        super().__init__(
            EpochView(maker),
            ["image", "label"],
            num_parallel_workers=num_workers,
            python_multiprocessing=use_processes,
            shuffle=False,
        )
        # MindSpore copies a data set deeply, its source excepted: whatever holds locks or files belongs there.
        self.dataset_size = maker.num_batches

    def parse(self, children=None):  # noqa: ANN001, ANN201
        """Called by MindSpore on a copy of this, for each iterator: gives each its own count of epochs."""
        self.source = EpochView(self.source.maker, self.source.epoch)
        return super().parse(children)

    def batches(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from number `start` on; those before it cost nothing.

        Yields:
            Images, float32 (B, C, H, W), and labels: int32 (B,), or float32 (B, num_classes) after mixup.

        Raises:
            DataError: an image is corrupt; the message names it.
        """
        self.set_epoch(epoch)
        return run_ahead(EpochView(self.source.maker, epoch, start), self.num_parallel_workers, self._use_processes)

    def set_epoch(self, epoch: int) -> None:
        """The epoch that iterators made from now on begin with; order and augmentation depend on it."""
        self.source.epoch = epoch

    def get_batch_size(self) -> int:
        """Samples in a batch; the last one of an epoch may have fewer."""
        return self.source.maker.batch_size

    def num_classes(self) -> int:
        """Classes of the data set, which may be fewer than the model's."""
        return self.source.maker.reader.dataset.num_classes()

    @property
    def num_corrupt(self) -> int:
        """Corrupt images replaced so far (`skip_corrupt`), each as often as it came."""
        return self.source.maker.reader.num_replaced

    @property
    def _use_processes(self) -> bool:
        return self.python_multiprocessing and self.num_parallel_workers > 1


def create_loader(
    dataset: ImageDataset,
    batch_size: int,
    drop_remainder: bool = False,
    is_training: bool = False,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    cutmix_prob: float = 0.0,
    num_classes: int = 1000,
    transform: Optional[Union[Callable, Sequence[Callable]]] = None,
    target_transform: Optional[Union[Callable, Sequence[Callable]]] = None,
    num_parallel_workers: Optional[int] = None,
    python_multiprocessing: bool = False,
    separate: bool = False,
    *,
    skip_corrupt: bool = False,
) -> ImageLoader:
    """A loader of batches.

    Whether samples are shuffled, sharded and repeated is the data set's. In training the shards are padded to equal
    length; in evaluation each sample goes to one rank, once.

    Args:
        dataset: from `create_dataset`.
        batch_size: samples in a batch.
        drop_remainder: leave out a last batch that is smaller.
        is_training: see above.
        mixup, cutmix: the alphas of `Mixup`; 0 for none. When both are positive, half of the mixed batches get each.
        cutmix_prob: probability that a batch is mixed, by either (MindCV's name for it).
        num_classes: of the model: width of mixed labels, and above every label.
        transform: one callable or a list, for the contents of an image file; None takes `create_transforms` at 224.
        target_transform: the same for the label, such as `mindspore.dataset.transforms.OneHot`.
        num_parallel_workers: None takes the data set's, or 8; no more than the cores there are.
        python_multiprocessing: workers are processes instead of threads (one worker is a thread in any case).
        separate: AugMix, not part of this version.
        skip_corrupt: in training, replace an image that cannot be read by the next one that can.

    Raises:
        UserError: an argument is not allowed; DataError, a kind of it, when the data set cannot fill one batch.
    """
    _check(dataset, batch_size, num_classes, is_training, separate, skip_corrupt)
    mixer = _mixer(mixup, cutmix, cutmix_prob, num_classes, is_training, target_transform is not None)
    if transform is None:
        transform = create_transforms(is_training=is_training)
    reader = SampleReader(dataset, _composed(transform), _composed(target_transform), skip_corrupt)
    maker = BatchMaker(reader, batch_size, drop_remainder, is_training, mixer)
    if drop_remainder and maker.num_batches == 0:
        raise DataError(
            f"the data set's {dataset.get_dataset_size()} samples on this rank are fewer than one batch of "
            f"{batch_size}, and drop_remainder leaves out smaller ones: nothing remains"
        )
    workers = _num_workers(num_parallel_workers or dataset.num_parallel_workers)
    return ImageLoader(maker, workers, python_multiprocessing)


def _check(
    dataset: ImageDataset, batch_size: int, num_classes: int, is_training: bool, separate: bool, skip_corrupt: bool
) -> None:
    if separate:
        raise UserError("separate=True (AugMix) is not part of this version")
    if batch_size < 1:
        raise UserError(f"batch_size must be at least 1, got {batch_size}")
    if dataset.num_classes() > num_classes:
        raise UserError(
            f"the data set has {dataset.num_classes()} classes, labels 0 to {dataset.num_classes() - 1}, which "
            f"num_classes={num_classes} does not cover"
        )
    if dataset.num_aug_repeats > 1 and not (is_training and dataset.shuffle):
        raise UserError("num_aug_repeats is for training, and needs shuffle: else each epoch has the same samples")
    if skip_corrupt and not is_training:
        raise UserError("skip_corrupt is for training: evaluation counts every image once")


def _mixer(
    mixup: float, cutmix: float, prob: float, num_classes: int, is_training: bool, has_target_transform: bool
) -> Optional[Mixup]:
    if mixup == 0 and cutmix == 0:
        return None
    if not is_training:
        raise UserError("mixup and cutmix are for training (is_training=True)")
    if has_target_transform:
        raise UserError("mixup and cutmix make the labels themselves, and cannot be had with target_transform")
    return Mixup(mixup, cutmix, prob, num_classes=num_classes)


def _composed(transform: Optional[Union[Callable, Sequence[Callable]]]) -> Compose:
    return Compose([transform] if callable(transform) else transform or [])


def _num_workers(asked: Optional[int]) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if asked is None:
        return min(_DEFAULT_WORKERS, cores)
    if asked < 1:
        raise UserError(f"num_parallel_workers must be at least 1, got {asked}")
    if asked > cores:
        _say_clamped(asked, cores)
    return min(asked, cores)


@cache  # said once, however many loaders there are
def _say_clamped(asked: int, cores: int) -> None:
    logger.info("num_parallel_workers=%d is more than the %d cores of this machine; %d are used", asked, cores, cores)
