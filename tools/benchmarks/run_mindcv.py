"""Builds the workloads of this library."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any, Optional

import mindspore as ms
import numpy as np
import PIL
from mindspore import nn

import mindcv
from benchmarks.lock_time import lock_figures
from benchmarks.workload import LEARNING_RATE, NUM_CLASSES, WEIGHT_DECAY, Workload, of_loader
from mindcv.config import TrainConfig
from mindcv.engine import CompileCache, apply_amp, create_trainer
from mindcv.kernels import status
from mindcv.loss import create_loss
from mindcv.models import create_model, pack_for_inference, random_mask
from mindcv.optim import create_optimizer
from mindcv.recipe import build_evaluation_loader, build_training_loader
from mindcv.utils.device import set_device
from mindcv.utils.distributed import Group, join_group

__all__ = ["build", "serve_job"]


def build(settings: dict[str, Any]) -> Workload:
    """Build the workload of `settings` (see `benchmarks.options`) in the same way as the scripts.

    The number of threads is not set here. MindSpore starts one thread for each core that the worker is bound to.
    `ms.runtime.dispatch_threads_num` with this number makes it start twice as many, and warn about them.
    """
    if settings["task"] == "data":
        return _data(settings)
    set_device(settings["device_target"])
    ms.set_context(mode=settings["mode"])
    group = join_group(settings["processes"] > 1)
    ms.set_seed(0)  # the same weights in every process
    return _TASKS[settings["task"]](settings, group)


def serve_job() -> None:
    """Run as msrun's scheduler, through which the processes of a job connect, until the job ends."""
    join_group(True)


def _versions() -> dict[str, str]:
    packages = {"mindcv": mindcv, "mindspore": ms, "numpy": np, "pillow": PIL}
    return {name: package.__version__ for name, package in packages.items()}


def _compute_versions() -> dict[str, str]:
    """Return the versions and the instruction set of the CPU kernels ('none' without kernels).

    Without the kernels the layers are several times slower.
    """
    kernels = status()
    return {**_versions(), "kernels": kernels.instruction_set if kernels.is_used else "none"}


def _images(settings: dict[str, Any], group: Group) -> ms.Tensor:
    shape = (settings["batch_size"], 3, settings["image_size"], settings["image_size"])
    return ms.Tensor(np.random.default_rng(group.rank).standard_normal(shape, np.float32))


def _precision(settings: dict[str, Any]) -> dict[str, str]:
    return {"level": "O0" if settings["dtype"] == "float32" else "O1", "dtype": settings["dtype"].replace("32", "16")}


def _forward(settings: dict[str, Any], group: Group) -> Workload:
    network = create_model(settings["model"], num_classes=NUM_CLASSES)
    network = pack_for_inference(apply_amp(network, **_precision(settings)), keep_weights=False).set_train(False)
    images = _images(settings, group)

    def step() -> int:
        return len(network(images).asnumpy())  # asnumpy waits for the result

    return Workload(step, step, _compute_versions())


def _train(settings: dict[str, Any], group: Group) -> Workload:
    images = _images(settings, group)
    labels = ms.Tensor(np.arange(len(images)) % NUM_CLASSES, ms.int32)
    network = create_model(settings["model"], num_classes=NUM_CLASSES)
    return _training_step(settings, group, network, create_loss("CE"), images, labels)


def _pretrain(settings: dict[str, Any], group: Group) -> Workload:
    images = _images(settings, group)
    network = create_model(settings["model"], img_size=settings["image_size"], mask_ratio=settings["mask_ratio"])
    mask = ms.Tensor(random_mask(len(images), network.num_patches, settings["mask_ratio"], group.rank))
    return _training_step(settings, group, network, None, images, mask)


def _training_step(
    settings: dict[str, Any],
    group: Group,
    network: nn.Cell,
    loss: Optional[nn.Cell],
    images: ms.Tensor,
    labels: ms.Tensor,
) -> Workload:
    optimizer = create_optimizer(
        network, "adamw", lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, weight_decay_filter="auto", eps=1e-8
    )
    precision, cache = _precision(settings), None
    if settings.get("second_run"):
        cache = CompileCache(settings["compile_cache_dir"], {"settings": settings}, group)
    trainer = create_trainer(
        network,
        loss,
        optimizer,
        amp_level=precision["level"],
        amp_dtype=precision["dtype"],
        group=group,
        compile_cache=cache,
    )
    train_step = trainer.step.set_train(True)

    def step() -> int:
        loss, _ = train_step(images, labels)
        float(loss.asnumpy())  # as the trainer does after each step
        return len(images)

    return Workload(step, step, _compute_versions())


def _data(settings: dict[str, Any]) -> Workload:
    config = TrainConfig(
        dataset="folder",
        data_dir=settings["data_dir"],
        train_split="",
        val_split="",
        image_resize=settings["image_size"],
        batch_size=settings["batch_size"],
        num_parallel_workers=settings["workers"],
        python_multiprocessing=settings["python_multiprocessing"],
        interpolation="bicubic",
        auto_augment="randaug-m9-mstd0.5-inc1",
        re_prob=0.25,
        re_value="pixel",
        mixup=0.8,
        cutmix=1.0,
        epoch_size=1,  # no batch of the next round is made in the pause before it
    )
    build_loader = build_training_loader if settings["pipeline"] == "train" else build_evaluation_loader
    _, loader = build_loader(config, Group())
    epochs = itertools.count()
    return of_loader(lambda: loader.batches(next(epochs)), _versions(), partial(lock_figures, loader))


_TASKS = {"forward": _forward, "train": _train, "pretrain": _pretrain}
