"""The loader: batches of a data set, for this library's trainer and for MindSpore's own.

Decision 0041 says why the two trainers read it in different ways.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Optional, Union

import mindspore.dataset as ds

from mindcv.data.batches import Batch, BatchMaker, EpochView, SampleReader, run_ahead
from mindcv.data.dataset import ImageDataset
from mindcv.data.foreign import as_image_dataset
from mindcv.data.mixup import Mixup
from mindcv.data.splits import Splitter, SplitTransforms
from mindcv.data.transform_base import Compose
from mindcv.data.transforms_factory import create_transforms
from mindcv.utils.checks import check_flags, check_int, check_not_negative, shown
from mindcv.utils.errors import DataError, UserError
from mindcv.utils.logger import counted, logger

__all__ = ["ImageLoader", "check_loader", "create_loader"]

# MindSpore's own default; more than that gains little per device, and memory grows with every worker.
_DEFAULT_WORKERS = 8

# A clean version and two augmented ones, as in the paper of AugMix.
_MINDCV_SPLITS = 3


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
            Images, float32 (B, C, H, W), and labels: int32 (B,), or float32 (B, num_classes) after mixup. With S
            splits there are S * B of each, split after split.

        Raises:
            DataError: an image is corrupt; the message names it.
        """
        self.set_epoch(epoch)
        return run_ahead(EpochView(self.source.maker, epoch, start), self.num_parallel_workers, self._use_processes)

    def set_epoch(self, epoch: int) -> None:
        """The epoch that iterators made from now on begin with; order and augmentation depend on it."""
        self.source.epoch = epoch

    def get_batch_size(self) -> int:
        """Samples in a batch, each counted once whatever the splits; the last one of an epoch may have fewer."""
        return self.source.maker.batch_size

    @property
    def drop_remainder(self) -> bool:
        """Whether a last batch that is smaller is left out."""
        return self.source.maker.drop_remainder

    @property
    def num_aug_splits(self) -> int:
        """Versions of each sample in a batch; 1 without splits."""
        return self.source.maker.reader.num_splits

    def num_classes(self) -> int:
        """Classes of the data set, which may be fewer than the model's."""
        return self.source.maker.reader.dataset.num_classes()

    @property
    def num_corrupt(self) -> int:
        """Corrupt images replaced so far (`skip_corrupt`), each as often as it came."""
        return self.source.maker.reader.num_replaced

    def __repr__(self) -> str:
        maker = self.source.maker
        return (
            f"ImageLoader({maker.num_batches} batches of {maker.batch_size}, {self.num_parallel_workers} workers, "
            f"dataset={maker.reader.dataset!r})"
        )

    @property
    def _use_processes(self) -> bool:
        return self.python_multiprocessing and self.num_parallel_workers > 1


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
    python_multiprocessing: bool = False,
    separate: bool = False,
    *,
    skip_corrupt: bool = False,
    num_aug_splits: int = 0,
    mixup_switch_prob: float = 0.5,
    mixup_mode: str = "batch",
    cutmix_minmax: Optional[Sequence[float]] = None,
    mixup_off_epoch: int = 0,
) -> ImageLoader:
    """A loader of batches.

    Whether samples are shuffled, sharded and repeated is the data set's. In training the shards are padded to equal
    length; in evaluation each sample goes to one rank, once, unless the data set has repeats.

    Args:
        dataset: from `create_dataset`; or a `GeneratorDataset` or `ImageFolderDataset` of MindSpore, before any `map`
            and `batch`; or an object whose `__getitem__` gives (image, label) and that has `__len__`, which is shuffled
            in training. See docs/how-to/own_data.md.
        batch_size: samples in a batch.
        drop_remainder: leave out a last batch that is smaller.
        is_training: see above.
        mixup, cutmix: the alphas of `Mixup`; 0 for none. In evaluation nothing is mixed, with a warning.
        cutmix_prob: probability of mixing, by either (MindCV's name for it). With 0 nothing is mixed, which is warned
            of, but labels have the form that mixing gives them.
        num_classes: of the model: width of mixed labels, and above every label.
        transform: one callable or a list, for the contents of an image file; None takes `create_transforms` at 224.
            With splits, what `create_transforms(separate=True)` gives.
        target_transform: the same for the label, such as `mindspore.dataset.transforms.OneHot`. What it gives may be
            mixed if it is a class number or `num_classes` shares.
        num_parallel_workers: None takes the data set's, or 8; no more than the cores there are.
        python_multiprocessing: workers are processes instead of threads (one worker is a thread in any case).
        separate: give each image in several versions, the first B rows of a batch clean and the others augmented.
        skip_corrupt: in training, replace an image that cannot be read by the next one that can.
        num_aug_splits: how many versions with `separate`, at least 2; 0 is MindCV's 3. It goes with `separate` alone.
        mixup_switch_prob, mixup_mode, cutmix_minmax, mixup_off_epoch: `switch_prob`, `mode`, `cutmix_minmax` and
            `off_epoch` of `Mixup`.

    Raises:
        UserError: an argument is not allowed; DataError, a kind of it, when the data set cannot fill one batch.
    """
    check_int("num_classes", num_classes, 1)
    check_int("batch_size", batch_size, 1)
    check_int("num_aug_splits", num_aug_splits, 0)
    check_flags(drop_remainder=drop_remainder, is_training=is_training, skip_corrupt=skip_corrupt)
    check_flags(python_multiprocessing=python_multiprocessing, separate=separate)
    check_not_negative(mixup=mixup, cutmix=cutmix)
    dataset = as_image_dataset(dataset, num_classes, shuffle=is_training)
    _check(dataset, num_classes, is_training, skip_corrupt)
    mixer = None
    if mixup or cutmix or cutmix_minmax is not None:
        ways = (mixup, cutmix, cutmix_prob, mixup_switch_prob, num_classes, mixup_mode, cutmix_minmax)
        mixer = _mixer_of_phase(Mixup(*ways, off_epoch=mixup_off_epoch), is_training, separate)
    if separate or num_aug_splits or isinstance(transform, SplitTransforms):
        _check_splits(separate, num_aug_splits, transform, is_training)
        prepare = Splitter(transform, num_aug_splits or _MINDCV_SPLITS)
    else:
        prepare = _composed("transform", create_transforms(is_training=is_training) if transform is None else transform)
    reader = SampleReader(dataset, prepare, _composed("target_transform", target_transform), skip_corrupt)
    deals_as_training = is_training or dataset.num_aug_repeats > 1
    maker = BatchMaker(reader, batch_size, drop_remainder, deals_as_training, mixer)
    if drop_remainder and maker.num_batches == 0:
        raise _no_full_batch(maker)
    workers = _num_workers(num_parallel_workers or dataset.num_parallel_workers)
    return ImageLoader(maker, workers, python_multiprocessing)


