"""Objects of a masked pre-training run, built from its configuration."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mindcv.config import PretrainConfig
from mindcv.data import Compose, ImageDataset, ImageLoader, create_loader, create_transforms
from mindcv.data.batches import SampleReader
from mindcv.data.random_mask import RandomMask
from mindcv.engine import Callback, ResumableRun, Trainer, create_trainer
from mindcv.engine.reconstruction import Reconstructions
from mindcv.engine.snapshot import RunDescription
from mindcv.models import FCMAE, create_model, random_mask
from mindcv.recipe import PREPROCESSING, build_compile_cache, build_optimizer
from mindcv.recipe_callbacks import build_opening_callbacks, build_saving_callbacks
from mindcv.recipe_data import num_workers, open_dataset
from mindcv.utils.device import returns_early
from mindcv.utils.distributed import Group
from mindcv.utils.random import stream

__all__ = [
    "build_masked_autoencoder",
    "build_pretraining_callbacks",
    "build_pretraining_loader",
    "build_pretraining_trainer",
    "pretraining_description",
]

_PICTURED_IMAGES = 8


def build_masked_autoencoder(config: PretrainConfig) -> FCMAE:
    """Build the masked autoencoder of the run."""
    return create_model(
        config.model,
        img_size=config.image_resize,
        patch_size=config.mask_patch_size,
        stem_patch_size=config.patch_size,
        **config.subset("in_channels", "mask_ratio", "norm_pix_loss", "grn_scope", "recompute_stages"),
        **config.subset("decoder_embed_dim", "decoder_depth"),
    )


def build_pretraining_loader(
    config: PretrainConfig, group: Group, num_patches: int, as_pixels: bool = False
) -> tuple[ImageDataset, ImageLoader]:
    """Build the data set without its classes, and the loader of images and masks.

    A mask is a function of the seed, the epoch and the sample, as the augmentation of the image is. With `as_pixels`,
    batches are `PixelBatch`es.

    Raises:
        DataError: the images are not there.
    """
    dataset = open_dataset(config, group, "train_split", has_classes=False, **config.subset("shuffle", "num_samples"))
    transform = create_transforms(
        config.dataset,
        config.image_resize,
        is_training=True,
        color_jitter=None,
        **config.subset("scale", "ratio", "hflip", "vflip", "interpolation", "mean", "std", "in_channels"),
    )
    loader = create_loader(
        dataset,
        is_training=True,
        num_classes=dataset.num_classes(),
        transform=transform,
        target_transform=RandomMask(num_patches, config.mask_ratio),
        num_parallel_workers=num_workers(config),
        as_pixels=as_pixels,
        num_epochs=config.epoch_size,
        **config.subset("batch_size", "drop_remainder", "skip_corrupt", "python_multiprocessing"),
    )
    return dataset, loader


def build_pretraining_trainer(config: PretrainConfig, network: FCMAE, lr_table: list[float], group: Group) -> Trainer:
    """Build the trainer of a masked autoencoder, which computes its loss itself."""
    return create_trainer(
        network,
        None,
        build_optimizer(config, network, lr_table),
        amp_cast_list=config.amp_cast_list or (),
        lr_table=lr_table,
        group=group,
        compile_cache=build_compile_cache(config, 0, lr_table, group),
        runs_ahead=config.dataset_sink_mode and returns_early(),
        **config.subset("amp_level", "amp_dtype", "loss_scale_type", "loss_scale", "drop_overflow_update"),
        **config.subset("clip_grad", "clip_value", "gradient_accumulation_steps"),
    )


def pretraining_description(config: PretrainConfig, dataset: ImageDataset, started: float) -> RunDescription:
    """Describe a pre-training run for its snapshots; `started` is the time at which the process began."""
    return RunDescription(started, config.as_dict(), _metadata(config), len(dataset))


def build_pretraining_callbacks(
    config: PretrainConfig, trainer: Trainer, run: ResumableRun, dataset: ImageDataset, group: Group
) -> list[Callback]:
    """Build the callbacks of a run in the order in which the trainer calls them; see `build_callbacks`.

    `Reconstructions` draws before the weights are saved. Only the main process has callbacks.
    """
    if not group.is_main:
        return []
    callbacks = build_opening_callbacks(config, group)
    if config.picture_interval:
        images, masks = _pictured(config, dataset, run.network.num_patches)
        draws = partial(Reconstructions, Path(config.ckpt_save_dir), config.picture_interval)
        callbacks.append(draws(run.network, build_masked_autoencoder(config), images, masks, config.mean, config.std))
    return callbacks + build_saving_callbacks(config, trainer, run, _metadata(config), callbacks)


def _pictured(config: PretrainConfig, dataset: ImageDataset, num_patches: int) -> tuple[np.ndarray, np.ndarray]:
    """Choose the images that are drawn, evenly from the whole data set, and their masks."""
    transform = Compose(create_transforms(config.dataset, **config.subset(*PREPROCESSING)))
    reader = SampleReader(dataset, transform, Compose([]), config.skip_corrupt)
    count = min(_PICTURED_IMAGES, len(dataset))
    chosen = [math.floor((i + 0.5) * len(dataset) / count) for i in range(count)]
    images = np.stack([reader.read(index, 0, 0, [None])[0][0] for index in chosen])
    return images, random_mask(count, num_patches, config.mask_ratio, stream(config.seed, count))


def _metadata(config: PretrainConfig) -> dict[str, Any]:
    """Return what a reader of the weights must know, as JSON values."""
    names = ("mask_patch_size", "mask_ratio", "norm_pix_loss", "grn_scope", "decoder_embed_dim", "decoder_depth")
    options = {"model": config.model, **config.subset("patch_size", *PREPROCESSING)}
    return {"options": options, "pretraining": config.subset(*names)}