def check_loader(loader: object) -> None:
    """Refuse what does not give batches, such as a data set.

    Raises:
        UserError: it is no loader.
    """
    if not hasattr(loader, "batches"):
        raise UserError(f"loader must be a loader, as create_loader(dataset, batch_size) makes it, got {shown(loader)}")


def _no_full_batch(maker: BatchMaker) -> DataError:
    count, where = maker.num_samples, " on this rank" if maker.reader.dataset.num_shards > 1 else ""
    smaller = f"--batch_size {count} or " if count else ""
    return DataError(
        f"the data set's {counted(count, 'sample')}{where} cannot fill one batch of {maker.batch_size}, and "
        f"drop_remainder leaves out smaller batches: give {smaller}--drop_remainder False"
    )


def _check(dataset: ImageDataset, num_classes: int, is_training: bool, skip_corrupt: bool) -> None:
    if dataset.num_classes() > num_classes:
        raise UserError(
            f"the data set has {dataset.num_classes()} classes, labels 0 to {dataset.num_classes() - 1}, which "
            f"num_classes={num_classes} does not cover"
        )
    if dataset.num_aug_repeats > 1 and not dataset.shuffle:
        raise UserError("num_aug_repeats needs shuffle: else each epoch has the same samples")
    if dataset.num_aug_repeats > 1 and not is_training:
        logger.warning(
            "num_aug_repeats=%d is for training: an epoch of this loader has 1/%d of the images, each as often, and "
            "accuracies of it are no measure",
            *[dataset.num_aug_repeats] * 2,
        )
    if skip_corrupt and not is_training:
        raise UserError("skip_corrupt is for training: evaluation counts every image once")


def _mixer_of_phase(mixer: Mixup, is_training: bool, separate: bool) -> Optional[Mixup]:
    """The mixer, or None in evaluation; what code written for MindCV asks for in vain is warned of."""
    if separate:
        raise UserError("mixup and cutmix cannot be had with separate=True, whose loss compares versions of one image")
    if not is_training:
        logger.warning("mixup and cutmix are for training: with is_training=False nothing is mixed")
        return None
    if not mixer.prob:
        logger.warning("cutmix_prob, the probability of mixing by mixup or cutmix, is 0: nothing is mixed")
    return mixer


def _check_splits(separate: bool, num_splits: int, transform: object, is_training: bool) -> None:
    if not separate:
        raise UserError("num_aug_splits and transforms made with separate=True need separate=True here as well")
    if num_splits < 0 or num_splits == 1:
        raise UserError(f"num_aug_splits must be at least 2, or 0 for {_MINDCV_SPLITS}, got {num_splits}")
    if not is_training:
        raise UserError("separate=True (augmentation splits) is for training (is_training=True)")
    if not isinstance(transform, SplitTransforms):
        raise UserError("separate=True needs transform=create_transforms(..., is_training=True, separate=True)")


def _composed(name: str, transform: Optional[Union[Callable, Sequence[Callable]]]) -> Compose:
    steps = [transform] if callable(transform) else transform or []
    if not isinstance(steps, (list, tuple)) or not all(map(callable, steps)):
        raise UserError(f"{name} must be a function of one image or label, or a list of such, got {shown(transform)}")
    return Compose(steps)


def _num_workers(asked: Optional[int]) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if asked is None:
        return min(_DEFAULT_WORKERS, cores)
    asked = check_int("num_parallel_workers", asked, 1)
    if asked > cores:
        _say_clamped(asked, cores)
    return min(asked, cores)


@cache  # said once, however many loaders there are
def _say_clamped(asked: int, cores: int) -> None:
    logger.info("num_parallel_workers=%d is more than the %d cores of this machine; %d are used", asked, cores, cores)
